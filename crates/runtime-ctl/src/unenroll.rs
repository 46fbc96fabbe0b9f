//! `unenroll`: takes every agent of the scope out, before the release that looks after them goes (packaging §15).
//!
//! AgentRuntimes carry a finalizer that only a running runtime-ctl takes off, so they have to go first. One watch per
//! place tells what is left; each object is deleted once, and nothing is asked again while the others are waited for.

mod roll;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use controller_kit::{
    apply,
    backoff::PerKey,
    cli,
    metrics::Metrics,
    readiness::Readiness,
    scope::{Scope, api_in},
    watch::{WatchOptions, Watches, namespaces_of, pages, watch_stream},
};
use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::{error::message_of, settings::COMPONENT};

pub use roll::{Order, Roll, RuntimeView};

/// How often the log says how many are left.
const PROGRESS: Duration = Duration::from_secs(15);
/// First and longest wait before a refused deletion is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How to take agents out.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Longest wait until every AgentRuntime is gone; then the rest is named and the exit code is 1
    #[arg(long, default_value = "5m", value_parser = cli::duration)]
    pub timeout: Duration,
}

/// What was not reached in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{summary}")]
pub struct Stuck {
    /// One line per object that is left: what holds it, and what to do.
    pub lines: Vec<String>,
    /// How many, and which: short enough for the last words of a container.
    pub summary: String,
}

/// Deletes every AgentRuntime of `scope` and waits until all are gone; how many there were. `say` is told how it goes;
/// `home` is the namespace of runtime-ctl, for what to do about objects that it does not let go.
///
/// # Errors
/// What is left after `timeout`, and why.
pub async fn run(
    client: &Client,
    scope: &Scope,
    home: &str,
    concurrency: usize,
    timeout: Duration,
    say: impl Fn(&str),
) -> Result<usize, Stuck> {
    let watches = Watches { metrics: Metrics::new(COMPONENT.name), readiness: Readiness::new() };
    let places = namespaces_of(scope);
    let trouble: Arc<Mutex<Vec<Option<String>>>> = Arc::new(Mutex::new(vec![None; places.len()]));
    let mut events = stream::select_all(places.iter().enumerate().map(|(place, namespace)| {
        let told = trouble.clone();
        let options = WatchOptions::new("agentruntimes").optional_kind().on_trouble(move |trouble| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(told) = told.get_mut(place) {
                *told = Some(trouble.text.clone());
            }
        });
        let api = api_in::<RuntimeView>(client, namespace.as_deref());
        watch_stream(&watches, api, pages(), options).map(move |event| (place, event)).boxed()
    }));
    let mut roll = Roll::new(places.len());
    let mut orders = VecDeque::new();
    let mut running = FuturesUnordered::new();
    let mut waiting = FuturesUnordered::new();
    let refused = PerKey::new(LAST_RETRY);
    let mut progress = interval_at(Instant::now() + PROGRESS, PROGRESS);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deadline = std::pin::pin!(sleep(timeout));
    while !roll.is_done() {
        while running.len() < concurrency.max(1) {
            let Some(order) = orders.pop_front() else { break };
            running.push(delete(client, order));
        }
        tokio::select! {
            () = &mut deadline => {
                let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(roll.stuck(timeout, home, &trouble));
            }
            Some((place, event)) = events.next() => orders.extend(roll.take(place, event)),
            Some((order, outcome)) = running.next() => match outcome {
                // Gone, or another one of its name: the watch tells.
                Ok(()) => {}
                Err(message) => {
                    let delay = refused.next(order.key.clone(), FIRST_RETRY);
                    roll.refused(&order, message);
                    waiting.push(async move { sleep(delay).await; order });
                }
            },
            Some(order) = waiting.next() => if roll.wants(&order) {
                orders.push_back(order);
            },
            _ = progress.tick() => say(&format!("{} of {} AgentRuntimes are left", roll.left(), roll.seen())),
        }
    }
    Ok(roll.seen())
}

/// Deletes the object that was seen, not a younger one of its name.
async fn delete(client: &Client, order: Order) -> (Order, Result<(), String>) {
    let api = Api::<RuntimeView>::namespaced(client.clone(), &order.key.namespace);
    let this = Preconditions { uid: Some(order.uid.clone()), resource_version: None };
    let outcome = match api.delete(&order.key.name, &DeleteParams::default().preconditions(this)).await {
        Ok(_) => Ok(()),
        Err(error) if apply::is_not_found(&error) || apply::is_conflict(&error) => Ok(()),
        Err(error) => Err(message_of(&error)),
    };
    (order, outcome)
}
