//! Types, names and decisions that every component shares.
//!
//! Three kinds of things live here and nothing else does: the custom resources of group `agent.kagenti.dev`
//! with their schemas, the catalogue of names, and decisions that more than one component must make alike.
//! Everything is pure: no client, no runtime, no I/O, no clock.

#[allow(missing_docs, unreachable_pub, reason = "the derives generate types of their own")]
mod agent_card;
#[allow(missing_docs, unreachable_pub, reason = "the derives generate types of their own")]
mod agent_runtime;
#[allow(missing_docs, unreachable_pub, reason = "the derives generate types of their own")]
mod authorization_policy;
#[allow(unreachable_pub, reason = "the derive generates types of its own")]
mod card_data;
pub mod crds;
pub mod names;
mod open_enum;
mod schema;
#[allow(unreachable_pub, reason = "the derive generates types of its own")]
mod target_ref;

pub use agent_card::*;
pub use agent_runtime::*;
pub use authorization_policy::*;
pub use card_data::*;
pub use target_ref::TargetRef;
