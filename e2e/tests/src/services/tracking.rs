//! mlflow-ctl at work on a real or a scripted MLflow.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};

use super::proxy::{Fault, Proxy, Seen};
use super::shared::without_pods;
use crate::json::Json as _;
use crate::suite::{Options, Suite};
use crate::{Ns, exposition, kinds, objects};

/// Package, program, chart and ServiceAccount.
pub const COMPONENT: &str = "mlflow-ctl";
/// The token that the component sends; a file stands for the mounted one.
pub const TOKEN: &str = "a-token-of-the-controller";
/// The annotation of pod templates with the id.
pub const ID: &str = "mlflow.kagenti.io/experiment-id";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How the component finds its server.
#[derive(Clone, Debug)]
pub enum Found {
    /// By this flag.
    Flag(String),
    /// By an MLflow object with this `status.url`.
    Object(String),
    /// Not at all, at first.
    NotYet,
}

/// A running component.
pub struct Tracking {
    suite: Suite,
    component: Component,
    _token: tempfile::TempDir,
}

impl Deref for Tracking {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

impl Tracking {
    /// A component of a test's own on a bare cluster without Pods.
    pub async fn start<S: Into<String>>(found: Found, args: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::start_on(without_pods(), found, args).await
    }

    /// A component on a cluster of these options.
    pub async fn start_on<S: Into<String>>(
        options: Options,
        found: Found,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        Self::start_as(options, found, ComponentOptions::new(COMPONENT).args(args)).await
    }

    /// A component as described, on a cluster of these options.
    pub async fn start_as(options: Options, found: Found, process: ComponentOptions) -> Result<Self> {
        let suite = Suite::own(options).await?;
        let token = tempfile::tempdir().context("a directory for the token")?;
        let file = token.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).context("writing the token")?;
        let mut process =
            process.args([format!("--mlflow-token-file={}", file.display()), "--log-level=debug".to_owned()]);
        match &found {
            Found::Flag(url) => process = process.args([format!("--mlflow-tracking-uri={url}")]),
            Found::Object(url) => {
                let global = suite.global().await?;
                create_mlflow(&global, url).await?;
            }
            Found::NotYet => {}
        }
        let component = Component::start(suite.cluster(), process).await?;
        component.wait_ready(READY_WITHIN).await?;
        Ok(Self { suite, component, _token: token })
    }

    /// The process.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Ends the process and starts it again with more flags (the last of a repeated flag counts).
    pub async fn restart_with(&self, flags: &[&str]) -> Result<()> {
        self.component.terminate().await?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.component.restart_with(&flags).await?;
        self.component.wait_ready(READY_WITHIN).await
    }

    /// Makes a namespace in which the Pods of `weather` can run: with its ServiceAccount.
    pub async fn with_account(&self, name: &str) -> Result<Ns> {
        let ns = self.suite.namespace(name, Value::Null).await?;
        ns.create(objects::named(kinds::SERVICE_ACCOUNT, "weather-sa")).await?;
        Ok(ns)
    }

    /// How many workloads the component counts in this state.
    pub async fn count(&self, state: &str) -> Result<f64> {
        let page = self.component.metrics_text().await?;
        Ok(exposition::sum(&page, "mlflow_ctl_workloads", &[("state", state)]))
    }

    /// Waits until a Deployment carries an experiment's id, and returns it.
    pub async fn until_configured(&self, ns: &Ns, limit: Duration, name: &str) -> Result<Value> {
        ns.until(limit, kinds::DEPLOYMENT, name, "its experiment", |object| {
            object.template_annotation(ID).is_some()
        })
        .await
    }
}

/// Makes the MLflow object as its operator would, available at this URL. May be repeated when only the first half was
/// done.
pub async fn create_mlflow(global: &Ns, url: &str) -> Result<Value> {
    let object = objects::named(kinds::MLFLOW, "mlflow").spec(json!({
        "backendStoreUri": "sqlite:////mlflow/mlflow.db",
        "artifactsDestination": "file:///mlflow/artifacts",
        "serveArtifacts": true,
        "storage": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }));
    if global.find(kinds::MLFLOW, "mlflow").await?.is_none() {
        global.create(object).await?;
    }
    set_available(global, url, true).await
}

/// Sets what the MLflow operator says about its server.
pub async fn set_available(global: &Ns, url: &str, available: bool) -> Result<Value> {
    let status = json!({"status": {
        "url": url,
        "conditions": [{
            "type": "Available",
            "status": if available { "True" } else { "False" },
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    global.patch_status(kinds::MLFLOW, "mlflow", status).await
}

/// A scripted MLflow with workspaces, in which the answer to *create* is up to the test; look-ups find `found`.
pub async fn scripted(
    create: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    found: Value,
) -> Result<Arc<Proxy>> {
    Proxy::scripted(move |seen| Some(answer(seen, || create(seen), &found))).await.map(Arc::new)
}

/// One answer of such a server.
pub fn answer(seen: &Seen, create: impl FnOnce() -> Fault, found: &Value) -> Fault {
    let path = seen.path.split('?').next().unwrap_or_default();
    match path.rsplit_once("/mlflow/").map(|(_, call)| call) {
        Some("server-info") => {
            Fault::json(200, &json!({"store_type": "SqlStore", "workspaces_enabled": true}))
        }
        Some("experiments/create") => create(),
        Some("experiments/get-by-name" | "experiments/get") if found.is_object() => {
            Fault::json(200, &json!({"experiment": found}))
        }
        Some("experiments/restore") => Fault::json(200, &json!({})),
        _ => Fault::json(404, &json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})),
    }
}

/// A scripted MLflow that numbers the experiments and knows them by their ids, for tests with too many for a real one.
pub async fn numbering() -> Result<Arc<Proxy>> {
    let names = Mutex::new(Vec::<String>::new());
    let server = Proxy::scripted(move |seen| {
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = seen.path.split_once("experiment_id=").and_then(|(_, id)| id.parse::<usize>().ok());
        let name = asked.and_then(|id| names.get(id.checked_sub(1)?));
        let found = name.zip(asked).map(|(name, id)| experiment(&id.to_string(), name, "active"));
        let create = || {
            names.push(seen.json().text("/name").to_owned());
            created(&names.len().to_string())
        };
        Some(answer(seen, create, &found.unwrap_or_default()))
    });
    server.await.map(Arc::new)
}

/// What MLflow says about an experiment.
pub fn experiment(id: &str, name: &str, stage: &str) -> Value {
    json!({"experiment_id": id, "name": name, "lifecycle_stage": stage})
}

/// The requests to one endpoint (`experiments/create`).
pub fn calls(server: &Proxy, endpoint: &str) -> Vec<Seen> {
    let of = |seen: &Seen| seen.path.split('?').next().is_some_and(|path| path.ends_with(endpoint));
    server.seen().into_iter().filter(of).collect()
}

/// The answer of a successful *create*.
pub fn created(id: &str) -> Fault {
    Fault::json(200, &json!({"experiment_id": id}))
}

/// An answer of MLflow with an error code.
pub fn refused(status: u16, code: &str) -> Fault {
    Fault::json(status, &json!({"error_code": code, "message": "the test says so"}))
}

/// What of a workload's template the component owns: the four annotations, in the order of their keys.
pub fn marks(workload: &Value) -> Vec<(String, String)> {
    let annotations = workload.template().pointer("/metadata/annotations").and_then(Value::as_object);
    let ours = annotations.into_iter().flatten().filter(|(key, _)| key.starts_with("mlflow.kagenti.io/"));
    ours.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// `resourceNames` of a Role's only rule.
pub fn role_of(role: &Value) -> Vec<&str> {
    role.texts("/rules/0/resourceNames")
}
