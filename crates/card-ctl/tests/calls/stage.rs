//! A context on top of an API server that lives in a map, records every call and fails on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use api_types::card::signed;
use card_ctl::{
    context::{Context, Key},
    error::Error,
    index::{Card, ObjectKey, Runtime, Service, documents},
    kinds::{self, TargetKey, WorkloadKind},
    reconcile,
    settings::Settings,
    workload::{Workload, WorkloadView},
};
use controller_kit::{events::EventRecorder, lease::Leadership, metrics::Metrics, scope::Scope};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const CARDS: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentcards";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    calls: Vec<Call>,
    /// Answers to be given instead, by method and path, each once.
    faults: VecDeque<(String, String, u16)>,
    version: u64,
}

/// The stage: objects are put on it, passes run, calls are looked at.
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    server: Arc<Mutex<Server>>,
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "no"});
    (code, body)
}

impl Server {
    fn answer(&mut self, call: Call) -> (u16, Value) {
        self.calls.push(call.clone());
        let Call { method, path, body } = call;
        let fault = self.faults.iter().position(|(m, p, _)| *m == method && *p == path);
        if let Some((.., code)) = fault.and_then(|at| self.faults.remove(at)) {
            return failure(code);
        }
        let (path, status) = match path.strip_suffix("/status") {
            Some(path) => (path.to_owned(), true),
            None => (path, false),
        };
        if method == "POST" {
            assert!(
                body["kind"].is_string() && body["apiVersion"].is_string(),
                "the API server refuses it: {body}"
            );
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return failure(409);
            }
            return (201, self.put(&path, body));
        }
        let Some(mut object) = self.objects.get(&path).cloned() else { return failure(404) };
        match method.as_str() {
            "DELETE" => {
                self.objects.remove(&path);
            }
            "PATCH" => {
                let version = body.pointer("/metadata/resourceVersion");
                if version.is_some_and(|version| *version != object["metadata"]["resourceVersion"]) {
                    return failure(409);
                }
                let mut change = if status { json!({"status": body["status"]}) } else { body };
                if let Some(metadata) = change.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("resourceVersion");
                }
                merge(&mut object, &change);
                object = self.put(&path, object);
            }
            _ => {}
        }
        (200, object)
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Settings { enable_verified_fetch: false, resign_qps: 0.0, ..Settings::defaults() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = Arc::new(Mutex::new(Server { version: 100, ..Server::default() }));
        let answering = server.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let call = Call { method: parts.method.to_string(), path: parts.uri.path().to_owned(), body };
                let (code, answer) = answering.lock().unwrap().answer(call);
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                send.send_response(Response::builder().status(code).body(body).unwrap());
            }
        });
        let client = Client::new(service, "default");
        let metrics = Metrics::new("card-ctl");
        let (events, _sender) = EventRecorder::new(client.clone(), &metrics, "test", "test");
        let (ctx, _orders) = Context::new(
            client,
            settings,
            "kagenti-system",
            Scope::Cluster,
            &metrics,
            &events,
            Leadership::always(),
            None,
            || Timestamp::UNIX_EPOCH,
        );
        Self { ctx, server }
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
        let object = self.server.lock().unwrap().put(&format!("{DEPLOYMENTS}/{name}"), object);
        let view: WorkloadView = serde_json::from_value(object).unwrap();
        let resource = kinds::resource(WorkloadKind::Deployment, "v1");
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
        let object = self.server.lock().unwrap().put(&format!("{CARDS}/{name}"), object);
        self.ctx.index.cards.upsert(Card::of(serde_json::from_value(object).unwrap()).unwrap()).unwrap();
    }

    pub(crate) fn runtime(&self, name: &str, workload: &str) {
        let object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": NS, "name": name, "uid": "u", "generation": 1},
            "spec": {"type": "agent",
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload}},
        });
        let object = self.server.lock().unwrap().put(&format!("{RUNTIMES}/{name}"), object);
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

    /// Changes an object in the server only: the index does not know yet.
    pub(crate) fn change_unseen(&self, path: &str, change: Value) {
        let mut server = self.server.lock().unwrap();
        let mut object = server.objects[path].clone();
        merge(&mut object, &change);
        server.put(path, object);
    }

    /// The next request of this kind is refused.
    pub(crate) fn fail(&self, method: &str, path: &str, code: u16) {
        self.server.lock().unwrap().faults.push_back((method.into(), path.into(), code));
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.server.lock().unwrap().objects[path].clone()
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, key: Key) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.server.lock().unwrap().calls.clear();
        let result = reconcile::pass(&self.ctx, &key).await;
        (self.server.lock().unwrap().calls.clone(), result)
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
        let object = self.object(&format!("{CARDS}/{name}"));
        let text = |c: &Value, field: &str| c[field].as_str().unwrap().to_owned();
        object["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|c| c["type"] == type_)
            .map(|c| (text(c, "status"), text(c, "reason")))
    }
}

/// `METHOD path` of each call.
pub(crate) fn lines(calls: &[Call]) -> Vec<String> {
    calls.iter().map(|call| format!("{} {}", call.method, call.path)).collect()
}

pub(crate) fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}
