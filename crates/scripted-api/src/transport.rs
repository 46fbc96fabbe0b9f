//! From a kube client to a function and back.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path, without the query.
    pub path: String,
    /// Query, empty without one.
    pub query: String,
    /// Header `Content-Type`, empty without one.
    pub content_type: String,
    /// Body; null without one.
    pub body: Value,
}

impl Call {
    /// `GET /path`, for comparisons.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// `METHOD path` of each call.
pub fn lines(calls: &[Call]) -> Vec<String> {
    calls.iter().map(Call::line).collect()
}

/// What to answer.
#[derive(Debug)]
pub enum Reply {
    /// This.
    Now(StatusCode, Value),
    /// Nothing, ever.
    Never,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Now(StatusCode::OK, value)
    }
}

/// A refusal as the API server writes it.
pub fn refusal(code: u16, reason: &str, message: &str) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    Reply::Now(StatusCode::from_u16(code).unwrap(), body)
}

/// The calls made since they were last looked at; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// All of them, in order; the list is empty afterwards.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A client whose requests `answer` serves, and what it was asked.
pub fn client(mut answer: impl FnMut(&Call) -> Reply + Send + 'static) -> (Client, Calls) {
    let calls = Calls::default();
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let seen = calls.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let content_type = parts.headers.get(http::header::CONTENT_TYPE);
            let call = Call {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                content_type: content_type
                    .map(|value| value.to_str().unwrap().to_owned())
                    .unwrap_or_default(),
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
