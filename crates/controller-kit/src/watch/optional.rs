//! Kinds whose CRD may be missing, come and go, and be served in several versions.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use kube::Client;

use super::serves;
use crate::{backoff::jitter, message::message_of};

/// How often a kind is looked for, and whether it is still served.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// First wait between looks, and the one after a failed look.
const RETRY: Duration = Duration::from_secs(2);

/// A kind that a cluster may or may not serve.
#[derive(Clone, Copy, Debug)]
pub struct OptionalKind {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Versions this suite can read, preferred first.
    pub versions: &'static [&'static str],
    /// What is so when it is served, for the log: "Sandboxes are served".
    pub when_served: &'static str,
}

impl OptionalKind {
    /// Runs `watch` for each of `namespaces` with the version that is served, for as long as that one is; never ends.
    /// `found` is told what is served before each start, and after each look that found nothing.
    pub async fn follow<W: Future>(
        &self,
        client: &Client,
        namespaces: &[Option<String>],
        mut found: impl FnMut(Option<&'static str>),
        mut watch: impl FnMut(&'static str, Option<String>) -> W,
    ) {
        let mut pause = looks();
        loop {
            let version = match self.version(client).await {
                Ok(version) => version,
                Err(error) => {
                    tracing::debug!("cannot find out whether {}: {}", self.when_served, message_of(&error));
                    tokio::time::sleep(jitter(RETRY, 0.1)).await;
                    continue;
                }
            };
            found(version);
            match version {
                None => tokio::time::sleep(pause()).await,
                Some(version) => {
                    let each = namespaces.iter().cloned().map(|namespace| watch(version, namespace));
                    tokio::select! {
                        _ = join_all(each) => {}
                        () = self.changed(client, version) => {}
                    }
                }
            }
        }
    }

    /// Waits until the kind is served, in any version.
    pub async fn appears(&self, client: &Client) {
        let mut pause = looks();
        loop {
            match self.version(client).await {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("cannot find out whether {}: {}", self.when_served, message_of(&error));
                }
            }
            tokio::time::sleep(pause()).await;
        }
    }

    async fn version(&self, client: &Client) -> kube::Result<Option<&'static str>> {
        for version in self.versions {
            if serves(client, &format!("{}/{version}", self.group), self.kind).await? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Returns when another version, or none, is served.
    async fn changed(&self, client: &Client, version: &'static str) {
        loop {
            tokio::time::sleep(jitter(LOOK_AGAIN, 0.1)).await;
            if matches!(self.version(client).await, Ok(now) if now != Some(version)) {
                return;
            }
        }
    }
}

/// Waits between looks: short ones first, because a CRD made a moment ago is not in the discovery yet.
fn looks() -> impl FnMut() -> Duration {
    let mut pause = RETRY;
    move || {
        let now = pause;
        pause = (pause * 2).min(LOOK_AGAIN);
        jitter(now, 0.1)
    }
}
