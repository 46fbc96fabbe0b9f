//! Agent workloads and, where they matter, their Pods.

use std::time::Duration;

use controller_kit::{apply, backoff::jitter, lean::LeanMeta, watch};
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::{Api, Client, runtime::watcher::Event};

use super::{Listing, NOW, Watcher, pages};
use crate::{
    context::Context,
    error::message_of,
    index::Pod,
    kinds::{self, SANDBOX_GROUP, SANDBOX_VERSIONS, WorkloadKind},
    news,
    sources::Source,
    workload::{Workload, WorkloadView},
};

const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Watches one kind of workload; ends only when it is dropped.
pub(super) async fn workloads(
    watcher: Watcher,
    kind: WorkloadKind,
    version: &'static str,
    namespace: Option<String>,
) {
    let ctx = &watcher.ctx;
    let resource = kinds::resource(kind, version);
    let api: Api<WorkloadView> = match &namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let plural = match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::Sandbox => "sandboxes",
    };
    let source = Source::Workloads(kind);
    let options = watcher.options(plural, source, namespace.as_deref());
    let config = pages().labels("kagenti.io/type=agent");
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge(plural);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(view) | Event::Apply(view) => {
                if let Some(workload) = Workload::from_view(&resource, view) {
                    listing.saw(workload.key.clone());
                    applied(ctx, workload);
                }
            }
            Event::InitDone => {
                for gone in ctx.index.workloads.retain(kind, namespace.as_deref(), &listing.end()) {
                    gone_from_watch(ctx, &gone);
                }
                ctx.sources.synced(source, namespace.as_deref());
            }
            Event::Delete(view) => {
                if let Some(gone) = Workload::from_view(&resource, view) {
                    ctx.index.workloads.remove(&gone.key);
                    gone_from_watch(ctx, &gone);
                }
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.workloads.count(kind));
        }
    }
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
pub(super) async fn pods(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<LeanMeta<ApiPod>> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let config =
        pages().labels("kagenti.io/type=agent").fields("status.phase!=Succeeded,status.phase!=Failed");
    let options = watcher.options("pods", Source::Pods, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge("pods");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some(pod) = Pod::of(object.metadata) {
                    listing.saw(pod.key.clone());
                    let owner = pod.owner.clone();
                    if ctx.index.pods.upsert(pod) {
                        ctx.wake_workload(owner, NOW);
                    }
                }
            }
            Event::InitDone => {
                for gone in ctx.index.pods.retain(namespace.as_deref(), &listing.end()) {
                    ctx.wake_workload(gone.owner.clone(), NOW);
                }
                ctx.sources.synced(Source::Pods, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let Some(pod) = Pod::of(object.metadata) {
                    ctx.index.pods.remove(&pod.key);
                }
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.pods.len());
        }
    }
}

async fn sandbox_version(client: &Client) -> kube::Result<Option<&'static str>> {
    for version in SANDBOX_VERSIONS {
        match client.list_api_group_resources(&format!("{SANDBOX_GROUP}/{version}")).await {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == "Sandbox") => {
                return Ok(Some(version));
            }
            Ok(_) => {}
            Err(error) if apply::is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(watcher: Watcher) {
    const SOURCE: Source = Source::Workloads(WorkloadKind::Sandbox);
    let ctx = &watcher.ctx;
    let scopes = watch::namespaces_of(&ctx.scope);
    // Short looks first: a CRD made a moment ago is not in the discovery yet.
    let mut pause = RETRY;
    loop {
        let version = match sandbox_version(&ctx.client).await {
            Ok(version) => version,
            Err(error) => {
                tracing::debug!("cannot find out whether Sandboxes are served: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
                continue;
            }
        };
        if ctx.set_sandbox_version(version) {
            tracing::info!(version, "Sandboxes are served, or not any more");
            ctx.wake_all_cards();
        }
        let Some(version) = version else {
            for namespace in &scopes {
                ctx.sources.synced(SOURCE, namespace.as_deref());
            }
            tokio::time::sleep(jitter(pause, 0.1)).await;
            pause = (pause * 2).min(LOOK_AGAIN);
            continue;
        };
        for namespace in &scopes {
            ctx.sources.restart(SOURCE, namespace.as_deref());
        }
        let watching =
            join_all(scopes.iter().map(|namespace| {
                workloads(watcher.clone(), WorkloadKind::Sandbox, version, namespace.clone())
            }));
        tokio::select! {
            _ = watching => {}
            () = until_changed(ctx, version) => {}
        }
    }
}

/// Returns when another version, or none, is served.
async fn until_changed(ctx: &Context, version: &str) {
    loop {
        tokio::time::sleep(jitter(LOOK_AGAIN, 0.1)).await;
        if matches!(sandbox_version(&ctx.client).await, Ok(now) if now != Some(version)) {
            return;
        }
    }
}
