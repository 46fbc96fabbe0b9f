//! Can a workload serve its card? (card §6.1). Pure.

use crate::{
    kinds::WorkloadKind,
    workload::{SpecView, StatusView},
};

/// The answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not now.
    #[default]
    NotReady,
    /// Not until somebody scales it up.
    ScaledToZero,
}

/// Judges a workload of a kind; `None` = any other kind.
pub fn of(kind: Option<WorkloadKind>, spec: &SpecView, status: &StatusView) -> Readiness {
    if spec.replicas == Some(0) || spec.operating_mode.as_deref() == Some("Suspended") {
        return Readiness::ScaledToZero;
    }
    let says = |name: &str| status.conditions.iter().any(|c| c.type_ == name && c.status == "True");
    let ready = match kind {
        Some(WorkloadKind::Deployment) => says("Available"),
        Some(WorkloadKind::StatefulSet) => status.ready_replicas.unwrap_or(0) >= 1,
        Some(WorkloadKind::Sandbox) => status.conditions.is_empty() || says("Ready") || says("Available"),
        None => says("Ready") || says("Available"),
    };
    if ready { Readiness::Ready } else { Readiness::NotReady }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkloadKind::{Deployment, Sandbox, StatefulSet};
    use rstest::rstest;
    use serde_json::{Value, json};

    /// Card §6.1.
    #[rstest]
    #[case(Some(Deployment), json!({}), json!({"conditions": [{"type": "Available", "status": "True"}]}), Readiness::Ready)]
    #[case(Some(Deployment), json!({"replicas": 0}), json!({"conditions": [{"type": "Available", "status": "True"}]}), Readiness::ScaledToZero)]
    #[case(Some(Deployment), json!({}), json!({"conditions": [{"type": "Available", "status": "False"}]}), Readiness::NotReady)]
    #[case(Some(Deployment), json!({}), json!({"conditions": [{"type": "Ready", "status": "True"}]}), Readiness::NotReady)]
    #[case(Some(StatefulSet), json!({"replicas": 3}), json!({"readyReplicas": 1}), Readiness::Ready)]
    #[case(Some(StatefulSet), json!({"replicas": 3}), json!({"replicas": 3}), Readiness::NotReady)]
    #[case(Some(Sandbox), json!({"replicas": 1}), json!({}), Readiness::Ready)]
    #[case(Some(Sandbox), json!({}), json!({"conditions": [{"type": "Ready", "status": "False"}]}), Readiness::NotReady)]
    #[case(Some(Sandbox), json!({"operatingMode": "Suspended"}), json!({}), Readiness::ScaledToZero)]
    #[case(None, json!({}), json!({"conditions": [{"type": "Ready", "status": "True"}]}), Readiness::Ready)]
    #[case(None, json!({}), json!({}), Readiness::NotReady)]
    fn table(
        #[case] kind: Option<WorkloadKind>,
        #[case] spec: Value,
        #[case] status: Value,
        #[case] want: Readiness,
    ) {
        let (spec, status) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(status).unwrap());
        assert_eq!(of(kind, &spec, &status), want);
    }
}
