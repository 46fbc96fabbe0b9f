//! The watches: they fill the indexes and wake what has to look again (card §4.2).
//!
//! Changes of a status alone, and own writes, wake nothing: they are in the index before their event arrives.

mod agents;
mod cards;
mod services;

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use controller_kit::{
    metrics::Metrics,
    process::Process,
    watch::{self, StoreGauge, TroubleKind, WatchOptions, Watches},
};
use kube::runtime::watcher;

use crate::{
    bundle, context::Context, fetch::address::EndpointPolicy, kinds::WorkloadKind, settings::LabelMode,
    sources::Source,
};

const NOW: Duration = Duration::ZERO;
/// Objects of one page of a list: while it is read they are in memory whole.
const PAGE: u32 = 200;

fn pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// What every watch task needs.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) ctx: Arc<Context>,
    pub(crate) watches: Watches,
    metrics: Metrics,
}

impl Watcher {
    /// Options whose trouble is noted for the passes that depend on the source.
    pub(crate) fn options(
        &self,
        kind: &'static str,
        source: Source,
        namespace: Option<&str>,
    ) -> WatchOptions {
        let (ctx, namespace) = (self.ctx.clone(), namespace.map(str::to_owned));
        let options = WatchOptions::new(kind).on_trouble(move |trouble| {
            if trouble.kind != TroubleKind::Expired {
                ctx.sources.troubled(source, namespace.as_deref(), &trouble.text);
            }
        });
        match source {
            Source::Cards
            | Source::Services
            | Source::Workloads(WorkloadKind::Deployment | WorkloadKind::StatefulSet) => options,
            // Cards go on without these.
            _ => options.degrade_when_refused(),
        }
    }

    fn gauge(&self, kind: &str) -> StoreGauge {
        StoreGauge::new(&self.metrics, kind)
    }
}

/// The objects a running list has named.
struct Listing<K>(Option<HashSet<K>>);

impl<K: Eq + Hash> Listing<K> {
    fn begin(&mut self) {
        self.0 = Some(HashSet::new());
    }

    fn saw(&mut self, key: K) {
        if let Some(seen) = &mut self.0 {
            seen.insert(key);
        }
    }

    fn end(&mut self) -> HashSet<K> {
        self.0.take().unwrap_or_default()
    }

    fn is_running(&self) -> bool {
        self.0.is_some()
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    let watcher =
        Watcher { ctx: ctx.clone(), watches: process.watches(), metrics: process.metrics().clone() };
    let spawn = |name: &'static str, task: futures::future::BoxFuture<'static, ()>| {
        let stop = process.stop();
        process.spawn(name, async move {
            stop.run_until_cancelled(task).await;
            Ok(())
        });
    };
    let pods = ctx.settings.verified_label_mode == LabelMode::Pods
        || ctx.settings.fetch_endpoint_policy == EndpointPolicy::WorkloadPods;
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Cards, Source::Services, Source::Documents, Source::Workloads(WorkloadKind::Sandbox)]
            .into_iter()
            .for_each(scoped);
        spawn("watch agentcards", Box::pin(cards::cards(watcher.clone(), namespace.clone())));
        spawn("watch services", Box::pin(services::services(watcher.clone(), namespace.clone())));
        spawn("watch configmaps", Box::pin(cards::documents(watcher.clone(), namespace.clone())));
        scoped(Source::Runtimes);
        spawn("watch agentruntimes", Box::pin(cards::runtimes(watcher.clone(), namespace.clone())));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            let task = agents::workloads(watcher.clone(), kind, "v1", namespace.clone());
            spawn("watch workloads", Box::pin(task));
        }
        if pods {
            scoped(Source::Pods);
            spawn("watch pods", Box::pin(agents::pods(watcher.clone(), namespace.clone())));
        }
    }
    spawn("watch endpointslices", Box::pin(services::slices(watcher.clone())));
    spawn("watch sandboxes", Box::pin(agents::sandboxes(watcher.clone())));
    if !ctx.settings.spire_trust_bundle_configmap.is_empty() {
        ctx.sources.register(Source::Bundle, None);
        spawn("watch the trust bundle", Box::pin(bundle::watch(watcher.clone())));
        spawn("read the trust bundle", Box::pin(bundle::refresh(watcher.ctx.clone())));
    }
}
