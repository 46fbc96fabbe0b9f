//! The work: passes over workloads, policies and cards.

use std::{sync::Arc, time::Duration};

use controller_kit::controller::{Controller, workers};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    error::Error,
    reconcile,
    sources::Source,
};

/// How often cards without verdict are complained about, and how old they have to be (card §15.3).
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

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
        agentcards = ctx.index.cards.len(),
        policies = ctx.index.policies.len(),
        "watches have delivered"
    );
    let everything = || ctx.index.slots(None).into_iter().map(Key::Slot);
    tokio::select! {
        () = workers(&ctx, number, &stop) => {}
        () = ctx.safety_looks(everything) => {}
        () = complain(&ctx) => {}
    }
}

/// Says once a minute that enforcement without trust mechanism isolates agents.
async fn complain(ctx: &Context) {
    loop {
        tokio::time::sleep(COMPLAIN_EVERY).await;
        let now = ctx.now();
        let old = |created: jiff::Timestamp| {
            Duration::try_from(now.duration_since(created)).is_ok_and(|age| age >= COMPLAIN_EVERY)
        };
        let silent = ctx.index.cards.count(|card| card.is_unverifiable() && card.created.is_none_or(old));
        if silent > 0 && ctx.leadership.is_leader() {
            tracing::warn!(
                cards = silent,
                "AgentCards without condition Verified: their agents are isolated. Switch a trust mechanism of card-ctl \
                 on (--enable-verified-fetch or --require-a2a-signature), or enforcement off \
                 (--enforce-network-policies=false)"
            );
        }
    }
}
