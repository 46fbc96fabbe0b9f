//! A small MLflow on loopback: it keeps experiments like the real one, records every request, and gives the answers
//! of a script first. For answers that a real server does not give on demand.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `create`, `get-by-name`, `get`, `restore`, `server-info`.
    pub(crate) operation: String,
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
}

#[derive(Clone, Debug)]
struct Experiment {
    id: String,
    workspace: Option<String>,
    name: String,
    deleted: bool,
    tags: Value,
}

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    script: HashMap<String, VecDeque<(u16, String)>>,
    always: Option<(u16, String)>,
    experiments: Vec<Experiment>,
    next_id: u64,
    workspaces: bool,
}

/// The server; it ends with the test.
pub(crate) struct Mlflow {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

pub(crate) fn error(code: &str, message: &str) -> String {
    json!({"error_code": code, "message": message}).to_string()
}

impl Mlflow {
    pub(crate) async fn start(workspaces: bool) -> Self {
        let inner = Arc::new(Mutex::new(Inner { next_id: 1, workspaces, ..Inner::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, inner }
    }

    /// The next answer to an operation.
    pub(crate) fn script(&self, operation: &str, status: u16, body: impl Into<String>) {
        let mut inner = self.inner.lock().unwrap();
        inner.script.entry(operation.to_owned()).or_default().push_back((status, body.into()));
    }

    /// Every answer from now on, or (`None`) the usual ones again.
    pub(crate) fn always(&self, answer: Option<(u16, &str)>) {
        self.inner.lock().unwrap().always = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// An experiment exists.
    pub(crate) fn put(
        &self,
        id: &str,
        workspace: Option<&str>,
        name: &str,
        deleted: bool,
        namespace: Option<&str>,
    ) {
        let tags = namespace.map_or(json!([]), |ns| json!([{"key": "kagenti.io/namespace", "value": ns}]));
        self.inner.lock().unwrap().experiments.push(Experiment {
            id: id.to_owned(),
            workspace: workspace.map(str::to_owned),
            name: name.to_owned(),
            deleted,
            tags,
        });
    }

    /// The server is set up anew.
    pub(crate) fn lose_everything(&self) {
        self.inner.lock().unwrap().experiments.clear();
    }

    /// What arrived since the last look, but for questions about the server itself.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut inner = self.inner.lock().unwrap();
        std::mem::take(&mut inner.seen).into_iter().filter(|seen| seen.operation != "server-info").collect()
    }

    /// The operations among them.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.operation).collect()
    }

    /// Everything that arrived since the last look.
    pub(crate) fn all_operations(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().unwrap().seen).into_iter().map(|seen| seen.operation).collect()
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let operation = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let headers: HashMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let mut inner = inner.lock().unwrap();
    inner.seen.push(Seen {
        operation: operation.clone(),
        method: method.to_string(),
        uri: uri.to_string(),
        headers: headers.clone(),
        body: body.clone(),
    });
    let scripted = inner.script.get_mut(&operation).and_then(VecDeque::pop_front);
    let (status, text) = scripted
        .or_else(|| inner.always.clone())
        .unwrap_or_else(|| inner.usual(&operation, &uri, &headers, &body));
    let status = StatusCode::from_u16(status).unwrap();
    if status.is_redirection() {
        return (status, [("location", "http://127.0.0.1:1/login")], text).into_response();
    }
    (status, text).into_response()
}

impl Inner {
    fn usual(
        &mut self,
        operation: &str,
        uri: &Uri,
        headers: &HashMap<String, String>,
        body: &Value,
    ) -> (u16, String) {
        if operation == "server-info" {
            return (
                200,
                json!({"store_type": "SqlStore", "workspaces_enabled": self.workspaces}).to_string(),
            );
        }
        let workspace = headers.get("x-mlflow-workspace").cloned();
        if workspace.is_some() && !self.workspaces {
            return (500, error("FEATURE_DISABLED", "Workspaces are not enabled"));
        }
        let found = |wanted: &dyn Fn(&Experiment) -> bool| {
            self.experiments.iter().find(|e| e.workspace == workspace && wanted(e)).cloned()
        };
        let shown = |experiment: Option<Experiment>| match experiment {
            None => (404, error("RESOURCE_DOES_NOT_EXIST", "No Experiment")),
            Some(e) => {
                let stage = if e.deleted { "deleted" } else { "active" };
                let shown =
                    json!({"experiment_id": e.id, "name": e.name, "lifecycle_stage": stage, "tags": e.tags});
                (200, json!({ "experiment": shown }).to_string())
            }
        };
        let query = |key: &str| {
            let text = uri.query().unwrap_or_default();
            let value = text.strip_prefix(&format!("{key}=")).unwrap_or_default();
            value.replace("%2F", "/")
        };
        match operation {
            "create" => {
                let name = body["name"].as_str().unwrap().to_owned();
                if found(&|e| e.name == name).is_some() {
                    return (400, error("RESOURCE_ALREADY_EXISTS", "exists"));
                }
                let id = self.next_id.to_string();
                self.next_id += 1;
                let tags = body["tags"].clone();
                self.experiments.push(Experiment { id: id.clone(), workspace, name, deleted: false, tags });
                (200, json!({ "experiment_id": id }).to_string())
            }
            "get-by-name" => shown(found(&|e| e.name == query("experiment_name"))),
            "get" => shown(found(&|e| e.id == query("experiment_id"))),
            "restore" => {
                let id = body["experiment_id"].as_str().unwrap();
                match self.experiments.iter_mut().find(|e| e.id == id && e.deleted) {
                    Some(experiment) => {
                        experiment.deleted = false;
                        (200, String::new())
                    }
                    None => (404, error("RESOURCE_DOES_NOT_EXIST", "No deleted experiment")),
                }
            }
            _ => (404, "<html>not found</html>".to_owned()),
        }
    }
}
