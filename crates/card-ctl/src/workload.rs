//! What card-ctl knows of a workload: read partially from the wire, kept compactly.

use std::collections::BTreeMap;

use api_types::{
    card::{self, SIGNER_CONTAINER, SIGNER_IMAGE, annotation},
    names::label,
};
use controller_kit::lean::{ConditionView, LeanObject};
use jiff::Timestamp;
use kube::discovery::ApiResource;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    kinds::{TargetKey, WorkloadKind},
    readiness::{self, Readiness},
};

/// A workload of any kind as read from the API.
pub type WorkloadView = LeanObject<SpecView, StatusView>;

/// The part of a workload's spec that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Wanted Pods; absent means 1.
    pub replicas: Option<i64>,
    /// Sandbox v1beta1 only: `Running` or `Suspended`.
    pub operating_mode: Option<String>,
    /// Deployment and StatefulSet; whole, because it is hashed.
    pub template: Option<Value>,
    /// Sandbox.
    pub pod_template: Option<Value>,
}

/// The part of a workload's status that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// Generation the workload's own controller has seen.
    pub observed_generation: Option<i64>,
    /// Pods that exist.
    pub replicas: Option<i64>,
    /// Pods of the present template.
    pub updated_replicas: Option<i64>,
    /// Pods that are ready.
    pub ready_replicas: Option<i64>,
    /// Conditions.
    pub conditions: Vec<ConditionView>,
}

/// How a workload signs its card (card §12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signer {
    /// Not here.
    #[default]
    None,
    /// Once, when a Pod starts.
    Init,
    /// A native sidecar, which renews by itself.
    Sidecar,
}

/// A workload as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Namespace, group, kind and name.
    pub key: TargetKey,
    /// `apiVersion` it was read in.
    pub api_version: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub deleting: bool,
    /// Label `kagenti.io/type=agent`.
    pub is_agent: bool,
    /// The protocol of its labels (card §6.2).
    pub protocol: Option<String>,
    /// Label `app.kubernetes.io/name`.
    pub app_name: Option<String>,
    /// Annotations `verified-state.agent.kagenti.dev/...` by their name part.
    pub states: BTreeMap<String, String>,
    /// Annotation `agentcard.kagenti.dev/bundle-hash`.
    pub bundle_hash: Option<String>,
    /// The legacy annotation is there.
    pub has_legacy_state: bool,
    /// Labels of the pod template.
    pub template_labels: BTreeMap<String, String>,
    /// Template annotation `agentcard.kagenti.dev/resign-trigger`.
    pub resign_trigger: Option<String>,
    /// Template annotation `agentcard.kagenti.dev/resign-leaf-expiry`.
    pub resign_leaf_expiry: Option<String>,
    /// ServiceAccount of the pod template.
    pub service_account: Option<String>,
    /// The signer in the pod template.
    pub signer: Signer,
    /// Can it serve?
    pub readiness: Readiness,
    /// Pods that are ready.
    pub ready_replicas: i64,
    /// All Pods are of the present template.
    pub rolled_out: bool,
    /// SHA-256 of the pod template, 64 hex.
    pub template_hash: String,
    /// The same without what card-ctl writes into it.
    pub content_hash: String,
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn signer_of(template: &Value) -> Signer {
    let containers = template.pointer("/spec/initContainers").and_then(Value::as_array);
    let is_signer = |container: &&Value| {
        let of = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
        of("name") == SIGNER_CONTAINER || of("image").contains(SIGNER_IMAGE)
    };
    match containers.into_iter().flatten().find(is_signer) {
        None => Signer::None,
        Some(found) if found.get("restartPolicy").and_then(Value::as_str) == Some("Always") => {
            Signer::Sidecar
        }
        Some(_) => Signer::Init,
    }
}

/// serde_json's maps are sorted, so equal templates have equal bytes.
fn hash(value: &Value) -> String {
    hex::encode(Sha256::digest(value.to_string()))
}

fn without_own_keys(mut template: Value) -> Value {
    let own = [
        ("labels", [label::SIGNATURE_VERIFIED].as_slice()),
        ("annotations", &[annotation::RESIGN_TRIGGER, annotation::RESIGN_LEAF_EXPIRY]),
    ];
    for (field, keys) in own {
        let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) else {
            continue;
        };
        let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else { continue };
        map.retain(|key, _| !keys.contains(&key.as_str()));
        if map.is_empty() {
            metadata.remove(field);
        }
    }
    template
}

impl Workload {
    /// Compacts what was read. `None` without namespace or name, which the API server never sends.
    pub fn from_view(resource: &ApiResource, view: WorkloadView) -> Option<Self> {
        let WorkloadView { metadata, spec, status } = view;
        let key = TargetKey {
            namespace: metadata.namespace.clone()?,
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            name: metadata.name.clone()?,
        };
        let kind = key.workload_kind();
        let readiness = readiness::of(kind, &spec, &status);
        let wanted = spec.replicas.unwrap_or(1);
        let rolled_out = kind == Some(WorkloadKind::Sandbox)
            || (status.observed_generation >= metadata.generation
                && status.updated_replicas.unwrap_or(0) >= wanted
                && status.replicas.unwrap_or(0) <= status.updated_replicas.unwrap_or(0));
        let labels = metadata.labels.as_ref();
        let mut annotations = metadata.annotations.unwrap_or_default();
        let template = spec.template.or(spec.pod_template).unwrap_or(Value::Null);
        let template_map = |field: &str| template.pointer(field).and_then(Value::as_object);
        let template_annotation =
            |key: &str| text(template_map("/metadata/annotations").and_then(|map| map.get(key)));
        let template_labels = template_map("/metadata/labels")
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let states = annotations
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(annotation::VERIFIED_STATE_PREFIX)?.to_owned(), value.clone()))
            })
            .collect();
        Some(Self {
            api_version: resource.api_version.clone(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            is_agent: card::is_agent(labels),
            protocol: card::protocol(labels).map(str::to_owned),
            app_name: labels.and_then(|labels| labels.get("app.kubernetes.io/name")).cloned(),
            states,
            bundle_hash: annotations.remove(annotation::BUNDLE_HASH),
            has_legacy_state: annotations.contains_key(annotation::LAST_VERIFIED_STATE),
            template_labels,
            resign_trigger: template_annotation(annotation::RESIGN_TRIGGER),
            resign_leaf_expiry: template_annotation(annotation::RESIGN_LEAF_EXPIRY),
            service_account: text(template.pointer("/spec/serviceAccountName")),
            signer: signer_of(&template),
            readiness,
            ready_replicas: status.ready_replicas.unwrap_or(0),
            rolled_out,
            template_hash: hash(&template),
            content_hash: hash(&without_own_keys(template)),
            key,
        })
    }

    /// Gets a card by itself (card §5.1).
    pub fn is_eligible(&self) -> bool {
        self.is_agent && self.protocol.is_some()
    }

    /// The verified label of the pod template is there.
    pub fn has_verified_label(&self) -> bool {
        self.template_labels.contains_key(label::SIGNATURE_VERIFIED)
    }

    /// True when nothing that is looked at differs from `other`.
    pub fn same_but_for_version(&self, other: &Self) -> bool {
        let same = Self {
            resource_version: other.resource_version.clone(),
            generation: other.generation,
            ..self.clone()
        };
        same == *other
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use controller_kit::workload::resource;
    use serde_json::json;

    /// A workload named `w` in `team1`, merged from `object`.
    pub(crate) fn workload(kind: WorkloadKind, object: Value) -> Workload {
        let mut view: WorkloadView = serde_json::from_value(object).unwrap();
        view.metadata.namespace.get_or_insert("team1".into());
        view.metadata.name.get_or_insert("w".into());
        view.metadata.uid.get_or_insert("uid-1".into());
        Workload::from_view(&resource(kind, "v1alpha1"), view).unwrap()
    }

    #[test]
    fn own_keys_do_not_count_as_content() {
        let of = |labels: Value, annotations: Value| {
            workload(
                WorkloadKind::Deployment,
                json!({"spec": {"template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": {}}}}),
            )
        };
        let plain = of(json!({"app": "x"}), json!({}));
        let ours = of(
            json!({"app": "x", "agent.kagenti.dev/signature-verified": "true"}),
            json!({"agentcard.kagenti.dev/resign-trigger": "t"}),
        );
        assert_ne!(plain.template_hash, ours.template_hash);
        assert!(ours.has_verified_label() && !plain.has_verified_label());
        let bare = workload(
            WorkloadKind::Deployment,
            json!({"spec": {"template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}}}),
        );
        assert_eq!(bare.content_hash, ours.content_hash);
    }

    /// Card §12, §16.3.
    #[test]
    fn signers_are_known_by_name_or_image() {
        let of = |container: Value| {
            workload(
                WorkloadKind::Deployment,
                json!({"spec": {"template": {"spec": {"initContainers": [{"name": "x", "image": "y"}, container]}}}}),
            )
            .signer
        };
        assert_eq!(of(json!({"name": "sign-agentcard", "image": "i"})), Signer::Init);
        assert_eq!(of(json!({"name": "s", "image": "r/agentcard-signer:1"})), Signer::Init);
        assert_eq!(of(json!({"name": "sign-agentcard", "restartPolicy": "Always"})), Signer::Sidecar);
        assert_eq!(of(json!({"name": "other"})), Signer::None);
    }

    #[test]
    fn states_are_kept_by_name() {
        let workload = workload(
            WorkloadKind::Deployment,
            json!({"metadata": {"annotations": {"verified-state.agent.kagenti.dev/w-deployment-card": "true", "x": "y"}}}),
        );
        assert_eq!(workload.states, BTreeMap::from([("w-deployment-card".into(), "true".into())]));
    }
}
