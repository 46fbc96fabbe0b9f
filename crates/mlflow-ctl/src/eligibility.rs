//! Which workloads are configured (MLflow §6.1). Pure.

use api_types::names::label;

use crate::{env::Mode, workload::Workload};

/// Value of the label `kagenti.io/type` that counts.
pub const AGENT: &str = "agent";

/// Why a workload is un-enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It is no agent (any more).
    NoAgent,
    /// Its annotation `mlflow.kagenti.io/inject` is `disabled`.
    OptedOut,
}

/// What to do with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It is being deleted: its Role and RoleBinding go with it.
    Ignore,
    /// What we put there is taken away.
    Leave(Leaving),
    /// It gets its experiment, in this mode.
    Configure(Mode),
}

/// First match wins. Namespace and server are looked at by the caller.
pub fn eligibility(workload: &Workload, mode: Mode) -> Eligibility {
    if workload.deleting {
        return Eligibility::Ignore;
    }
    if workload.type_label.as_deref() != Some(AGENT) {
        return Eligibility::Leave(Leaving::NoAgent);
    }
    match workload.inject.as_deref() {
        Some("disabled") => Eligibility::Leave(Leaving::OptedOut),
        Some("annotations") => Eligibility::Configure(Mode::Annotations),
        Some("template") => Eligibility::Configure(Mode::Template),
        _ => Eligibility::Configure(mode),
    }
}

/// Selector of the watches: memory grows with agents only.
pub fn selector() -> String {
    format!("{}={AGENT}", label::TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::agent(json!({"labels": {"kagenti.io/type": "agent"}}), Eligibility::Configure(Mode::Template))]
    #[case::deleted(
        json!({"labels": {"kagenti.io/type": "agent"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}), Eligibility::Ignore)]
    #[case::tool(json!({"labels": {"kagenti.io/type": "tool"}}), Eligibility::Leave(Leaving::NoAgent))]
    #[case::case_counts(json!({"labels": {"kagenti.io/type": "Agent"}}), Eligibility::Leave(Leaving::NoAgent))]
    #[case::no_label(json!({}), Eligibility::Leave(Leaving::NoAgent))]
    #[case::no_label_before_opt_out(
        json!({"annotations": {"mlflow.kagenti.io/inject": "disabled"}}), Eligibility::Leave(Leaving::NoAgent))]
    #[case::opted_out(
        json!({"labels": {"kagenti.io/type": "agent"}, "annotations": {"mlflow.kagenti.io/inject": "disabled"}}),
        Eligibility::Leave(Leaving::OptedOut))]
    #[case::annotations(
        json!({"labels": {"kagenti.io/type": "agent"}, "annotations": {"mlflow.kagenti.io/inject": "annotations"}}),
        Eligibility::Configure(Mode::Annotations))]
    #[case::nonsense(
        json!({"labels": {"kagenti.io/type": "agent"}, "annotations": {"mlflow.kagenti.io/inject": "maybe"}}),
        Eligibility::Configure(Mode::Template))]
    fn first_match_wins(#[case] metadata: Value, #[case] want: Eligibility) {
        let workload = workload(WorkloadKind::Deployment, json!({ "metadata": metadata }));
        assert_eq!(eligibility(&workload, Mode::Template), want);
    }
}
