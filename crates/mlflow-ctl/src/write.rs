//! Every write of mlflow-ctl to workloads and AgentRuntimes (MLflow §7.3, §10).

use std::sync::Arc;

use api_types::AgentRuntime;
use controller_kit::apply::{self, FieldManager};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    discovery::ApiResource,
};
use serde_json::Value;

use crate::{
    conditions::{self, Report},
    context::Context,
    error::Error,
    index::Runtime,
    kinds::{self, WorkloadKind},
    patch::TemplatePatch,
    rollout,
    workload::{Workload, WorkloadKey, WorkloadView},
};

/// Field manager of every write.
pub const MANAGER: FieldManager = FieldManager::new("mlflow-ctl");

fn resource(ctx: &Context, kind: WorkloadKind) -> Option<ApiResource> {
    let sandbox = match kind {
        WorkloadKind::Sandbox => ctx.sandbox_version()?,
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "v1",
    };
    Some(kinds::resource(kind, sandbox))
}

/// Stores what the API server answered; the index may know something newer.
fn store(
    ctx: &Context,
    resource: &ApiResource,
    kind: WorkloadKind,
    view: WorkloadView,
) -> Option<Arc<Workload>> {
    let workload = Workload::from_view(resource, kind, view)?;
    let fallback = Arc::new(workload.clone());
    // Only agents are kept: the watch would not remove others.
    if workload.type_label.as_deref() != Some(crate::eligibility::AGENT) {
        ctx.index.workloads.remove(&workload.key);
        return Some(fallback);
    }
    let key = workload.key.clone();
    let _ = ctx.index.workloads.upsert(workload);
    Some(ctx.index.workloads.get(&key).unwrap_or(fallback))
}

/// Reads a workload live; `None` when it does not exist.
///
/// # Errors
/// What the API server says.
pub async fn read_workload(ctx: &Context, key: &WorkloadKey) -> Result<Option<Arc<Workload>>, Error> {
    let Some(resource) = resource(ctx, key.kind) else { return Ok(None) };
    let api = Api::<WorkloadView>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let view = api.get_opt(&key.name).await.map_err(Error::api("read", key.to_string()))?;
    if let Some(view) = view {
        return Ok(store(ctx, &resource, key.kind, view));
    }
    ctx.index.workloads.remove(key);
    Ok(None)
}

/// How a patch went.
#[derive(Debug)]
pub enum Patched {
    /// It is written.
    Done(Arc<Workload>),
    /// The workload changed, or is gone: look again.
    Stale,
    /// The API server does not take it.
    Refused(kube::Error),
}

/// Sends the patch of a pod template.
///
/// # Errors
/// [`Error::NotLeader`].
pub async fn patch_template(
    ctx: &Context,
    workload: &Workload,
    patch: &TemplatePatch,
) -> Result<Patched, Error> {
    ctx.may_write()?;
    let key = &workload.key;
    let Some(resource) = resource(ctx, key.kind) else { return Ok(Patched::Stale) };
    let api = Api::<WorkloadView>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let params = PatchParams { field_manager: Some(MANAGER.as_str().to_owned()), ..PatchParams::default() };
    let by_operations = TemplatePatch::is_json_patch(key.kind);
    let answer = if by_operations {
        match serde_json::from_value(Value::Array(patch.operations(workload))) {
            Ok(operations) => api.patch(&key.name, &params, &Patch::Json::<()>(operations)).await,
            Err(error) => Err(kube::Error::SerdeError(error)),
        }
    } else {
        api.patch(&key.name, &params, &Patch::Strategic(patch.strategic(workload))).await
    };
    Ok(match answer {
        Ok(view) => store(ctx, &resource, key.kind, view).map_or(Patched::Stale, Patched::Done),
        // Operations on a list that has changed meanwhile do not apply at all.
        Err(error)
            if apply::is_stale(&error)
                || (by_operations && apply::code_of(&error) == 422 && outdated(ctx, workload).await) =>
        {
            Patched::Stale
        }
        Err(error) => Patched::Refused(error),
    })
}

async fn outdated(ctx: &Context, workload: &Workload) -> bool {
    match read_workload(ctx, &workload.key).await {
        Ok(Some(live)) => live.resource_version != workload.resource_version,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Who else wrote the pod template last. A live read: the index keeps no managed fields, and this is asked once per
/// half hour at most.
pub async fn last_writer(ctx: &Context, key: &WorkloadKey) -> Option<String> {
    let resource = resource(ctx, key.kind)?;
    let api =
        Api::<kube::core::DynamicObject>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let object = api.get_metadata_opt(&key.name).await.ok()??;
    let object: PartialObjectMeta<kube::core::DynamicObject> = object;
    let template = kinds::template_field(key.kind);
    rollout::last_writer(object.managed_fields(), MANAGER.as_str(), template).map(str::to_owned)
}

/// Writes the condition of the AgentRuntime that targets a workload, when it says something else. `None` gives the
/// condition up. Without AgentRuntime there is none.
///
/// # Errors
/// What the API server says.
pub async fn condition(ctx: &Context, key: &WorkloadKey, report: Option<&Report>) -> Result<(), Error> {
    let Some(runtime) = ctx.index.runtime_of(key) else { return Ok(()) };
    let next = match report {
        Some(report) => {
            let Some(next) = report.condition(runtime.condition.as_ref(), runtime.generation, ctx.now())
            else {
                return Ok(());
            };
            Some(next)
        }
        None if runtime.condition.is_none() => return Ok(()),
        None => None,
    };
    ctx.may_write()?;
    let api = Api::<AgentRuntime>::namespaced(ctx.client.clone(), &runtime.key.namespace);
    let status = conditions::status(next.as_ref());
    match apply::apply_status(&api, &runtime.key.name, MANAGER, status).await {
        Ok(answer) => {
            let _ = ctx.index.runtimes.upsert(Runtime::of(answer));
            Ok(())
        }
        Err(error) if apply::is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api("write", format!("the status of AgentRuntime {}", runtime.key))(error)),
    }
}
