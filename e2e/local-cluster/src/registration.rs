//! Registering the admission server with a cluster, by URL: no Service is routed on this level.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::api::DynamicObject;

use crate::cluster::Cluster;
use crate::components;
use crate::run::{run_within, stdout_of};

/// The program that serves admission and knows its own registration.
const WEBHOOK: &str = "authbridge-webhook";
/// How long it may take to print them.
const PRINTS_WITHIN: Duration = Duration::from_mins(1);

impl Cluster {
    /// Applies what `authbridge-webhook registration print --url <url>` prints: the mutating and validating
    /// configurations. `url` is `https://127.0.0.1:<port>` of a replica or of a [`crate::Relay`]. Without
    /// `ca_file` the webhook publishes its own CA into them (self-managed certificates).
    pub async fn register_webhook(&self, url: &str, ca_file: Option<&Path>) -> Result<Vec<DynamicObject>> {
        let profile = self.options().profile;
        let built = tokio::task::spawn_blocking(move || components::build(&[WEBHOOK], profile));
        let program = built.await.context("building the webhook")??.path(WEBHOOK)?.to_owned();
        let mut command = tokio::process::Command::new(&program);
        command.args(["registration", "print", "--url", url]);
        if let Some(file) = ca_file {
            command.arg("--ca-file").arg(file);
        }
        let output = run_within(command, PRINTS_WITHIN)
            .await
            .with_context(|| format!("running {}", program.display()))?;
        let printed = stdout_of(&format!("`{WEBHOOK} registration print`"), &output)?;
        self.apply_yaml(&printed).await.context("registering the webhook")
    }
}
