//! The watches: they fill the indexes and wake what has to look again (MLflow §2).

mod optional;

use std::{sync::Arc, time::Duration};

use api_types::{
    AgentRuntime,
    names::{MANAGED_BY_OPERATOR, label},
};
use controller_kit::{
    index::covers,
    process::Process,
    scope::{api_in, dynamic_api_in},
    surroundings,
    watch::{self, Step, TroubleKind, WatchOptions, feed, pages},
};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{ResourceExt, core::DeserializeGuard};

use crate::{
    context::Context,
    eligibility,
    grant::{BindingState, RoleState},
    index::{Runtime, RuntimeKey},
    kinds::{self, WorkloadKind, plural},
    naming,
    sources::Source,
    workload::{Workload, WorkloadKey, WorkloadView},
};

const NOW: Duration = Duration::ZERO;
/// Configuration is edited in bursts: one look for all of them.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Options of a watch, whose trouble is noted for the passes that depend on the source.
fn options(ctx: &Context, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
    // Everything else passes, and an answer that is still to come must not be taken for none.
    let counts = |trouble| trouble == TroubleKind::Forbidden;
    let options = ctx.sources.note_troubles(WatchOptions::new(kind), source, namespace, counts);
    match source {
        Source::Workloads(WorkloadKind::Sandbox) | Source::Servers => options.degrade_when_refused(),
        // Installed alone, without the suite's CRDs, agents labelled by hand are configured all the same.
        Source::Runtimes => options.degrade_when_refused().optional_kind(),
        Source::Workloads(_) | Source::Roles | Source::Bindings => options,
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    let waking = ctx.clone();
    let wake: surroundings::Wake = Arc::new(move |namespace| waking.wake_all(namespace, DEBOUNCE));
    for (name, task) in surroundings::tasks(&ctx.client, &ctx.watches, &ctx.scope, &ctx.around, wake) {
        process.spawn_endless(name, task);
    }
    for namespace in watch::namespaces_of(&ctx.scope) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Runtimes, Source::Roles, Source::Bindings].into_iter().for_each(scoped);
        WorkloadKind::ALL.map(Source::Workloads).into_iter().for_each(scoped);
        process.spawn_endless("watch agentruntimes", runtimes(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch roles", roles(ctx.clone(), namespace.clone()));
        process.spawn_endless("watch rolebindings", bindings(ctx.clone(), namespace.clone()));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            process.spawn_endless("watch workloads", workloads(ctx.clone(), kind, "v1", namespace.clone()));
        }
    }
    process.spawn_endless("watch sandboxes", optional::sandboxes(ctx.clone()));
    if ctx.settings.mlflow_tracking_uri.is_none() {
        optional::servers(process, ctx);
    }
    count(process, ctx);
}

/// Has the objects in the indexes counted.
fn count(process: &Process, ctx: &Context) {
    let metrics = process.metrics();
    metrics.count_objects("agentruntimes", &ctx.index, |index| index.runtimes.len());
    for kind in WorkloadKind::ALL {
        metrics.count_objects(plural(kind), &ctx.index, move |index| {
            index.workloads.count(|agent| agent.key.kind == kind)
        });
    }
}

/// Watches the agents of one kind; ends only when it is dropped.
async fn workloads(ctx: Arc<Context>, kind: WorkloadKind, version: &'static str, namespace: Option<String>) {
    let (ctx, scope) = (&*ctx, namespace.as_deref());
    let resource = kinds::resource(kind, version);
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource, scope);
    let source = Source::Workloads(kind);
    let config = pages().labels(&eligibility::selector());
    let options = options(ctx, plural(kind), source, scope);
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(view, listing) => {
            if let Some(workload) = Workload::from_view(&resource, kind, view) {
                listing.saw(workload.key.clone());
                workload_applied(ctx, workload);
            }
        }
        Step::Listed(seen) => {
            let covered = |key: &WorkloadKey| key.kind == kind && covers(scope, &key.namespace);
            for gone in ctx.index.workloads.retain(covered, &seen) {
                ctx.wake(gone.key.clone(), NOW);
            }
            ctx.sources.synced(source, scope);
            sweep(ctx, covered);
        }
        Step::Remove(view) => {
            if let Some(gone) = Workload::from_view(&resource, kind, view) {
                ctx.index.workloads.remove(&gone.key);
                ctx.wake(gone.key, NOW);
            }
        }
    })
    .await;
}

fn workload_applied(ctx: &Context, workload: Workload) {
    let new = workload.clone();
    let Ok(before) = ctx.index.workloads.upsert(workload) else { return };
    if before.is_some_and(|before| before.same_for_us(&new)) {
        return;
    }
    ctx.wake(new.key, NOW);
}

/// Looks at the owners of Roles and RoleBindings that are no agents: they may have become something else while nobody
/// watched (MLflow §9). Only once both lists are complete, or every agent would be asked for.
fn sweep(ctx: &Context, concerned: impl Fn(&WorkloadKey) -> bool) {
    for key in ctx.index.grants.workloads() {
        if concerned(&key)
            && ctx.sources.is_synced(Source::Workloads(key.kind), &key.namespace)
            && ctx.index.workloads.get(&key).is_none()
        {
            ctx.wake(key, NOW);
        }
    }
}

async fn runtimes(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, scope) = (&*ctx, namespace.as_deref());
    let options = options(ctx, "agentruntimes", Source::Runtimes, scope);
    let events = ctx.watch_guarded::<AgentRuntime>(scope, options, |_| {});
    feed(events, |step| match step {
        Step::Put(object, listing) => {
            listing.saw(RuntimeKey::of(&object));
            runtime_applied(ctx, object);
        }
        Step::Listed(seen) => {
            for gone in ctx.index.runtimes.retain(|key| covers(scope, &key.namespace), &seen) {
                wake_target(ctx, &gone);
            }
            ctx.sources.synced(Source::Runtimes, scope);
        }
        Step::Remove(object) => {
            if let Some(gone) = ctx.index.runtimes.remove(&RuntimeKey::of(&object)) {
                wake_target(ctx, &gone);
            }
        }
    })
    .await;
}

fn runtime_applied(ctx: &Context, object: DeserializeGuard<AgentRuntime>) {
    let key = RuntimeKey::of(&object);
    let DeserializeGuard(Ok(runtime)) = object else {
        // One that this build cannot read has no say.
        if let Some(gone) = ctx.index.runtimes.remove(&key) {
            wake_target(ctx, &gone);
        }
        return;
    };
    let runtime = Runtime::of(runtime);
    let new = runtime.clone();
    let Ok(before) = ctx.index.runtimes.upsert(runtime) else { return };
    if let Some(before) = &before {
        // Other changes of the status are not our business, and the condition in it is our own.
        let same =
            (before.generation, before.deleting, &before.spec) == (new.generation, new.deleting, &new.spec);
        if same && before.condition == new.condition {
            return;
        }
        if before.target != new.target {
            wake_target(ctx, before);
        }
    }
    wake_target(ctx, &new);
}

/// A workload that is no agent is looked at only while this AgentRuntime says something about it.
fn wake_target(ctx: &Context, runtime: &Runtime) {
    if let Some(target) = &runtime.target
        && (ctx.index.workloads.get(target).is_some() || runtime.condition.is_some())
    {
        ctx.wake(target.clone(), NOW);
    }
}

async fn roles(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, scope) = (&*ctx, namespace.as_deref());
    let config = pages().labels(&format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY));
    let options = options(ctx, "roles", Source::Roles, scope);
    let events = ctx.watch(api_in::<Role>(&ctx.client, scope), config, options);
    let grants = &ctx.index.grants.roles;
    feed(events, |step| match step {
        Step::Put(role, listing) => {
            if let Some(key) = owner(&role) {
                listing.saw(key.clone());
                if grants.upsert(&key, RoleState::of(role)) {
                    grant_changed(ctx, key);
                }
            }
        }
        Step::Listed(seen) => {
            grants.retain(scope, &seen).into_iter().for_each(|key| ctx.wake(key, NOW));
            ctx.sources.synced(Source::Roles, scope);
            sweep(ctx, |key| covers(scope, &key.namespace));
        }
        Step::Remove(role) => {
            if let Some(key) = owner(&role)
                && grants.remove(&key, role.metadata.uid.as_deref().unwrap_or_default())
            {
                ctx.wake(key, NOW);
            }
        }
    })
    .await;
}

async fn bindings(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, scope) = (&*ctx, namespace.as_deref());
    let config = pages().labels(&format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY));
    let options = options(ctx, "rolebindings", Source::Bindings, scope);
    let events = ctx.watch(api_in::<RoleBinding>(&ctx.client, scope), config, options);
    let grants = &ctx.index.grants.bindings;
    feed(events, |step| match step {
        Step::Put(binding, listing) => {
            if let Some(key) = owner(&binding) {
                listing.saw(key.clone());
                if grants.upsert(&key, BindingState::of(binding)) {
                    grant_changed(ctx, key);
                }
            }
        }
        Step::Listed(seen) => {
            grants.retain(scope, &seen).into_iter().for_each(|key| ctx.wake(key, NOW));
            ctx.sources.synced(Source::Bindings, scope);
            sweep(ctx, |key| covers(scope, &key.namespace));
        }
        Step::Remove(binding) => {
            if let Some(key) = owner(&binding)
                && grants.remove(&key, binding.metadata.uid.as_deref().unwrap_or_default())
            {
                ctx.wake(key, NOW);
            }
        }
    })
    .await;
}

/// The workload that the name of a Role or RoleBinding leads to.
fn owner<K: ResourceExt>(object: &K) -> Option<WorkloadKey> {
    naming::workload_of_grant(&object.namespace()?, &object.name_any())
}

/// Only agents are looked at before the lists are complete: the sweep finds the others.
fn grant_changed(ctx: &Context, key: WorkloadKey) {
    let listed = ctx.sources.is_synced(Source::Workloads(key.kind), &key.namespace);
    if ctx.index.workloads.get(&key).is_some() || listed {
        ctx.wake(key, NOW);
    }
}
