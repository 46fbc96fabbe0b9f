//! Watches of the configuration inputs, each by name or label (runtime §7.4).

use std::{collections::HashSet, sync::Arc, time::Duration};

use api_types::names::label;
use controller_kit::{
    backoff::jitter,
    scope::{Scope, api_in},
    watch::{self, Step, TroubleKind, feed, pages},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::options;
use crate::{
    context::Context,
    index::{Input, Unreadable},
    sources::Source,
};

/// Edits come in bursts: one look for all of them.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// How often the mounted gates file is read while it counts.
const FILE_POLL: Duration = Duration::from_secs(10);

/// Every input and the namespace it is watched in (`None` = all).
pub(super) fn watched(ctx: &Context) -> Vec<(Input, Option<String>)> {
    let operator = ctx.operator_namespace.clone();
    let mut watched: Vec<_> =
        Input::CLUSTER.into_iter().map(|input| (input, Some(operator.clone()))).collect();
    for namespace in watch::namespaces_of(&ctx.scope) {
        watched.extend(Input::NAMESPACED.into_iter().map(|input| (input, namespace.clone())));
    }
    // The templates to copy live in the operator namespace, whatever the scope is.
    if matches!(ctx.scope, Scope::Namespaces(_)) && !ctx.scope.contains(&operator) {
        watched.extend([Input::Runtime, Input::SpiffeHelper].map(|input| (input, Some(operator.clone()))));
    }
    watched
}

/// Watches one input.
pub(super) async fn run(ctx: Arc<Context>, input: Input, namespace: Option<String>) {
    let api = api_in::<ConfigMap>(&ctx.client, namespace.as_deref());
    let config = match input.name() {
        // By field, so that a Role may name the objects (runtime §19.4).
        Some(name) => pages().fields(&format!("metadata.name={name}")),
        None => pages().labels(&format!("{}=true", label::DEFAULTS)),
    };
    let source = Source::Config(input);
    let options = {
        let (ctx, namespace) = (ctx.clone(), namespace.clone());
        options(&ctx, "configmaps", source, namespace.as_deref())
            .check(format!("configmaps {}", input.name().unwrap_or(label::DEFAULTS)))
            .on_trouble(move |trouble| {
                let scope = namespace.as_deref();
                if trouble.kind == TroubleKind::Expired
                    || ctx.sources.is_synced(source, scope.unwrap_or_default())
                {
                    return;
                }
                let why = match trouble.kind {
                    TroubleKind::Forbidden => Unreadable::Forbidden(trouble.text.clone()),
                    _ => Unreadable::Failing(trouble.text.clone()),
                };
                ctx.sources.troubled(source, scope, &trouble.text);
                if ctx.index.configs.set_unreadable(input, scope, Some(why)) {
                    wake(&ctx, input, scope);
                }
            })
    };
    let namespace = namespace.as_deref();
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(map, listing) => {
            let (owner, name) = (map.namespace().unwrap_or_default(), map.name_any());
            listing.saw((owner.clone(), name.clone()));
            if ctx.index.configs.upsert(input, &owner, &name, map.data.unwrap_or_default()) {
                wake(&ctx, input, Some(&owner));
            }
        }
        Step::Remove(map) => {
            let (owner, name) = (map.namespace().unwrap_or_default(), map.name_any());
            if ctx.index.configs.remove(input, &owner, &name) {
                wake(&ctx, input, Some(&owner));
            }
        }
        Step::Listed(seen) => {
            let gone = ctx.index.configs.retain(input, namespace, &seen);
            gone.into_iter().collect::<HashSet<_>>().iter().for_each(|ns| wake(&ctx, input, Some(ns)));
            ctx.sources.synced(source, namespace);
            if ctx.index.configs.set_unreadable(input, namespace, None) {
                wake(&ctx, input, namespace);
            }
        }
    })
    .await;
}

fn wake(ctx: &Context, input: Input, namespace: Option<&str>) {
    let everywhere = Input::CLUSTER.contains(&input)
        // A template that appears may have to be copied.
        || (ctx.scope.is_namespaced() && namespace == Some(&ctx.operator_namespace));
    ctx.wake_all(namespace.filter(|_| !everywhere), DEBOUNCE);
}

/// Reads the mounted gates file, which counts only while the ConfigMap cannot be read (runtime §4).
pub(super) async fn gates_file(ctx: Arc<Context>) {
    loop {
        let text = match tokio::fs::read_to_string(&ctx.settings.feature_gates_path).await {
            Ok(text) => Some(text),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(path = %ctx.settings.feature_gates_path.display(), "cannot be read: {error}");
                }
                None
            }
        };
        if ctx.index.configs.set_gates_file(text) {
            ctx.wake_all(None, DEBOUNCE);
        }
        tokio::time::sleep(jitter(FILE_POLL, 0.1)).await;
    }
}
