//! The ConfigMap with the trust bundle: watched, and read again now and then (card §4.2, §8.6).

use std::sync::Arc;

use controller_kit::{apply, backoff::jitter, watch as watching};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    runtime::watcher::{self, Event},
};

use crate::{context::Context, error::message_of, sources::Source, trust::Loaded, watches::options};

/// Namespace of the bundle.
pub fn namespace(ctx: &Context) -> &str {
    let asked = ctx.settings.spire_trust_bundle_configmap_namespace.as_str();
    if asked.is_empty() { &ctx.operator_namespace } else { asked }
}

fn api(ctx: &Context) -> Api<ConfigMap> {
    Api::namespaced(ctx.client.clone(), namespace(ctx))
}

/// Watches the one ConfigMap, by name, so that a Role with `resourceNames` is enough.
pub(crate) async fn watch(ctx: Arc<Context>) {
    let ctx = &*ctx;
    let name = ctx.settings.spire_trust_bundle_configmap.clone();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let options = options(ctx, "configmaps", Source::Bundle, None).check("trust bundle");
    let mut events = watching::watch_stream(&ctx.watches, api(ctx), config, options);
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => seen = false,
            Event::InitApply(map) | Event::Apply(map) => {
                seen = true;
                loaded(ctx, Some(&map));
            }
            Event::InitDone => {
                if !seen {
                    loaded(ctx, None);
                }
                ctx.sources.synced(Source::Bundle, None);
            }
            Event::Delete(_) => loaded(ctx, None),
        }
    }
}

/// Reads it again each interval, should the watch have missed something.
pub(crate) async fn refresh(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(jitter(ctx.settings.spire_trust_bundle_refresh_interval, 0.1)).await;
        match api(&ctx).get(&ctx.settings.spire_trust_bundle_configmap).await {
            Ok(map) => loaded(&ctx, Some(&map)),
            Err(error) if apply::is_not_found(&error) => loaded(&ctx, None),
            Err(error) => {
                ctx.metrics.bundle_failed("refresh_failed");
                tracing::debug!("cannot read the trust bundle: {}", message_of(&error));
            }
        }
    }
}

fn loaded(ctx: &Context, map: Option<&ConfigMap>) {
    let settings = &ctx.settings;
    let (name, key) = (&settings.spire_trust_bundle_configmap, &settings.spire_trust_bundle_configmap_key);
    let before = ctx.trust.known().problem;
    let outcome = match map {
        None => {
            let why = format!("ConfigMap {}/{name} does not exist", namespace(ctx));
            ctx.trust.failed("configmap_not_found", why)
        }
        Some(map) => {
            if let Some(text) = map.data.as_ref().and_then(|data| data.get(key)) {
                ctx.trust.load(text)
            } else {
                let why = format!("ConfigMap {}/{name} has no key {key}", namespace(ctx));
                ctx.trust.failed("empty_bundle", why)
            }
        }
    };
    let problem = ctx.trust.known().problem;
    match outcome {
        Loaded::Unchanged if before.is_none() => return,
        Loaded::Unchanged | Loaded::Changed => tracing::info!("read the trust bundle"),
        Loaded::Failed(label) => {
            ctx.metrics.bundle_failed(label);
            if problem == before {
                return;
            }
            tracing::warn!("the trust bundle cannot be used: {}", problem.unwrap_or_default());
        }
    }
    // The documents at hand are verified again; nothing is fetched for it. The cards wake their workloads.
    ctx.wake_all_cards();
}
