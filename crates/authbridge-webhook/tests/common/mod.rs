//! A scripted API server: answers by a function, remembers every call.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// One request to the API server.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Call {
    /// `GET /path`, for comparisons.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What to answer.
pub(crate) enum Reply {
    /// This, after a moment.
    Now(StatusCode, Value),
    /// Nothing, ever.
    Never,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Now(StatusCode::OK, value)
    }
}

/// A `Status` answer.
pub(crate) fn refusal(code: u16, reason: &str) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": format!("scripted {reason}"), "reason": reason, "code": code});
    Reply::Now(StatusCode::from_u16(code).unwrap(), body)
}

/// The calls made so far.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// Method and path of every call since the last look, sorted where order does not matter.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.0.lock().unwrap().drain(..).map(|call| call.line()).collect();
        lines.sort();
        lines
    }

    /// Every call since the last look, in order.
    pub(crate) fn take_all(&self) -> Vec<Call> {
        self.0.lock().unwrap().drain(..).collect()
    }
}

/// A client whose requests `answer` serves.
pub(crate) fn api(mut answer: impl FnMut(&Call) -> Reply + Send + 'static) -> (Client, Calls) {
    let calls = Calls::default();
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let seen = calls.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let call = Call {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            seen.0.lock().unwrap().push(call.clone());
            match answer(&call) {
                Reply::Now(code, value) => {
                    let body = Body::from(value.to_string().into_bytes());
                    send.send_response(Response::builder().status(code).body(body).unwrap());
                }
                // Kept, so that the caller goes on waiting.
                Reply::Never => std::mem::forget(send),
            }
        }
    });
    (Client::new(service, "default"), calls)
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
