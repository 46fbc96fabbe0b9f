//! The watches: they fill the indexes and wake what has to look again (client-registration §12).

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use api_types::{
    AgentRuntime,
    enrolment::TargetKind,
    names::{MANAGED_BY_OPERATOR, label},
};
use controller_kit::{
    index::covers,
    lean::LeanMeta,
    message::message_of,
    process::Process,
    surroundings,
    watch::{self, TroubleKind, WatchOptions},
    workload::{SANDBOXES, plural, resource},
};
use futures::{StreamExt, future::{BoxFuture, join_all}};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};

use crate::{
    context::{Context, Key},
    index::Runtime,
    keycloak::AdminCredentials,
    secret::SecretMeta,
    sources::Source,
    workload::{Workload, WorkloadView},
};

const NOW: Duration = Duration::ZERO;
/// Objects of one page of a list: while it is read they are in memory whole.
const PAGE: u32 = 200;
/// How often the administrator's Secret is read again when that failed.
const RETRY: Duration = Duration::from_secs(5);

fn pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// The objects a running list has named.
struct Listing<K>(HashSet<K>);

impl<K: Eq + Hash> Listing<K> {
    fn end(&mut self) -> HashSet<K> {
        std::mem::take(&mut self.0)
    }
}

/// Options whose trouble is noted for the passes that depend on the source.
fn options(ctx: &Arc<Context>, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
    let (ctx, namespace) = (ctx.clone(), namespace.map(str::to_owned));
    let options = WatchOptions::new(kind).on_trouble(move |trouble| {
        if trouble.kind != TroubleKind::Expired {
            ctx.sources.troubled(source, namespace.as_deref(), &trouble.text);
        }
    });
    match source {
        Source::Workloads(TargetKind::Sandbox) | Source::Runtimes | Source::Admin => options.degrade_when_refused(),
        Source::Workloads(_) | Source::Secrets => options,
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
    let spawn = |name: &'static str, task: BoxFuture<'static, ()>| {
        let stop = process.stop();
        process.spawn(name, async move {
            stop.run_until_cancelled(task).await;
            Ok(())
        });
    };
    let wake: surroundings::Wake = {
        let ctx = ctx.clone();
        Arc::new(move |namespace: Option<&str>| {
            ctx.wake_all(namespace);
            match namespace {
                Some(name) => ctx.queue.add(Key::Namespace(name.to_owned()), NOW),
                None => ctx.wake_namespaces(),
            }
        })
    };
    for (name, task) in surroundings::tasks(&ctx.client, &ctx.watches, &ctx.scope, &ctx.around, wake) {
        spawn(name, task);
    }
    ctx.sources.register(Source::Admin, Some(&ctx.settings.keycloak_admin_secret_namespace));
    spawn("watch the admin secret", Box::pin(admin(ctx.clone())));
    if !ctx.settings.enable_client_registration {
        return;
    }
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        [Source::Runtimes, Source::Workloads(TargetKind::Sandbox)].into_iter().for_each(scoped);
        spawn("watch agentruntimes", Box::pin(runtimes(ctx.clone(), namespace.clone())));
        for kind in [TargetKind::Deployment, TargetKind::StatefulSet] {
            scoped(Source::Workloads(kind));
            spawn("watch workloads", Box::pin(workloads(ctx.clone(), kind, "v1", namespace.clone())));
        }
        if ctx.settings.watch_secrets {
            scoped(Source::Secrets);
            spawn("watch secrets", Box::pin(secrets(ctx.clone(), namespace.clone())));
        }
    }
    spawn("watch sandboxes", Box::pin(sandboxes(ctx.clone())));
}

/// Watches one kind of workload; ends only when it is dropped.
async fn workloads(ctx: Arc<Context>, kind: TargetKind, version: &'static str, namespace: Option<String>) {
    let resource = resource(kind, version);
    let api: Api<WorkloadView> = match &namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let source = Source::Workloads(kind);
    let options = options(&ctx, plural(kind), source, namespace.as_deref());
    let mut events = watch::watch_stream(&ctx.watches, api, pages(), options);
    let mut listing = Listing(HashSet::new());
    while let Some(event) = events.next().await {
        match event {
            Event::Init => drop(listing.end()),
            Event::InitApply(view) | Event::Apply(view) => {
                if let Some(workload) = Workload::from_view(kind, &resource, view) {
                    listing.0.insert(workload.key.clone());
                    workload_applied(&ctx, workload);
                }
            }
            Event::InitDone => {
                let covered = |key: &crate::workload::WorkloadKey| {
                    key.kind == kind && covers(namespace.as_deref(), &key.unit.namespace)
                };
                for gone in ctx.index.workloads.retain(covered, &listing.end()) {
                    workload_gone(&ctx, &gone);
                }
                ctx.sources.synced(source, namespace.as_deref());
            }
            Event::Delete(view) => {
                if let Some(gone) = Workload::from_view(kind, &resource, view) {
                    ctx.index.workloads.remove(&gone.key);
                    workload_gone(&ctx, &gone);
                }
            }
        }
    }
}

fn workload_applied(ctx: &Context, workload: Workload) {
    let new = workload.clone();
    let Ok(before) = ctx.index.workloads.upsert(workload) else { return };
    if before.as_deref().is_none_or(|before| !before.same_but_for_version(&new)) {
        ctx.wake(new.key.unit, NOW);
    }
}

fn workload_gone(ctx: &Context, gone: &Workload) {
    ctx.limiter.forget(&gone.key);
    ctx.waiting_for_pods.remove(&gone.key);
    ctx.wake(gone.key.unit.clone(), NOW);
}

/// Watches Sandboxes while their CRD is served.
async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let source = Source::Workloads(TargetKind::Sandbox);
    let found = |version: Option<&'static str>| {
        for namespace in &scopes {
            match version {
                Some(_) => ctx.sources.restart(source, namespace.as_deref()),
                None => drop(ctx.sources.synced(source, namespace.as_deref())),
            }
        }
        ctx.set_sandbox_version(version);
    };
    let watch = |version: &'static str| {
        let scopes = scopes.clone();
        let ctx = ctx.clone();
        async move {
            join_all(
                scopes.iter().map(|namespace| {
                    workloads(ctx.clone(), TargetKind::Sandbox, version, namespace.clone())
                }),
            )
            .await
        }
    };
    SANDBOXES.follow(&ctx.client, found, watch).await;
}

async fn runtimes(ctx: Arc<Context>, namespace: Option<String>) {
    let options = options(&ctx, "agentruntimes", Source::Runtimes, namespace.as_deref());
    let mut events = watch::guarded_watch_stream::<AgentRuntime>(
        &ctx.watches,
        &ctx.client,
        namespace.as_deref(),
        pages(),
        options,
        // One that cannot be read counts as absent.
        |_| {},
    );
    let mut listing = Listing(HashSet::new());
    while let Some(event) = events.next().await {
        match event {
            Event::Init => drop(listing.end()),
            Event::InitApply(object) | Event::Apply(object) => {
                if let DeserializeGuard(Ok(runtime)) = object {
                    let runtime = Runtime::of(runtime);
                    listing.0.insert(runtime.key.clone());
                    runtime_applied(&ctx, runtime);
                }
            }
            Event::InitDone => {
                let covered = |key: &(String, String)| covers(namespace.as_deref(), &key.0);
                for gone in ctx.index.runtimes.retain(covered, &listing.end()) {
                    wake_target(&ctx, &gone);
                }
                ctx.sources.synced(Source::Runtimes, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let DeserializeGuard(Ok(runtime)) = object
                    && let Some(gone) = ctx.index.runtimes.remove(&Runtime::of(runtime).key)
                {
                    wake_target(&ctx, &gone);
                }
            }
        }
    }
}

fn runtime_applied(ctx: &Context, runtime: Runtime) {
    let new = runtime.clone();
    let Ok(before) = ctx.index.runtimes.upsert(runtime) else { return };
    // Changes of the status alone are our own, or others'.
    let same = |before: &Runtime| {
        let matters = |runtime: &Runtime| (runtime.generation, runtime.deleting, runtime.created);
        matters(before) == matters(&new) && before.spec == new.spec
    };
    if before.as_deref().is_some_and(same) {
        return;
    }
    wake_target(ctx, &new);
    if let Some(before) = before {
        wake_target(ctx, &before);
    }
}

fn wake_target(ctx: &Context, runtime: &Runtime) {
    if let Some(target) = &runtime.target {
        ctx.wake(target.unit.clone(), NOW);
    }
}

/// Metadata of the credentials Secrets: no secret ever enters the index.
async fn secrets(ctx: Arc<Context>, namespace: Option<String>) {
    let api: Api<LeanMeta<ApiSecret>> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = options(&ctx, "secrets", Source::Secrets, namespace.as_deref());
    let config = pages().labels(&format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY));
    let mut events = watch::watch_stream(&ctx.watches, api, config, options);
    let mut listing = Listing(HashSet::new());
    while let Some(event) = events.next().await {
        match event {
            Event::Init => drop(listing.end()),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some(meta) = credentials_secret(object) {
                    listing.0.insert(meta.key.clone());
                    secret_applied(&ctx, meta);
                }
            }
            Event::InitDone => {
                let covered = |key: &(String, String)| covers(namespace.as_deref(), &key.0);
                for gone in ctx.index.secrets.retain(covered, &listing.end()) {
                    secret_gone(&ctx, &gone);
                }
                ctx.sources.synced(Source::Secrets, namespace.as_deref());
            }
            Event::Delete(object) => {
                if let Some(meta) = credentials_secret(object) {
                    ctx.index.secrets.remove(&meta.key);
                    secret_gone(&ctx, &meta);
                }
            }
        }
    }
}

/// The label is on other objects of the suite, too.
fn credentials_secret(object: LeanMeta<ApiSecret>) -> Option<SecretMeta> {
    SecretMeta::of(object.metadata).filter(|meta| api_types::credentials::is_operator_secret(&meta.key.1))
}

fn secret_applied(ctx: &Context, meta: SecretMeta) {
    let new = meta.clone();
    // An own write is in the index before its event.
    let Ok(before) = ctx.index.secrets.upsert(meta) else { return };
    if before.is_some_and(|before| before.version == new.version) {
        return;
    }
    if new.deleting.is_some() && new.finalizer {
        ctx.queue.add(Key::Secret(new.key.0.clone(), new.key.1.clone()), NOW);
    }
    if let Some(unit) = new.unit {
        ctx.wake(unit, NOW);
    }
}

fn secret_gone(ctx: &Context, gone: &SecretMeta) {
    if let Some(unit) = &gone.unit {
        ctx.checked.remove(unit);
        ctx.wake(unit.clone(), NOW);
    }
}

/// Watches the administrator's Secret by name, and reads it when it changes.
async fn admin(ctx: Arc<Context>) {
    let settings = &ctx.settings;
    let (namespace, name) = (&settings.keycloak_admin_secret_namespace, &settings.keycloak_admin_secret_name);
    let api = Api::<LeanMeta<ApiSecret>>::namespaced(ctx.client.clone(), namespace);
    let options = options(&ctx, "secrets", Source::Admin, Some(namespace)).check("admin secret");
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watch::watch_stream(&ctx.watches, api, config, options);
    let mut listed = false;
    while let Some(event) = events.next().await {
        let exists = match event {
            Event::Init => {
                listed = false;
                continue;
            }
            Event::InitApply(_) => {
                listed = true;
                continue;
            }
            Event::InitDone => listed,
            Event::Apply(_) => true,
            Event::Delete(_) => false,
        };
        let read = if exists { read_admin(&ctx).await } else { Err("does not exist".to_owned()) };
        if let Err(why) = &read {
            tracing::warn!("Secret {namespace}/{name} {why}: agents are not registered until it is there");
        }
        if ctx.keycloak.admin().set(read) {
            ctx.wake_namespaces();
            ctx.wake_all(None);
        }
        ctx.sources.synced(Source::Admin, Some(namespace));
    }
}

async fn read_admin(ctx: &Context) -> Result<AdminCredentials, String> {
    let settings = &ctx.settings;
    let api = Api::<ApiSecret>::namespaced(ctx.client.clone(), &settings.keycloak_admin_secret_namespace);
    loop {
        match api.get_opt(&settings.keycloak_admin_secret_name).await {
            Ok(None) => return Err("does not exist".to_owned()),
            Ok(Some(secret)) => {
                let version = secret.metadata.resource_version.unwrap_or_default();
                let data = secret.data.unwrap_or_default();
                return AdminCredentials::read(settings.keycloak_admin_auth, &data, version);
            }
            Err(error) if controller_kit::apply::is_forbidden(&error) => {
                return Err(format!("may not be read: {}", message_of(&error)));
            }
            Err(error) => {
                tracing::debug!("cannot read the admin Secret: {}", message_of(&error));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
