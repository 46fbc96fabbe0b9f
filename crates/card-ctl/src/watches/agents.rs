//! Agent workloads and, where they matter, their Pods.

use std::sync::Arc;

use controller_kit::{
    index::covers,
    lean::LeanMeta,
    scope::{api_in, dynamic_api_in},
    watch::{self, Step, feed, pages},
    workload::{SANDBOXES, plural, resource},
};
use k8s_openapi::api::core::v1::Pod as ApiPod;

use super::{NOW, options};
use crate::{
    context::Context,
    index::Pod,
    kinds::{TargetKey, WorkloadKind},
    news,
    sources::Source,
    workload::{Workload, WorkloadView},
};

/// Watches one kind of workload; ends only when it is dropped.
pub(super) async fn workloads(
    ctx: Arc<Context>,
    kind: WorkloadKind,
    version: &'static str,
    namespace: Option<String>,
) {
    let (ctx, namespace, source) = (&*ctx, namespace.as_deref(), Source::Workloads(kind));
    let resource = resource(kind, version);
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource, namespace);
    let config = pages().labels("kagenti.io/type=agent");
    let options = options(ctx, plural(kind), source, namespace);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(view, listing) => {
            if let Some(workload) = Workload::from_view(&resource, view) {
                listing.saw(workload.key.clone());
                applied(ctx, workload);
            }
        }
        Step::Remove(view) => {
            if let Some(gone) = Workload::from_view(&resource, view) {
                ctx.index.workloads.remove(&gone.key);
                gone_from_watch(ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            let listed =
                |key: &TargetKey| key.workload_kind() == Some(kind) && covers(namespace, &key.namespace);
            for gone in ctx.index.workloads.retain(listed, &seen) {
                gone_from_watch(ctx, &gone);
            }
            ctx.sources.synced(source, namespace);
        }
    })
    .await;
}

fn applied(ctx: &Context, workload: Workload) {
    let new = workload.clone();
    let Ok(before) = ctx.index.workloads.upsert(workload) else { return };
    news::workload(ctx, before.as_deref(), &new);
}

/// Deleted, or it has lost its label; the passes find out which.
fn gone_from_watch(ctx: &Context, gone: &Workload) {
    ctx.observations.expire(&gone.key);
    ctx.wake_workload(gone.key.clone(), NOW);
    ctx.wake_readers(&gone.key, NOW);
}

/// Metadata of Pods.
pub(super) async fn pods(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let api = api_in::<LeanMeta<ApiPod>>(&ctx.client, namespace);
    let config =
        pages().labels("kagenti.io/type=agent").fields("status.phase!=Succeeded,status.phase!=Failed");
    let options = options(ctx, "pods", Source::Pods, namespace);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(object, listing) => {
            if let Some(pod) = Pod::of(object.metadata) {
                listing.saw(pod.key.clone());
                let owner = pod.owner.clone();
                if ctx.index.pods.upsert(pod) {
                    ctx.wake_workload(owner, NOW);
                }
            }
        }
        Step::Remove(object) => {
            if let Some(pod) = Pod::of(object.metadata) {
                ctx.index.pods.remove(&pod.key);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.pods.retain(namespace, &seen) {
                ctx.wake_workload(gone.owner.clone(), NOW);
            }
            ctx.sources.synced(Source::Pods, namespace);
        }
    })
    .await;
}

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let found = |version: Option<&'static str>| {
        if ctx.set_sandbox_version(version) {
            tracing::info!(version, "Sandboxes are served, or not any more");
            ctx.wake_all_cards();
        }
        ctx.sources.looked_for(Source::Workloads(WorkloadKind::Sandbox), &scopes, version.is_some());
    };
    let watch = |version, namespace| workloads(ctx.clone(), WorkloadKind::Sandbox, version, namespace);
    SANDBOXES.follow(&ctx.client, &scopes, found, watch).await;
}
