//! What mlflow-ctl knows of a workload: read partially from the wire, kept compactly.

use api_types::{
    mlflow::{Field, annotation},
    names::{is_suite_key, label},
};
pub use controller_kit::workload::WorkloadKey;
use controller_kit::{
    lean::{ConditionView, LeanObject},
    template::{Pairs, TemplateView},
};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::discovery::ApiResource;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    env::{Container, Values},
    kinds::WorkloadKind,
};

/// A Deployment, StatefulSet or Sandbox as read from the API: only what matters here.
pub type WorkloadView = LeanObject<SpecView, StatusView>;

/// The pod template, wherever the kind has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Deployment and StatefulSet.
    pub template: Option<TemplateView<PodSpecView>>,
    /// Sandbox.
    pub pod_template: Option<TemplateView<PodSpecView>>,
}

/// The part of a pod spec that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecView {
    /// ServiceAccount of the Pods.
    pub service_account_name: Option<String>,
    /// Shares the node's network.
    pub host_network: Option<bool>,
    /// Regular containers.
    pub containers: Vec<ContainerView>,
}

/// The part of a container that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerView {
    /// Name.
    pub name: String,
    /// Environment.
    pub env: Option<Vec<EnvView>>,
}

/// One environment variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvView {
    /// Name.
    pub name: String,
    /// Literal value; absent = empty, unless there is a reference.
    pub value: Option<String>,
    /// Reference.
    pub value_from: Option<Value>,
}

/// The part of a workload's status that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// Deployment and StatefulSet.
    pub available_replicas: Option<i32>,
    /// StatefulSet of older API servers.
    pub ready_replicas: Option<i32>,
    /// Sandbox v1alpha1: Pods that exist.
    pub replicas: Option<i32>,
    /// Sandbox.
    pub conditions: Vec<ConditionView>,
}

/// A workload as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Namespace, kind and name.
    pub key: WorkloadKey,
    /// `apiVersion`, for owner references.
    pub api_version: Box<str>,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub deleting: bool,
    /// Metadata label `kagenti.io/type`.
    pub type_label: Option<Box<str>>,
    /// Metadata annotation `mlflow.kagenti.io/inject`.
    pub inject: Option<Box<str>>,
    /// Metadata annotation `mlflow.kagenti.io/experiment`.
    pub experiment: Option<Box<str>>,
    /// Metadata annotation `mlflow.kagenti.io/containers`.
    pub only: Option<Box<str>>,
    /// Labels of the suite on the pod template.
    pub template_labels: Pairs,
    /// Annotations of the suite on the pod template.
    pub template_annotations: Pairs,
    /// The pod template has metadata at all; a Sandbox may do without.
    pub has_template_metadata: bool,
    /// The pod template has annotations at all.
    pub has_template_annotations: bool,
    /// ServiceAccount of the pod template.
    pub service_account: Option<Box<str>>,
    /// Pods share the node's network.
    pub host_network: bool,
    /// Regular containers.
    pub containers: Box<[Container]>,
    /// At least one Pod works.
    pub available: bool,
}

fn boxed(text: Option<String>) -> Option<Box<str>> {
    text.map(Into::into)
}

impl Workload {
    /// Compacts what was read. `None` without namespace or name, which the API server never sends.
    pub fn from_view(resource: &ApiResource, kind: WorkloadKind, view: WorkloadView) -> Option<Self> {
        let WorkloadView { metadata, spec, status } = view;
        let template = spec.template.or(spec.pod_template).unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        let mut labels = metadata.labels.unwrap_or_default();
        let has_template_metadata = template.metadata.is_some();
        let meta = template.metadata.unwrap_or_default();
        let positive = |count: Option<i32>| count.is_some_and(|count| count > 0);
        let available = match kind {
            WorkloadKind::Deployment | WorkloadKind::StatefulSet => {
                positive(status.available_replicas.or(status.ready_replicas))
            }
            WorkloadKind::Sandbox => {
                positive(status.replicas)
                    || status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
            }
        };
        Some(Self {
            key: WorkloadKey { namespace: metadata.namespace?, kind, name: metadata.name? },
            api_version: resource.api_version.as_str().into(),
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: metadata.resource_version.unwrap_or_default().into(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            type_label: boxed(labels.remove(label::TYPE)),
            inject: boxed(annotations.remove(annotation::INJECT)),
            experiment: boxed(annotations.remove(annotation::EXPERIMENT)),
            only: boxed(annotations.remove(annotation::CONTAINERS)),
            template_labels: Pairs::keep(meta.labels, is_suite_key),
            has_template_metadata,
            has_template_annotations: meta.annotations.is_some(),
            template_annotations: Pairs::keep(meta.annotations, is_suite_key),
            service_account: boxed(template.spec.service_account_name.filter(|name| !name.is_empty())),
            host_network: template.spec.host_network == Some(true),
            containers: template.spec.containers.iter().map(container).collect(),
            available,
        })
    }

    /// What the annotations of the template say was written.
    pub fn recorded(&self) -> Values {
        let mut values = Values::default();
        for field in Field::ALL {
            values.set(field, self.template_annotations.get(field.annotation()).map(str::to_owned));
        }
        values
    }

    /// Carries an annotation of ours.
    pub fn is_marked(&self) -> bool {
        !self.recorded().is_empty()
    }

    /// True when nothing that asks for a look differs from `other`. Whether Pods are available is looked at when it
    /// matters, and changes too often to be news.
    pub fn same_for_us(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.resource_version.clone_from(&other.resource_version);
        same.available = other.available;
        same == *other
    }

    /// What Events are about.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.to_string()),
            kind: Some(self.key.kind.as_str().to_owned()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// The owner reference on its Role and RoleBinding (MLflow §8): no controller, nothing blocked.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.to_string(),
            kind: self.key.kind.as_str().to_owned(),
            name: self.key.name.clone(),
            uid: self.uid.to_string(),
            block_owner_deletion: None,
            controller: None,
        }
    }
}

fn container(view: &ContainerView) -> Container {
    let env = view.env.iter().flatten().map(|entry| {
        // An entry with neither is an empty literal.
        let literal = entry.value_from.is_none().then(|| entry.value.as_deref().unwrap_or_default());
        (entry.name.as_str(), literal)
    });
    Container::new(&view.name, view.env.is_some(), env)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{env::Held, kinds};
    use serde_json::json;

    /// A workload from a JSON document, for tables.
    pub(crate) fn workload(kind: WorkloadKind, document: Value) -> Workload {
        let mut view: WorkloadView = serde_json::from_value(document).unwrap();
        view.metadata.namespace.get_or_insert_with(|| "team1".into());
        view.metadata.name.get_or_insert_with(|| "weather".into());
        view.metadata.uid.get_or_insert_with(|| "uid-1".into());
        view.metadata.resource_version.get_or_insert_with(|| "7".into());
        Workload::from_view(&kinds::resource(kind, "v1alpha1"), kind, view).unwrap()
    }

    #[test]
    fn what_matters_is_read() {
        let workload = workload(
            WorkloadKind::Deployment,
            json!({
                "metadata": {"labels": {"kagenti.io/type": "agent"}, "annotations": {"mlflow.kagenti.io/inject": "disabled"}},
                "spec": {"template": {
                    "metadata": {"labels": {"app": "x", "kagenti.io/type": "agent"},
                        "annotations": {"mlflow.kagenti.io/experiment-id": "12", "other": "x"}},
                    "spec": {"serviceAccountName": "", "containers": [
                        {"name": "agent", "env": [{"name": "A"}, {"name": "MLFLOW_EXPERIMENT_ID", "value": "12"},
                            {"name": "MLFLOW_TRACKING_URI", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                            {"name": "MLFLOW_EXPERIMENT_NAME"}]},
                        {"name": "helper"}]}}},
                "status": {"availableReplicas": 1},
            }),
        );
        assert_eq!(workload.type_label.as_deref(), Some("agent"));
        assert_eq!(workload.inject.as_deref(), Some("disabled"));
        assert_eq!(workload.template_labels.to_map().len(), 1);
        assert_eq!(workload.recorded(), Values::default().with(Field::ExperimentId, "12"));
        assert_eq!(workload.service_account, None);
        assert!(workload.available && workload.is_marked());
        let [agent, helper] = &*workload.containers else { panic!("two containers") };
        assert_eq!(*agent.held(Field::ExperimentId), Held::Literal { value: "12".into(), at: 1 });
        assert_eq!(*agent.held(Field::TrackingUri), Held::Reference { at: 2 });
        assert_eq!(*agent.held(Field::ExperimentName), Held::Literal { value: "".into(), at: 3 });
        assert!(agent.has_env && !helper.has_env);
    }

    #[test]
    fn a_change_of_the_status_is_no_news() {
        let of = |version: &str, available: i32| {
            workload(
                WorkloadKind::StatefulSet,
                json!({"metadata": {"resourceVersion": version}, "status": {"availableReplicas": available}}),
            )
        };
        assert!(of("1", 0).same_for_us(&of("2", 3)));
        let other = workload(WorkloadKind::StatefulSet, json!({"metadata": {"generation": 2}}));
        assert!(!of("1", 0).same_for_us(&other));
    }

    #[test]
    fn a_sandbox_without_template_metadata_reads() {
        let sandbox = workload(
            WorkloadKind::Sandbox,
            json!({"spec": {"podTemplate": {"spec": {}}}, "status": {"replicas": 1}}),
        );
        assert!(!sandbox.has_template_metadata && !sandbox.has_template_annotations && sandbox.available);
        assert_eq!(&*sandbox.api_version, "agents.x-k8s.io/v1alpha1");
    }
}
