//! The watches: they fill the indexes and wake what has to look again (card §15.1).

mod api_server;
mod workloads;

use std::{sync::Arc, time::Duration};

use api_types::enrolment::TargetKind;
use controller_kit::{
    index::covers,
    metrics::Metrics,
    process::Process,
    scope::api_in,
    watch::{self, Key as ObjectKey, Step, TroubleKind, WatchOptions, feed, pages},
    workload::plural,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::DeserializeGuard;

use crate::{
    card::{Card, CardView},
    context::{Context, Key},
    index::Indexes,
    naming::POLICY_TYPE,
    policy::Policy,
    reconcile::claimant,
    sources::Source,
    workload::Agent,
};

const NOW: Duration = Duration::ZERO;
/// Garbage collection takes the policies of a deleted card; what it leaves is looked at after this time.
const COLLECTION: Duration = Duration::from_secs(2);

/// Options of a watch, whose trouble is noted for the passes that depend on the source.
fn options(ctx: &Context, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
    // Everything else passes, and an answer that is still to come must not be taken for none.
    let counts = |trouble| trouble == TroubleKind::Forbidden;
    let options = ctx.sources.note_troubles(WatchOptions::new(kind), source, namespace, counts);
    match source {
        Source::Cards | Source::Policies | Source::Workloads(_) => options,
        // Without it unverified agents reach nothing, and everything else works.
        Source::ApiServer => options.degrade_when_refused(),
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Cards, Source::Policies].into_iter().for_each(scoped);
        TargetKind::ALL.map(Source::Workloads).into_iter().for_each(scoped);
        process.spawn_endless("watch agentcards", cards(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch networkpolicies", policies(ctx.clone(), namespace.clone()));
        for kind in [TargetKind::Deployment, TargetKind::StatefulSet] {
            process
                .spawn_endless("watch workloads", workloads::run(ctx.clone(), kind, "v1", namespace.clone()));
        }
    }
    process.spawn_endless("watch sandboxes", workloads::sandboxes(ctx.clone()));
    api_server::start(process, ctx);
    count(process.metrics(), &ctx.index);
}

/// Has the objects in the indexes counted.
fn count(metrics: &Metrics, index: &Arc<Indexes>) {
    metrics.count_objects("agentcards", index, |index| index.cards.len());
    metrics.count_objects("networkpolicies", index, |index| index.policies.len());
    for kind in TargetKind::ALL {
        let of_kind = move |agent: &Agent| agent.key.kind == kind;
        metrics.count_objects(plural(kind), index, move |index| index.workloads.count(of_kind));
    }
}

async fn cards(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let options = options(ctx, "agentcards", Source::Cards, namespace);
    let events = ctx.watch_guarded::<CardView>(namespace, options, |_| {});
    feed(events, |step| match step {
        Step::Put(object, listing) => {
            let card = read(ctx, object);
            listing.saw(card.key.clone());
            card_applied(ctx, card);
        }
        Step::Remove(object) => {
            if let Some(gone) = ctx.index.cards.remove(&ObjectKey::of(&object)) {
                card_gone(ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.cards.retain(|key| covers(namespace, &key.namespace), &seen) {
                card_gone(ctx, &gone);
            }
            ctx.sources.synced(Source::Cards, namespace);
        }
    })
    .await;
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
    let Ok(before) = ctx.index.cards.upsert(card) else { return };
    if before.as_deref() == Some(&new) {
        return;
    }
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
        && ctx.index.cards.linked(&slot).iter().any(|other| !other.terminating && other.key != card.key)
    {
        ctx.wake(slot, NOW);
    }
    look_after_policies(ctx, card);
}

fn look_after_policies(ctx: &Context, card: &Card) {
    for policy in ctx.index.policies.linked(&card.key) {
        ctx.queue.add(Key::Policy(policy.key.clone()), COLLECTION);
    }
}

async fn policies(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let api = api_in::<NetworkPolicy>(&ctx.client, namespace);
    let config = pages().labels(&format!("{}={}", POLICY_TYPE.0, POLICY_TYPE.1));
    let options = options(ctx, "networkpolicies", Source::Policies, namespace);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(object, listing) => {
            let policy = Policy::new(object);
            let (key, version) = (policy.key.clone(), policy.resource_version.clone());
            listing.saw(key.clone());
            // Own writes are known already.
            if let Ok(before) = ctx.index.policies.upsert(policy)
                && before.is_none_or(|before| before.resource_version != version)
            {
                ctx.queue.add(Key::Policy(key), NOW);
            }
        }
        Step::Remove(object) => {
            let key = ObjectKey::of(&object);
            // An old deletion must not hide what was made since.
            let version = object.metadata.resource_version.unwrap_or_default();
            if ctx.index.policies.remove_until(&key, &version).is_some() {
                policy_gone(ctx, &key);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.policies.retain(|key| covers(namespace, &key.namespace), &seen) {
                policy_gone(ctx, &gone.key);
            }
            ctx.sources.synced(Source::Policies, namespace);
        }
    })
    .await;
}

/// Somebody deleted a policy, or took the label off it.
fn policy_gone(ctx: &Context, key: &ObjectKey) {
    if let Some(slot) = claimant(ctx, key) {
        ctx.wake(slot, NOW);
    }
}
