//! A context on top of an API server that lives in a map, records every call and fails on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use api_types::enrolment::TargetKind;
use controller_kit::{
    events::EventRecorder, lease::Leadership, metrics::Metrics, scope::Scope, watch::Key as ObjectKey,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::{Client, client::Body};
use netpol_ctl::{
    card::{Card, CardView},
    context::{Context, Key},
    error::Error,
    index::{Slot, WorkloadKey},
    policy::Policy,
    reconcile,
    settings::Settings,
    sources::Source,
    workload::pod_selector,
};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/team1/networkpolicies";
pub(crate) const CARDS: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentcards";
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

fn version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
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
                _ => "InternalError",
            };
            return failure(code, reason, &message);
        }
        if method == "POST" {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return failure(409, "AlreadyExists", "already exists");
            }
            return (201, self.put(&path, body));
        }
        if method == "GET" && (path.ends_with("/networkpolicies") || path.ends_with("/agentcards")) {
            // Of one namespace, or of all.
            let plural = path.rsplit('/').next().unwrap();
            let scope =
                path.strip_suffix(plural).filter(|scope| scope.contains("/namespaces/")).unwrap_or("/");
            let part = format!("/{plural}/");
            let items = self.objects.iter().filter(|(key, _)| key.contains(&part) && key.starts_with(scope));
            let items: Vec<_> = items.map(|(_, object)| object.clone()).collect();
            return (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}));
        }
        let Some(live) = self.objects.get(&path).cloned() else {
            return failure(404, "NotFound", "not found");
        };
        match method.as_str() {
            "PATCH" => {
                let mut object = live.clone();
                if body.is_array() {
                    let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                    json_patch::patch(&mut object, &patch).unwrap();
                } else {
                    merge(&mut object, &body);
                }
                if version(&object) != version(&live) {
                    return failure(409, "Conflict", "the object has been modified");
                }
                (200, self.put(&path, object))
            }
            "DELETE" => {
                let wanted = body.pointer("/preconditions/resourceVersion").and_then(Value::as_str);
                if wanted.is_some_and(|wanted| Some(wanted) != version(&live)) {
                    return failure(409, "Conflict", "the object has been modified");
                }
                self.objects.remove(&path);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            _ => (200, live),
        }
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(NS);
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    (code, body)
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
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
        let metrics = Metrics::new("netpol-ctl");
        let (events, _sender) = EventRecorder::new(client.clone(), &metrics, "test", "test");
        let settings = Settings {
            apiserver_cidrs: "10.0.0.1".parse().unwrap(),
            enforce_network_policies: true,
            ..settings
        };
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
        Self { ctx, server }
    }

    /// Puts an AgentCard into the server and the index.
    pub(crate) fn card(&self, name: &str, target: (&str, &str), verified: Option<(&str, &str)>) {
        self.card_with(name, target, verified, json!({}));
    }

    pub(crate) fn card_with(
        &self,
        name: &str,
        (kind, workload): (&str, &str),
        verified: Option<(&str, &str)>,
        change: Value,
    ) {
        let mut object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard",
            "metadata": {"namespace": NS, "name": name, "uid": format!("{:08x}-{name}", name.len()),
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": workload}},
        });
        if let Some((status, reason)) = verified {
            object["status"] =
                json!({"conditions": [{"type": "Verified", "status": status, "reason": reason}]});
        }
        merge(&mut object, &change);
        let object = self.server.lock().unwrap().put(&format!("{CARDS}/{name}"), object);
        let view: CardView = serde_json::from_value(object).unwrap();
        self.ctx.index.cards.upsert(Card::from_view(view));
    }

    /// The card is gone, from server and index.
    pub(crate) fn remove_card(&self, name: &str) {
        self.server.lock().unwrap().objects.remove(&format!("{CARDS}/{name}"));
        self.ctx.index.cards.remove(&ObjectKey::new(NS, name));
    }

    /// The index does not know the card (yet).
    pub(crate) fn forget_card(&self, name: &str) {
        self.ctx.index.cards.remove(&ObjectKey::new(NS, name));
    }

    /// An agent, in the index.
    pub(crate) fn workload(&self, kind: TargetKind, name: &str) {
        let spec = json!({"selector": {"matchLabels": {"app": name, "kind": kind.as_str()}},
            "podTemplate": {"metadata": {"labels": {"app": name}}}});
        let selector = pod_selector(kind, name, serde_json::from_value(spec).unwrap());
        self.ctx.index.workloads.upsert(Self::workload_key(kind, name), selector);
    }

    fn workload_key(kind: TargetKind, name: &str) -> WorkloadKey {
        WorkloadKey { slot: Self::slot(name), kind }
    }

    pub(crate) fn remove_workload(&self, kind: TargetKind, name: &str) {
        self.ctx.index.workloads.remove(&Self::workload_key(kind, name));
    }

    pub(crate) fn slot(name: &str) -> Slot {
        Slot { namespace: NS.into(), name: name.into() }
    }

    /// Puts any object into the server.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.server.lock().unwrap().put(path, object)
    }

    /// Puts a policy into the server and the index, as the watch would.
    pub(crate) fn policy(&self, name: &str, mut object: Value) {
        object["apiVersion"] = json!("networking.k8s.io/v1");
        object["kind"] = json!("NetworkPolicy");
        object["metadata"]["name"] = json!(name);
        let object = self.put(&format!("{POLICIES}/{name}"), object);
        self.ctx.index.policies.upsert(Policy::new(serde_json::from_value(object).unwrap()));
    }

    /// A second stage with what the first one's server has: the process after a restart.
    pub(crate) fn restarted(&self) -> Self {
        let again = Self::new();
        for (path, object) in self.server.lock().unwrap().objects.clone() {
            let object = again.put(&path, object);
            if path.starts_with(POLICIES) {
                let policy = Policy::new(serde_json::from_value(object).unwrap());
                if policy.is_marked() {
                    again.ctx.index.policies.upsert(policy);
                }
            } else if path.starts_with(CARDS) {
                let view: CardView = serde_json::from_value(object).unwrap();
                again.ctx.index.cards.upsert(Card::from_view(view));
            }
        }
        again
    }

    /// Changes an object in the server only: the index does not know yet.
    pub(crate) fn change_unseen(&self, path: &str, change: Value) {
        let mut server = self.server.lock().unwrap();
        let mut object = server.objects[path].clone();
        merge(&mut object, &change);
        server.put(path, object);
    }

    pub(crate) fn remove_unseen(&self, path: &str) {
        self.server.lock().unwrap().objects.remove(path);
    }

    /// The next request of this kind is refused.
    pub(crate) fn fail(&self, method: &str, path: &str, code: u16, message: &str) {
        self.server.lock().unwrap().faults.push_back((method.into(), path.into(), code, message.into()));
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.server.lock().unwrap().objects[path].clone()
    }

    /// Names of the policies in the server.
    pub(crate) fn policies(&self) -> Vec<String> {
        let server = self.server.lock().unwrap();
        let names = server.objects.keys().filter_map(|path| path.strip_prefix(POLICIES)?.strip_prefix('/'));
        names.map(str::to_owned).collect()
    }

    /// What was called since the last pass; the list is empty afterwards.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        lines(&std::mem::take(&mut self.server.lock().unwrap().calls))
    }

    /// A watch is at work on its first list.
    pub(crate) fn pending(&self, source: Source) {
        self.ctx.sources.register(source, None);
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, key: Key) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.server.lock().unwrap().calls.clear();
        let result = reconcile::pass(&self.ctx, &key).await;
        (self.server.lock().unwrap().calls.clone(), result)
    }

    /// One pass over the workloads of a name that must succeed; `METHOD path` of each call.
    pub(crate) async fn calls(&self, workload: &str) -> Vec<String> {
        let (calls, result) = self.pass(Key::Slot(Self::slot(workload))).await;
        result.expect("the pass succeeds");
        lines(&calls)
    }

    pub(crate) fn policy_key(name: &str) -> Key {
        Key::Policy(ObjectKey::new(NS, name))
    }
}

/// `METHOD path` of each call.
pub(crate) fn lines(calls: &[Call]) -> Vec<String> {
    calls.iter().map(|call| format!("{} {}", call.method, call.path)).collect()
}

pub(crate) const TRUE: Option<(&str, &str)> = Some(("True", "SignatureVerified"));
pub(crate) const FALSE: Option<(&str, &str)> = Some(("False", "SignatureInvalid"));
pub(crate) const AUDIT: Option<(&str, &str)> = Some(("False", "SignatureInvalidAudit"));
pub(crate) const NONE: [&str; 0] = [];
