//! Objects that tests create, as JSON. Builders take merge patches for whatever they have no word for.

use serde_json::{Value, json};

use crate::json::merge;
use crate::kinds::{self, Kind};

/// An object under construction.
#[derive(Clone, Debug)]
pub struct Object(Value);

impl Object {
    /// Lays a JSON merge patch upon it.
    #[must_use]
    pub fn with(mut self, patch: Value) -> Self {
        merge(&mut self.0, patch);
        self
    }

    /// Adds a label to the object.
    #[must_use]
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with(json!({"metadata": {"labels": {key: value}}}))
    }

    /// Adds an annotation to the object.
    #[must_use]
    pub fn annotation(self, key: &str, value: &str) -> Self {
        self.with(json!({"metadata": {"annotations": {key: value}}}))
    }

    /// Adds a label to the pod template.
    #[must_use]
    pub fn template_label(self, key: &str, value: &str) -> Self {
        self.with(json!({"spec": {"template": {"metadata": {"labels": {key: value}}}}}))
    }

    /// Adds an annotation to the pod template.
    #[must_use]
    pub fn template_annotation(self, key: &str, value: &str) -> Self {
        self.with(json!({"spec": {"template": {"metadata": {"annotations": {key: value}}}}}))
    }

    /// Sets the number of replicas.
    #[must_use]
    pub fn replicas(self, count: i32) -> Self {
        self.with(json!({"spec": {"replicas": count}}))
    }

    /// Lays a merge patch upon `spec`.
    #[must_use]
    pub fn spec(self, patch: Value) -> Self {
        self.with(json!({"spec": patch}))
    }

    /// Lays a merge patch upon the pod template's `spec`.
    #[must_use]
    pub fn pod_spec(self, patch: Value) -> Self {
        self.with(json!({"spec": {"template": {"spec": patch}}}))
    }

    /// Replaces the containers of the pod template.
    #[must_use]
    pub fn containers(self, containers: Value) -> Self {
        self.pod_spec(json!({"containers": containers}))
    }

    /// The JSON.
    pub fn build(self) -> Value {
        self.0
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.0
    }
}

/// An object with nothing but its name.
pub fn named(kind: Kind, name: &str) -> Object {
    Object(json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}}))
}

/// A container `agent` that declares one TCP port named `http`.
pub fn container(port: u16) -> Value {
    json!({
        "name": "agent",
        "image": "ghcr.io/kagenti/agent-examples/weather_service:v0.0.1-alpha.3",
        "ports": [{"name": "http", "containerPort": port}],
    })
}

/// A Pod of container [`container`], port 8000.
pub fn pod(name: &str) -> Object {
    named(kinds::POD, name).spec(json!({"containers": [container(8000)]}))
}

fn workload(kind: Kind, name: &str) -> Object {
    named(kind, name).spec(json!({
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [container(8000)]},
        },
    }))
}

/// A Deployment with one replica, selector `app=<name>`, no label of the suite, container [`container`].
pub fn deployment(name: &str) -> Object {
    workload(kinds::DEPLOYMENT, name).replicas(1).spec(json!({
        "progressDeadlineSeconds": 60,
        "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}},
    }))
}

/// A StatefulSet like [`deployment`].
pub fn stateful_set(name: &str) -> Object {
    workload(kinds::STATEFUL_SET, name).replicas(1).spec(json!({"serviceName": name}))
}

/// A DaemonSet like [`deployment`].
pub fn daemon_set(name: &str) -> Object {
    workload(kinds::DAEMON_SET, name)
}

/// A Job like [`deployment`], restart policy Never.
pub fn job(name: &str) -> Object {
    named(kinds::JOB, name)
        .spec(json!({"template": {"spec": {"restartPolicy": "Never", "containers": [container(8000)]}}}))
}

/// An AgentRuntime of type agent for a Deployment.
pub fn agent_runtime(name: &str, deployment: &str) -> Object {
    named(kinds::AGENT_RUNTIME, name).spec(json!({
        "type": "agent",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
    }))
}

/// A ConfigMap.
pub fn config_map(name: &str, data: Value) -> Object {
    named(kinds::CONFIG_MAP, name).with(json!({"data": data}))
}

/// A Service that selects `app=<app>`.
pub fn service(name: &str, app: &str, ports: Value) -> Object {
    named(kinds::SERVICE, name).spec(json!({"selector": {"app": app}, "ports": ports}))
}

/// The CSIDriver whose presence means that SPIRE is installed.
pub fn spiffe_csi_driver() -> Object {
    named(kinds::CSI_DRIVER, api_types::names::SPIFFE_CSI_DRIVER).spec(json!({
        "attachRequired": false,
        "podInfoOnMount": true,
        "volumeLifecycleModes": ["Ephemeral"],
    }))
}

/// A CRD that accepts everything: stands for the real one where only the kind's existence matters.
pub fn open_crd(kind: Kind) -> Value {
    let singular = kind.kind.to_lowercase();
    named(kinds::CRD, &format!("{}.{}", kind.plural, kind.group))
        .spec(json!({
            "group": kind.group,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind.kind,
                "listKind": format!("{}List", kind.kind),
                "plural": kind.plural,
                "singular": singular,
            },
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        }))
        .build()
}
