//! Agents: Deployments, StatefulSets, and Sandboxes while their CRD is served.

use std::{collections::HashSet, sync::Arc};

use api_types::{enrolment::TargetKind, names::label};
use controller_kit::{
    index::covers,
    scope::dynamic_api_in,
    watch::{self, Step, feed, pages},
    workload::{SANDBOXES, plural, resource},
};
use kube::ResourceExt;

use super::{NOW, options};
use crate::{
    context::Context,
    index::Slot,
    sources::Source,
    workload::{Agent, WorkloadKey, WorkloadView, pod_selector},
};

/// Watches one kind of workload; ends only when it is dropped.
///
/// Only agents are asked for: a workload that leaves the watch is gone or no agent any more, which is the same here.
pub(super) async fn run(
    ctx: Arc<Context>,
    kind: TargetKind,
    version: &'static str,
    namespace: Option<String>,
) {
    let (ctx, namespace, source) = (&*ctx, namespace.as_deref(), Source::Workloads(kind));
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource(kind, version), namespace);
    let config = pages().labels(&format!("{}=agent", label::TYPE));
    let options = options(ctx, plural(kind), source, namespace);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(view, listing) => {
            let key = key_of(kind, &view);
            listing.saw(key.clone());
            let selector = pod_selector(kind, &key.slot.name, view.spec).map(Arc::new);
            let agent = Agent { key, selector };
            if let Ok(before) = ctx.index.workloads.upsert(agent.clone())
                && before.as_deref() != Some(&agent)
            {
                ctx.wake(agent.key.slot, NOW);
            }
        }
        Step::Remove(view) => {
            if let Some(gone) = ctx.index.workloads.remove(&key_of(kind, &view)) {
                ctx.wake(gone.key.slot.clone(), NOW);
            }
        }
        Step::Listed(seen) => {
            gone(ctx, kind, namespace, &seen);
            ctx.sources.synced(source, namespace);
        }
    })
    .await;
}

fn gone(ctx: &Context, kind: TargetKind, namespace: Option<&str>, seen: &HashSet<WorkloadKey>) {
    let listed = |key: &WorkloadKey| key.kind == kind && covers(namespace, &key.slot.namespace);
    for gone in ctx.index.workloads.retain(listed, seen) {
        ctx.wake(gone.key.slot.clone(), NOW);
    }
}

fn key_of(kind: TargetKind, view: &WorkloadView) -> WorkloadKey {
    let slot = Slot { namespace: view.namespace().unwrap_or_default(), name: view.name_any() };
    WorkloadKey { slot, kind }
}

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let found = |version: Option<&'static str>| {
        ctx.set_sandbox_version(version);
        match version {
            Some(version) => tracing::info!(version, "Sandboxes are served"),
            None => gone(&ctx, TargetKind::Sandbox, None, &HashSet::new()),
        }
        ctx.sources.looked_for(Source::Workloads(TargetKind::Sandbox), &scopes, version.is_some());
    };
    let watch = |version, namespace| run(ctx.clone(), TargetKind::Sandbox, version, namespace);
    SANDBOXES.follow(&ctx.client, &scopes, found, watch).await;
}
