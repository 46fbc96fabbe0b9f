//! AgentCards, signed cards in ConfigMaps, AgentRuntimes.

use std::sync::Arc;

use api_types::{AgentCard, AgentRuntime, card::signed};
use controller_kit::watch;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, core::DeserializeGuard, runtime::watcher::Event};

use super::{Listing, NOW, Watcher, pages};
use crate::{
    context::Context,
    index::{Card, ObjectKey, Runtime, documents},
    kinds::WorkloadKind,
    news,
    sources::Source,
};

pub(super) async fn cards(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let options = watcher.options("agentcards", Source::Cards, namespace.as_deref());
    let bad = {
        let ctx = ctx.clone();
        move |bad: watch::Undecodable| {
            ctx.undecodable.insert(ObjectKey::new(bad.namespace.clone(), bad.name.clone()), bad);
        }
    };
    let mut events = watch::guarded_watch_stream::<AgentCard>(
        &watcher.watches,
        &ctx.client,
        namespace.as_deref(),
        pages(),
        options,
        bad,
    );
    let mut gauge = watcher.gauge("agentcards");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                listing.saw(key_of(&object));
                applied(&ctx, object);
            }
            Event::InitDone => {
                for gone in ctx.index.cards.retain(namespace.as_deref(), &listing.end()) {
                    card_gone(&ctx, &gone);
                }
                ctx.sources.synced(Source::Cards, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let Some(gone) = ctx.index.cards.remove(&key_of(&object)) {
                    card_gone(&ctx, &gone);
                }
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.cards.len());
        }
    }
}

fn key_of(object: &DeserializeGuard<AgentCard>) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn applied(ctx: &Context, object: DeserializeGuard<AgentCard>) {
    let key = key_of(&object);
    let DeserializeGuard(Ok(card)) = object else {
        // Nobody works with an old version of it.
        if let Some(gone) = ctx.index.cards.remove(&key) {
            card_gone(ctx, &gone);
        }
        return;
    };
    ctx.undecodable.remove(&key);
    let Some(card) = Card::of(card) else { return };
    let Ok(before) = ctx.index.cards.upsert(card.clone()) else { return };
    news::card(ctx, before.as_deref(), &card);
}

fn card_gone(ctx: &Context, gone: &Arc<Card>) {
    ctx.wake_card(gone.key.clone(), NOW);
    if let Some(target) = &gone.target {
        if ctx.index.cards.targeting(target).is_empty() {
            // Deleting the card is the way to have everything read again.
            ctx.observations.forget(target);
            ctx.unlabelled.forget(target);
        }
        news::wake_target(ctx, target);
    }
    news::wake_namesake(ctx, gone);
}

/// ConfigMaps that a signer, or a user, has labelled.
pub(super) async fn documents(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<ConfigMap> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let config = pages().labels(&format!("{}=true", signed::LABEL));
    let options =
        watcher.options("configmaps", Source::Documents, namespace.as_deref()).check("signed cards");
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge("configmaps");
    let mut listing = Listing(None);
    let wake = |workload: &ObjectKey| {
        for kind in WorkloadKind::ALL {
            let key = crate::kinds::TargetKey::new(&workload.namespace, kind, &workload.name);
            ctx.wake_readers(&key, NOW);
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(map) | Event::Apply(map) => {
                if let Some(workload) = documents::workload_of(&map) {
                    listing.saw(workload.clone());
                    if ctx.index.documents.upsert(workload.clone(), documents::candidates(&map)) {
                        wake(&workload);
                    }
                }
            }
            Event::InitDone => {
                for gone in ctx.index.documents.retain(namespace.as_deref(), &listing.end()) {
                    wake(&gone);
                }
                ctx.sources.synced(Source::Documents, namespace.as_deref());
            }
            Event::Delete(map) => {
                if let Some(workload) = documents::workload_of(&map)
                    && ctx.index.documents.remove(&workload)
                {
                    wake(&workload);
                }
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.documents.len());
        }
    }
}

pub(super) async fn runtimes(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let options = watcher.options("agentruntimes", Source::Runtimes, namespace.as_deref()).optional_kind();
    let mut events = watch::guarded_watch_stream::<AgentRuntime>(
        &watcher.watches,
        &ctx.client,
        namespace.as_deref(),
        pages(),
        options,
        |_| {},
    );
    let mut gauge = watcher.gauge("agentruntimes");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(DeserializeGuard(Ok(object))) | Event::Apply(DeserializeGuard(Ok(object))) => {
                if let Some(runtime) = Runtime::of(object) {
                    listing.saw(runtime.key.clone());
                    runtime_applied(&ctx, runtime);
                }
            }
            Event::InitApply(bad) | Event::Apply(bad) => {
                ctx.index
                    .runtimes
                    .remove(&ObjectKey::new(bad.namespace().unwrap_or_default(), bad.name_any()));
            }
            Event::InitDone => {
                ctx.index.runtimes.retain(namespace.as_deref(), &listing.end());
                ctx.sources.synced(Source::Runtimes, namespace.as_deref());
            }
            Event::Delete(object) => {
                let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
                ctx.index.runtimes.remove(&key);
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.runtimes.len());
        }
    }
}

fn runtime_applied(ctx: &Context, runtime: Runtime) {
    let new = runtime.clone();
    if let Ok(before) = ctx.index.runtimes.upsert(runtime) {
        news::runtime(ctx, before.as_deref(), &new);
    }
}
