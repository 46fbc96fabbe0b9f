//! The work: passes over workloads, and looking after servers that fail.

use std::{sync::Arc, time::Duration};

use controller_kit::controller::{Controller, workers};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, error::Error, leftovers, reconcile, sources::Source, workload::WorkloadKey};

/// How long the first passes wait for the inputs of the shared decision.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a failing MLflow server is thought of.
const PROBE_EVERY: Duration = Duration::from_secs(5);

impl Controller<WorkloadKey, Source> for Context {
    type Error = Error;

    async fn pass(&self, key: &WorkloadKey) -> Result<Option<Duration>, Error> {
        let started = Instant::now();
        let result = reconcile::pass(self, key).await;
        self.metrics.pass(key.kind, result.is_ok(), started.elapsed());
        result
    }
}

/// Works until `stop`; passes that run then are finished.
pub async fn run(ctx: Arc<Context>, number: usize, stop: CancellationToken) {
    if !ctx.watches_settled(&stop).await
        || stop.run_until_cancelled(ctx.around.settled(PATIENCE)).await.is_none()
    {
        return;
    }
    tracing::info!(agents = ctx.index.workloads.len(), "watches have delivered");
    tokio::select! {
        () = workers(&ctx, number, &stop) => {}
        () = ctx.safety_looks(|| ctx.index.agents(None)) => {}
        () = recovering(&ctx) => {}
        () = probing(&ctx) => {}
        () = former_agents(&ctx) => {}
    }
}

/// Looks for un-enrolments that nobody saw, once this replica leads.
async fn former_agents(ctx: &Context) {
    ctx.leadership.wait_until_leader().await;
    leftovers::sweep(ctx).await;
    std::future::pending::<()>().await;
}

/// Looks at everything that waits for a server once it answers again.
async fn recovering(ctx: &Context) {
    loop {
        ctx.servers.recovered().await;
        ctx.server_recovered();
    }
}

/// While a server is left alone the workloads wait longer and longer. One of them asks as soon as asking is allowed, so
/// that a server that is back is noticed whatever they wait for.
async fn probing(ctx: &Context) {
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let asks = ctx.servers.open().iter().any(|server| ctx.tracking.may_ask(server));
        if asks
            && ctx.leadership.is_leader()
            && let Some(key) = ctx.tracks.release_one()
        {
            ctx.wake(key, Duration::ZERO);
        }
    }
}
