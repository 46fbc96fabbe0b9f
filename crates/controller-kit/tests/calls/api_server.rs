//! A scripted API server in memory: a function from request to answer, and what was asked of it.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

/// One request as the script sees it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// What the script answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(u16, Value),
    /// Newline-separated watch events, then the stream stays open.
    Watch(Vec<Value>),
    /// The connection breaks.
    Broken,
    /// Nothing, ever.
    Silence,
}

/// An error as the API server writes it.
pub(crate) fn failure(code: u16, reason: &str) -> Answer {
    let body = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                      "reason": reason, "message": format!("scripted {reason}")});
    Answer::Json(code, body)
}

/// A client whose requests go to `script`. The requests are kept in the list.
pub(crate) fn client(
    script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
) -> (Client, Arc<Mutex<Vec<Call>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (script, log) = (Arc::new(script), Arc::clone(&calls));
    let service = service_fn(move |request: Request<Body>| {
        let (script, log) = (Arc::clone(&script), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            let call = Call {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                content_type: parts
                    .headers
                    .get("content-type")
                    .map(|value| value.to_str().unwrap().to_owned())
                    .unwrap_or_default(),
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            log.lock().unwrap().push(call.clone());
            answer(script(&call)).await
        }
    });
    (Client::new(service, "default"), calls)
}

async fn answer(answer: Answer) -> Result<Response<Body>, BoxError> {
    let respond = |code: u16, body: Vec<u8>| {
        Response::builder().status(StatusCode::from_u16(code).unwrap()).body(Body::from(body)).unwrap()
    };
    match answer {
        Answer::Json(code, body) => Ok(respond(code, serde_json::to_vec(&body)?)),
        Answer::Watch(events) => {
            let mut lines = Vec::new();
            for event in events {
                lines.extend(serde_json::to_vec(&event)?);
                lines.push(b'\n');
            }
            Ok(respond(200, lines))
        }
        Answer::Broken => Err(std::io::Error::other("connection refused").into()),
        Answer::Silence => std::future::pending().await,
    }
}

/// How many of the calls fit.
pub(crate) fn count(calls: &Mutex<Vec<Call>>, fits: impl Fn(&Call) -> bool) -> usize {
    calls.lock().unwrap().iter().filter(|call| fits(call)).count()
}
