//! What runtime-ctl knows of a workload: read partially from the wire, kept compactly.

use api_types::names::{annotation, is_suite_key, label};
pub use controller_kit::workload::WorkloadKey;
use controller_kit::{
    lean::LeanObject,
    template::{Pairs, TemplateView},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::kinds::{SandboxVersion, WorkloadKind};

/// A Deployment, StatefulSet or Sandbox as read from the API: only what the enrolment looks at.
pub type WorkloadView = LeanObject<SpecView, StatusView>;

/// The part of a workload's spec that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Wanted Pods; absent means 1.
    pub replicas: Option<i32>,
    /// Deployment only.
    pub paused: Option<bool>,
    /// Sandbox v1beta1 only: `Running` or `Suspended`.
    pub operating_mode: Option<String>,
    /// Deployment and StatefulSet.
    pub selector: Option<LabelSelector>,
    /// Deployment and StatefulSet.
    pub template: Option<TemplateView>,
    /// Sandbox.
    pub pod_template: Option<TemplateView>,
}

/// The part of a workload's status that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// Generation the workload's own controller has seen.
    pub observed_generation: Option<i64>,
    /// Sandbox v1alpha1: Pods that exist.
    pub replicas: Option<i32>,
}

/// A workload as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Namespace, kind and name.
    pub key: WorkloadKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// True when the workload's controller has seen the current generation.
    pub observed: bool,
    /// Being deleted.
    pub deleting: bool,
    /// Metadata label `kagenti.io/type`.
    pub type_label: Option<String>,
    /// Metadata label `app.kubernetes.io/managed-by`.
    pub managed_by: Option<String>,
    /// Metadata annotation `agent.kagenti.dev/enrolled-by`.
    pub enrolled_by: Option<String>,
    /// Metadata annotation `agent.kagenti.dev/config-hash-adopted`.
    pub adopted: Option<String>,
    /// Metadata annotation `kagenti.io/skills`.
    pub skills: Option<String>,
    /// Metadata annotation `agent.kagenti.dev/inject-disabled-by`.
    pub inject_disabled_by: Option<String>,
    /// The controller owner is an Agent of group agent.kagenti.dev (runtime §8.1, exception).
    pub owned_by_agent: bool,
    /// What `spec.selector` demands of the label `kagenti.io/type`.
    pub selector: TypeSelector,
    /// Labels of the suite on the pod template; those of others are not kept.
    pub template_labels: Pairs,
    /// Annotations of the suite on the pod template; those of others are not kept.
    pub template_annotations: Pairs,
    /// ServiceAccount of the pod template.
    pub service_account: Option<String>,
    /// `hostNetwork` of the pod template.
    pub host_network: bool,
    /// Wanted Pods.
    pub desired: i32,
    /// Deployment only: a rollout waits for `spec.paused: false`.
    pub paused: bool,
    /// Sandbox only.
    pub sandbox: Option<SandboxState>,
}

/// What is special about a Sandbox (runtime §8.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxState {
    /// Version the object was read in.
    pub version: SandboxVersion,
    /// Scaled to zero, by us or by the user.
    pub suspended: bool,
    /// Our marker `kagenti.io/restart-pending` is present.
    pub restart_pending: bool,
    /// Annotation `agents.x-k8s.io/pod-name`.
    pub pod_name: Option<String>,
}

/// Requirements of a label selector on `kagenti.io/type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSelector(Vec<(Operator, Vec<String>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl TypeSelector {
    fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::default() };
        let exact = selector.match_labels.as_ref().and_then(|labels| labels.get(label::TYPE));
        let expressions = selector.match_expressions.iter().flatten().filter(|e| e.key == label::TYPE);
        let rules = expressions.filter_map(|e| {
            let operator = match e.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            Some((operator, e.values.clone().unwrap_or_default()))
        });
        Self(exact.map(|value| (Operator::In, vec![value.clone()])).into_iter().chain(rules).collect())
    }

    /// True when a template with this value of the label (or without it) still matches.
    pub fn allows(&self, value: Option<&str>) -> bool {
        self.0.iter().all(|(operator, values)| {
            let listed = value.is_some_and(|v| values.iter().any(|x| x == v));
            match operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl Workload {
    /// Compacts what was read. `None` without namespace or name, which the API server never sends.
    pub fn from_view(kind: WorkloadKind, version: SandboxVersion, view: WorkloadView) -> Option<Self> {
        let WorkloadView { metadata, spec, status } = view;
        let labels = metadata.labels.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        let template = spec.template.or(spec.pod_template).unwrap_or_default();
        let meta = template.metadata.unwrap_or_default();
        let owned_by_agent = metadata.owner_references.iter().flatten().any(|owner| {
            owner.controller == Some(true)
                && owner.kind == "Agent"
                && owner.api_version.split('/').next() == Some(api_types::names::GROUP)
        });
        let sandbox = (kind == WorkloadKind::Sandbox).then(|| SandboxState {
            version,
            suspended: match version {
                SandboxVersion::V1Alpha1 => spec.replicas == Some(0),
                SandboxVersion::V1Beta1 => spec.operating_mode.as_deref() == Some("Suspended"),
            },
            restart_pending: annotations.get(annotation::RESTART_PENDING).is_some_and(|v| v == "true"),
            pod_name: annotations.remove(annotation::SANDBOX_POD_NAME).filter(|v| !v.is_empty()),
        });
        let desired = match (&sandbox, spec.replicas) {
            (Some(state), _) => i32::from(!state.suspended),
            (None, replicas) => replicas.unwrap_or(1),
        };
        Some(Self {
            key: WorkloadKey { namespace: metadata.namespace?, kind, name: metadata.name? },
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            // A Sandbox reports no observed generation.
            observed: sandbox.is_some() || status.observed_generation >= metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            type_label: labels.get(label::TYPE).cloned(),
            managed_by: labels.get(label::MANAGED_BY).cloned(),
            enrolled_by: annotations.remove(annotation::ENROLLED_BY),
            adopted: annotations.remove(annotation::CONFIG_HASH_ADOPTED),
            skills: annotations.remove(annotation::SKILLS),
            inject_disabled_by: annotations.remove(annotation::INJECT_DISABLED_BY),
            owned_by_agent,
            selector: TypeSelector::of(spec.selector.as_ref()),
            template_labels: Pairs::keep(meta.labels, is_suite_key),
            template_annotations: Pairs::keep(meta.annotations, is_suite_key),
            service_account: template.spec.service_account_name.filter(|name| !name.is_empty()),
            host_network: template.spec.host_network == Some(true),
            desired,
            paused: spec.paused == Some(true),
            sandbox,
        })
    }

    /// A label of the pod template.
    pub fn template_label(&self, key: &str) -> Option<&str> {
        self.template_labels.get(key)
    }

    /// An annotation of the pod template.
    pub fn template_annotation(&self, key: &str) -> Option<&str> {
        self.template_annotations.get(key)
    }

    /// The configuration hash that counts (runtime §5.4).
    pub fn effective_hash(&self) -> Option<&str> {
        self.adopted.as_deref().or_else(|| self.template_annotation(annotation::CONFIG_HASH))
    }

    /// Labelled by hand and enrolled by nobody (runtime §13).
    pub fn is_hand_labelled(&self) -> bool {
        self.key.kind != WorkloadKind::Sandbox
            && self.type_label.is_some()
            && self.enrolled_by.is_none()
            && self.managed_by.as_deref() != Some(api_types::names::MANAGED_BY_OPERATOR)
    }

    /// True when nothing that is looked at differs from `other`.
    pub fn same_but_for_version(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.resource_version.clone_from(&other.resource_version);
        same == *other
    }

    /// True when only counts of the status differ from `other`, so nothing needs haste.
    pub fn differs_only_in_status(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.resource_version.clone_from(&other.resource_version);
        same.observed = other.observed;
        same == *other
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// A workload from a JSON document, for tables.
    pub(crate) fn workload(kind: WorkloadKind, document: Value) -> Workload {
        let mut view: WorkloadView = serde_json::from_value(document).unwrap();
        view.metadata.namespace.get_or_insert_with(|| "team1".into());
        view.metadata.name.get_or_insert_with(|| "weather".into());
        view.metadata.uid.get_or_insert_with(|| "uid-1".into());
        Workload::from_view(kind, SandboxVersion::V1Alpha1, view).unwrap()
    }

    #[rstest]
    #[case::none(json!({}), true, true)]
    #[case::other(json!({"matchLabels": {"app": "x"}}), true, true)]
    #[case::pinned(json!({"matchLabels": {"kagenti.io/type": "agent"}}), false, true)]
    #[case::pinned_tool(json!({"matchLabels": {"kagenti.io/type": "tool"}}), false, false)]
    #[case::expression(json!({"matchExpressions": [{"key": "kagenti.io/type", "operator": "Exists"}]}), false, true)]
    #[case::refused(json!({"matchExpressions": [{"key": "kagenti.io/type", "operator": "DoesNotExist"}]}), true, false)]
    #[case::not_in(json!({"matchExpressions": [{"key": "kagenti.io/type", "operator": "NotIn", "values": ["tool"]}]}), true, true)]
    fn selector_rules(#[case] selector: Value, #[case] without: bool, #[case] agent: bool) {
        let workload = workload(WorkloadKind::Deployment, json!({"spec": {"selector": selector}}));
        assert_eq!(workload.selector.allows(None), without);
        assert_eq!(workload.selector.allows(Some("agent")), agent);
    }

    #[test]
    fn foreign_keys_are_not_kept() {
        let workload = workload(
            WorkloadKind::Deployment,
            json!({"spec": {"template": {"metadata": {
                "labels": {"app": "x", "kagenti.io/type": "agent"},
                "annotations": {"checksum/config": "1", "agent.kagenti.dev/runtime-generation": "2"}}}}}),
        );
        assert_eq!(workload.template_labels.to_map().len(), 1);
        assert_eq!(workload.template_annotation("agent.kagenti.dev/runtime-generation"), Some("2"));
    }

    #[test]
    fn a_sandbox_without_template_metadata_reads() {
        let workload =
            workload(WorkloadKind::Sandbox, json!({"spec": {"podTemplate": {"spec": {}}, "replicas": 0}}));
        assert!(workload.sandbox.as_ref().unwrap().suspended);
        assert_eq!(workload.desired, 0);
    }

    #[test]
    fn hand_labelled_means_type_without_enrolment() {
        let of = |metadata: Value| {
            workload(WorkloadKind::Deployment, json!({ "metadata": metadata })).is_hand_labelled()
        };
        assert!(of(json!({"labels": {"kagenti.io/type": "agent"}})));
        assert!(!of(
            json!({"labels": {"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": "kagenti-operator"}})
        ));
        assert!(!of(json!({"labels": {"kagenti.io/type": "agent"},
            "annotations": {"agent.kagenti.dev/enrolled-by": "x"}})));
        assert!(!of(json!({})));
    }
}
