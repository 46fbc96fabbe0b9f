//! The workers: they take keys from the queue, one pass each, at most `--concurrency` at a time.

use std::{sync::Arc, time::Duration};

use controller_kit::reconcile::{Failure, guarded};
use kube::runtime::controller::Action;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, error::Error, reconcile, workload::WorkloadKey};

/// How long the first passes wait for watches that neither deliver nor fail.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the queue's metrics are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often a failing MLflow server is thought of.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// When to look again while another replica leads.
const FOLLOWER: Duration = Duration::from_secs(1);

/// Works until `stop`; passes that run then are finished.
pub async fn run(ctx: Arc<Context>, workers: usize, stop: CancellationToken) {
    let settled = async {
        ctx.sources.settled(PATIENCE).await;
        ctx.around.settled(PATIENCE).await;
    };
    if stop.run_until_cancelled(settled).await.is_none() {
        return;
    }
    tracing::info!(agents = ctx.index.workloads.keys(None).len(), "watches have delivered");
    let running = (0..workers.max(1)).map(|_| {
        let (ctx, stop) = (ctx.clone(), stop.clone());
        tokio::spawn(async move { worker(&ctx, &stop).await })
    });
    let counting = async {
        loop {
            ctx.count_queue();
            tokio::time::sleep(COUNT_EVERY).await;
        }
    };
    let ended = tokio::select! {
        ended = futures::future::join_all(running) => ended,
        () = counting => Vec::new(),
        () = recovering(&ctx) => Vec::new(),
        () = probing(&ctx) => Vec::new(),
    };
    for worker in ended {
        if let Err(error) = worker {
            tracing::error!("a worker ended: {error}");
        }
    }
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
        let asks = ctx.servers.open().into_iter().any(|server| ctx.tracking.may_ask(&server));
        if asks && ctx.leadership.is_leader()
            && let Some(key) = ctx.tracks.release_one()
        {
            ctx.wake(key, Duration::ZERO);
        }
    }
}

async fn worker(ctx: &Context, stop: &CancellationToken) {
    loop {
        let next = async {
            ctx.leadership.wait_until_leader().await;
            ctx.queue.next().await
        };
        let Some(key) = stop.run_until_cancelled(next).await else { return };
        if !ctx.leadership.is_leader() {
            ctx.queue.done(&key, Some(FOLLOWER));
            continue;
        }
        let again = once(ctx, &key).await;
        ctx.queue.done(&key, again);
    }
}

/// One guarded pass; says when to look again.
async fn once(ctx: &Context, key: &WorkloadKey) -> Option<Duration> {
    let started = Instant::now();
    let mut next = None;
    let pass = async {
        next = reconcile::pass(ctx, key).await?;
        Ok(next.map_or_else(Action::await_change, Action::requeue))
    };
    let outcome = guarded(&ctx.metrics.reconciles, pass).await;
    ctx.metrics.pass(key.kind, outcome.is_ok(), started.elapsed());
    let Err(failure) = outcome else {
        ctx.backoff.reset(key);
        return next;
    };
    let delay = match &failure {
        Failure::Error(Error::NotLeader) => FOLLOWER,
        Failure::Error(_) | Failure::Panic(_) => ctx.backoff.next(key.clone()),
    };
    let why = controller_kit::apply::message_of(&failure);
    tracing::warn!(workload = %key, retry_in = ?delay, "{why}");
    Some(delay)
}
