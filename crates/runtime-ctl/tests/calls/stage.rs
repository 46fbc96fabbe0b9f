//! A context on top of an API server that lives in a map, records every call and fails on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use api_types::AgentRuntime;
use controller_kit::{events::EventRecorder, lease::Leadership, metrics::Metrics, scope::Scope};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, client::Body};
use runtime_ctl::{
    context::{Context, Key},
    error::Error,
    index::{Input, NamespaceFacts, Pod, RuntimeKey},
    kinds::{SandboxVersion, WorkloadKind},
    reconcile,
    settings::Settings,
    workload::{Workload, WorkloadKey, WorkloadView},
};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";
pub(crate) const SANDBOXES: &str = "/apis/agents.x-k8s.io/v1alpha1/namespaces/team1/sandboxes";
pub(crate) const PODS: &str = "/api/v1/namespaces/team1/pods";

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
    faults: VecDeque<(String, String, u16, String)>,
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

impl Server {
    fn answer(&mut self, call: Call) -> (u16, Value) {
        self.calls.push(call.clone());
        let Call { method, path, body } = call;
        let fault = self.faults.iter().position(|(m, p, ..)| *m == method && *p == path);
        if let Some((_, _, code, message)) = fault.and_then(|at| self.faults.remove(at)) {
            let reason = match code {
                403 => "Forbidden",
                409 => "Conflict",
                422 => "Invalid",
                _ => "InternalError",
            };
            return (code, failure(code, reason, &message));
        }
        let (path, status) = match path.strip_suffix("/status") {
            Some(path) => (path.to_owned(), true),
            None => (path, false),
        };
        if method == "GET" && path.ends_with("/pods") {
            let items: Vec<_> =
                self.objects.iter().filter(|(k, _)| k.starts_with(&path)).map(|(_, v)| v.clone()).collect();
            return (
                200,
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {}, "items": items}),
            );
        }
        if method == "POST" {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            return (201, self.put(&format!("{path}/{name}"), body));
        }
        let Some(mut object) = self.objects.get(&path).cloned() else {
            return (404, failure(404, "NotFound", "not found"));
        };
        if method == "PATCH" {
            let mut change = body;
            if status {
                change = json!({"status": change["status"]});
            } else if change.pointer("/metadata/finalizers") == Some(&json!([]))
                && object.pointer("/metadata/deletionTimestamp").is_some()
            {
                self.objects.remove(&path);
                return (200, object);
            }
            if let Some(metadata) = change.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
            }
            merge(&mut object, &change);
            object = self.put(&path, object);
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

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message})
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Settings { rollout_qps: 0.0, ..Settings::default() })
    }

    /// A namespace that is labelled for the mesh already, and nothing else.
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
        let metrics = Metrics::new("runtime-ctl");
        let (events, _sender) = EventRecorder::new(client.clone(), &metrics, "test", "test");
        let ctx = Context::new(
            client,
            settings,
            "kagenti-system",
            Scope::Cluster,
            &metrics,
            &events,
            Leadership::always(),
            || Timestamp::UNIX_EPOCH,
        );
        let stage = Self { ctx, server };
        stage.namespace(json!({"istio-discovery": "enabled", "istio.io/dataplane-mode": "ambient"}), false);
        stage
    }

    pub(crate) fn namespace(&self, labels: Value, terminating: bool) {
        let mut metadata = json!({"name": NS, "resourceVersion": "1", "labels": labels});
        if terminating {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        self.server.lock().unwrap().put("/api/v1/namespaces/team1", json!({"metadata": metadata}));
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
        let object = self.server.lock().unwrap().put(&format!("{RUNTIMES}/{name}"), object);
        let runtime: AgentRuntime = serde_json::from_value(object).unwrap();
        self.ctx.index.runtimes.upsert(runtime.clone()).unwrap();
        runtime
    }

    /// Changes an AgentRuntime as a user would, in the server and the index.
    pub(crate) fn edit_runtime(&self, name: &str, change: Value) {
        let mut object = self.object(&format!("{RUNTIMES}/{name}"));
        merge(&mut object, &change);
        let object = self.server.lock().unwrap().put(&format!("{RUNTIMES}/{name}"), object);
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
        self.ctx.set_sandbox_version(Some(SandboxVersion::V1Alpha1));
        let mut object = json!({
            "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox",
            "metadata": {"namespace": NS, "name": name, "uid": format!("uid-{name}")},
            "spec": {"replicas": 1, "podTemplate": {"spec": {"containers": []}}},
        });
        merge(&mut object, &change);
        self.workload(WorkloadKind::Sandbox, &format!("{SANDBOXES}/{name}"), object);
    }

    fn workload(&self, kind: WorkloadKind, path: &str, object: Value) {
        let object = self.server.lock().unwrap().put(path, object);
        self.index_workload(kind, object);
    }

    pub(crate) fn index_workload(&self, kind: WorkloadKind, object: Value) {
        let view: WorkloadView = serde_json::from_value(object).unwrap();
        let workload = Workload::from_view(kind, SandboxVersion::V1Alpha1, view).unwrap();
        self.ctx.index.workloads.upsert(workload).unwrap();
    }

    /// Changes an object in the server only: the index does not know yet.
    pub(crate) fn change_unseen(&self, path: &str, change: Value) {
        let mut server = self.server.lock().unwrap();
        let mut object = server.objects[path].clone();
        merge(&mut object, &change);
        server.put(path, object);
    }

    /// Puts any object into the server.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.server.lock().unwrap().put(path, object);
    }

    /// The index does not know the workload (any more).
    pub(crate) fn forget_workload(&self, kind: WorkloadKind, name: &str) {
        let key = WorkloadKey { namespace: NS.into(), kind, name: name.into() };
        self.ctx.index.workloads.remove(&key);
    }

    pub(crate) fn remove_unseen(&self, path: &str) {
        self.server.lock().unwrap().objects.remove(path);
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

    /// The next request of this kind is refused.
    pub(crate) fn fail(&self, method: &str, path: &str, code: u16, message: &str) {
        self.server.lock().unwrap().faults.push_back((method.into(), path.into(), code, message.into()));
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.server.lock().unwrap().objects[path].clone()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.server.lock().unwrap().objects.contains_key(path)
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, name: &str) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.server.lock().unwrap().calls.clear();
        let result = reconcile::pass(&self.ctx, &Key::Runtime(Self::key(name))).await;
        (self.server.lock().unwrap().calls.clone(), result)
    }

    /// One pass that must succeed.
    pub(crate) async fn calls(&self, name: &str) -> Vec<Call> {
        let (calls, result) = self.pass(name).await;
        result.expect("the pass succeeds");
        calls
    }

    /// Reason of a condition of an AgentRuntime in the server, with its status.
    pub(crate) fn condition(&self, name: &str, type_: &str) -> Option<(String, String)> {
        let object = self.object(&format!("{RUNTIMES}/{name}"));
        let text = |c: &Value, field: &str| c[field].as_str().unwrap().to_owned();
        object["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|c| c["type"] == type_)
            .map(|c| (text(c, "status"), text(c, "reason")))
    }

    /// Message of a condition.
    pub(crate) fn message(&self, name: &str, type_: &str) -> String {
        let object = self.object(&format!("{RUNTIMES}/{name}"));
        let found =
            object["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == type_).cloned();
        found.unwrap()["message"].as_str().unwrap().to_owned()
    }
}

/// `METHOD path` of each call.
pub(crate) fn lines(calls: &[Call]) -> Vec<String> {
    calls.iter().map(|call| format!("{} {}", call.method, call.path)).collect()
}

pub(crate) fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}
