//! Services and, where they decide what is dialled, EndpointSlices.

use std::sync::Arc;

use controller_kit::{
    scope::api_in,
    watch::{self, Step, feed, pages},
};
use futures::future::join_all;
use k8s_openapi::api::{core::v1, discovery::v1::EndpointSlice};

use super::{NOW, options};
use crate::{
    context::Context,
    fetch::address::{DialMode, EndpointPolicy},
    index::{ObjectKey, Service, Slice},
    sources::Source,
    workload::Workload,
};

pub(super) async fn services(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let api = api_in::<v1::Service>(&ctx.client, namespace);
    let options = options(ctx, "services", Source::Services, namespace);
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(object, listing) => {
            if let Some((key, service)) = Service::of(object) {
                listing.saw(key.clone());
                let before = ctx.index.services.upsert(&key, service.clone());
                if before.as_deref() != Some(&service) {
                    wake(ctx, &key.namespace, &[before.as_deref(), Some(&service)]);
                }
            }
        }
        Step::Remove(object) => {
            if let Some((key, service)) = Service::of(object) {
                ctx.index.services.remove(&key);
                wake(ctx, &key.namespace, &[Some(&service)]);
            }
        }
        Step::Listed(seen) => {
            for (key, gone) in ctx.index.services.retain(namespace, &seen) {
                wake(ctx, &key.namespace, &[Some(&gone)]);
            }
            ctx.sources.synced(Source::Services, namespace);
        }
    })
    .await;
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
    for workload in ctx.index.workloads.linked(&namespace.to_owned()) {
        if services.iter().flatten().any(|service| concerns(service, &workload)) {
            ctx.observations.expire_failure(&workload.key);
            ctx.wake_readers(&workload.key, NOW);
        }
    }
}

/// Watches EndpointSlices as soon as they matter.
pub(super) async fn slices(ctx: Arc<Context>) {
    let always = ctx.settings.fetch_dial == DialMode::Endpoints
        || ctx.settings.fetch_endpoint_policy == EndpointPolicy::WorkloadPods;
    let scopes = watch::namespaces_of(&ctx.scope);
    if !always && !ctx.needs_slices() {
        ctx.want_slices.notified().await;
        tracing::info!("a Service without address of its own is used: watching EndpointSlices");
    }
    join_all(scopes.iter().map(|namespace| watch_slices(&ctx, namespace.as_deref()))).await;
}

async fn watch_slices(ctx: &Context, namespace: Option<&str>) {
    ctx.sources.register(Source::Slices, namespace);
    let api = api_in::<EndpointSlice>(&ctx.client, namespace);
    let options = options(ctx, "endpointslices", Source::Slices, namespace);
    let news = |service: &ObjectKey| {
        let Some(service) =
            ctx.index.services.get(&service.namespace, &service.name).map(|known| (service, known))
        else {
            return;
        };
        for workload in ctx.index.workloads.linked(&service.0.namespace) {
            let own = ctx.index.services.of_workload(&workload);
            if own.is_some_and(|own| own.name == service.1.name) {
                // An agent that had no address may have one now.
                ctx.observations.expire_failure(&workload.key);
                ctx.wake_readers(&workload.key, NOW);
            }
        }
    };
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(object, listing) => {
            if let Some((key, service, slice)) = Slice::of(object) {
                listing.saw(key.clone());
                if ctx.index.services.upsert_slice(&key, &service, slice) {
                    news(&ObjectKey::new(key.namespace.clone(), service));
                }
            }
        }
        Step::Remove(object) => {
            if let Some((key, ..)) = Slice::of(object)
                && let Some(service) = ctx.index.services.remove_slice(&key)
            {
                news(&service);
            }
        }
        Step::Listed(seen) => {
            ctx.index.services.retain_slices(namespace, &seen).iter().for_each(news);
            ctx.sources.synced(Source::Slices, namespace);
        }
    })
    .await;
}
