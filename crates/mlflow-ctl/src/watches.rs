//! The watches: they fill the indexes and wake what has to look again (MLflow §2).

mod optional;

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use api_types::{
    AgentRuntime,
    names::{MANAGED_BY_OPERATOR, label},
};
use controller_kit::{
    metrics::Metrics,
    process::Process,
    surroundings,
    watch::{self, StoreGauge, TroubleKind, WatchOptions, Watches},
};
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api, ResourceExt,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};

use crate::{
    context::Context,
    eligibility,
    grant::{BindingState, RoleState},
    index::{Runtime, RuntimeKey},
    kinds::{self, WorkloadKind},
    naming,
    sources::Source,
    workload::{Workload, WorkloadKey, WorkloadView},
};

const NOW: Duration = Duration::ZERO;
/// Configuration is edited in bursts: one look for all of them.
const DEBOUNCE: Duration = Duration::from_secs(1);
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
        WatchOptions::new(kind).on_trouble(move |trouble| {
            if trouble.kind != TroubleKind::Expired {
                ctx.sources.troubled(source, namespace.as_deref(), &trouble.text);
            }
        })
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
    let spawn = |name: &'static str, task: BoxFuture<'static, ()>| {
        let stop = process.stop();
        process.spawn(name, async move {
            stop.run_until_cancelled(task).await;
            Ok(())
        });
    };
    let waking = ctx.clone();
    let wake: surroundings::Wake = Arc::new(move |namespace| waking.wake_all(namespace, DEBOUNCE));
    for (name, task) in surroundings::tasks(&ctx.client, &process.watches(), &ctx.scope, &ctx.around, wake) {
        spawn(name, task);
    }
    for namespace in watch::namespaces_of(&ctx.scope) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Runtimes, Source::Roles, Source::Bindings, Source::Workloads(WorkloadKind::Sandbox)]
            .into_iter()
            .for_each(scoped);
        spawn("watch agentruntimes", Box::pin(runtimes(watcher.clone(), namespace.clone())));
        spawn("watch roles", Box::pin(roles(watcher.clone(), namespace.clone())));
        spawn("watch rolebindings", Box::pin(bindings(watcher.clone(), namespace.clone())));
        for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            spawn("watch workloads", Box::pin(workloads(watcher.clone(), kind, "", namespace.clone())));
        }
    }
    spawn("watch sandboxes", Box::pin(optional::sandboxes(watcher.clone())));
    if ctx.settings.mlflow_tracking_uri.is_none() {
        for (name, task) in optional::servers(&watcher) {
            spawn(name, task);
        }
    }
}

/// Watches the agents of one kind; ends only when it is dropped.
async fn workloads(watcher: Watcher, kind: WorkloadKind, version: &'static str, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let resource = kinds::resource(kind, version);
    let api: Api<WorkloadView> = match &namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let (plural, source, scope) = (kinds::plural(kind), Source::Workloads(kind), namespace.as_deref());
    let options = watcher.options(plural, source, scope);
    let options = if kind == WorkloadKind::Sandbox { options.degrade_when_refused() } else { options };
    let config = pages().labels(&eligibility::selector());
    let mut events = watch::watch_stream(&watcher.watches, api, config, options);
    let mut gauge = watcher.gauge(plural);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(view) | Event::Apply(view) => {
                if let Some(workload) = Workload::from_view(&resource, kind, view) {
                    listing.saw(workload.key.clone());
                    workload_applied(ctx, workload);
                }
            }
            Event::InitDone => {
                for gone in ctx.index.workloads.retain(kind, scope, &listing.end()) {
                    ctx.wake(gone, NOW);
                }
                ctx.sources.synced(source, scope);
                sweep(ctx, |key| key.kind == kind);
            }
            Event::Delete(view) => {
                if let Some(gone) = Workload::from_view(&resource, kind, view) {
                    ctx.index.workloads.remove(&gone.key);
                    ctx.wake(gone.key, NOW);
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

async fn runtimes(watcher: Watcher, namespace: Option<String>) {
    let ctx = watcher.ctx.clone();
    let scope = namespace.as_deref();
    // Installed alone, without the suite's CRDs, agents labelled by hand are configured all the same.
    let options =
        watcher.options("agentruntimes", Source::Runtimes, scope).degrade_when_refused().optional_kind();
    let mut events = watch::guarded_watch_stream::<AgentRuntime>(
        &watcher.watches,
        &ctx.client,
        scope,
        pages(),
        options,
        |_| {},
    );
    let mut gauge = watcher.gauge("agentruntimes");
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                listing.saw(key_of(&object));
                runtime_applied(&ctx, object);
            }
            Event::InitDone => {
                for gone in ctx.index.runtimes.retain(scope, &listing.end()) {
                    wake_target(&ctx, &gone);
                }
                ctx.sources.synced(Source::Runtimes, scope);
            }
            Event::Delete(object) => {
                if let Some(gone) = ctx.index.runtimes.remove(&key_of(&object)) {
                    wake_target(&ctx, &gone);
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
        let same = (before.generation, before.deleting, &before.spec) == (new.generation, new.deleting, &new.spec);
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

fn ours() -> watcher::Config {
    pages().labels(&format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY))
}

async fn roles(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let scope = namespace.as_deref();
    let api: Api<Role> = match scope {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = watcher.options("roles", Source::Roles, scope);
    let mut events = watch::watch_stream(&watcher.watches, api, ours(), options);
    let mut listing = Listing(None);
    let grants = &ctx.index.grants.roles;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(role) | Event::Apply(role) => {
                if let Some(key) = owner(&role) {
                    listing.saw(key.clone());
                    if grants.upsert(&key, RoleState::of(role)) {
                        grant_changed(ctx, key, listing.0.is_some());
                    }
                }
            }
            Event::InitDone => {
                grants.retain(scope, &listing.end()).into_iter().for_each(|key| grant_changed(ctx, key, false));
                ctx.sources.synced(Source::Roles, scope);
                sweep(ctx, |key| scope.is_none_or(|ns| ns == key.namespace));
            }
            Event::Delete(role) => {
                if let Some(key) = owner(&role)
                    && grants.remove(&key, role.metadata.uid.as_deref().unwrap_or_default())
                {
                    grant_changed(ctx, key, false);
                }
            }
        }
    }
}

async fn bindings(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let scope = namespace.as_deref();
    let api: Api<RoleBinding> = match scope {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = watcher.options("rolebindings", Source::Bindings, scope);
    let mut events = watch::watch_stream(&watcher.watches, api, ours(), options);
    let mut listing = Listing(None);
    let grants = &ctx.index.grants.bindings;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(binding) | Event::Apply(binding) => {
                if let Some(key) = owner(&binding) {
                    listing.saw(key.clone());
                    if grants.upsert(&key, BindingState::of(binding)) {
                        grant_changed(ctx, key, listing.0.is_some());
                    }
                }
            }
            Event::InitDone => {
                grants.retain(scope, &listing.end()).into_iter().for_each(|key| grant_changed(ctx, key, false));
                ctx.sources.synced(Source::Bindings, scope);
                sweep(ctx, |key| scope.is_none_or(|ns| ns == key.namespace));
            }
            Event::Delete(binding) => {
                if let Some(key) = owner(&binding)
                    && grants.remove(&key, binding.metadata.uid.as_deref().unwrap_or_default())
                {
                    grant_changed(ctx, key, false);
                }
            }
        }
    }
}

/// The workload that the name of a Role or RoleBinding leads to.
fn owner<K: ResourceExt>(object: &K) -> Option<WorkloadKey> {
    naming::workload_of_grant(&object.namespace()?, &object.name_any())
}

/// During a list the sweep at its end looks for what has no agent.
fn grant_changed(ctx: &Context, key: WorkloadKey, listing: bool) {
    if ctx.index.workloads.get(&key).is_some() || !listing {
        ctx.wake(key, NOW);
    }
}
