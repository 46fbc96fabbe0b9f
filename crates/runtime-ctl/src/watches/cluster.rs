//! Watches of cluster-scoped objects: Namespaces and the CSIDriver of SPIRE. Both may be forbidden (runtime §19.4).

use std::{sync::Arc, time::Duration};

use api_types::names::SPIFFE_CSI_DRIVER;
use controller_kit::{
    apply,
    backoff::jitter,
    lean::LeanMeta,
    scope::Scope,
    watch::{Presence, Step, TroubleKind, feed, pages},
};
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::{core::v1::Namespace, storage::v1::CSIDriver};
use kube::{Api, ResourceExt, api::ListParams, runtime::watcher};

use super::{NOW, options};
use crate::{
    context::Context,
    error::{code_of, message_of},
    index::NamespaceFacts,
    sources::Source,
};

/// How often a namespace is read where it cannot be watched (packaging §7).
const POLL: Duration = Duration::from_secs(60);
/// How often something that was forbidden is tried again: a right may be given, but a refusal must not become a loop.
const FORBIDDEN: Duration = Duration::from_secs(600);
/// How often a read that failed otherwise is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The presence of SPIRE concerns everything: one look for all events.
const DEBOUNCE: Duration = Duration::from_secs(1);

type Task = (&'static str, BoxFuture<'static, ()>);

/// One watch of all namespaces, or one poll for each listed one.
pub(super) fn namespaces(ctx: &Arc<Context>) -> Vec<Task> {
    let sources = &ctx.sources;
    match ctx.scope.clone() {
        Scope::Cluster => {
            sources.register(Source::Namespaces, None);
            vec![("watch namespaces", Box::pin(watch_namespaces(ctx.clone())) as BoxFuture<'static, ()>)]
        }
        Scope::Namespaces(names) => names
            .into_iter()
            .map(|name| {
                sources.register(Source::Namespaces, Some(&name));
                ("poll namespace", Box::pin(poll_namespace(ctx.clone(), name)) as BoxFuture<'static, ()>)
            })
            .collect(),
    }
}

async fn watch_namespaces(ctx: Arc<Context>) {
    let api = Api::<LeanMeta<Namespace>>::all(ctx.client.clone());
    let hook = ctx.clone();
    let options = options(&ctx, "namespaces", Source::Namespaces, None).on_trouble(move |trouble| {
        if trouble.kind == TroubleKind::Forbidden {
            hook.index.namespaces.set_unreadable();
        }
        if trouble.kind != TroubleKind::Expired {
            hook.sources.troubled(Source::Namespaces, None, &trouble.text);
        }
    });
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(object, listing) => {
            let name = object.name_any();
            listing.saw(name.clone());
            seen(&ctx, &name, NamespaceFacts::from_meta(object.metadata));
        }
        Step::Remove(object) => ctx.index.namespaces.remove(&object.name_any()),
        Step::Listed(seen) => {
            ctx.index.namespaces.retain(&seen);
            ctx.sources.synced(Source::Namespaces, None);
        }
    })
    .await;
}

fn seen(ctx: &Context, name: &str, facts: NamespaceFacts) {
    if ctx.index.namespaces.upsert(name, facts) == Some(true) {
        ctx.wake_all(Some(name), NOW);
    }
}

async fn poll_namespace(ctx: Arc<Context>, name: String) {
    let ctx = &*ctx;
    let api = Api::<LeanMeta<Namespace>>::all(ctx.client.clone());
    let check = format!("namespace {name}");
    let mut said = false;
    loop {
        let pause = match api.get_opt(&name).await {
            Ok(Some(object)) => {
                seen(ctx, &name, NamespaceFacts::from_meta(object.metadata));
                ctx.watches.readiness.set_ok(&check);
                POLL
            }
            Ok(None) => {
                ctx.index.namespaces.remove(&name);
                ctx.watches.readiness.set_degraded(&check, format!("namespace {name} does not exist"));
                RETRY
            }
            Err(error) if apply::is_forbidden(&error) => {
                ctx.index.namespaces.set_unreadable();
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(
                        namespace = name,
                        "namespace labels cannot be read, so they are not used: {}",
                        message_of(&error)
                    );
                    ctx.wake_all(Some(&name), NOW);
                }
                FORBIDDEN
            }
            Err(error) => {
                tracing::debug!(namespace = name, "cannot be read: {}", message_of(&error));
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        ctx.sources.synced(Source::Namespaces, Some(&name));
        tokio::time::sleep(jitter(pause, 0.1)).await;
    }
}

/// Watches CSIDriver `csi.spiffe.io`; a missing right counts as "no SPIRE".
pub(super) async fn spire(ctx: Arc<Context>) {
    let api = Api::<LeanMeta<CSIDriver>>::all(ctx.client.clone());
    let selector = format!("metadata.name={SPIFFE_CSI_DRIVER}");
    let mut said = false;
    // A first list tells whether the watch is allowed at all: where it is not, it must not be tried in a loop.
    loop {
        match api.list(&ListParams::default().fields(&selector)).await {
            Ok(_) => break,
            Err(error) if code_of(&error) == 403 => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("CSIDriver {SPIFFE_CSI_DRIVER} counts as absent: {}", message_of(&error));
                }
                ctx.sources.synced(Source::Spire, None);
                tokio::time::sleep(jitter(FORBIDDEN, 0.1)).await;
            }
            Err(error) => {
                tracing::debug!("CSIDriver cannot be read: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
            }
        }
    }
    let options = options(&ctx, "csidrivers", Source::Spire, None);
    let config = watcher::Config::default().fields(&selector);
    let mut events = ctx.watch(api, config, options);
    let mut presence = Presence::default();
    while let Some(event) = events.next().await {
        let Some(present) = presence.after(&event) else { continue };
        if ctx.index.set_spire_driver(present) {
            tracing::info!(present, "CSIDriver {SPIFFE_CSI_DRIVER}");
            ctx.wake_all(None, DEBOUNCE);
        }
        ctx.sources.synced(Source::Spire, None);
    }
}
