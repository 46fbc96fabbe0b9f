//! What has to change on a workload so that it is no longer enrolled (runtime §8.1). Pure.

use api_types::names::{MANAGED_BY_OPERATOR, annotation, label};

use crate::{
    patch::{WorkloadPatch, set, unset},
    workload::Workload,
};

/// Value of `agent.kagenti.dev/inject-disabled-by` when case S put the inject label there.
pub const BY_UNENROLL: &str = "unenroll";

/// A patch that ends an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// The differing keys; may be empty.
    pub patch: WorkloadPatch,
    /// Case S: the selector needs the type label, so it stays and injection is switched off instead.
    pub selector_needs_label: bool,
}

/// The differences between the workload and one that was never enrolled.
pub fn plan(workload: &Workload) -> Withdrawal {
    let mut patch = WorkloadPatch::default();
    let template_type = workload.template_label(label::TYPE);
    // agent-ctl declares the label on the Deployments it makes (build §17).
    if !workload.owned_by_agent {
        unset(&mut patch.labels, label::TYPE, workload.type_label.as_deref());
    }
    if workload.managed_by.as_deref() == Some(MANAGED_BY_OPERATOR) {
        patch.labels.insert(label::MANAGED_BY, None);
    }
    unset(&mut patch.annotations, annotation::ENROLLED_BY, workload.enrolled_by.as_deref());
    unset(&mut patch.annotations, annotation::CONFIG_HASH_ADOPTED, workload.adopted.as_deref());

    unset(&mut patch.template_labels, label::ENROLLED, workload.template_label(label::ENROLLED));
    for key in [
        annotation::CONFIG_HASH,
        annotation::MTLS_MODE,
        annotation::RUNTIME_GENERATION,
        annotation::TLS_BRIDGE_CA_HASH,
    ] {
        unset(&mut patch.template_annotations, key, workload.template_annotation(key));
    }
    let pinned = template_type.is_some() && !workload.owned_by_agent && !workload.selector.allows(None);
    if pinned {
        let inject = workload.template_label(label::INJECT);
        set(&mut patch.template_labels, label::INJECT, inject, "disabled");
        if patch.template_labels.contains_key(label::INJECT) {
            let by = workload.inject_disabled_by.as_deref();
            set(&mut patch.annotations, annotation::INJECT_DISABLED_BY, by, BY_UNENROLL);
        }
    } else if !workload.owned_by_agent {
        unset(&mut patch.template_labels, label::TYPE, template_type);
    }
    Withdrawal { patch, selector_needs_label: pinned }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use serde_json::{Value, json};

    fn enrolled(selector: &Value, managed_by: &str) -> Value {
        json!({
            "metadata": {
                "labels": {"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": managed_by,
                    "protocol.kagenti.io/a2a": ""},
                "annotations": {"agent.kagenti.dev/enrolled-by": "rt", "kagenti.io/skills": "[]",
                    "agent.kagenti.dev/config-hash-adopted": "x"},
            },
            "spec": {
                "selector": selector,
                "template": {"metadata": {
                    "labels": {"app": "a", "kagenti.io/type": "agent", "agent.kagenti.dev/enrolled": "true"},
                    "annotations": {"kagenti.io/config-hash": "h", "kagenti.io/mtls-mode": "strict",
                        "agent.kagenti.dev/runtime-generation": "g", "kagenti.io/tls-bridge-ca-hash": "c",
                        "kagenti.io/outbound-ports-exclude": "5432"},
                }},
            },
        })
    }

    #[test]
    fn everything_of_ours_goes_and_nothing_else() {
        let plan = plan(&workload(WorkloadKind::Deployment, enrolled(&json!({}), "kagenti-operator")));
        assert!(!plan.selector_needs_label);
        let document = plan.patch.document(&workload(WorkloadKind::Deployment, json!({})));
        assert_eq!(
            document,
            json!({
                "metadata": {
                    "uid": "uid-1",
                    "labels": {"kagenti.io/type": null, "app.kubernetes.io/managed-by": null},
                    "annotations": {"agent.kagenti.dev/enrolled-by": null,
                        "agent.kagenti.dev/config-hash-adopted": null},
                },
                "spec": {"template": {"metadata": {
                    "labels": {"kagenti.io/type": null, "agent.kagenti.dev/enrolled": null},
                    "annotations": {"kagenti.io/config-hash": null, "kagenti.io/mtls-mode": null,
                        "agent.kagenti.dev/runtime-generation": null, "kagenti.io/tls-bridge-ca-hash": null},
                }}},
            })
        );
    }

    #[test]
    fn a_foreign_managed_by_stays() {
        let plan = plan(&workload(WorkloadKind::Deployment, enrolled(&json!({}), "Helm")));
        assert!(!plan.patch.labels.contains_key(label::MANAGED_BY));
    }

    #[test]
    fn case_s_keeps_the_label_and_switches_injection_off() {
        let selector = json!({"matchLabels": {"kagenti.io/type": "agent"}});
        let plan = plan(&workload(WorkloadKind::Deployment, enrolled(&selector, "kagenti-operator")));
        assert!(plan.selector_needs_label);
        assert!(!plan.patch.template_labels.contains_key(label::TYPE));
        assert_eq!(plan.patch.template_labels.get(label::INJECT), Some(&Some("disabled".into())));
        assert_eq!(
            plan.patch.annotations.get(annotation::INJECT_DISABLED_BY),
            Some(&Some("unenroll".into()))
        );
        assert_eq!(plan.patch.labels.get(label::TYPE), Some(&None));
    }

    #[test]
    fn an_agent_owned_deployment_keeps_its_type() {
        let mut document = enrolled(&json!({}), "kagenti-operator");
        document["metadata"]["ownerReferences"] = json!([{"apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "Agent",
            "name": "a", "uid": "u", "controller": true}]);
        let plan = plan(&workload(WorkloadKind::Deployment, document));
        assert!(!plan.patch.labels.contains_key(label::TYPE));
        assert!(!plan.patch.template_labels.contains_key(label::TYPE));
        assert_eq!(plan.patch.template_labels.get(label::ENROLLED), Some(&None));
    }

    #[test]
    fn a_second_pass_has_nothing_to_do() {
        let clean = json!({"metadata": {"annotations": {"kagenti.io/skills": "[]"}},
            "spec": {"template": {"metadata": {"labels": {"app": "a"}}}}});
        assert!(plan(&workload(WorkloadKind::Deployment, clean)).patch.is_empty());
        let pinned = json!({
            "metadata": {"annotations": {"agent.kagenti.dev/inject-disabled-by": "unenroll"}},
            "spec": {"selector": {"matchLabels": {"kagenti.io/type": "agent"}},
                "template": {"metadata": {"labels": {"kagenti.io/type": "agent", "kagenti.io/inject": "disabled"}}}},
        });
        assert!(plan(&workload(WorkloadKind::Deployment, pinned)).patch.is_empty());
    }
}
