//! Every write of runtime-ctl to AgentRuntimes and workloads (runtime §6.1).
//!
//! Merge patches of owned keys and server-side apply of the status; answers go into the index at once, so that the
//! next pass does not act on what was before.

use std::sync::Arc;

use api_types::{
    AgentRuntime, AgentRuntimeStatus,
    names::{finalizer, manager},
};
use controller_kit::{
    apply::{self, FieldManager},
    workload::resource,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::{Error, PassError},
    index::RuntimeKey,
    kinds::{SandboxVersion, WorkloadKind},
    status,
    workload::{Workload, WorkloadKey, WorkloadView},
};

const MANAGER: FieldManager = FieldManager::new(manager::RUNTIME_CTL);

/// How often a write is repeated at once after a conflict (runtime §6 step 10).
pub const ATTEMPTS: u32 = 5;

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PatchParams::default() }
}

fn runtimes(ctx: &Context, namespace: &str) -> Api<AgentRuntime> {
    Api::namespaced(ctx.client.clone(), namespace)
}

fn store(ctx: &Context, runtime: AgentRuntime) -> Arc<AgentRuntime> {
    let key = RuntimeKey::of(&runtime);
    let fallback = Arc::new(runtime.clone());
    // Something newer may have arrived by the watch meanwhile.
    let _ = ctx.index.runtimes.upsert(runtime);
    ctx.index.runtimes.get(&key).unwrap_or(fallback)
}

/// True when our finalizer is on the object.
pub fn has_finalizer(runtime: &AgentRuntime) -> bool {
    runtime.finalizers().iter().any(|name| name == finalizer::CLEANUP)
}

/// Adds our finalizer when it is missing; `None` when the object is gone or being deleted.
///
/// # Errors
/// What the API server says, after a few conflicts.
pub async fn add_finalizer(
    ctx: &Context,
    runtime: Arc<AgentRuntime>,
) -> Result<Option<Arc<AgentRuntime>>, Error> {
    change_finalizer(ctx, runtime, |names| {
        (!names.iter().any(|name| name == finalizer::CLEANUP)).then(|| {
            names.push(finalizer::CLEANUP.to_owned());
        })
    })
    .await
    .map(|runtime| runtime.filter(|runtime| runtime.metadata.deletion_timestamp.is_none()))
}

/// Removes our finalizer; fine when the object is gone.
///
/// # Errors
/// What the API server says, after a few conflicts.
pub async fn remove_finalizer(ctx: &Context, runtime: Arc<AgentRuntime>) -> Result<(), Error> {
    change_finalizer(ctx, runtime, |names| {
        let before = names.len();
        names.retain(|name| name != finalizer::CLEANUP);
        (names.len() != before).then_some(())
    })
    .await
    .map(drop)
}

async fn change_finalizer(
    ctx: &Context,
    mut runtime: Arc<AgentRuntime>,
    change: impl Fn(&mut Vec<String>) -> Option<()>,
) -> Result<Option<Arc<AgentRuntime>>, Error> {
    let key = RuntimeKey::of(&*runtime);
    let api = runtimes(ctx, &key.namespace);
    let object = || format!("the finalizers of AgentRuntime {key}");
    let mut attempt = 0;
    loop {
        let mut names = runtime.finalizers().to_vec();
        if change(&mut names).is_none() {
            return Ok(Some(runtime));
        }
        ctx.may_write()?;
        // The list is replaced as a whole, so the version read makes sure that nobody's finalizer is lost.
        let body = json!({ "metadata": {
            "uid": runtime.uid(), "resourceVersion": runtime.resource_version(), "finalizers": names,
        } });
        attempt += 1;
        match api.patch(&key.name, &params(), &Patch::Merge(&body)).await {
            Ok(answer) => return Ok(Some(store(ctx, answer))),
            Err(error) if apply::is_not_found(&error) => return Ok(None),
            Err(error) if apply::is_stale(&error) && attempt < ATTEMPTS => {
                ctx.metrics.conflict("AgentRuntime");
                // A live read: the store is behind what the API server holds.
                match api.get_opt(&key.name).await.map_err(PassError::api("read", object()))? {
                    Some(live) if live.uid() == runtime.uid() => runtime = store(ctx, live),
                    _ => return Ok(None),
                }
            }
            Err(error) => return Err(PassError::api("change", object())(error).into()),
        }
    }
}

/// Applies the owned fields of the status. `None` when the object is gone.
///
/// # Errors
/// What the API server says.
pub async fn status(
    ctx: &Context,
    runtime: &AgentRuntime,
    next: &AgentRuntimeStatus,
) -> Result<Option<Arc<AgentRuntime>>, Error> {
    let key = RuntimeKey::of(runtime);
    ctx.may_write()?;
    let api = runtimes(ctx, &key.namespace);
    match apply::apply_status(&api, &key.name, MANAGER, status::document(next)).await {
        Ok(answer) => Ok(Some(store(ctx, answer))),
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) => Err(PassError::api("write", format!("the status of AgentRuntime {key}"))(error).into()),
    }
}

/// The API of a kind of workload in a namespace; `None` when the kind is not served.
pub fn workloads(ctx: &Context, kind: WorkloadKind, namespace: &str) -> Option<Api<WorkloadView>> {
    let version = match kind {
        WorkloadKind::Sandbox => ctx.sandbox_version()?,
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "v1",
    };
    Some(Api::namespaced_with(ctx.client.clone(), namespace, &resource(kind, version)))
}

fn store_workload(ctx: &Context, kind: WorkloadKind, view: WorkloadView) -> Option<Arc<Workload>> {
    let version = ctx.sandbox_version().map_or(SandboxVersion::V1Beta1, SandboxVersion::of);
    let workload = Workload::from_view(kind, version, view)?;
    let key = workload.key.clone();
    let fallback = Arc::new(workload.clone());
    let _ = ctx.index.workloads.upsert(workload);
    Some(ctx.index.workloads.get(&key).unwrap_or(fallback))
}

/// Reads a workload live and brings the index up to date; `None` when it does not exist.
///
/// # Errors
/// What the API server says.
pub async fn read_workload(ctx: &Context, key: &WorkloadKey) -> kube::Result<Option<Arc<Workload>>> {
    let Some(api) = workloads(ctx, key.kind, &key.namespace) else { return Ok(None) };
    if let Some(view) = api.get_opt(&key.name).await? {
        Ok(store_workload(ctx, key.kind, view))
    } else {
        ctx.index.workloads.remove(key);
        Ok(None)
    }
}

/// Sends a merge patch; `Ok(None)` when the workload does not exist.
///
/// # Errors
/// What the API server says; see [`apply::is_stale`].
pub async fn patch_workload(
    ctx: &Context,
    key: &WorkloadKey,
    body: &Value,
) -> kube::Result<Option<Arc<Workload>>> {
    let Some(api) = workloads(ctx, key.kind, &key.namespace) else { return Ok(None) };
    match api.patch(&key.name, &params(), &Patch::Merge(body)).await {
        Ok(view) => Ok(store_workload(ctx, key.kind, view)),
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) => {
            if apply::is_stale(&error) {
                ctx.metrics.conflict(key.kind.as_str());
            }
            Err(error)
        }
    }
}
