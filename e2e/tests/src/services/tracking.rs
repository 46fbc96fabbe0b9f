//! mlflow-ctl at work on a real or a scripted MLflow.
//!
//! Long times are shortened (decision 30): `--mlflow-resync-period` from 1 h to 10 s, by a factor of 360.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};

use super::proxy::{Fault, Proxy, Seen};
use super::shared::bare;
use crate::json::Json as _;
use crate::suite::{Options, Suite};
use crate::{Ns, kinds, objects};

/// Package, program, chart and ServiceAccount.
pub const COMPONENT: &str = "mlflow-ctl";
/// The token that the component sends; a file stands for the mounted one.
pub const TOKEN: &str = "a-token-of-the-controller";
const RESYNC: &str = "--mlflow-resync-period=10s";
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
    /// A component of a test's own on a bare cluster.
    pub async fn start<S: Into<String>>(found: Found, args: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::start_on(bare(), found, args).await
    }

    /// A component on a cluster of these options.
    pub async fn start_on<S: Into<String>>(
        options: Options,
        found: Found,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let suite = Suite::own(options).await?;
        let token = tempfile::tempdir().context("a directory for the token")?;
        let file = token.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).context("writing the token")?;
        let mut process = ComponentOptions::new(COMPONENT).args([
            format!("--mlflow-token-file={}", file.display()),
            "--log-level=debug".to_owned(),
            RESYNC.to_owned(),
        ]);
        match &found {
            Found::Flag(url) => process = process.args([format!("--mlflow-tracking-uri={url}")]),
            Found::Object(url) => {
                let global = suite.global().await?;
                create_mlflow(&global, url).await?;
            }
            Found::NotYet => {}
        }
        let component = Component::start(suite.cluster(), process.args(args)).await?;
        component.wait_ready(READY_WITHIN).await?;
        Ok(Self { suite, component, _token: token })
    }

    /// The process.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Waits until a Deployment carries an experiment's id, and returns it.
    pub async fn until_configured(&self, ns: &Ns, limit: Duration, name: &str) -> Result<Value> {
        ns.until(limit, kinds::DEPLOYMENT, name, "its experiment", |object| {
            object.template_annotation("mlflow.kagenti.io/experiment-id").is_some()
        })
        .await
    }
}

/// Makes the MLflow object as its operator would, available at this URL.
pub async fn create_mlflow(global: &Ns, url: &str) -> Result<Value> {
    let object = objects::named(kinds::MLFLOW, "mlflow").spec(json!({
        "backendStoreUri": "sqlite:////mlflow/mlflow.db",
        "artifactsDestination": "file:///mlflow/artifacts",
        "serveArtifacts": true,
        "storage": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }));
    global.create(object).await?;
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
    let server = Proxy::scripted(move |seen| {
        let path = seen.path.split('?').next().unwrap_or_default();
        Some(match path.rsplit_once("/mlflow/").map(|(_, call)| call) {
            Some("server-info") => {
                Fault::json(200, &json!({"store_type": "SqlStore", "workspaces_enabled": true}))
            }
            Some("experiments/create") => create(seen),
            Some("experiments/get-by-name" | "experiments/get") if found.is_object() => {
                Fault::json(200, &json!({"experiment": found}))
            }
            Some("experiments/restore") => Fault::json(200, &json!({})),
            _ => Fault::json(404, &json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})),
        })
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
