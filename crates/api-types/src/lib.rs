//! Types, names and decisions that every component shares.
//!
//! Three kinds of things live here and nothing else does: the custom resources of group `agent.kagenti.dev`
//! with their schemas, the catalogue of names, and decisions that more than one component must make alike.
//! Everything is pure: no client, no runtime, no I/O, no clock.

pub mod admission;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derives generate types of their own"
)]
mod agent_card;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derives generate types of their own"
)]
mod agent_runtime;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derives generate types of their own"
)]
mod authorization_policy;
pub mod card;
#[allow(unreachable_pub, reason = "the derive generates types of its own")]
mod card_data;
pub mod conditions;
pub mod config_hash;
pub mod crds;
pub mod credentials;
pub mod duplicates;
pub mod enrolment;
pub mod gates;
pub mod go_duration;
pub mod identity_hash;
pub mod injection;
pub mod mlflow;
pub mod names;
pub mod namespace_config;
mod open_enum;
pub mod owner;
pub mod phase;
pub mod platform;
pub mod registration;
mod schema;
pub mod service_port;
pub mod spiffe_id;
#[allow(unreachable_pub, reason = "the derive generates types of its own")]
mod target_ref;
pub mod yaml;

pub use agent_card::*;
pub use agent_runtime::*;
pub use authorization_policy::*;
pub use card_data::*;
pub use target_ref::TargetRef;
