//! The workers: they take keys from the queue, one pass each, at most `--concurrency` at a time. No pass waits for an
//! agent; fetches have slots of their own.

use std::{sync::Arc, time::Duration};

use controller_kit::reconcile::{Failure, guarded};
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    error::Error,
    reconcile,
};

/// How long the first passes wait for watches that neither deliver nor fail.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the metrics of queues are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// When to look again while another replica leads.
const FOLLOWER: Duration = Duration::from_secs(1);

/// Works until `stop`; passes that run then are finished.
pub async fn run(ctx: Arc<Context>, workers: usize, stop: CancellationToken) {
    if stop.run_until_cancelled(ctx.sources.settled(PATIENCE)).await.is_none() {
        return;
    }
    tracing::info!(agentcards = ctx.index.cards.len(), "watches have delivered");
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
    };
    for worker in ended {
        if let Err(error) = worker {
            tracing::error!("a worker ended: {error}");
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
async fn once(ctx: &Context, key: &Key) -> Option<Duration> {
    let mut next = None;
    let pass = async {
        next = reconcile::pass(ctx, key).await?;
        Ok(next.map_or_else(Action::await_change, Action::requeue))
    };
    let Err(failure) = guarded(&ctx.metrics.reconciles, pass).await else {
        ctx.backoff.reset(key);
        ctx.last_error.remove(key);
        return next;
    };
    let delay = match &failure {
        Failure::Error(Error::NotLeader) => FOLLOWER,
        Failure::Error(_) | Failure::Panic(_) => ctx.backoff.next(key.clone()),
    };
    let text = failure.to_string();
    // A standing error is said once.
    if ctx.last_error.insert(key.clone(), text.clone()).as_ref() == Some(&text) {
        tracing::debug!(object = %key, retry_in = ?delay, "{text}");
    } else {
        tracing::warn!(object = %key, retry_in = ?delay, "{text}");
    }
    Some(delay)
}
