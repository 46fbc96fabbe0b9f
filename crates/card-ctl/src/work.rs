//! The work: passes over workloads, cards and AgentRuntimes. No pass waits for an agent; fetches have slots of their own.

use std::{sync::Arc, time::Duration};

use controller_kit::controller::{Controller, workers};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    discovery,
    error::Error,
    reconcile,
    sources::Source,
};

/// How often the metrics of fetches, trust bundle and SVID are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(1);

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
    if stop.run_until_cancelled(discovery::own_identity(&ctx)).await.is_none() {
        return;
    }
    tracing::info!(agentcards = ctx.index.cards.len(), "watches have delivered");
    let counting = async {
        loop {
            ctx.count();
            tokio::time::sleep(COUNT_EVERY).await;
        }
    };
    tokio::select! {
        () = workers(&ctx, number, &stop) => {}
        () = counting => {}
    }
}
