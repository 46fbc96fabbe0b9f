//! A context on top of an API server that lives in a map, records every call and fails on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use controller_kit::{
    controller::Handles, events::EventRecorder, lease::Leadership, metrics::Metrics, readiness::Readiness,
    scope::Scope,
};
use http::StatusCode;
use jiff::Timestamp;
use mlflow_ctl::{
    context::Context,
    error::Error,
    grant::{BindingState, RoleState},
    index::Runtime,
    kinds::{self, WorkloadKind},
    metrics::ServerWatch,
    reconcile,
    server::Candidate,
    settings::Settings,
    tracking::Tracking,
    workload::{Workload, WorkloadKey, WorkloadView},
};
use rest_client::BaseUrl;
pub(crate) use scripted_api::pair;
use scripted_api::{Reply, client};
use serde_json::{Value, json};

use crate::mlflow::Mlflow;

pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";
pub(crate) const SANDBOXES: &str = "/apis/agents.x-k8s.io/v1alpha1/namespaces/team1/sandboxes";
pub(crate) const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/team1/roles";
pub(crate) const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/team1/rolebindings";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
pub(crate) const GRANT: &str = "kagenti-mlflow-weather";

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) line: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Api {
    objects: BTreeMap<String, Value>,
    calls: Vec<Call>,
    /// Answers to be given instead, by method and path, each once.
    faults: VecDeque<(String, u16, String)>,
    /// After this many more template patches another controller takes the settings off again.
    reverts: u32,
    version: u64,
}

/// The stage: objects are put on it, passes run, calls are looked at.
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    pub(crate) mlflow: Mlflow,
    api: Arc<Mutex<Api>>,
}

/// Strategic merge of what mlflow-ctl patches: maps by key, `containers` and `env` by name.
fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        let map = target.as_object_mut().unwrap();
        match value {
            Value::Null => drop(map.remove(key)),
            Value::Array(items) if key == "containers" || key == "env" => {
                let list = map.entry(key).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for item in items {
                    let at = list.iter().position(|known| known["name"] == item["name"]);
                    match (at, item["$patch"] == "delete") {
                        (Some(at), true) => drop(list.remove(at)),
                        (None, true) => {}
                        (Some(at), false) => strategic(&mut list[at], item),
                        (None, false) => list.push(item.clone()),
                    }
                }
            }
            value => strategic(map.entry(key).or_insert(Value::Null), value),
        }
    }
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message})
}

impl Api {
    fn answer(&mut self, method: &str, path: &str, content: &str, body: Value) -> (u16, Value) {
        let line = format!("{method} {path}");
        self.calls.push(Call { line: line.clone(), body: body.clone() });
        if let Some(at) = self.faults.iter().position(|(fault, ..)| *fault == line) {
            let (_, code, message) = self.faults.remove(at).unwrap();
            return (code, failure(code, &message));
        }
        let path = path.strip_suffix("/status").unwrap_or(path).to_owned();
        if method == "POST" {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return (409, failure(409, "already exists"));
            }
            return (201, self.put(&path, body));
        }
        let Some(mut object) = self.objects.get(&path).cloned() else {
            return (404, failure(404, "not found"));
        };
        match method {
            "DELETE" => {
                let wanted = body["preconditions"]["uid"].as_str();
                if wanted.is_some_and(|uid| object["metadata"]["uid"] != uid) {
                    return (409, failure(409, "another uid"));
                }
                self.objects.remove(&path);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            "PATCH" => {
                let wanted =
                    body.pointer("/metadata/resourceVersion").or_else(|| body.pointer("/0/value")).cloned();
                if wanted.is_some_and(|version| version != object["metadata"]["resourceVersion"]) {
                    return (409, failure(409, "the object has been modified"));
                }
                let former = object.clone();
                match content {
                    "application/strategic-merge-patch+json" | "application/apply-patch+yaml" => {
                        strategic(&mut object, &body);
                    }
                    "application/merge-patch+json" => json_patch::merge(&mut object, &body),
                    "application/json-patch+json" => {
                        let operations: json_patch::Patch = serde_json::from_value(body).unwrap();
                        json_patch::patch(&mut object, &operations).unwrap();
                    }
                    other => panic!("{other}"),
                }
                let answer = self.put(&path, object);
                if self.reverts > 0 && path.contains("deployments") {
                    self.reverts -= 1;
                    let mut back = former;
                    back["metadata"]["managedFields"] = json!([{"manager": "argocd", "operation": "Update",
                        "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}}]);
                    self.put(&path, back);
                }
                (200, answer)
            }
            _ => (200, object),
        }
    }

    /// The one list that is asked for: workloads of a kind everywhere that are no agents.
    fn list(&mut self, path: &str, selector: &str) -> (u16, Value) {
        assert!(selector.starts_with("kagenti.io%2Ftype%21%3Dagent"), "{selector}");
        self.calls.push(Call { line: format!("GET {path}"), body: Value::Null });
        let (group, kind) = path.rsplit_once('/').unwrap();
        let of_kind = |path: &str| path.starts_with(group) && path.contains(&format!("/{kind}/"));
        let no_agent = |object: &Value| object["metadata"]["labels"]["kagenti.io/type"] != "agent";
        let found = self.objects.iter().filter(|(path, object)| of_kind(path) && no_agent(object));
        let items: Vec<&Value> = found.map(|(_, object)| object).collect();
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

pub(crate) fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey { namespace: "team1".into(), kind, name: name.into() }
}

pub(crate) fn weather() -> WorkloadKey {
    key(WorkloadKind::Deployment, "weather")
}

/// The wall clock of every stage; `old` objects were made long before, `new` ones after.
fn clock() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) const OLD: &str = "2026-05-01T00:00:00Z";
pub(crate) const NEW: &str = "2026-06-01T12:00:00Z";

impl Stage {
    /// A namespace, and a server with workspaces that an MLflow object names.
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), true).await
    }

    pub(crate) async fn with(settings: Settings, workspaces: bool) -> Self {
        Self::on(Mlflow::start(workspaces).await, settings)
    }

    pub(crate) fn on(mlflow: Mlflow, settings: Settings) -> Self {
        let api = Arc::new(Mutex::new(Api { version: 100, ..Api::default() }));
        let answering = api.clone();
        let (client, _calls) = client(move |call| {
            let mut api = answering.lock().unwrap();
            let (code, answer) = match call.query.split_once("labelSelector=") {
                Some((_, selector)) => api.list(&call.path, selector),
                None => api.answer(call.method.as_str(), &call.path, &call.content_type, call.body.clone()),
            };
            Reply::Now(StatusCode::from_u16(code).unwrap(), answer)
        });
        let metrics = Metrics::new("mlflow-ctl");
        let (events, _sender) = EventRecorder::new(client.clone(), &metrics, "test", "test");
        let servers = Arc::new(ServerWatch::default());
        let tracking = Tracking::new(&settings, None, servers.clone()).unwrap();
        let fixed = settings.mlflow_tracking_uri.is_some();
        let handles = Handles {
            client,
            operator_namespace: "kagenti-system".to_owned(),
            scope: Scope::Cluster,
            metrics,
            readiness: Readiness::new(),
            events,
            leadership: Leadership::always(),
            clock,
        };
        let ctx = Context::new(handles, settings, tracking, servers);
        ctx.around.assume_read();
        ctx.around.put_namespace("team1", None, false);
        let stage = Self { ctx, mlflow, api };
        if !fixed {
            stage.offer(true);
        }
        stage
    }

    /// The MLflow object, available or not.
    pub(crate) fn offer(&self, available: bool) {
        let candidate = Candidate {
            namespace: String::new(),
            name: "mlflow".into(),
            created: None,
            preferred: false,
            available,
            url: BaseUrl::parse(&self.mlflow.url).unwrap(),
        };
        self.ctx.index.servers.put("", "mlflow", Some(candidate));
    }

    /// Another life of the process, with the same MLflow and the same objects.
    pub(crate) fn restarted(self) -> Self {
        let next = Self::on(self.mlflow, self.ctx.settings.clone());
        let (objects, version) = {
            let api = self.api.lock().unwrap();
            (api.objects.clone(), api.version)
        };
        next.api.lock().unwrap().version = version;
        for (path, object) in objects {
            next.api.lock().unwrap().objects.insert(path.clone(), object);
            next.see(&path);
        }
        next
    }

    /// Puts an agent into the server and the index.
    pub(crate) fn agent(&self, change: Value) {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "team1", "name": "weather", "uid": "uid-weather", "generation": 1,
                "creationTimestamp": OLD, "labels": {"kagenti.io/type": "agent"}},
            "spec": {"template": {"metadata": {"labels": {"app": "weather"}}, "spec": {
                "serviceAccountName": "weather-sa",
                "containers": [{"name": "agent", "image": "x"}, {"name": "helper", "image": "y"}]}}},
        });
        json_patch::merge(&mut object, &change);
        self.put(&format!("{DEPLOYMENTS}/weather"), object);
    }

    /// Puts an object into the server, and the index sees it.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.put_unseen(path, object);
        self.see(path);
    }

    pub(crate) fn put_unseen(&self, path: &str, object: Value) {
        self.api.lock().unwrap().put(path, object);
    }

    /// Changes an object as a user would.
    pub(crate) fn edit(&self, path: &str, change: Value) {
        self.edit_unseen(path, change);
        self.see(path);
    }

    pub(crate) fn edit_unseen(&self, path: &str, change: Value) {
        let mut object = self.object(path);
        strategic(&mut object, &change);
        self.put_unseen(path, object);
    }

    /// The watch tells of the present state of an object.
    pub(crate) fn see(&self, path: &str) {
        let object = self.object(path);
        if path.contains("/deployments/") || path.contains("/sandboxes/") {
            let kind =
                if path.contains("/sandboxes/") { WorkloadKind::Sandbox } else { WorkloadKind::Deployment };
            let view: WorkloadView = serde_json::from_value(object).unwrap();
            let workload = Workload::from_view(&kinds::resource(kind, "v1alpha1"), kind, view).unwrap();
            self.ctx.index.workloads.upsert(workload).unwrap();
        } else if path.contains("/agentruntimes/") {
            let runtime = Runtime::of(serde_json::from_value(object).unwrap());
            self.ctx.index.runtimes.upsert(runtime).unwrap();
        } else if path.contains("/rolebindings/") {
            let state = BindingState::of(serde_json::from_value(object).unwrap());
            self.ctx.index.grants.bindings.upsert(&weather(), state);
        } else if path.contains("/roles/") {
            let state = RoleState::of(serde_json::from_value(object).unwrap());
            self.ctx.index.grants.roles.upsert(&weather(), state);
        }
    }

    /// Deletes an object, and the index sees it.
    pub(crate) fn delete(&self, path: &str) {
        let object = self.api.lock().unwrap().objects.remove(path).unwrap();
        let uid = object["metadata"]["uid"].as_str().unwrap();
        if path.contains("/rolebindings/") {
            self.ctx.index.grants.bindings.remove(&weather(), uid);
        } else if path.contains("/roles/") {
            self.ctx.index.grants.roles.remove(&weather(), uid);
        } else {
            self.ctx.index.workloads.remove(&weather());
        }
    }

    /// Deletes an object, unseen.
    pub(crate) fn delete_unseen(&self, path: &str) {
        self.api.lock().unwrap().objects.remove(path).unwrap();
    }

    pub(crate) fn runtime(&self) {
        self.put(
            &format!("{RUNTIMES}/rt"),
            json!({
                "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
                "metadata": {"namespace": "team1", "name": "rt", "uid": "uid-rt", "generation": 4},
                "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"}},
            }),
        );
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.api.lock().unwrap().objects[path].clone()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.api.lock().unwrap().objects.contains_key(path)
    }

    /// The next request of this kind is refused.
    pub(crate) fn fail(&self, line: String, code: u16, message: &str) {
        self.api.lock().unwrap().faults.push_back((line, code, message.into()));
    }

    /// The next patches of the Deployment are undone by another controller.
    pub(crate) fn revert(&self, times: u32) {
        self.api.lock().unwrap().reverts = times;
    }

    /// One pass; gives the calls it made to the API server.
    pub(crate) async fn pass(&self, key: &WorkloadKey) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.api.lock().unwrap().calls.clear();
        let result = reconcile::pass(&self.ctx, key).await;
        (self.api.lock().unwrap().calls.clone(), result)
    }

    /// One pass over `weather` that must succeed: `METHOD path` of each call.
    pub(crate) async fn calls(&self) -> Vec<String> {
        let (calls, result) = self.pass(&weather()).await;
        result.expect("the pass succeeds");
        calls.into_iter().map(|call| call.line).collect()
    }

    /// When the pass wants to look again.
    pub(crate) async fn next(&self) -> Option<Duration> {
        self.pass(&weather()).await.1.expect("the pass succeeds")
    }

    /// Status and reason of our condition.
    pub(crate) fn condition(&self) -> Option<(String, String)> {
        let object = self.object(&format!("{RUNTIMES}/rt"));
        let condition = object["status"]["conditions"].as_array()?.first()?.clone();
        assert_eq!(condition["type"], "MLflowConfigured");
        Some((condition["status"].as_str()?.to_owned(), condition["reason"].as_str()?.to_owned()))
    }

    pub(crate) fn message(&self) -> String {
        let object = self.object(&format!("{RUNTIMES}/rt"));
        object["status"]["conditions"][0]["message"].as_str().unwrap().to_owned()
    }

    /// Literal values of our variables in a container of `weather`, in their order.
    pub(crate) fn env(&self, container: usize) -> Vec<(String, Value)> {
        env_of(&self.object(&format!("{DEPLOYMENTS}/weather"))["spec"]["template"], container)
    }

    /// An annotation of the pod template of `weather`.
    pub(crate) fn annotation(&self, name: &str) -> Value {
        let object = self.object(&format!("{DEPLOYMENTS}/weather"));
        object["spec"]["template"]["metadata"]["annotations"][format!("mlflow.kagenti.io/{name}")].clone()
    }
}

pub(crate) fn env_of(template: &Value, container: usize) -> Vec<(String, Value)> {
    let env = template["spec"]["containers"][container]["env"].as_array().cloned().unwrap_or_default();
    env.into_iter()
        .filter(|entry| entry["name"].as_str().unwrap().starts_with("MLFLOW_"))
        .map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["value"].clone()))
        .collect()
}
