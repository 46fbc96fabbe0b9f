//! A scripted API server: answers by a function, remembers every call.

use axum::http::{Method, StatusCode};
use kube::Client;
pub(crate) use scripted_api::{Call, Reply};
use serde_json::{Value, json};

/// A `Status` answer.
pub(crate) fn refusal(code: u16, reason: &str) -> Reply {
    scripted_api::refusal(code, reason, &format!("scripted {reason}"))
}

/// The calls made so far.
#[derive(Clone, Default)]
pub(crate) struct Calls(scripted_api::Calls);

impl Calls {
    /// Method and path of every call since the last look, sorted where order does not matter.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut lines = scripted_api::lines(&self.0.take());
        lines.sort();
        lines
    }

    /// Every call since the last look, in order.
    pub(crate) fn take_all(&self) -> Vec<Call> {
        self.0.take()
    }
}

/// A client whose requests `answer` serves.
pub(crate) fn api(answer: impl FnMut(&Call) -> Reply + Send + 'static) -> (Client, Calls) {
    let (client, calls) = scripted_api::client(answer);
    (client, Calls(calls))
}

/// A controller ownerReference.
pub(crate) fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// Metadata of an object, as a metadata read returns it.
pub(crate) fn partial(name: &str, metadata: &Value) -> Value {
    let mut all = json!({"name": name, "namespace": "team1", "resourceVersion": "7"});
    for (key, value) in metadata.as_object().unwrap() {
        all[key] = value.clone();
    }
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": all})
}

/// What the API server makes of an applied ConfigMap or created object: the same metadata, stored.
pub(crate) fn stored(call: &Call) -> Reply {
    let mut meta = call.body["metadata"].clone();
    meta["uid"] = json!("stored-uid");
    meta["resourceVersion"] = json!("8");
    let name = meta["name"].as_str().unwrap().to_owned();
    let reply = match call.method {
        Method::POST => json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        _ => partial(&name, &meta),
    };
    let code = if call.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    Reply::Now(code, reply)
}
