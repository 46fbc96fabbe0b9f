//! The work: passes over AgentRuntimes and over workloads that were labelled by hand.

use std::{sync::Arc, time::Duration};

use controller_kit::controller::{Controller, workers};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    error::Error,
    reconcile,
    sources::Source,
};

impl Controller<Key, Source> for Context {
    type Error = Error;

    async fn pass(&self, key: &Key) -> Result<Option<Duration>, Error> {
        reconcile::pass(self, key).await
    }
}

/// Works until `stop`; passes that run then are finished.
pub async fn run(ctx: Arc<Context>, number: usize, stop: CancellationToken) {
    if !ctx.watches_settled(&stop).await {
        return;
    }
    tracing::info!(
        agentruntimes = ctx.index.runtimes.len(),
        pods = ctx.index.pods.len(),
        "watches have delivered"
    );
    let everything = || ctx.index.runtimes.keys().into_iter().map(Key::Runtime);
    tokio::select! {
        () = workers(&ctx, number, &stop) => {}
        () = ctx.safety_looks(everything) => {}
    }
}
