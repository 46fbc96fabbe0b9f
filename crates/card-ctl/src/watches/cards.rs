//! AgentCards, signed cards in ConfigMaps, AgentRuntimes.

use std::sync::Arc;

use api_types::{AgentCard, AgentRuntime, card::signed};
use controller_kit::{
    index::covers,
    scope::api_in,
    watch::{self, Step, feed, pages},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DeserializeGuard;

use super::{NOW, options};
use crate::{
    context::Context,
    events,
    index::{Card, ObjectKey, Runtime, documents},
    kinds::WorkloadKind,
    news,
    sources::Source,
};

pub(super) async fn cards(ctx: Arc<Context>, namespace: Option<String>) {
    let namespace = namespace.as_deref();
    let bad = {
        let ctx = ctx.clone();
        move |bad: watch::Undecodable| {
            let key = ObjectKey::new(bad.namespace.clone(), bad.name.clone());
            ctx.undecodable.insert(key.clone(), bad);
            ctx.wake_card(key, NOW);
        }
    };
    let options = options(&ctx, "agentcards", Source::Cards, namespace);
    let events = ctx.watch_guarded::<AgentCard>(namespace, options, bad);
    feed(events, |step| match step {
        Step::Put(object, listing) => {
            listing.saw(ObjectKey::of(&object));
            applied(&ctx, object);
        }
        Step::Remove(object) => {
            let key = ObjectKey::of(&object);
            if ctx.undecodable.remove(&key).is_some() {
                ctx.wake_card(key.clone(), NOW);
                news::wake_named(&ctx, &key);
            }
            if let Some(gone) = ctx.index.cards.remove(&key) {
                card_gone(&ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            let listed = |key: &ObjectKey| covers(namespace, &key.namespace);
            for gone in ctx.index.cards.retain(listed, &seen) {
                card_gone(&ctx, &gone);
            }
            ctx.undecodable.retain(|key| !listed(key) || seen.contains(key));
            ctx.sources.synced(Source::Cards, namespace);
        }
    })
    .await;
}

fn applied(ctx: &Context, object: DeserializeGuard<AgentCard>) {
    let key = ObjectKey::of(&object);
    let DeserializeGuard(Ok(card)) = object else {
        // Nobody works with an old version of it.
        if let Some(gone) = ctx.index.cards.remove(&key) {
            card_gone(ctx, &gone);
        }
        return;
    };
    if ctx.undecodable.remove(&key).is_some() {
        ctx.no_news(&key, events::INVALID_SPEC);
    }
    let Some(card) = Card::of(card) else { return };
    let Ok(before) = ctx.index.cards.upsert(card.clone()) else { return };
    news::card(ctx, before.as_deref(), &card);
}

fn card_gone(ctx: &Context, gone: &Arc<Card>) {
    ctx.wake_card(gone.key.clone(), NOW);
    if let Some(target) = &gone.target {
        if ctx.index.cards.linked(target).is_empty() {
            // Deleting the card is the way to have everything read again.
            ctx.observations.forget(target);
            ctx.unlabelled.forget(target);
        }
        news::wake_target(ctx, target);
    }
    news::wake_namesake(ctx, gone);
}

/// ConfigMaps that a signer, or a user, has labelled.
pub(super) async fn documents(ctx: Arc<Context>, namespace: Option<String>) {
    let namespace = namespace.as_deref();
    let api = api_in::<ConfigMap>(&ctx.client, namespace);
    let config = pages().labels(&format!("{}=true", signed::LABEL));
    let options = options(&ctx, "configmaps", Source::Documents, namespace).check("signed cards");
    let wake = |workload: &ObjectKey| {
        for kind in WorkloadKind::ALL {
            let key = crate::kinds::TargetKey::new(&workload.namespace, kind, &workload.name);
            ctx.wake_readers(&key, NOW);
        }
    };
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(map, listing) => {
            if let Some(workload) = documents::workload_of(&map) {
                listing.saw(workload.clone());
                if ctx.index.documents.upsert(workload.clone(), documents::candidates(&map)) {
                    wake(&workload);
                }
            }
        }
        Step::Remove(map) => {
            if let Some(workload) = documents::workload_of(&map)
                && ctx.index.documents.remove(&workload)
            {
                wake(&workload);
            }
        }
        Step::Listed(seen) => {
            ctx.index.documents.retain(namespace, &seen).iter().for_each(wake);
            ctx.sources.synced(Source::Documents, namespace);
        }
    })
    .await;
}

pub(super) async fn runtimes(ctx: Arc<Context>, namespace: Option<String>) {
    let namespace = namespace.as_deref();
    let options = options(&ctx, "agentruntimes", Source::Runtimes, namespace).optional_kind();
    let events = ctx.watch_guarded::<AgentRuntime>(namespace, options, |_| {});
    feed(events, |step| match step {
        Step::Put(DeserializeGuard(Ok(object)), listing) => {
            if let Some(runtime) = Runtime::of(object) {
                listing.saw(runtime.key.clone());
                runtime_applied(&ctx, runtime);
            }
        }
        Step::Put(gone, _) | Step::Remove(gone) => {
            ctx.index.runtimes.remove(&ObjectKey::of(&gone));
        }
        Step::Listed(seen) => {
            ctx.index.runtimes.retain(|key| covers(namespace, &key.namespace), &seen);
            ctx.sources.synced(Source::Runtimes, namespace);
        }
    })
    .await;
}

fn runtime_applied(ctx: &Context, runtime: Runtime) {
    let new = runtime.clone();
    if let Ok(before) = ctx.index.runtimes.upsert(runtime) {
        news::runtime(ctx, before.as_deref(), &new);
    }
}
