//! The phase of an AgentRuntime follows from its condition Ready (runtime §7.2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{Phase, conditions::condition, names};

/// `Error` if Ready=False, `Active` if Ready=True, `Pending` otherwise (no Ready yet, or Unknown).
pub fn phase_of(conditions: &[Condition]) -> Phase {
    match condition(conditions, names::condition::READY).map(|ready| ready.status.as_str()) {
        Some("True") => Phase::Active,
        Some("False") => Phase::Error,
        _ => Phase::Pending,
    }
}
