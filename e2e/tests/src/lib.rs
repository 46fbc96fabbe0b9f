//! What the acceptance, fault and scale tests share.
//!
//! [`Suite::shared`] is one cluster for a test program, [`Suite::own`] one for a test that changes global things.
//! Tests work in a namespace of their own ([`Ns`]) with objects as plain JSON ([`objects`], [`json`]), because they
//! assert wire facts; waits are conditions with deadlines.

#![allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]

pub mod admission;
pub mod admission_log;
pub mod agent_server;
pub mod agents;
pub mod api;
pub mod card_scale;
pub mod exposition;
pub mod faulty_api;
pub mod group;
pub mod json;
pub mod kinds;
pub mod objects;
pub mod old_operator;
pub mod openmetrics;
pub mod pod_view;
pub mod scale;
pub mod scenarios;
pub mod second_webhook;
pub mod services;
pub mod space;
pub mod split_scale;
pub mod suite;
pub mod svid;
pub mod wait;

pub use agent_server::{AgentServer, Answer, Seen};
pub use group::Group;
pub use json::Json;
pub use space::Ns;
pub use suite::{Options, Suite};
pub use wait::{Stopwatch, poll, secs, wait_for};
