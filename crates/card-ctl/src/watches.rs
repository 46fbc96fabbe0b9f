//! The watches: they fill the indexes and wake what has to look again (card §4.2).
//!
//! Changes of a status alone, and own writes, wake nothing: they are in the index before their event arrives.

mod agents;
mod cards;
mod services;

use std::{sync::Arc, time::Duration};

use controller_kit::{
    metrics::Metrics,
    process::Process,
    watch::{self, TroubleKind, WatchOptions},
    workload::plural,
};

use crate::{
    bundle, context::Context, fetch::address::EndpointPolicy, index::Indexes, kinds::WorkloadKind,
    settings::LabelMode, sources::Source, workload::Workload,
};

const NOW: Duration = Duration::ZERO;

/// Options of a watch, whose trouble is noted for the passes that depend on the source.
pub(crate) fn options(
    ctx: &Context,
    kind: &'static str,
    source: Source,
    namespace: Option<&str>,
) -> WatchOptions {
    let counts = |trouble| trouble != TroubleKind::Expired;
    let options = ctx.sources.note_troubles(WatchOptions::new(kind), source, namespace, counts);
    match source {
        Source::Cards
        | Source::Services
        | Source::Workloads(WorkloadKind::Deployment | WorkloadKind::StatefulSet) => options,
        // Cards go on without these.
        _ => options.degrade_when_refused(),
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    let pods = ctx.settings.verified_label_mode == LabelMode::Pods
        || ctx.settings.fetch_endpoint_policy == EndpointPolicy::WorkloadPods;
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Cards, Source::Services, Source::Documents, Source::Workloads(WorkloadKind::Sandbox)]
            .into_iter()
            .for_each(scoped);
        process.spawn_endless("watch agentcards", cards::cards(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch services", services::services(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch configmaps", cards::documents(ctx.clone(), namespace.clone()));
        scoped(Source::Runtimes);
        process.spawn_endless("watch agentruntimes", cards::runtimes(ctx.clone(), namespace.clone()));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            let task = agents::workloads(ctx.clone(), kind, "v1", namespace.clone());
            process.spawn_endless("watch workloads", task);
        }
        if pods {
            scoped(Source::Pods);
            process.spawn_endless("watch pods", agents::pods(ctx.clone(), namespace.clone()));
        }
    }
    process.spawn_endless("watch endpointslices", services::slices(ctx.clone()));
    process.spawn_endless("watch sandboxes", agents::sandboxes(ctx.clone()));
    if !ctx.settings.spire_trust_bundle_configmap.is_empty() {
        ctx.sources.register(Source::Bundle, None);
        process.spawn_endless("watch the trust bundle", bundle::watch(ctx.clone()));
        process.spawn_endless("read the trust bundle", bundle::refresh(ctx.clone()));
    }
    count(process.metrics(), &ctx.index);
}

/// Has the objects in the indexes counted.
fn count(metrics: &Metrics, index: &Arc<Indexes>) {
    metrics.count_objects("agentcards", index, |index| index.cards.len());
    metrics.count_objects("services", index, |index| index.services.len());
    metrics.count_objects("configmaps", index, |index| index.documents.len());
    metrics.count_objects("agentruntimes", index, |index| index.runtimes.len());
    metrics.count_objects("pods", index, |index| index.pods.len());
    for kind in WorkloadKind::ALL {
        let of_kind = move |workload: &Workload| workload.key.workload_kind() == Some(kind);
        metrics.count_objects(plural(kind), index, move |index| index.workloads.count(of_kind));
    }
}
