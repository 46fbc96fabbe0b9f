//! The watches: they fill the indexes and wake what has to look again (runtime §7.4).

mod cluster;
mod configs;
mod optional;

use std::{sync::Arc, time::Duration};

use api_types::AgentRuntime;
use controller_kit::{
    index::covers,
    lean::LeanMeta,
    metrics::Metrics,
    process::Process,
    scope::{api_in, dynamic_api_in},
    watch::{self, Step, TroubleKind, WatchOptions, feed, pages},
    workload::{plural, resource},
};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::{ResourceExt, core::DeserializeGuard};

use crate::{
    context::{Context, Key},
    index::{Indexes, OwnerKey, Pod, RuntimeKey, Target},
    kinds::{SandboxVersion, WorkloadKind},
    ovn, scc,
    sources::Source,
    workload::{Workload, WorkloadKey, WorkloadView},
};

/// Counts of a status need no haste: one look for all of them.
const CALM: Duration = Duration::from_secs(2);
const NOW: Duration = Duration::ZERO;

/// Options of a watch, whose trouble is noted for the passes that depend on the source.
fn options(ctx: &Context, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
    let counts = |trouble| trouble != TroubleKind::Expired;
    let options = ctx.sources.note_troubles(WatchOptions::new(kind), source, namespace, counts);
    match source {
        // Nothing can be enrolled while these are refused.
        Source::Runtimes
        | Source::Pods
        | Source::Namespaces
        | Source::Workloads(WorkloadKind::Deployment | WorkloadKind::StatefulSet) => options,
        // A refusal counts as absence, and a condition says so (runtime §5.3, §19.4).
        Source::Workloads(WorkloadKind::Sandbox) | Source::Config(_) | Source::Spire | Source::OpenShift => {
            options.degrade_when_refused()
        }
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Runtimes, Source::Pods, Source::Workloads(WorkloadKind::Sandbox)]
            .into_iter()
            .for_each(scoped);
        process.spawn_endless("watch agentruntimes", runtimes(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch pods", pods(ctx.clone(), namespace.clone()));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            process.spawn_endless("watch workloads", workloads(ctx.clone(), kind, "v1", namespace.clone()));
        }
    }
    for (input, namespace) in configs::watched(ctx) {
        ctx.sources.register(Source::Config(input), namespace.as_deref());
        process.spawn_endless("watch configmaps", configs::run(ctx.clone(), input, namespace));
    }
    process.spawn_endless("feature gates file", configs::gates_file(ctx.clone()));
    ctx.sources.register(Source::Spire, None);
    process.spawn_endless("watch csidrivers", cluster::spire(ctx.clone()));
    ctx.sources.register(Source::OpenShift, None);
    let looking = ctx.clone();
    process.spawn_endless("look for openshift", async move { scc::look(&looking).await });
    let (client, metrics) = (ctx.client.clone(), process.metrics().clone());
    process.spawn_endless("look at the network", async move {
        ovn::look(&client, &metrics).await;
        // A task that ends ends the process.
        std::future::pending::<()>().await;
    });
    for (name, task) in cluster::namespaces(ctx) {
        process.spawn_endless(name, task);
    }
    process.spawn_endless("watch sandboxes", optional::sandboxes(ctx.clone()));
    process.spawn_endless("watch certificates", optional::certificates(ctx.clone()));
    count(process.metrics(), &ctx.index);
}

/// Has the objects in the indexes counted.
fn count(metrics: &Metrics, index: &Arc<Indexes>) {
    metrics.count_objects("agentruntimes", index, |index| index.runtimes.len());
    metrics.count_objects("pods", index, |index| index.pods.len());
    for kind in WorkloadKind::ALL {
        let of_kind = move |workload: &Workload| workload.key.kind == kind;
        metrics.count_objects(plural(kind), index, move |index| index.workloads.count(of_kind));
    }
}

async fn runtimes(ctx: Arc<Context>, namespace: Option<String>) {
    let namespace = namespace.as_deref();
    let bad = {
        let ctx = ctx.clone();
        move |bad: watch::Undecodable| {
            ctx.undecodable.insert(RuntimeKey::new(bad.namespace.clone(), bad.name.clone()), bad);
        }
    };
    let options = options(&ctx, "agentruntimes", Source::Runtimes, namespace);
    let events = ctx.watch_guarded::<AgentRuntime>(namespace, options, bad);
    feed(events, |step| match step {
        Step::Put(object, listing) => {
            listing.saw(RuntimeKey::of(&object));
            runtime_applied(&ctx, object);
        }
        Step::Remove(object) => {
            let key = RuntimeKey::of(&object);
            ctx.undecodable.remove(&key);
            if let Some(gone) = ctx.index.runtimes.remove(&key) {
                runtime_gone(&ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.runtimes.retain(namespace, &seen) {
                runtime_gone(&ctx, &gone);
            }
            ctx.sources.synced(Source::Runtimes, namespace);
        }
    })
    .await;
}

fn runtime_applied(ctx: &Context, object: DeserializeGuard<AgentRuntime>) {
    let key = RuntimeKey::of(&object);
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
async fn workloads(ctx: Arc<Context>, kind: WorkloadKind, version: &'static str, namespace: Option<String>) {
    let (ctx, namespace, source) = (&*ctx, namespace.as_deref(), Source::Workloads(kind));
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource(kind, version), namespace);
    let options = options(ctx, plural(kind), source, namespace);
    let version = SandboxVersion::of(version);
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(view, listing) => {
            if let Some(workload) = Workload::from_view(kind, version, view) {
                listing.saw(workload.key.clone());
                workload_applied(ctx, workload);
            }
        }
        Step::Remove(view) => {
            if let Some(gone) = Workload::from_view(kind, version, view) {
                ctx.index.workloads.remove(&gone.key);
                workload_gone(ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            let listed = |key: &WorkloadKey| key.kind == kind && covers(namespace, &key.namespace);
            for gone in ctx.index.workloads.retain(listed, &seen) {
                workload_gone(ctx, &gone);
            }
            ctx.sources.synced(source, namespace);
        }
    })
    .await;
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

async fn pods(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let api = api_in::<LeanMeta<ApiPod>>(&ctx.client, namespace);
    // Metadata say nothing of the phase, but the selector may: a Pod that ends leaves the watch.
    let config = pages()
        .labels("kagenti.io/type in (agent,tool)")
        .fields("status.phase!=Succeeded,status.phase!=Failed");
    let options = options(ctx, "pods", Source::Pods, namespace);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(object, listing) => {
            if let Some(pod) = Pod::from_meta(object.metadata) {
                listing.saw((pod.owner.namespace.clone(), pod.name.clone()));
                let owner = pod.owner.clone();
                if ctx.index.pods.upsert(pod) {
                    wake_owner(ctx, &owner, CALM);
                }
            }
        }
        Step::Remove(object) => {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            if let Some(owner) = ctx.index.pods.remove(&namespace, &name) {
                wake_owner(ctx, &owner, CALM);
            }
        }
        Step::Listed(seen) => {
            for owner in ctx.index.pods.retain(namespace, &seen) {
                wake_owner(ctx, &owner, CALM);
            }
            ctx.sources.synced(Source::Pods, namespace);
        }
    })
    .await;
}
