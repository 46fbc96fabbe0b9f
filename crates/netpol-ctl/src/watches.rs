//! The watches: they fill the indexes and wake what has to look again (card §15.1).

mod api_server;
mod workloads;

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use api_types::enrolment::TargetKind;
use controller_kit::{
    metrics::Metrics,
    process::Process,
    watch::{self, Key as ObjectKey, StoreGauge, TroubleKind, WatchOptions, Watches},
};
use futures::StreamExt;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};

use crate::{
    card::{Card, CardView},
    context::{Context, Key},
    index::Upsert,
    naming::POLICY_TYPE,
    policy::Policy,
    reconcile::claimant,
    sources::Source,
};

const NOW: Duration = Duration::ZERO;
/// Garbage collection takes the policies of a deleted card; what it leaves is looked at after this time.
const COLLECTION: Duration = Duration::from_secs(2);
/// Objects of one page of a list: while it is read they are in memory whole, and cards may be big.
const PAGE: u32 = 200;

fn pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// What every watch task needs.
#[derive(Clone)]
struct Watcher {
    ctx: Arc<Context>,
    watches: Watches,
    metrics: Metrics,
}

impl Watcher {
    /// Options whose trouble is noted for the passes that depend on the source.
    fn options(&self, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
        let (ctx, namespace) = (self.ctx.clone(), namespace.map(str::to_owned));
        let options = WatchOptions::new(kind).on_trouble(move |trouble| {
            // Everything else passes, and an answer that is still to come must not be taken for none.
            if trouble.kind == TroubleKind::Forbidden {
                ctx.sources.troubled(source, namespace.as_deref(), &trouble.text);
            }
        });
        match source {
            Source::Cards | Source::Policies | Source::Workloads(_) => options,
            // Without it unverified agents reach nothing, and everything else works.
            Source::ApiServer => options.degrade_when_refused(),
        }
    }

    fn gauge(&self, kind: &str) -> StoreGauge {
        StoreGauge::new(&self.metrics, kind)
    }
}

/// The objects a running list has named.
struct Listing<K>(Option<HashSet<K>>);

impl<K: Eq + Hash> Listing<K> {
    fn begin(&mut self) {
        self.0 = Some(HashSet::new());
    }

    fn saw(&mut self, key: K) {
        if let Some(seen) = &mut self.0 {
            seen.insert(key);
        }
    }

    fn end(&mut self) -> HashSet<K> {
        self.0.take().unwrap_or_default()
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    let watcher =
        Watcher { ctx: ctx.clone(), watches: process.watches(), metrics: process.metrics().clone() };
    let spawn = |name: &'static str, task: futures::future::BoxFuture<'static, ()>| {
        let stop = process.stop();
        process.spawn(name, async move {
            stop.run_until_cancelled(task).await;
            Ok(())
        });
    };
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Cards, Source::Policies].into_iter().for_each(scoped);
        TargetKind::ALL.map(Source::Workloads).into_iter().for_each(scoped);
        spawn("watch agentcards", Box::pin(cards(watcher.clone(), namespace.clone())));
        spawn("watch networkpolicies", Box::pin(policies(watcher.clone(), namespace.clone())));
        for kind in [TargetKind::Deployment, TargetKind::StatefulSet] {
            let task = workloads::run(watcher.clone(), kind, "v1", namespace.clone());
            spawn("watch workloads", Box::pin(task));
        }
    }
    spawn("watch sandboxes", Box::pin(workloads::sandboxes(watcher.clone())));
    api_server::start(process, watcher, spawn);
}

async fn cards(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let mut events = watch::guarded_watch_stream::<CardView>(
        &watcher.watches,
        &ctx.client,
        namespace.as_deref(),
        pages(),
        watcher.options("agentcards", Source::Cards, namespace.as_deref()),
        |_| {},
    );
    let mut gauge = watcher.gauge("agentcards");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                let card = read(&ctx, object);
                listing.saw(card.key.clone());
                card_applied(&ctx, card);
            }
            Event::InitDone => {
                for gone in ctx.index.cards.retain(namespace.as_deref(), &listing.end()) {
                    card_gone(&ctx, &gone);
                }
                ctx.sources.synced(Source::Cards, namespace.as_deref());
            }
            Event::Delete(object) => {
                let key = ObjectKey::of(&object);
                if let Some(gone) = ctx.index.cards.remove(&key) {
                    card_gone(&ctx, &gone);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.cards.len());
        }
    }
}

fn read(ctx: &Context, object: DeserializeGuard<CardView>) -> Card {
    match object.0 {
        Ok(view) => Card::from_view(view),
        Err(bad) => {
            let meta = bad.metadata;
            let key = ObjectKey::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            );
            Card::unreadable(meta, ctx.index.cards.get(&key).as_deref())
        }
    }
}

/// Everything of a card that a policy depends on.
fn matters(card: &Card) -> impl PartialEq {
    (card.uid.clone(), card.target.clone(), card.verdict, card.terminating, card.automatic, card.unreadable)
}

fn card_applied(ctx: &Context, card: Card) {
    let new = card.clone();
    let before = match ctx.index.cards.upsert(card) {
        Upsert::Stale | Upsert::Known => return,
        Upsert::Stored(before) => before,
    };
    if new.finalizers.is_some() {
        ctx.queue.add(Key::Card(new.key.clone()), NOW);
    }
    if before.as_deref().is_some_and(|before| matters(before) == matters(&new)) {
        return;
    }
    if let Some(before) = &before {
        let former = before.slot();
        if former != new.slot()
            && let Some(slot) = former
        {
            ctx.wake(slot, NOW);
        }
        if before.uid != new.uid {
            ctx.settle_complaint(&before.uid);
        }
    }
    if new.terminating {
        collected(ctx, &new);
    } else if let Some(slot) = new.slot() {
        ctx.wake(slot, NOW);
    } else {
        look_after_policies(ctx, &new);
    }
}

fn card_gone(ctx: &Context, gone: &Card) {
    ctx.settle_complaint(&gone.uid);
    collected(ctx, gone);
}

/// Other cards of the workload have their say at once; what only this one wanted is left to garbage collection first.
fn collected(ctx: &Context, card: &Card) {
    if let Some(slot) = card.slot()
        && ctx.index.cards.of(&slot).iter().any(|other| !other.terminating && other.key != card.key)
    {
        ctx.wake(slot, NOW);
    }
    look_after_policies(ctx, card);
}

fn look_after_policies(ctx: &Context, card: &Card) {
    for key in ctx.index.policies.of_card(&card.key) {
        ctx.queue.add(Key::Policy(key), COLLECTION);
    }
}

async fn policies(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<NetworkPolicy> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let config = pages().labels(&format!("{}={}", POLICY_TYPE.0, POLICY_TYPE.1));
    let options = watcher.options("networkpolicies", Source::Policies, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge("networkpolicies");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                let policy = Policy::new(object);
                let key = policy.key.clone();
                listing.saw(key.clone());
                if let Upsert::Stored(_) = ctx.index.policies.upsert(policy) {
                    ctx.queue.add(Key::Policy(key), NOW);
                }
            }
            Event::InitDone => {
                for gone in ctx.index.policies.retain(namespace.as_deref(), &listing.end()) {
                    policy_gone(ctx, &gone.key);
                }
                ctx.sources.synced(Source::Policies, namespace.as_deref());
            }
            Event::Delete(object) => {
                let key = ObjectKey::of(&object);
                // An old deletion must not hide what was made since.
                let version = object.metadata.resource_version.unwrap_or_default();
                if ctx.index.policies.remove_until(&key, &version) {
                    policy_gone(ctx, &key);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.policies.len());
        }
    }
}

/// Somebody deleted a policy, or took the label off it.
fn policy_gone(ctx: &Context, key: &ObjectKey) {
    if let Some(slot) = claimant(ctx, key) {
        ctx.wake(slot, NOW);
    }
}
