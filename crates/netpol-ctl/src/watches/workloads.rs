//! Agents: Deployments, StatefulSets, and Sandboxes while their CRD is served.

use std::time::Duration;

use api_types::{enrolment::TargetKind, names::label};
use controller_kit::{
    apply::message_of,
    backoff::jitter,
    watch::{self, served_version},
};
use futures::{StreamExt, future::join_all};
use kube::{Api, Client, ResourceExt, runtime::watcher::Event};

use super::{Listing, NOW, Watcher, pages};
use crate::{
    context::Context,
    index::{Slot, WorkloadKey},
    sources::Source,
    workload::{SANDBOX_VERSIONS, WorkloadView, pod_selector, resource},
};

const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Waits between looks for the kind: short ones first, because a CRD made a moment ago is not in the discovery yet.
fn looks() -> impl FnMut() -> Duration {
    let mut pause = RETRY;
    move || {
        let now = pause;
        pause = (pause * 2).min(LOOK_AGAIN);
        jitter(now, 0.1)
    }
}

/// Watches one kind of workload; ends only when it is dropped.
///
/// Only agents are asked for: a workload that leaves the watch is gone or no agent any more, which is the same here.
pub(super) async fn run(
    watcher: Watcher,
    kind: TargetKind,
    version: &'static str,
    namespace: Option<String>,
) {
    let ctx = &watcher.ctx;
    let resource = resource(kind, version);
    let api: Api<WorkloadView> = match &namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let plural = match kind {
        TargetKind::Deployment => "deployments",
        TargetKind::StatefulSet => "statefulsets",
        TargetKind::Sandbox => "sandboxes",
    };
    let source = Source::Workloads(kind);
    let config = pages().labels(&format!("{}=agent", label::TYPE));
    let options = watcher.options(plural, source, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge(plural);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(view) | Event::Apply(view) => {
                let key = key_of(kind, &view);
                listing.saw(key.clone());
                let selector = pod_selector(kind, &key.slot.name, view.spec);
                if ctx.index.workloads.upsert(key.clone(), selector) {
                    ctx.wake(key.slot, NOW);
                }
            }
            Event::InitDone => {
                for gone in ctx.index.workloads.retain(kind, namespace.as_deref(), &listing.end()) {
                    ctx.wake(gone.slot, NOW);
                }
                ctx.sources.synced(source, namespace.as_deref());
            }
            Event::Delete(view) => {
                let key = key_of(kind, &view);
                if ctx.index.workloads.remove(&key) {
                    ctx.wake(key.slot, NOW);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.workloads.count(kind));
        }
    }
}

fn key_of(kind: TargetKind, view: &WorkloadView) -> WorkloadKey {
    let slot = Slot { namespace: view.namespace().unwrap_or_default(), name: view.name_any() };
    WorkloadKey { slot, kind }
}

async fn sandbox_version(client: &Client) -> kube::Result<Option<&'static str>> {
    served_version(client, TargetKind::Sandbox.group(), TargetKind::Sandbox.as_str(), &SANDBOX_VERSIONS).await
}

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(watcher: Watcher) {
    const SOURCE: Source = Source::Workloads(TargetKind::Sandbox);
    let ctx = &watcher.ctx;
    let scopes = watch::namespaces_of(&ctx.scope);
    let mut pause = looks();
    loop {
        let version = match sandbox_version(&ctx.client).await {
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
                let gone = ctx.index.workloads.retain(TargetKind::Sandbox, namespace.as_deref(), &[].into());
                for key in gone {
                    ctx.wake(key.slot, NOW);
                }
                ctx.sources.synced(SOURCE, namespace.as_deref());
            }
            tokio::time::sleep(pause()).await;
            continue;
        };
        tracing::info!(version, "Sandboxes are served");
        for namespace in &scopes {
            ctx.sources.restart(SOURCE, namespace.as_deref());
        }
        let watching = join_all(
            scopes
                .iter()
                .map(|namespace| run(watcher.clone(), TargetKind::Sandbox, version, namespace.clone())),
        );
        tokio::select! {
            _ = watching => {}
            () = until_changed(ctx, version) => {}
        }
    }
}

/// Returns when another version, or none, is served.
async fn until_changed(ctx: &Context, version: &'static str) {
    loop {
        tokio::time::sleep(jitter(LOOK_AGAIN, 0.1)).await;
        if matches!(sandbox_version(&ctx.client).await, Ok(now) if now != Some(version)) {
            return;
        }
    }
}
