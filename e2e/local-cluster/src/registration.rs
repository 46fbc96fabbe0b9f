//! Registering the admission server with a cluster, by URL: no Service is routed on this level.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use kube::api::DynamicObject;

use crate::cluster::Cluster;
use crate::components;

/// The program that serves admission and knows its own registration.
const WEBHOOK: &str = "authbridge-webhook";

impl Cluster {
    /// Applies what `authbridge-webhook registration print --url <url>` prints: the mutating and validating
    /// configurations. `url` is `https://127.0.0.1:<port>` of a replica or of a [`crate::Relay`]. Without
    /// `ca_file` the webhook publishes its own CA into them (self-managed certificates).
    pub async fn register_webhook(&self, url: &str, ca_file: Option<&Path>) -> Result<Vec<DynamicObject>> {
        let profile = self.options().profile;
        let built = tokio::task::spawn_blocking(move || components::build(&[WEBHOOK], profile));
        let program = built.await.context("building the webhook")??.path(WEBHOOK)?.to_owned();
        let mut command = Command::new(&program);
        command.args(["registration", "print", "--url", url]);
        if let Some(file) = ca_file {
            command.arg("--ca-file").arg(file);
        }
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .with_context(|| format!("starting {}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("`{WEBHOOK} registration print` ended with {}: {said}", output.status);
        }
        self.apply_yaml(&String::from_utf8_lossy(&output.stdout)).await.context("registering the webhook")
    }
}
