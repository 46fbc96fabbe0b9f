//! The watches: they fill the indexes and wake what has to look again (client-registration §12).

mod admin;

use std::{collections::HashSet, sync::Arc, time::Duration};

use api_types::{
    AgentRuntime, credentials,
    enrolment::TargetKind,
    names::{MANAGED_BY_OPERATOR, label},
};
use controller_kit::{
    index::covers,
    lean::LeanMeta,
    process::Process,
    scope::{api_in, dynamic_api_in},
    surroundings,
    watch::{self, Key as ObjectKey, Step, StoreGauge, TroubleKind, WatchOptions, feed, pages},
    workload::{SANDBOXES, plural, resource},
};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube::core::DeserializeGuard;

use crate::{
    context::{Context, Key},
    index::Runtime,
    secret::SecretMeta,
    sources::Source,
    workload::{Workload, WorkloadKey, WorkloadView},
};

const NOW: Duration = Duration::ZERO;

/// Options of a watch, whose trouble is noted for the passes that depend on the source.
fn options(ctx: &Context, kind: &'static str, source: Source, namespace: Option<&str>) -> WatchOptions {
    let counts = |trouble| trouble != TroubleKind::Expired;
    let options = ctx.sources.note_troubles(WatchOptions::new(kind), source, namespace, counts);
    match source {
        Source::Workloads(TargetKind::Sandbox) | Source::Runtimes | Source::Admin => {
            options.degrade_when_refused()
        }
        Source::Workloads(_) | Source::Secrets => options,
    }
}

/// Starts every watch of the process.
pub fn start(process: &Process, ctx: &Arc<Context>) {
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
        process.spawn_endless(name, task);
    }
    ctx.sources.register(Source::Admin, Some(&ctx.settings.keycloak_admin_secret_namespace));
    process.spawn_endless("watch the admin secret", admin::run(ctx.clone()));
    if !ctx.settings.enable_client_registration {
        return;
    }
    for namespace in watch::namespaces_of(process.scope()) {
        let scoped = |source| ctx.sources.register(source, namespace.as_deref());
        scoped(Source::Runtimes);
        TargetKind::ALL.map(Source::Workloads).into_iter().for_each(scoped);
        process.spawn_endless("watch agentruntimes", runtimes(ctx.clone(), namespace.clone()));
        for kind in [TargetKind::Deployment, TargetKind::StatefulSet] {
            process.spawn_endless("watch workloads", workloads(ctx.clone(), kind, "v1", namespace.clone()));
        }
        if ctx.settings.watch_secrets {
            scoped(Source::Secrets);
            process.spawn_endless("watch secrets", secrets(ctx.clone(), namespace.clone()));
        }
    }
    process.spawn_endless("watch sandboxes", sandboxes(ctx.clone()));
    process.spawn_endless("count objects", count(ctx.clone(), process.metrics().clone()));
}

/// Has the objects in the indexes counted; never ends.
async fn count(ctx: Arc<Context>, metrics: controller_kit::metrics::Metrics) {
    let gauge = |kind| StoreGauge::new(&metrics, kind);
    let (mut workloads, mut runtimes, mut secrets) =
        (gauge("workloads"), gauge("agentruntimes"), gauge("secrets"));
    loop {
        workloads.set(ctx.index.workloads.len());
        runtimes.set(ctx.index.runtimes.len());
        secrets.set(ctx.index.secrets.len());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Watches one kind of workload; ends only when it is dropped.
async fn workloads(ctx: Arc<Context>, kind: TargetKind, version: &'static str, namespace: Option<String>) {
    let (ctx, namespace, source) = (&*ctx, namespace.as_deref(), Source::Workloads(kind));
    let resource = resource(kind, version);
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource, namespace);
    let options = options(ctx, plural(kind), source, namespace);
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(view, listing) => {
            if let Some(workload) = Workload::from_view(kind, &resource, view) {
                listing.saw(workload.key.clone());
                workload_applied(ctx, workload);
            }
        }
        Step::Remove(view) => {
            if let Some(gone) = Workload::from_view(kind, &resource, view) {
                ctx.index.workloads.remove(&gone.key);
                workload_gone(ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            workloads_gone(ctx, kind, namespace, &seen);
            ctx.sources.synced(source, namespace);
        }
    })
    .await;
}

fn workloads_gone(ctx: &Context, kind: TargetKind, namespace: Option<&str>, seen: &HashSet<WorkloadKey>) {
    let covered = |key: &WorkloadKey| key.kind == kind && covers(namespace, &key.unit.namespace);
    for gone in ctx.index.workloads.retain(covered, seen) {
        workload_gone(ctx, &gone);
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
    ctx.named.remove(&gone.key);
    ctx.put_back.remove(&gone.key);
    ctx.wake(gone.key.unit.clone(), NOW);
}

/// Watches Sandboxes while their CRD is served.
async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let found = |version: Option<&'static str>| {
        if version.is_none() {
            workloads_gone(&ctx, TargetKind::Sandbox, None, &HashSet::new());
        }
        ctx.set_sandbox_version(version);
        ctx.sources.looked_for(Source::Workloads(TargetKind::Sandbox), &scopes, version.is_some());
    };
    let watch = |version, namespace| workloads(ctx.clone(), TargetKind::Sandbox, version, namespace);
    SANDBOXES.follow(&ctx.client, &scopes, found, watch).await;
}

async fn runtimes(ctx: Arc<Context>, namespace: Option<String>) {
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let options = options(ctx, "agentruntimes", Source::Runtimes, namespace);
    // One that cannot be read counts as absent; runtime-ctl tells its owner.
    let events = ctx.watch_guarded::<AgentRuntime>(namespace, options, |_| {});
    feed(events, |step| match step {
        Step::Put(DeserializeGuard(Ok(runtime)), listing) => {
            let runtime = Runtime::of(runtime);
            listing.saw(runtime.key.clone());
            runtime_applied(ctx, runtime);
        }
        Step::Put(DeserializeGuard(Err(bad)), _) => {
            let key = ObjectKey::new(
                bad.metadata.namespace.unwrap_or_default(),
                bad.metadata.name.unwrap_or_default(),
            );
            if let Some(gone) = ctx.index.runtimes.remove(&key) {
                wake_target(ctx, &gone);
            }
        }
        Step::Remove(object) => {
            if let Some(gone) = ctx.index.runtimes.remove(&ObjectKey::of(&object)) {
                wake_target(ctx, &gone);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.runtimes.retain(|key: &ObjectKey| covers(namespace, &key.namespace), &seen)
            {
                wake_target(ctx, &gone);
            }
            ctx.sources.synced(Source::Runtimes, namespace);
        }
    })
    .await;
}

fn runtime_applied(ctx: &Context, runtime: Runtime) {
    let new = runtime.clone();
    let Ok(before) = ctx.index.runtimes.upsert(runtime) else { return };
    // Changes of the status alone are our own, or others'.
    let same = |before: &Runtime| {
        (before.generation, before.deleting, before.created) == (new.generation, new.deleting, new.created)
            && before.target == new.target
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
    let (ctx, namespace) = (&*ctx, namespace.as_deref());
    let api = api_in::<LeanMeta<ApiSecret>>(&ctx.client, namespace);
    let options = options(ctx, "secrets", Source::Secrets, namespace);
    let config = pages().labels(&format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY));
    feed(ctx.watch(api, config, options), |step| match step {
        Step::Put(object, listing) => {
            if let Some(meta) = credentials_secret(object) {
                listing.saw(meta.key.clone());
                secret_applied(ctx, meta);
            }
        }
        Step::Remove(object) => {
            if let Some(meta) = credentials_secret(object) {
                ctx.index.secrets.remove(&meta.key);
                secret_gone(ctx, &meta);
            }
        }
        Step::Listed(seen) => {
            for gone in ctx.index.secrets.retain(|key: &ObjectKey| covers(namespace, &key.namespace), &seen) {
                secret_gone(ctx, &gone);
            }
            ctx.sources.synced(Source::Secrets, namespace);
        }
    })
    .await;
}

/// The label is on other objects of the suite, too.
fn credentials_secret(object: LeanMeta<ApiSecret>) -> Option<SecretMeta> {
    SecretMeta::of(object.metadata).filter(|meta| credentials::is_operator_secret(&meta.key.name))
}

fn secret_applied(ctx: &Context, meta: SecretMeta) {
    let new = meta.clone();
    let Ok(before) = ctx.index.secrets.upsert(meta) else { return };
    // An own write is in the index before its event.
    if before.is_some_and(|before| before.version == new.version) {
        return;
    }
    ctx.finish_soon(&new);
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
