//! A small API server over plain HTTP: leases, reviews, and a collector for traces.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

#[derive(Clone, Default)]
pub(crate) struct Kubernetes {
    state: Arc<Mutex<Objects>>,
}

#[derive(Default)]
struct Objects {
    version: u64,
    leases: HashMap<String, Value>,
    requests: Vec<String>,
    agents: Vec<String>,
    traces: usize,
}

impl Kubernetes {
    /// Starts the server and writes a kubeconfig for it.
    pub(crate) async fn start(self, kubeconfig: &std::path::Path) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        write_kubeconfig(kubeconfig, address);
        self.serve(listener);
        address
    }

    /// Starts the server on a socket that listens already.
    pub(crate) fn serve(self, listener: tokio::net::TcpListener) {
        tokio::spawn(async move {
            let router = Router::new().fallback(handle).with_state(self);
            axum::serve(listener, router).await.unwrap();
        });
    }

    pub(crate) fn lease(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().leases.get(name).cloned()
    }

    pub(crate) fn holder(&self, name: &str) -> Option<String> {
        self.lease(name).map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn set_lease(&self, name: &str, mut lease: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        lease["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.leases.insert(name.to_owned(), lease);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn user_agents(&self) -> Vec<String> {
        self.state.lock().unwrap().agents.clone()
    }

    pub(crate) fn traces(&self) -> usize {
        self.state.lock().unwrap().traces
    }
}

pub(crate) fn write_kubeconfig(path: &std::path::Path, server: SocketAddr) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "c", "user": {"token": "own-token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    std::fs::write(path, config.to_string()).unwrap();
}

async fn handle(
    State(kubernetes): State<Kubernetes>,
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
    body: Bytes,
) -> Response {
    let mut state = kubernetes.state.lock().unwrap();
    state.requests.push(format!("{method} {}", uri.path()));
    if let Some(agent) = headers.get("user-agent") {
        state.agents.push(agent.to_str().unwrap().to_owned());
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = uri.path();
    if path == "/v1/traces" {
        state.traces += 1;
        return StatusCode::OK.into_response();
    }
    let (code, answer) = if path == "/version" {
        let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
                             "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        (200, version)
    } else if let Some((_, name)) = path.split_once("/leases/") {
        lease(&mut state, &method, name, &body)
    } else if path.ends_with("/leases") && method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        (201, store(&mut state, &name, body))
    } else if path.ends_with("/tokenreviews") {
        let known = body["spec"]["token"] == "scraper";
        let user = if known { json!({"username": "prometheus"}) } else { Value::Null };
        (201, json!({"spec": body["spec"], "status": {"authenticated": known, "user": user}}))
    } else if path.ends_with("/subjectaccessreviews") {
        (201, json!({"spec": {}, "status": {"allowed": body["spec"]["user"] == "prometheus"}}))
    } else {
        (404, failure(404, "NotFound"))
    };
    (StatusCode::from_u16(code).unwrap(), axum::Json(answer)).into_response()
}

fn lease(state: &mut Objects, method: &Method, name: &str, body: &Value) -> (u16, Value) {
    let Some(mut current) = state.leases.get(name).cloned() else { return (404, failure(404, "NotFound")) };
    if *method == Method::GET {
        return (200, current);
    }
    if body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
        return (409, failure(409, "Conflict"));
    }
    for (key, value) in body["spec"].as_object().unwrap() {
        current["spec"][key] = value.clone();
    }
    (200, store(state, name, current))
}

fn store(state: &mut Objects, name: &str, mut lease: Value) -> Value {
    state.version += 1;
    lease["metadata"]["resourceVersion"] = state.version.to_string().into();
    state.leases.insert(name.to_owned(), lease.clone());
    lease
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}
