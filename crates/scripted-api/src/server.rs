//! The server: a map of objects.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use controller_kit::{
    controller::Handles, events::EventRecorder, lease::Leadership, metrics::Metrics, readiness::Readiness,
    scope::Scope,
};
use http::{Method, StatusCode};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    path::Target,
    transport::{Call, Calls, Reply, client, refusal},
};

/// A refusal that is given instead of an answer, once.
#[derive(Debug)]
struct Fault {
    method: String,
    path: String,
    code: u16,
    message: String,
}

#[derive(Debug, Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    faults: VecDeque<Fault>,
    /// Events, which are no calls of a pass.
    events: Vec<Value>,
    version: u64,
}

/// An API server and a client of it.
#[derive(Clone)]
pub struct ScriptedApi {
    client: Client,
    calls: Calls,
    state: Arc<Mutex<State>>,
}

impl Default for ScriptedApi {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedApi {
    /// Starts one without objects. Must run in a tokio runtime.
    pub fn new() -> Self {
        let state = Arc::new(Mutex::new(State { version: 100, ..State::default() }));
        let answering = state.clone();
        let (client, calls) = client(move |call| answering.lock().unwrap().answer(call));
        Self { client, calls, state }
    }

    /// What a process gives to its controller: cluster-wide, leading, with the clock at the epoch.
    pub fn handles(&self, component: &'static str) -> Handles {
        let metrics = Metrics::new(component);
        let (events, sender) = EventRecorder::new(self.client.clone(), &metrics, "test", "test");
        tokio::spawn(sender.run(CancellationToken::new()));
        Handles {
            client: self.client.clone(),
            operator_namespace: "kagenti-system".to_owned(),
            scope: Scope::Cluster,
            metrics,
            readiness: Readiness::new(),
            events,
            leadership: Leadership::always(),
            clock: || Timestamp::UNIX_EPOCH,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts an object at its path, as it is but for a new resourceVersion, and a uid if it has none.
    pub fn put(&self, path: &str, object: Value) -> Value {
        self.state().put(path, object)
    }

    /// Changes an object as somebody else would (a merge patch); indexes do not know yet.
    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]
    pub fn change_unseen(&self, path: &str, change: Value) -> Value {
        let mut state = self.state();
        let mut object = state.objects[path].clone();
        merge(&mut object, &change);
        state.put(path, object)
    }

    /// Removes an object as somebody else would; indexes do not know yet.
    pub fn remove_unseen(&self, path: &str) {
        self.state().objects.remove(path);
    }

    /// An object that must be there.
    pub fn object(&self, path: &str) -> Value {
        self.state().objects[path].clone()
    }

    /// True when there is an object at the path.
    pub fn has(&self, path: &str) -> bool {
        self.state().objects.contains_key(path)
    }

    /// All objects whose path begins with `prefix`, by path.
    pub fn objects(&self, prefix: &str) -> Vec<(String, Value)> {
        let state = self.state();
        let found = state.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        found.map(|(path, object)| (path.clone(), object.clone())).collect()
    }

    /// A condition in the status of an object.
    pub fn condition(&self, path: &str, type_: &str) -> Option<Value> {
        let object = self.object(path);
        object["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|condition| condition["type"] == type_)
            .cloned()
    }

    /// Status and reason of a condition; [`pair`](crate::pair) makes what to compare it with.
    pub fn verdict(&self, path: &str, type_: &str) -> Option<(String, String)> {
        let condition = self.condition(path, type_)?;
        let text = |field: &str| condition[field].as_str().unwrap().to_owned();
        Some((text("status"), text("reason")))
    }

    /// The next request of this kind is refused.
    pub fn fail(&self, method: &str, path: &str, code: u16, message: &str) {
        let fault = Fault { method: method.into(), path: path.into(), code, message: message.into() };
        self.state().faults.push_back(fault);
    }

    /// `Reason Object` of each Event so far.
    pub async fn events(&self) -> Vec<String> {
        // They are sent in the background.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let text =
            |event: &Value, path: &str| event.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let line = |event| format!("{} {}", text(event, "/reason"), text(event, "/regarding/name"));
        self.state().events.iter().map(line).collect()
    }

    /// What was called since the last look, without Events.
    pub fn take_calls(&self) -> Vec<Call> {
        self.calls.take().into_iter().filter(|call| !is_event(call)).collect()
    }

    /// Runs `work`; gives the calls it made and what came out.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> (Vec<Call>, T) {
        self.take_calls();
        let result = work.await;
        (self.take_calls(), result)
    }
}

impl State {
    fn answer(&mut self, call: &Call) -> Reply {
        let Call { method, path, .. } = call;
        if is_event(call) {
            self.events.push(call.body.clone());
            return Reply::Now(StatusCode::CREATED, call.body.clone());
        }
        let fault =
            self.faults.iter().position(|fault| fault.method == method.as_str() && fault.path == *path);
        if let Some(Fault { code, message, .. }) = fault.and_then(|at| self.faults.remove(at)) {
            return refused(code, &message);
        }
        let Some(target) = Target::of(path) else { return refused(404, "no such path") };
        match (method, target.name) {
            (&Method::POST, None) => self.create(&target, &call.body),
            (&Method::GET, None) => self.list(&target),
            (_, None) => refused(405, "not on a collection"),
            (method, Some(name)) => {
                let path = target.object(name);
                match (method.clone(), self.objects.get(&path).cloned()) {
                    (Method::PATCH, None) if call.content_type.contains("apply-patch") => {
                        Reply::Now(StatusCode::CREATED, self.put(&path, call.body.clone()))
                    }
                    (_, None) => refused(404, "not found"),
                    (Method::GET, Some(live)) => live.into(),
                    (Method::PATCH, Some(live)) => self.patch(&path, &live, &target, &call.body),
                    (Method::DELETE, Some(live)) => self.delete(&path, &live, &call.body),
                    _ => refused(405, "not on an object"),
                }
            }
        }
    }

    fn create(&mut self, target: &Target<'_>, body: &Value) -> Reply {
        let Some(name) = body["metadata"]["name"].as_str() else {
            return refused(422, "metadata.name is missing");
        };
        if !(body["kind"].is_string() && body["apiVersion"].is_string()) {
            return refused(400, "kind or apiVersion is missing");
        }
        let path = target.object(name);
        if self.objects.contains_key(&path) {
            return refusal(409, "AlreadyExists", "already exists");
        }
        Reply::Now(StatusCode::CREATED, self.put(&path, body.clone()))
    }

    fn list(&self, target: &Target<'_>) -> Reply {
        let items = self.objects.iter().filter(|(path, _)| target.holds(path));
        let items: Vec<_> = items.map(|(_, object)| object.clone()).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).into()
    }

    fn patch(&mut self, path: &str, live: &Value, target: &Target<'_>, body: &Value) -> Reply {
        let mut object = live.clone();
        if differs(&body["metadata"], live) {
            return refused(409, "the object has been modified");
        }
        if body.is_array() {
            let operations: json_patch::Patch = serde_json::from_value(body.clone()).unwrap();
            if let Err(error) = json_patch::patch(&mut object, &operations) {
                return refused(422, &error.to_string());
            }
        } else if target.subresource == Some("status") {
            merge(&mut object, &json!({"status": body["status"]}));
        } else {
            merge(&mut object, body);
        }
        if differs(&object["metadata"], live) {
            return refused(409, "the object has been modified");
        }
        let had = !finalizers(live).is_empty();
        if had && finalizers(&object).is_empty() && object["metadata"]["deletionTimestamp"].is_string() {
            self.objects.remove(path);
            return object.into();
        }
        self.put(path, object).into()
    }

    fn delete(&mut self, path: &str, live: &Value, body: &Value) -> Reply {
        if differs(&body["preconditions"], live) {
            return refused(409, "the object has been modified");
        }
        self.objects.remove(path);
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).into()
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        let namespace = Target::of(path).and_then(|target| target.namespace.map(str::to_owned));
        if let Some(namespace) = namespace.filter(|_| metadata["namespace"].is_null()) {
            metadata["namespace"] = json!(namespace);
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn is_event(call: &Call) -> bool {
    call.path.ends_with("/events")
}

/// True when the uid or the resourceVersion that was `wanted` is not the one of the object.
fn differs(wanted: &Value, live: &Value) -> bool {
    ["uid", "resourceVersion"].into_iter().any(|field| {
        let wanted = wanted.get(field).filter(|wanted| !wanted.is_null());
        wanted.is_some_and(|wanted| *wanted != live["metadata"][field])
    })
}

fn finalizers(object: &Value) -> &[Value] {
    object["metadata"]["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn refused(code: u16, message: &str) -> Reply {
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    refusal(code, reason, message)
}

/// Status and reason, as [`ScriptedApi::verdict`] gives them.
pub fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
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
