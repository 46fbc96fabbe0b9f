//! Condition `MLflowConfigured` on the AgentRuntime of a workload (MLflow §10). Pure.

use api_types::conditions::{Truth, set_condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

/// Type of the condition.
pub const CONDITION: &str = "MLflowConfigured";

/// Reasons of the condition and of Events.
pub mod reason {
    /// Everything is in place.
    pub const CONFIGURED: &str = "Configured";
    /// There is no experiment; the message carries the code.
    pub const EXPERIMENT_FAILED: &str = "ExperimentFailed";
    /// An experiment of the name belongs to another namespace.
    pub const EXPERIMENT_NAME_TAKEN: &str = "ExperimentNameTaken";
    /// A Role or RoleBinding of the name belongs to somebody else.
    pub const RBAC_CONFLICT: &str = "RBACConflict";
    /// The controller may not write the Role or RoleBinding.
    pub const RBAC_FORBIDDEN: &str = "RBACForbidden";
    /// The workload could not be patched.
    pub const PATCH_FAILED: &str = "PatchFailed";
    /// Somebody undoes what is written.
    pub const PATCH_REVERTED: &str = "PatchReverted";
    /// No MLflow server.
    pub const UNAVAILABLE: &str = "MLflowUnavailable";
    /// Waiting for the limiter or a retry.
    pub const PENDING: &str = "Pending";
    /// The user configures every container.
    pub const USER_MANAGED: &str = "UserManaged";
    /// The workload is opted out.
    pub const OPTED_OUT: &str = "OptedOut";
}

/// What a pass has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Status.
    pub truth: Truth,
    /// Reason, one of [`reason`].
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
}

/// How a workload is counted in `mlflow_ctl_workloads{state}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Configured.
    Configured,
    /// Waiting.
    Pending,
    /// Something is wrong.
    Failed,
    /// Left alone on purpose.
    Skipped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Configured, Self::Pending, Self::Failed, Self::Skipped];

    /// Metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Report {
    /// A report; the reason decides about the status.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let truth = match reason {
            reason::CONFIGURED => Truth::True,
            reason::UNAVAILABLE | reason::PENDING => Truth::Unknown,
            _ => Truth::False,
        };
        Self { truth, reason, message: message.into() }
    }

    /// How it is counted.
    pub fn state(&self) -> State {
        match self.reason {
            reason::CONFIGURED => State::Configured,
            reason::UNAVAILABLE | reason::PENDING => State::Pending,
            reason::USER_MANAGED | reason::OPTED_OUT => State::Skipped,
            _ => State::Failed,
        }
    }

    /// The condition to write; `None` when `now_there` says the same already.
    pub fn condition(
        &self,
        now_there: Option<&Condition>,
        generation: i64,
        now: Timestamp,
    ) -> Option<Condition> {
        let next = Condition {
            type_: CONDITION.to_owned(),
            status: self.truth.as_str().to_owned(),
            reason: self.reason.to_owned(),
            message: self.message.clone(),
            observed_generation: Some(generation),
            last_transition_time: Time(now),
        };
        let mut list: Vec<_> = now_there.cloned().into_iter().collect();
        set_condition(&mut list, next, now).then(|| list.pop()).flatten()
    }
}

/// The part of the status that is ours; without condition it is given up.
pub fn status(condition: Option<&Condition>) -> Value {
    json!({ "conditions": condition.into_iter().collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// MLflow §10, the table.
    #[rstest]
    #[case(reason::CONFIGURED, Truth::True, State::Configured)]
    #[case(reason::EXPERIMENT_FAILED, Truth::False, State::Failed)]
    #[case(reason::RBAC_CONFLICT, Truth::False, State::Failed)]
    #[case(reason::RBAC_FORBIDDEN, Truth::False, State::Failed)]
    #[case(reason::PATCH_FAILED, Truth::False, State::Failed)]
    #[case(reason::PATCH_REVERTED, Truth::False, State::Failed)]
    #[case(reason::EXPERIMENT_NAME_TAKEN, Truth::False, State::Failed)]
    #[case(reason::UNAVAILABLE, Truth::Unknown, State::Pending)]
    #[case(reason::PENDING, Truth::Unknown, State::Pending)]
    #[case(reason::USER_MANAGED, Truth::False, State::Skipped)]
    #[case(reason::OPTED_OUT, Truth::False, State::Skipped)]
    fn reasons(#[case] reason: &'static str, #[case] truth: Truth, #[case] state: State) {
        let report = Report::new(reason, "x");
        assert_eq!((report.truth, report.state()), (truth, state));
    }

    #[test]
    fn the_same_is_not_written_again() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let report = Report::new(reason::CONFIGURED, "done");
        let first = report.condition(None, 1, at(1)).unwrap();
        assert_eq!(report.condition(Some(&first), 1, at(2)), None);
        let again = report.condition(Some(&first), 2, at(3)).unwrap();
        assert_eq!((again.observed_generation, again.last_transition_time.0), (Some(2), at(1)));
        let failed = Report::new(reason::PATCH_FAILED, "no").condition(Some(&again), 2, at(4)).unwrap();
        assert_eq!(failed.last_transition_time.0, at(4));
        assert_eq!(status(None), json!({"conditions": []}));
    }
}
