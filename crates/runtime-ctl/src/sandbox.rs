//! Restarting a Sandbox: its own controller does not do it when the template changes (runtime §8.2).

use std::{sync::Arc, time::Duration};

use api_types::{names::annotation, owner::controller_of};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams, core::PartialObjectMeta};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    context::Context,
    error::{Error, PassError},
    index::OwnerKey,
    kinds::WorkloadKind,
    patch::{WorkloadPatch, set},
    workload::Workload,
    write,
};

/// After this long phase 2 no longer waits for the Pod to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// When to look after phase 2.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Adds phase 1 to a patch that changes the template, when a Pod runs with the old one. True = it was added.
///
/// One patch holds both, so a crash between them cannot lose the restart.
///
/// # Errors
/// What the API server says to the look for the Pod.
pub async fn add_restart(
    ctx: &Context,
    workload: &Workload,
    patch: &mut WorkloadPatch,
) -> Result<bool, Error> {
    let Some(state) = &workload.sandbox else { return Ok(false) };
    // A Sandbox that the user suspended takes the template when it is resumed.
    if !patch.changes_template() || state.suspended || !has_pod(ctx, workload).await? {
        return Ok(false);
    }
    patch.run = Some(false);
    let pending = state.restart_pending.then_some("true");
    set(&mut patch.annotations, annotation::RESTART_PENDING, pending, "true");
    Ok(true)
}

/// How phase 2 went.
#[derive(Debug)]
pub enum Resumed {
    /// The old Pod is still there.
    Waiting,
    /// Phase 2 is done.
    Done(Arc<Workload>),
    /// The Sandbox is gone.
    Gone,
}

/// Phase 2, for a Sandbox that carries our marker.
///
/// # Errors
/// What the API server says.
pub async fn resume(ctx: &Context, workload: &Workload) -> Result<Resumed, Error> {
    let key = &workload.key;
    let since = ctx.restarts.get_or_insert(key.clone(), Instant::now());
    if since.elapsed() < PATIENCE && has_pod(ctx, workload).await? {
        return Ok(Resumed::Waiting);
    }
    ctx.may_write()?;
    let mut spec = json!({});
    if let Some(state) = &workload.sandbox {
        spec = state.version.run_patch(true);
    }
    let body = json!({
        "metadata": {
            "uid": workload.uid,
            "annotations": { annotation::SANDBOX_POD_NAME: null, annotation::RESTART_PENDING: null },
        },
        "spec": spec,
    });
    let answer =
        write::patch_workload(ctx, key, &body).await.map_err(PassError::api("resume", key.to_string()))?;
    ctx.restarts.remove(key);
    tracing::info!(workload = %key, "Sandbox restarted");
    Ok(answer.map_or(Resumed::Gone, Resumed::Done))
}

/// A Pod of the Sandbox exists.
async fn has_pod(ctx: &Context, workload: &Workload) -> Result<bool, Error> {
    if !ctx.index.pods.of(&OwnerKey::from(&workload.key)).is_empty() {
        return Ok(true);
    }
    // A live list: Pods without the type label are not watched, and to overlook one would leave it without sidecar.
    // It asks for one name, and only while a Sandbox is being changed.
    let name =
        workload.sandbox.as_ref().and_then(|state| state.pod_name.as_deref()).unwrap_or(&workload.key.name);
    let api = Api::<PartialObjectMeta<Pod>>::namespaced(ctx.client.clone(), &workload.key.namespace);
    let pods = api
        .list(&ListParams::default().fields(&format!("metadata.name={name}")))
        .await
        .map_err(PassError::api("look for the Pod of", workload.key.to_string()))?;
    let ours = |pod: &PartialObjectMeta<Pod>| {
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        controller_of(owners).is_some_and(|owner| {
            owner.kind == WorkloadKind::Sandbox.as_str()
                && owner.api_version.split('/').next() == Some(WorkloadKind::Sandbox.group())
                && owner.name == workload.key.name
        })
    };
    Ok(pods.items.iter().any(ours))
}
