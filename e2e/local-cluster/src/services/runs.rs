//! What a real MLflow holds, and a real MLflow client that writes to it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::web::{Call, Reply, encoded, items, text};
use crate::run::{run_within, stdout_of};

/// Header that names the workspace.
pub const WORKSPACE: &str = "X-MLFLOW-WORKSPACE";
/// Longest time for one run of the client on a busy machine.
const CLIENT_LIMIT: Duration = Duration::from_mins(2);

/// What an agent does: it knows nothing but its environment.
const LOG_RUN: &str = "
import mlflow
with mlflow.start_run() as run:
    mlflow.log_param('city', 'Rome')
    mlflow.log_metric('degrees', 24.0)
print('logged', run.info.experiment_id, run.info.run_id)
";

/// A real MLflow, seen past every component.
#[derive(Clone, Debug)]
pub struct Experiments {
    base: String,
    workspace: Option<String>,
}

impl Experiments {
    /// At this base URL.
    pub fn at(base: &str) -> Self {
        Self { base: base.to_owned(), workspace: None }
    }

    /// In a workspace.
    #[must_use]
    pub fn workspace(mut self, name: &str) -> Self {
        self.workspace = Some(name.to_owned());
        self
    }

    fn call(&self, call: Call) -> Call {
        match &self.workspace {
            Some(workspace) => call.header(WORKSPACE, workspace),
            None => call,
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.base);
        self.call(Call::post(url).json(body)).send().await
    }

    /// Makes a workspace.
    pub async fn create_workspace(&self, name: &str) -> Result<()> {
        let url = format!("{}/api/3.0/mlflow/workspaces", self.base);
        Call::post(url).json(&json!({"name": name})).ok().await.map(drop)
    }

    /// Makes an experiment and returns its id.
    pub async fn create(&self, name: &str) -> Result<String> {
        let body = self.post("experiments/create", &json!({"name": name})).await?.ok_or("creating")?;
        Ok(text(&body, "/experiment_id").to_owned())
    }

    /// An experiment by its name, deleted ones too.
    pub async fn by_name(&self, name: &str) -> Result<Option<Value>> {
        let path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=";
        let reply = self.call(Call::get(format!("{}{path}{}", self.base, encoded(name)))).send().await?;
        if reply.status == 404 {
            return Ok(None);
        }
        Ok(reply.ok_or("looking an experiment up")?.get("experiment").cloned())
    }

    /// Names of the active experiments but MLflow's own.
    pub async fn names(&self) -> Result<Vec<String>> {
        let body =
            self.post("experiments/search", &json!({"max_results": 1000})).await?.ok_or("searching")?;
        let names = items(&body, "/experiments").iter().map(|found| text(found, "/name").to_owned());
        let mut names: Vec<String> = names.filter(|name| name != "Default").collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Deletes an experiment.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.post("experiments/delete", &json!({"experiment_id": id})).await?.ok_or("deleting").map(drop)
    }

    /// Renames an experiment.
    pub async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let body = json!({"experiment_id": id, "new_name": name});
        self.post("experiments/update", &body).await?.ok_or("renaming").map(drop)
    }

    /// The runs of an experiment.
    pub async fn runs(&self, id: &str) -> Result<Vec<Value>> {
        let body = self.post("runs/search", &json!({"experiment_ids": [id]})).await?.ok_or("its runs")?;
        Ok(items(&body, "/runs").to_vec())
    }
}

/// Runs the `mlflow` client of this Python with these variables and nothing else but a place to write; returns the ids of experiment and run.
pub async fn log_run(python: &Path, env: &[(String, String)]) -> Result<(String, String)> {
    let home = tempfile::tempdir().context("a directory for the client")?;
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", LOG_RUN]).env_clear().envs(env.iter().cloned());
    command.env("HOME", home.path()).env("MLFLOW_DISABLE_TELEMETRY", "true").current_dir(home.path());
    let output = run_within(command, CLIENT_LIMIT)
        .await
        .with_context(|| format!("running the MLflow client with {}", python.display()))?;
    let said = stdout_of("the MLflow client", &output)?;
    let words = said.lines().find_map(|line| line.strip_prefix("logged "));
    let (experiment, run) = words
        .and_then(|words| words.split_once(' '))
        .with_context(|| format!("the MLflow client does not say its ids: {said}"))?;
    Ok((experiment.to_owned(), run.trim().to_owned()))
}
