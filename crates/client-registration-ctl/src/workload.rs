//! What client-registration-ctl knows of a workload: read partially from the wire, kept compactly.

use std::{collections::BTreeMap, fmt};

use api_types::{
    credentials::{self, Eligibility},
    enrolment::TargetKind,
    gates::FeatureGates,
    names::{annotation, is_suite_key},
    registration::annotation as own,
};
use controller_kit::{index::Entry, lean::LeanObject, template::TemplateView};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::discovery::ApiResource;
use serde::Deserialize;

use crate::keycloak::attributes::WorkloadMark;

/// A Deployment, StatefulSet or Sandbox as read from the API: only what matters here.
pub type WorkloadView = LeanObject<SpecView, StatusView>;

/// The part of a workload's spec that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Wanted Pods; absent means 1.
    pub replicas: Option<i32>,
    /// Sandbox v1beta1 only: `Running` or `Suspended`.
    pub operating_mode: Option<String>,
    /// Deployment and StatefulSet.
    pub selector: Option<SelectorView>,
    /// Deployment and StatefulSet.
    pub template: Option<TemplateView>,
    /// Sandbox.
    pub pod_template: Option<TemplateView>,
}

/// The part of a workload's selector that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectorView {
    /// Labels that all its Pods have.
    pub match_labels: BTreeMap<String, String>,
}

/// The part of a workload's status that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// Generation the workload's own controller has seen.
    pub observed_generation: Option<i64>,
    /// Pods that exist.
    pub replicas: Option<i32>,
    /// Pods of the present template.
    pub updated_replicas: Option<i32>,
    /// Pods that are ready.
    pub ready_replicas: Option<i32>,
}

/// Namespace and name of workloads: those of all kinds share one Secret and one client (§3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Unit {
    /// A unit.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Name of its Secret (§8).
    pub fn secret_name(&self) -> String {
        credentials::secret_name(&self.namespace, &self.name)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names one workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Namespace and name.
    pub unit: Unit,
    /// Kind.
    pub kind: TargetKind,
}

impl WorkloadKey {
    /// The attribute that marks its client.
    pub fn mark(&self) -> WorkloadMark {
        WorkloadMark {
            namespace: self.unit.namespace.clone(),
            kind: self.kind.as_str().to_owned(),
            name: self.unit.name.clone(),
        }
    }

    /// The workload that a mark names.
    pub fn of_mark(mark: &WorkloadMark) -> Option<Self> {
        let kind = TargetKind::ALL.into_iter().find(|kind| kind.as_str() == mark.kind)?;
        Some(Self { unit: Unit::new(mark.namespace.clone(), mark.name.clone()), kind })
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.unit)
    }
}

/// A workload as kept in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub key: WorkloadKey,
    /// `apiVersion` it was read in.
    pub api_version: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub deleting: bool,
    /// Annotation `kagenti.io/rotate-credentials`.
    pub rotate: Option<String>,
    /// The template has any label.
    pub labelled: bool,
    /// Labels of the template that the decisions look at.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the template that the decisions look at.
    pub annotations: BTreeMap<String, String>,
    /// ServiceAccount of the template.
    pub service_account: Option<String>,
    /// The Pods share the node's network.
    pub host_network: bool,
    /// Labels that all Pods have, as a selector; empty = not known.
    pub selector: Box<str>,
    /// Wanted Pods.
    pub desired: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// All Pods are of the present template.
    pub rolled_out: bool,
}

/// The suite's own keys; others are not kept.
fn ours(map: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().filter(|(key, _)| is_suite_key(key)).collect()
}

fn selector_text(selector: Option<SelectorView>) -> String {
    let labels = selector.into_iter().flat_map(|selector| selector.match_labels);
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

impl Workload {
    /// Compacts what was read. `None` without namespace or name, which the API server never sends.
    pub fn from_view(kind: TargetKind, resource: &ApiResource, view: WorkloadView) -> Option<Self> {
        let WorkloadView { metadata, spec, status } = view;
        let template = spec.template.or(spec.pod_template).unwrap_or_default();
        let meta = template.metadata.unwrap_or_default();
        let sandbox = kind == TargetKind::Sandbox;
        let suspended = spec.operating_mode.as_deref() == Some("Suspended") || spec.replicas == Some(0);
        let desired = if sandbox { i32::from(!suspended) } else { spec.replicas.unwrap_or(1) };
        let updated = status.updated_replicas.unwrap_or(0);
        let replicas = status.replicas.unwrap_or(0);
        Some(Self {
            key: WorkloadKey { unit: Unit::new(metadata.namespace?, metadata.name?), kind },
            api_version: resource.api_version.clone(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            rotate: metadata
                .annotations
                .and_then(|mut map| map.remove(own::ROTATE))
                .filter(|value| !value.is_empty()),
            labelled: meta.labels.as_ref().is_some_and(|labels| !labels.is_empty()),
            labels: ours(meta.labels),
            annotations: ours(meta.annotations),
            service_account: template.spec.service_account_name.filter(|name| !name.is_empty()),
            host_network: template.spec.host_network == Some(true),
            selector: selector_text(spec.selector).into(),
            desired,
            ready: if sandbox { desired } else { status.ready_replicas.unwrap_or(0) },
            rolled_out: sandbox
                || (status.observed_generation >= metadata.generation
                    && updated >= desired
                    && replicas <= updated),
        })
    }

    /// Is it to be registered (§3)?
    pub fn eligibility(&self, gates: &FeatureGates) -> Eligibility {
        if !self.labelled {
            return Eligibility::NoLabels;
        }
        match credentials::eligibility(Some(&self.labels), gates) {
            // Labels of others are not kept, but they are there.
            Eligibility::NoLabels => Eligibility::NotAgentOrTool,
            other => other,
        }
    }

    /// The Secret that its template names.
    pub fn template_secret(&self) -> Option<&str> {
        self.annotations
            .get(annotation::CREDENTIALS_SECRET)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The revision that its template names.
    pub fn template_revision(&self) -> Option<&str> {
        self.annotations.get(own::TEMPLATE_REVISION).map(String::as_str)
    }

    /// Oldest first; kinds in the order Deployment, StatefulSet, Sandbox.
    pub fn age(&self) -> (Option<Timestamp>, &str, TargetKind) {
        (self.created, &self.key.unit.name, self.key.kind)
    }

    /// A reference, for Events.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.clone()),
            kind: Some(self.key.kind.as_str().to_owned()),
            namespace: Some(self.key.unit.namespace.clone()),
            name: Some(self.key.unit.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// True when nothing that matters differs from `other`: the version does not, and counts only where they end a wait.
    pub fn same_but_for_version(&self, other: &Self) -> bool {
        let same = Self {
            resource_version: other.resource_version.clone(),
            ready: if (self.ready > 0) == (other.ready > 0) { other.ready } else { self.ready },
            ..self.clone()
        };
        same == *other
    }
}

impl Entry for Workload {
    type Key = WorkloadKey;
    type Link = Unit;

    fn key(&self) -> &WorkloadKey {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = Unit> {
        std::iter::once(self.key.unit.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A workload `w` in `team1`, merged from `object`.
    pub(crate) fn workload(kind: TargetKind, object: Value) -> Workload {
        let mut view: WorkloadView = serde_json::from_value(object).unwrap();
        view.metadata.namespace.get_or_insert("team1".into());
        view.metadata.name.get_or_insert("w".into());
        view.metadata.uid.get_or_insert("uid-1".into());
        Workload::from_view(kind, &controller_kit::workload::resource(kind, "v1alpha1"), view).unwrap()
    }

    /// The table of §3.
    #[rstest]
    #[case(json!({}), "", Eligibility::NoLabels)]
    #[case(json!({"app": "x"}), "", Eligibility::NotAgentOrTool)]
    #[case(json!({"kagenti.io/type": "agent"}), "", Eligibility::Register)]
    #[case(json!({"kagenti.io/type": "agent", "kagenti.io/client-registration-inject": "true"}), "", Eligibility::LegacyRegistrar)]
    #[case(json!({"kagenti.io/type": "agent", "kagenti.io/client-registration-inject": "false"}), "", Eligibility::Register)]
    #[case(json!({"kagenti.io/type": "tool"}), "", Eligibility::ToolsOff)]
    #[case(json!({"kagenti.io/type": "tool"}), "injectTools: true", Eligibility::Register)]
    fn eligibility(#[case] labels: Value, #[case] gates: &str, #[case] expected: Eligibility) {
        let gates = FeatureGates::parse(gates).unwrap().value;
        for (kind, field) in [(TargetKind::Deployment, "template"), (TargetKind::Sandbox, "podTemplate")] {
            let workload = workload(kind, json!({"spec": {field: {"metadata": {"labels": labels}}}}));
            assert_eq!(workload.eligibility(&gates), expected);
        }
    }

    #[rstest]
    #[case(json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1}), true)]
    #[case(json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}), false)]
    #[case(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}), false)]
    #[case(json!({"observedGeneration": 2}), false)]
    fn rollouts(#[case] status: Value, #[case] done: bool) {
        let object = json!({"metadata": {"generation": 2}, "status": status});
        assert_eq!(workload(TargetKind::Deployment, object).rolled_out, done);
    }

    #[test]
    fn counts_matter_only_at_zero() {
        let of = |ready| workload(TargetKind::Deployment, json!({"status": {"readyReplicas": ready}}));
        assert!(of(1).same_but_for_version(&of(2)));
        assert!(!of(0).same_but_for_version(&of(1)));
    }

    #[test]
    fn marks_lead_back() {
        let key = workload(TargetKind::StatefulSet, json!({})).key;
        assert_eq!(WorkloadKey::of_mark(&key.mark()), Some(key));
    }
}
