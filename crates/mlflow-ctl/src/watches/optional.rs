//! Kinds that a cluster may or may not serve: Sandboxes and MLflow objects (MLflow §2, §4).

use std::{collections::HashSet, sync::Arc};

use controller_kit::{
    process::Process,
    scope::dynamic_api_in,
    watch::{self, Step, TroubleKind, WatchOptions, feed, pages},
};
use kube::ResourceExt;

use super::{NOW, workloads};
use crate::{
    context::Context,
    kinds::{SANDBOXES, WorkloadKind},
    server::{self, Candidate, MlflowView},
    sources::Source,
    workload::WorkloadKey,
};

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let found = |version: Option<&'static str>| {
        ctx.set_sandbox_version(version);
        if let Some(version) = version {
            tracing::info!(version, "{}", SANDBOXES.when_served);
        } else {
            let sandbox = |key: &WorkloadKey| key.kind == WorkloadKind::Sandbox;
            for gone in ctx.index.workloads.retain(sandbox, &HashSet::new()) {
                ctx.wake(gone.key.clone(), NOW);
            }
        }
        ctx.sources.looked_for(Source::Workloads(WorkloadKind::Sandbox), &scopes, version.is_some());
    };
    let watch = |version, namespace| workloads(ctx.clone(), WorkloadKind::Sandbox, version, namespace);
    SANDBOXES.follow(&ctx.client, &scopes, found, watch).await;
}

/// Watches MLflow objects: of the whole cluster, and with a list of namespaces of each of them too, because the CRD has
/// either scope. Where there is none of that scope, or no CRD yet, the watch waits for it.
pub(super) fn servers(process: &Process, ctx: &Arc<Context>) {
    ctx.sources.register(Source::Servers, None);
    let namespaces = ctx.scope.namespaces().iter().cloned().map(Some);
    for namespace in std::iter::once(None).chain(namespaces) {
        process.spawn_endless("watch mlflows", watch_servers(ctx.clone(), namespace));
    }
}

async fn watch_servers(ctx: Arc<Context>, namespace: Option<String>) {
    let (resource, source) = (server::resource(), ctx.settings.mlflow_url_source);
    let api = dynamic_api_in::<MlflowView>(&ctx.client, &resource, namespace.as_deref());
    let options = {
        let (ctx, everywhere) = (ctx.clone(), namespace.is_none());
        let options = WatchOptions::new("mlflows").optional_kind().degrade_when_refused();
        options.on_trouble(move |trouble| {
            if !everywhere || trouble.kind != TroubleKind::Forbidden {
                return;
            }
            if ctx.scope.is_namespaced() {
                // The namespaces may have objects of their own.
                ctx.sources.synced(Source::Servers, None);
            } else {
                ctx.sources.troubled(Source::Servers, None, &trouble.text);
            }
        })
    };
    let changed = || {
        tracing::info!("MLflow servers changed");
        ctx.servers_changed();
    };
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(view, listing) => {
            let (owner, name) = (view.namespace().unwrap_or_default(), view.name_any());
            listing.saw((owner.clone(), name.clone()));
            if ctx.index.servers.put(&owner, &name, Candidate::of(view, source)) {
                changed();
            }
        }
        Step::Listed(seen) => {
            let news = ctx.index.servers.retain(namespace.as_deref(), &seen);
            let first = namespace.is_none() && ctx.sources.synced(Source::Servers, None);
            if news || first {
                changed();
            }
        }
        Step::Remove(view) => {
            if ctx.index.servers.put(&view.namespace().unwrap_or_default(), &view.name_any(), None) {
                changed();
            }
        }
    })
    .await;
}
