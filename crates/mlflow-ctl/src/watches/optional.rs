//! Kinds that a cluster may or may not serve: Sandboxes and MLflow objects (MLflow §2, §4).

use std::{collections::HashSet, time::Duration};

use controller_kit::{
    apply::message_of,
    backoff::jitter,
    watch::{self, TroubleKind, WatchOptions, served_version},
};
use futures::{
    StreamExt,
    future::{BoxFuture, join_all},
};
use kube::{Api, ResourceExt, runtime::watcher::Event};

use super::{NOW, Watcher, pages, workloads};
use crate::{
    context::Context,
    kinds::{SANDBOX_GROUP, SANDBOX_VERSIONS, WorkloadKind},
    server::{self, Candidate, MlflowView},
    sources::Source,
};

const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(watcher: Watcher) {
    const SOURCE: Source = Source::Workloads(WorkloadKind::Sandbox);
    let ctx = &watcher.ctx;
    let scopes = watch::namespaces_of(&ctx.scope);
    // Short waits first: a CRD made a moment ago is not in the discovery yet.
    let mut pause = RETRY;
    loop {
        let version = match served(ctx).await {
            Ok(version) => version,
            Err(error) => {
                tracing::debug!("cannot find out whether Sandboxes are served: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
                continue;
            }
        };
        ctx.set_sandbox_version(version);
        let Some(version) = version else {
            for namespace in &scopes {
                let gone = ctx.index.workloads.retain(WorkloadKind::Sandbox, namespace.as_deref(), &HashSet::new());
                gone.into_iter().for_each(|key| ctx.wake(key, NOW));
                ctx.sources.synced(SOURCE, namespace.as_deref());
            }
            tokio::time::sleep(jitter(pause, 0.1)).await;
            pause = (pause * 2).min(LOOK_AGAIN);
            continue;
        };
        tracing::info!(version, "Sandboxes are served");
        for namespace in &scopes {
            ctx.sources.restart(SOURCE, namespace.as_deref());
        }
        let watching = join_all(
            scopes
                .iter()
                .map(|namespace| workloads(watcher.clone(), WorkloadKind::Sandbox, version, namespace.clone())),
        );
        tokio::select! {
            _ = watching => {}
            () = until_changed(ctx, version) => {}
        }
    }
}

async fn served(ctx: &Context) -> kube::Result<Option<&'static str>> {
    served_version(&ctx.client, SANDBOX_GROUP, WorkloadKind::Sandbox.as_str(), &SANDBOX_VERSIONS).await
}

/// Returns when another version, or none, is served.
async fn until_changed(ctx: &Context, version: &str) {
    loop {
        tokio::time::sleep(jitter(LOOK_AGAIN, 0.1)).await;
        if matches!(served(ctx).await, Ok(now) if now != Some(version)) {
            return;
        }
    }
}

/// The watches of MLflow objects: of the whole cluster, and with a list of namespaces of each of them too, because the
/// CRD has either scope. Where there is none of that scope, or no CRD yet, the watch waits for it.
pub(super) fn servers(watcher: &Watcher) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let namespaces = watcher.ctx.scope.namespaces().iter().cloned().map(Some);
    std::iter::once(None)
        .chain(namespaces)
        .map(|namespace| {
            if namespace.is_none() {
                watcher.ctx.sources.register(Source::Servers, None);
            }
            let task: BoxFuture<'static, ()> = Box::pin(watch_servers(watcher.clone(), namespace));
            ("watch mlflows", task)
        })
        .collect()
}

async fn watch_servers(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let resource = server::resource();
    let api: Api<MlflowView> = match &namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let options = {
        let (ctx, namespace) = (ctx.clone(), namespace.clone());
        // With a list of namespaces one of the two scopes is always missing or refused.
        let lone = !ctx.scope.is_namespaced();
        let options = WatchOptions::new("mlflows").optional_kind().degrade_when_refused();
        options.on_trouble(move |trouble| {
            if namespace.is_some() || trouble.kind == TroubleKind::Expired {
                return;
            }
            if lone {
                ctx.sources.troubled(Source::Servers, None, &trouble.text);
            } else if trouble.kind == TroubleKind::Forbidden {
                ctx.sources.synced(Source::Servers, None);
            }
        })
    };
    let source = ctx.settings.mlflow_url_source;
    let mut events = watch::watch_stream(&watcher.watches, api, pages(), options);
    let mut listing: Option<HashSet<(String, String)>> = None;
    while let Some(event) = events.next().await {
        let changed = match event {
            Event::Init => {
                listing = Some(HashSet::new());
                false
            }
            Event::InitApply(view) | Event::Apply(view) => {
                let (owner, name) = (view.namespace().unwrap_or_default(), view.name_any());
                if let Some(seen) = &mut listing {
                    seen.insert((owner.clone(), name.clone()));
                }
                ctx.index.servers.put(&owner, &name, Candidate::of(view, source))
            }
            Event::InitDone => {
                let seen = listing.take().unwrap_or_default();
                let changed = ctx.index.servers.retain(namespace.as_deref(), &seen);
                let first = namespace.is_none() && ctx.sources.synced(Source::Servers, None);
                changed || first
            }
            Event::Delete(view) => {
                let (owner, name) = (view.namespace().unwrap_or_default(), view.name_any());
                ctx.index.servers.put(&owner, &name, None)
            }
        };
        if changed {
            tracing::info!("MLflow servers changed");
            ctx.servers_changed();
        }
    }
}
