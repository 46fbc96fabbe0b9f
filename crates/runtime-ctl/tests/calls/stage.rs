//! A context on top of a scripted API server.

use std::{ops::Deref, time::Duration};

use api_types::AgentRuntime;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime_ctl::{
    context::{Context, Key},
    error::Error,
    index::{Input, NamespaceFacts, Pod, RuntimeKey},
    kinds::{SandboxVersion, WorkloadKind},
    reconcile,
    settings::Settings,
    workload::{Workload, WorkloadKey, WorkloadView},
};
pub(crate) use scripted_api::{Call, lines, pair};
use scripted_api::{ScriptedApi, merge};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";
pub(crate) const SANDBOXES: &str = "/apis/agents.x-k8s.io/v1alpha1/namespaces/team1/sandboxes";
pub(crate) const PODS: &str = "/api/v1/namespaces/team1/pods";

/// The stage: objects are put on it, passes run, calls are looked at.
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    api: ScriptedApi,
}

impl Deref for Stage {
    type Target = ScriptedApi;

    fn deref(&self) -> &ScriptedApi {
        &self.api
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Settings { rollout_qps: 0.0, ..Settings::default() })
    }

    /// A namespace that is labelled for the mesh already, and nothing else.
    pub(crate) fn with(settings: Settings) -> Self {
        let api = ScriptedApi::new();
        let stage = Self { ctx: Context::new(api.handles("runtime-ctl"), settings), api };
        stage.namespace(json!({"istio-discovery": "enabled", "istio.io/dataplane-mode": "ambient"}), false);
        stage
    }

    pub(crate) fn namespace(&self, labels: Value, terminating: bool) {
        let mut metadata = json!({"name": NS, "resourceVersion": "1", "labels": labels});
        if terminating {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        self.put("/api/v1/namespaces/team1", json!({"metadata": metadata}));
        self.ctx
            .index
            .namespaces
            .upsert(NS, NamespaceFacts::from_meta(serde_json::from_value(metadata).unwrap()));
    }

    pub(crate) fn key(name: &str) -> RuntimeKey {
        RuntimeKey { namespace: NS.into(), name: name.into() }
    }

    /// Puts an AgentRuntime into the server and the index.
    pub(crate) fn runtime(&self, name: &str, change: Value) -> AgentRuntime {
        let mut object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"}},
        });
        merge(&mut object, &change);
        let object = self.put(&format!("{RUNTIMES}/{name}"), object);
        let runtime: AgentRuntime = serde_json::from_value(object).unwrap();
        self.ctx.index.runtimes.upsert(runtime.clone()).unwrap();
        runtime
    }

    /// Changes an AgentRuntime as a user would, in the server and the index.
    pub(crate) fn edit_runtime(&self, name: &str, change: Value) {
        let mut object = self.object(&format!("{RUNTIMES}/{name}"));
        merge(&mut object, &change);
        let object = self.put(&format!("{RUNTIMES}/{name}"), object);
        self.ctx.index.runtimes.upsert(serde_json::from_value(object).unwrap()).unwrap();
    }

    /// Puts a Deployment into the server and the index.
    pub(crate) fn deployment(&self, name: &str, change: Value) {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}"), "generation": 1},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}}},
            "status": {"observedGeneration": 1},
        });
        merge(&mut object, &change);
        self.workload(WorkloadKind::Deployment, &format!("{DEPLOYMENTS}/{name}"), object);
    }

    pub(crate) fn sandbox(&self, name: &str, change: Value) {
        self.ctx.set_sandbox_version(Some("v1alpha1"));
        let mut object = json!({
            "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}")},
            "spec": {"replicas": 1, "podTemplate": {"spec": {"containers": []}}},
        });
        merge(&mut object, &change);
        self.workload(WorkloadKind::Sandbox, &format!("{SANDBOXES}/{name}"), object);
    }

    fn workload(&self, kind: WorkloadKind, path: &str, object: Value) {
        let object = self.put(path, object);
        self.index_workload(kind, object);
    }

    pub(crate) fn index_workload(&self, kind: WorkloadKind, object: Value) {
        let view: WorkloadView = serde_json::from_value(object).unwrap();
        let workload = Workload::from_view(kind, SandboxVersion::V1Alpha1, view).unwrap();
        self.ctx.index.workloads.upsert(workload).unwrap();
    }

    /// The index does not know the workload (any more).
    pub(crate) fn forget_workload(&self, kind: WorkloadKind, name: &str) {
        let key = WorkloadKey { namespace: NS.into(), kind, name: name.into() };
        self.ctx.index.workloads.remove(&key);
    }

    /// A Pod of a Deployment with the annotations of its template.
    pub(crate) fn pod(&self, workload: &str, extra: Value) {
        let template =
            self.object(&format!("{DEPLOYMENTS}/{workload}"))["spec"]["template"]["metadata"].clone();
        let mut metadata = json!({
            "namespace": NS, "name": format!("{workload}-abc-1"),
            "labels": {"pod-template-hash": "abc"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-abc"),
                "uid": "rs", "controller": true}],
        });
        merge(&mut metadata, &template);
        merge(&mut metadata, &extra);
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        self.ctx.index.pods.upsert(Pod::from_meta(metadata).unwrap());
    }

    pub(crate) fn config(&self, input: Input, name: &str, key: &str, text: &str) {
        let data = [(key.to_owned(), text.to_owned())].into();
        let namespace = if Input::CLUSTER.contains(&input) { "kagenti-system" } else { NS };
        self.ctx.index.configs.upsert(input, namespace, name, data);
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, name: &str) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.during(reconcile::pass(&self.ctx, &Key::Runtime(Self::key(name)))).await
    }

    /// One pass that must succeed.
    pub(crate) async fn calls(&self, name: &str) -> Vec<Call> {
        let (calls, result) = self.pass(name).await;
        result.expect("the pass succeeds");
        calls
    }

    /// Reason of a condition of an AgentRuntime in the server, with its status.
    pub(crate) fn condition(&self, name: &str, type_: &str) -> Option<(String, String)> {
        self.verdict(&format!("{RUNTIMES}/{name}"), type_)
    }

    /// Message of a condition.
    pub(crate) fn message(&self, name: &str, type_: &str) -> String {
        let condition = self.api.condition(&format!("{RUNTIMES}/{name}"), type_);
        condition.unwrap()["message"].as_str().unwrap().to_owned()
    }
}
