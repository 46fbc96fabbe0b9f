//! The watches: they fill the indexes and wake what has to look again (runtime §7.4).

mod cluster;
mod configs;
mod optional;

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use api_types::AgentRuntime;
use controller_kit::{
    lean::LeanMeta,
    metrics::Metrics,
    process::Process,
    watch::{self, StoreGauge, TroubleKind, WatchOptions, Watches},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::{
    Api, ResourceExt,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};

use crate::{
    context::{Context, Key},
    index::{OwnerKey, Pod, RuntimeKey, Target},
    kinds::{self, SandboxVersion, WorkloadKind},
    ovn, scc,
    sources::Source,
    workload::{Workload, WorkloadKey, WorkloadView},
};

/// Counts of a status need no haste: one look for all of them.
const CALM: Duration = Duration::from_secs(2);
const NOW: Duration = Duration::ZERO;
/// Objects of one page of a list: while it is read they are in memory whole.
const PAGE: u32 = 200;

fn pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// What every watch task needs.
#[derive(Clone)]
struct Watcher {
    ctx: Arc<Context>,
    watches: Watches,
    metrics: Metrics,
}

impl Watcher {
    /// Options whose trouble is noted for the passes that depend on the source.
    fn options(&self, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
        let (ctx, namespace) = (self.ctx.clone(), namespace.map(str::to_owned));
        let options = WatchOptions::new(kind).on_trouble(move |trouble| {
            if trouble.kind != TroubleKind::Expired {
                ctx.sources.troubled(source, namespace.as_deref(), &trouble.text);
            }
        });
        match source {
            // Nothing can be enrolled while these are refused.
            Source::Runtimes
            | Source::Pods
            | Source::Namespaces
            | Source::Workloads(WorkloadKind::Deployment | WorkloadKind::StatefulSet) => options,
            // A refusal counts as absence, and a condition says so (runtime §5.3, §19.4).
            Source::Workloads(WorkloadKind::Sandbox)
            | Source::Config(_)
            | Source::Spire
            | Source::OpenShift => options.degrade_when_refused(),
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
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Runtimes, Source::Pods, Source::Workloads(WorkloadKind::Sandbox)]
            .into_iter()
            .for_each(scoped);
        spawn("watch agentruntimes", Box::pin(runtimes(watcher.clone(), namespace.clone())));
        spawn("watch pods", Box::pin(pods(watcher.clone(), namespace.clone())));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            let task = workloads(watcher.clone(), kind, SandboxVersion::V1Beta1, namespace.clone());
            spawn("watch workloads", Box::pin(task));
        }
    }
    for (input, namespace) in configs::watched(ctx) {
        ctx.sources.register(Source::Config(input), namespace.as_deref());
        spawn("watch configmaps", Box::pin(configs::run(watcher.clone(), input, namespace)));
    }
    spawn("feature gates file", Box::pin(configs::gates_file(ctx.clone())));
    ctx.sources.register(Source::Spire, None);
    spawn("watch csidrivers", Box::pin(cluster::spire(watcher.clone())));
    ctx.sources.register(Source::OpenShift, None);
    let looking = ctx.clone();
    spawn("look for openshift", Box::pin(async move { scc::look(&looking).await }));
    let (client, metrics) = (ctx.client.clone(), process.metrics().clone());
    let routing = async move {
        ovn::look(&client, &metrics).await;
        // A task that ends ends the process.
        std::future::pending::<()>().await;
    };
    spawn("look at the network", Box::pin(routing));
    for (name, task) in cluster::namespaces(&watcher) {
        spawn(name, task);
    }
    spawn("watch sandboxes", Box::pin(optional::sandboxes(watcher.clone())));
    spawn("watch certificates", Box::pin(optional::certificates(watcher)));
}

async fn runtimes(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let options = watcher.options("agentruntimes", Source::Runtimes, namespace.as_deref());
    let bad = {
        let ctx = ctx.clone();
        move |bad: watch::Undecodable| {
            let key = RuntimeKey { namespace: bad.namespace.clone(), name: bad.name.clone() };
            ctx.undecodable.insert(key, bad);
        }
    };
    let config = pages();
    let mut events = watch::guarded_watch_stream::<AgentRuntime>(
        &watcher.watches,
        &ctx.client,
        namespace.as_deref(),
        config,
        options,
        bad,
    );
    let mut gauge = watcher.gauge("agentruntimes");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) => {
                listing.saw(key_of(&object));
                runtime_applied(&ctx, object);
            }
            Event::InitDone => {
                for gone in ctx.index.runtimes.retain(namespace.as_deref(), &listing.end()) {
                    runtime_gone(&ctx, &gone);
                }
                ctx.sources.synced(Source::Runtimes, namespace.as_deref());
            }
            Event::Apply(object) => runtime_applied(&ctx, object),
            Event::Delete(object) => {
                let key = key_of(&object);
                ctx.undecodable.remove(&key);
                if let Some(gone) = ctx.index.runtimes.remove(&key) {
                    runtime_gone(&ctx, &gone);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.runtimes.len());
        }
    }
}

fn key_of(object: &DeserializeGuard<AgentRuntime>) -> RuntimeKey {
    RuntimeKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

fn runtime_applied(ctx: &Context, object: DeserializeGuard<AgentRuntime>) {
    let key = key_of(&object);
    let DeserializeGuard(Ok(runtime)) = object else {
        // Nobody works with an old version of it.
        if let Some(gone) = ctx.index.runtimes.remove(&key) {
            runtime_gone(ctx, &gone);
        }
        ctx.wake(key, NOW);
        return;
    };
    ctx.undecodable.remove(&key);
    let target = Target::of(&runtime);
    let meta = |runtime: &AgentRuntime| {
        let meta = &runtime.metadata;
        (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone(), meta.finalizers.clone())
    };
    let now = meta(&runtime);
    let Ok(before) = ctx.index.runtimes.upsert(runtime) else { return };
    // Changes of the status alone are our own, or card-ctl's.
    if before.as_deref().is_some_and(|before| meta(before) == now) {
        return;
    }
    let claims_changed = before.as_deref().is_none_or(|before| {
        let was = meta(before);
        Target::of(before) != target || was.2 != now.2 || was.0 != now.0
    });
    ctx.wake(key, NOW);
    if claims_changed {
        let former = before.as_deref().map(Target::of).filter(|former| *former != target);
        for target in former.iter().chain([&target]) {
            ctx.index.runtimes.targeting(target).into_iter().for_each(|other| ctx.wake(other, NOW));
            wake_hand_labelled(ctx, target);
        }
    }
}

fn runtime_gone(ctx: &Context, gone: &AgentRuntime) {
    let target = Target::of(gone);
    ctx.wake(RuntimeKey::of(gone), NOW);
    ctx.index.runtimes.targeting(&target).into_iter().for_each(|other| ctx.wake(other, NOW));
    wake_hand_labelled(ctx, &target);
}

/// A workload without AgentRuntime may be one that follows the defaults of its namespace.
fn wake_hand_labelled(ctx: &Context, target: &Target) {
    if let Some(kind) = WorkloadKind::of(&target.group, &target.kind) {
        let key = WorkloadKey { namespace: target.namespace.clone(), kind, name: target.name.clone() };
        if ctx.index.workloads.get(&key).is_some_and(|workload| workload.is_hand_labelled()) {
            ctx.queue.add(Key::Workload(key), NOW);
        }
    }
}

/// Watches one kind of workload; ends only when it is dropped.
async fn workloads(watcher: Watcher, kind: WorkloadKind, version: SandboxVersion, namespace: Option<String>) {
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
    let mut events = watch::watch_stream(&watcher.watches, api, pages(), options);
    let mut gauge = watcher.gauge(plural);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(view) | Event::Apply(view) => {
                if let Some(workload) = Workload::from_view(kind, version, view) {
                    listing.saw(workload.key.clone());
                    workload_applied(ctx, workload);
                }
            }
            Event::InitDone => {
                for gone in ctx.index.workloads.retain(kind, namespace.as_deref(), &listing.end()) {
                    workload_gone(ctx, &gone);
                }
                ctx.sources.synced(source, namespace.as_deref());
            }
            Event::Delete(view) => {
                if let Some(gone) = Workload::from_view(kind, version, view) {
                    ctx.index.workloads.remove(&gone.key);
                    workload_gone(ctx, &gone);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.workloads.count(kind));
        }
    }
}

fn workload_applied(ctx: &Context, workload: Workload) {
    let new = workload.clone();
    let Ok(before) = ctx.index.workloads.upsert(workload) else { return };
    let delay = match before.as_deref() {
        Some(before) if before.same_but_for_version(&new) => return,
        Some(before) if before.differs_only_in_status(&new) => CALM,
        None | Some(_) => NOW,
    };
    wake_enrollers(ctx, &new, delay);
    if let Some(before) = before.filter(|before| before.enrolled_by != new.enrolled_by) {
        wake_enrollers(ctx, &before, delay);
    }
    if new.is_hand_labelled() {
        ctx.queue.add(Key::Workload(new.key), delay);
    }
}

fn workload_gone(ctx: &Context, gone: &Workload) {
    ctx.limiter.forget(&gone.key);
    ctx.restarts.remove(&gone.key);
    ctx.orphaned_secrets.remove(&gone.key);
    wake_enrollers(ctx, gone, NOW);
}

fn wake_enrollers(ctx: &Context, workload: &Workload, delay: Duration) {
    wake_owner(ctx, &OwnerKey::from(&workload.key), delay);
    if let Some(name) = &workload.enrolled_by {
        let key = RuntimeKey { namespace: workload.key.namespace.clone(), name: name.clone() };
        // The name comes from an annotation that anyone may write.
        if ctx.index.runtimes.get(&key).is_some() {
            ctx.wake(key, delay);
        }
    }
}

fn wake_owner(ctx: &Context, owner: &OwnerKey, delay: Duration) {
    let OwnerKey { namespace, group, kind, name } = owner.clone();
    for key in ctx.index.runtimes.targeting(&Target { namespace, group, kind, name }) {
        ctx.wake(key, delay);
    }
}

async fn pods(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<LeanMeta<ApiPod>> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    // Metadata say nothing of the phase, but the selector may: a Pod that ends leaves the watch.
    let config = pages()
        .labels("kagenti.io/type in (agent,tool)")
        .fields("status.phase!=Succeeded,status.phase!=Failed");
    let options = watcher.options("pods", Source::Pods, namespace.as_deref());
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge("pods");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some(pod) = Pod::from_meta(object.metadata) {
                    listing.saw((pod.owner.namespace.clone(), pod.name.clone()));
                    let owner = pod.owner.clone();
                    if ctx.index.pods.upsert(pod) {
                        wake_owner(ctx, &owner, CALM);
                    }
                }
            }
            Event::InitDone => {
                for owner in ctx.index.pods.retain(namespace.as_deref(), &listing.end()) {
                    wake_owner(ctx, &owner, CALM);
                }
                ctx.sources.synced(Source::Pods, namespace.as_deref());
            }
            Event::Delete(object) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                if let Some(owner) = ctx.index.pods.remove(&namespace, &name) {
                    wake_owner(ctx, &owner, CALM);
                }
            }
        }
        if listing.0.is_none() {
            gauge.set(ctx.index.pods.len());
        }
    }
}
