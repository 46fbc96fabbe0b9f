//! Services and, where they decide what is dialled, EndpointSlices.

use controller_kit::watch;
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::{core::v1, discovery::v1::EndpointSlice};
use kube::{Api, runtime::watcher::Event};

use super::{Listing, NOW, Watcher, pages};
use crate::{
    context::Context,
    fetch::address::{DialMode, EndpointPolicy},
    index::{ObjectKey, Service, Slice},
    sources::Source,
    workload::Workload,
};

pub(super) async fn services(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<v1::Service> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = watcher.options("services", Source::Services, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, pages(), options);
    let mut gauge = watcher.gauge("services");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some((key, service)) = Service::of(object) {
                    listing.saw(key.clone());
                    let before = ctx.index.services.upsert(&key, service.clone());
                    if before.as_deref() != Some(&service) {
                        wake(ctx, &key.namespace, &[before.as_deref(), Some(&service)]);
                    }
                }
            }
            Event::InitDone => {
                for (key, gone) in ctx.index.services.retain(namespace.as_deref(), &listing.end()) {
                    wake(ctx, &key.namespace, &[Some(&gone)]);
                }
                ctx.sources.synced(Source::Services, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let Some((key, service)) = Service::of(object) {
                    ctx.index.services.remove(&key);
                    wake(ctx, &key.namespace, &[Some(&service)]);
                }
            }
        }
        if !listing.is_running() {
            gauge.set(ctx.index.services.len());
        }
    }
}

/// True when a Service may be the one of a workload.
fn concerns(service: &Service, workload: &Workload) -> bool {
    service.name == workload.key.name
        || service.selector.as_ref().is_some_and(|selector| {
            !selector.is_empty()
                && selector.iter().all(|(key, value)| workload.template_labels.get(key) == Some(value))
        })
}

fn wake(ctx: &Context, namespace: &str, services: &[Option<&Service>]) {
    for workload in ctx.index.workloads.in_namespace(namespace) {
        if services.iter().flatten().any(|service| concerns(service, &workload)) {
            ctx.observations.expire_failure(&workload.key);
            ctx.wake_readers(&workload.key, NOW);
        }
    }
}

/// Watches EndpointSlices as soon as they matter.
pub(super) async fn slices(watcher: Watcher) {
    let ctx = &watcher.ctx;
    let always = ctx.settings.fetch_dial == DialMode::Endpoints
        || ctx.settings.fetch_endpoint_policy == EndpointPolicy::WorkloadPods;
    let scopes = watch::namespaces_of(&ctx.scope);
    if !always && !ctx.needs_slices() {
        ctx.want_slices.notified().await;
        tracing::info!("a Service without address of its own is used: watching EndpointSlices");
    }
    join_all(scopes.into_iter().map(|namespace| watch_slices(watcher.clone(), namespace))).await;
}

async fn watch_slices(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    ctx.sources.register(Source::Slices, namespace.as_deref());
    let api: Api<EndpointSlice> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = watcher.options("endpointslices", Source::Slices, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, pages(), options);
    let mut listing = Listing(None);
    let news = |service: &ObjectKey| {
        let Some(service) =
            ctx.index.services.get(&service.namespace, &service.name).map(|known| (service, known))
        else {
            return;
        };
        for workload in ctx.index.workloads.in_namespace(&service.0.namespace) {
            let own = ctx.index.services.of_workload(&workload);
            if own.is_some_and(|own| own.name == service.1.name) {
                // An agent that had no address may have one now.
                ctx.observations.expire_failure(&workload.key);
                ctx.wake_readers(&workload.key, NOW);
            }
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some((key, service, slice)) = Slice::of(object) {
                    listing.saw(key.clone());
                    if ctx.index.services.upsert_slice(&key, &service, slice) {
                        news(&ObjectKey::new(key.namespace.clone(), service));
                    }
                }
            }
            Event::InitDone => {
                for gone in ctx.index.services.retain_slices(namespace.as_deref(), &listing.end()) {
                    news(&gone);
                }
                ctx.sources.synced(Source::Slices, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let Some((key, ..)) = Slice::of(object)
                    && let Some(service) = ctx.index.services.remove_slice(&key)
                {
                    news(&service);
                }
            }
        }
    }
}
