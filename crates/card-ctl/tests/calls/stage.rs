//! A context on top of a scripted API server.

use std::{ops::Deref, time::Duration};

use api_types::card::signed;
use card_ctl::{
    context::{Context, Key},
    error::Error,
    index::{Card, ObjectKey, Runtime, Service, documents},
    kinds::{TargetKey, WorkloadKind},
    reconcile,
    settings::Settings,
    workload::{Workload, WorkloadView},
};
use controller_kit::workload::resource;
pub(crate) use scripted_api::{Call, lines, pair};
use scripted_api::{ScriptedApi, merge};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const CARDS: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentcards";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";

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
        Self::with(Settings { enable_verified_fetch: false, resign_qps: 0.0, ..Settings::defaults() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let api = ScriptedApi::new();
        let (ctx, _orders) = Context::new(api.handles("card-ctl"), settings, None);
        Self { ctx, api }
    }

    pub(crate) fn target(name: &str) -> TargetKey {
        TargetKey::new(NS, WorkloadKind::Deployment, name)
    }

    /// Puts an agent that speaks A2A and is ready into the server and the index.
    pub(crate) fn agent(&self, name: &str, change: Value) {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}"), "generation": 1,
                "labels": {"kagenti.io/type": "agent", "protocol.kagenti.io/a2a": ""}},
            "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}}},
            "status": {"observedGeneration": 1, "readyReplicas": 1,
                "conditions": [{"type": "Available", "status": "True"}]},
        });
        merge(&mut object, &change);
        let object = self.put(&format!("{DEPLOYMENTS}/{name}"), object);
        let view: WorkloadView = serde_json::from_value(object).unwrap();
        let resource = resource(WorkloadKind::Deployment, "v1");
        let workload = Workload::from_view(&resource, view).unwrap();
        if workload.is_agent {
            self.ctx.index.workloads.upsert(workload).unwrap();
        }
    }

    /// Puts an AgentCard into the server and the index.
    pub(crate) fn card(&self, name: &str, workload: &str, change: Value) {
        let mut object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"syncPeriod": "30s",
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload}},
        });
        merge(&mut object, &change);
        let object = self.put(&format!("{CARDS}/{name}"), object);
        self.ctx.index.cards.upsert(Card::of(serde_json::from_value(object).unwrap()).unwrap()).unwrap();
    }

    pub(crate) fn runtime(&self, name: &str, workload: &str) {
        let object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": NS, "name": name, "uid": "u", "generation": 1},
            "spec": {"type": "agent",
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload}},
        });
        let object = self.put(&format!("{RUNTIMES}/{name}"), object);
        self.ctx
            .index
            .runtimes
            .upsert(Runtime::of(serde_json::from_value(object).unwrap()).unwrap())
            .unwrap();
    }

    pub(crate) fn service(&self, name: &str) {
        let object = json!({"metadata": {"namespace": NS, "name": name},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "a2a", "port": 8000}]}});
        let (key, service) = Service::of(serde_json::from_value(object).unwrap()).unwrap();
        self.ctx.index.services.upsert(&key, service);
    }

    /// A labelled ConfigMap with a card.
    pub(crate) fn signed(&self, workload: &str, card: &Value) {
        let object = json!({
            "metadata": {"namespace": NS, "name": format!("{workload}{}", signed::SUFFIX)},
            "data": {"agent-card.json": card.to_string()},
        });
        let map = serde_json::from_value(object).unwrap();
        self.ctx.index.documents.upsert(documents::workload_of(&map).unwrap(), documents::candidates(&map));
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, key: Key) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.during(reconcile::pass(&self.ctx, &key)).await
    }

    /// One pass over a card that must succeed.
    pub(crate) async fn card_pass(&self, name: &str) -> Vec<Call> {
        let (calls, result) = self.pass(Key::Card(ObjectKey::new(NS, name))).await;
        result.expect("the pass succeeds");
        calls
    }

    /// One pass over a workload that must succeed.
    pub(crate) async fn agent_pass(&self, name: &str) -> Vec<Call> {
        let (calls, result) = self.pass(Key::Workload(Self::target(name))).await;
        result.expect("the pass succeeds");
        calls
    }

    /// Status and reason of a condition of an AgentCard in the server.
    pub(crate) fn condition(&self, name: &str, type_: &str) -> Option<(String, String)> {
        self.verdict(&format!("{CARDS}/{name}"), type_)
    }
}
