//! The workers: they take keys from the queue, one pass each, at most `--concurrency` at a time.

use std::{sync::Arc, time::Duration};

use controller_kit::{
    apply::message_of,
    backoff::jitter,
    reconcile::{Failure, guarded},
};
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Key},
    error::Error,
    reconcile,
};

/// How long the first passes wait for watches that neither deliver nor fail.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often everything is looked at although its watches told of no change.
const SAFETY_LOOK: Duration = Duration::from_secs(10 * 3600);
/// Over this time the safety looks are spread.
const SAFETY_SPREAD: Duration = Duration::from_secs(600);
/// How often the queue's metrics are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// When to look again while another replica leads.
const FOLLOWER: Duration = Duration::from_secs(1);
/// How often cards without verdict are complained about, and how old they have to be (card §15.3).
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Works until `stop`; passes that run then are finished.
pub async fn run(ctx: Arc<Context>, workers: usize, stop: CancellationToken) {
    if stop.run_until_cancelled(ctx.sources.settled(PATIENCE)).await.is_none() {
        return;
    }
    tracing::info!(
        agentcards = ctx.index.cards.len(),
        policies = ctx.index.policies.len(),
        "watches have delivered"
    );
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
    let safety = async {
        loop {
            tokio::time::sleep(jitter(SAFETY_LOOK, 0.1)).await;
            for slot in ctx.index.cards.slots(None) {
                ctx.wake(slot, SAFETY_SPREAD.mul_f64(fastrand::f64()));
            }
        }
    };
    let ended = tokio::select! {
        ended = futures::future::join_all(running) => ended,
        () = counting => Vec::new(),
        () = safety => Vec::new(),
        () = complain(&ctx) => Vec::new(),
    };
    for worker in ended {
        if let Err(error) = worker {
            tracing::error!("a worker ended: {error}");
        }
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
        let silent = ctx.index.cards.unverifiable(|card| card.created.is_none_or(old));
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
        ctx.succeeded(key);
        return next;
    };
    let delay = match &failure {
        Failure::Error(Error::NotLeader) => FOLLOWER,
        Failure::Error(error) if error.is_refusal() => ctx.refused_backoff.next(key.clone()),
        Failure::Error(_) | Failure::Panic(_) => ctx.backoff.next(key.clone()),
    };
    let text = match &failure {
        Failure::Error(Error::Api { source, .. }) => format!("{failure}: {}", message_of(source)),
        _ => failure.to_string(),
    };
    // A standing error is said once.
    if ctx.last_error.insert(key.clone(), text.clone()).as_ref() == Some(&text) {
        tracing::debug!(object = %key, retry_in = ?delay, "{text}");
    } else {
        tracing::warn!(object = %key, retry_in = ?delay, "{text}");
    }
    Some(delay)
}
