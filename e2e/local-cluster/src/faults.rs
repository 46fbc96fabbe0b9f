//! Breaking the control plane on purpose.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde_json::{Value as Json, json};

use crate::cluster::Cluster;
use crate::http;
use crate::supervisor::protocol::{Act, Value};

/// How long the API server may take to come back.
const BACK_WITHIN: Duration = Duration::from_mins(1);

/// One program of the control plane.
#[derive(Debug)]
pub struct ControlledProgram<'a> {
    cluster: &'a Cluster,
    name: &'static str,
}

impl Cluster {
    /// The API server. Stop it only on a cluster of the test's own.
    pub fn api_server(&self) -> ControlledProgram<'_> {
        ControlledProgram { cluster: self, name: "kube-apiserver" }
    }

    /// kube-controller-manager.
    pub fn controller_manager(&self) -> ControlledProgram<'_> {
        ControlledProgram { cluster: self, name: "kube-controller-manager" }
    }

    /// kube-scheduler.
    pub fn scheduler(&self) -> ControlledProgram<'_> {
        ControlledProgram { cluster: self, name: "kube-scheduler" }
    }

    /// The program that plays the kubelets.
    pub fn kubelets(&self) -> ControlledProgram<'_> {
        ControlledProgram { cluster: self, name: "kwok" }
    }

    /// The real node with every container on it: stopping and starting it is a reboot.
    pub fn real_node(&self) -> ControlledProgram<'_> {
        ControlledProgram { cluster: self, name: crate::node::PROGRAM }
    }

    /// Makes etcd forget every revision before the present one and returns that one: a list that is
    /// continued with an older one gets 410. Watches from older revisions may still be served from the API
    /// server's cache; see [`Cluster::forget_history`].
    pub async fn compact_etcd(&self) -> Result<i64> {
        let etcd =
            self.info().etcd.as_ref().context("only a cluster that was started here has an own etcd")?;
        let key = base64::engine::general_purpose::STANDARD.encode("\0");
        let range = etcd_call(etcd, "range", &json!({"key": key, "limit": 1, "keys_only": true})).await?;
        let revision = range
            .pointer("/header/revision")
            .and_then(Json::as_str)
            .and_then(|text| text.parse::<i64>().ok())
            .context("etcd's answer has no revision")?;
        etcd_call(etcd, "compaction", &json!({"revision": revision.to_string(), "physical": true})).await?;
        Ok(revision)
    }

    /// Makes every older resource version invalid: compacts etcd and restarts the API server, whose watch
    /// cache is the other place that remembers. Watches that come back with an old version get 410.
    pub async fn forget_history(&self) -> Result<()> {
        self.api_server().stop().await?;
        self.compact_etcd().await?;
        self.api_server().start().await
    }
}

impl ControlledProgram<'_> {
    /// Ends it and waits until it is gone.
    pub async fn stop(&self) -> Result<()> {
        self.cluster.link().ask(Act::StopProgram { name: self.name.to_owned() }).await.map(drop)
    }

    /// Starts it again; for the API server waits until it is ready.
    pub async fn start(&self) -> Result<()> {
        self.start_with(&[]).await
    }

    /// Like [`ControlledProgram::start`], with more arguments (the last of a repeated flag counts).
    pub async fn start_with(&self, extra: &[String]) -> Result<()> {
        let act = Act::StartProgram { name: self.name.to_owned(), extra: extra.to_vec() };
        match self.cluster.link().ask(act).await? {
            Value::Pid(_) if self.name == "kube-apiserver" => self.cluster.wait_ready(BACK_WITHIN).await,
            Value::Pid(_) => Ok(()),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Stops and starts it, with more arguments.
    pub async fn restart_with(&self, extra: &[String]) -> Result<()> {
        self.stop().await?;
        self.start_with(extra).await
    }
}

async fn etcd_call(etcd: &str, call: &str, body: &Json) -> Result<Json> {
    let (status, answer) = http::post(&format!("{etcd}/v3/kv/{call}"), body.to_string()).await?;
    if !status.is_success() {
        bail!("etcd refused {call} with {status}: {answer}");
    }
    serde_json::from_str(&answer).with_context(|| format!("reading etcd's answer to {call}"))
}
