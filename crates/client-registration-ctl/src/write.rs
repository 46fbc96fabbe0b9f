//! Every read by name and every write in Kubernetes. Answers go into the index at once, so that the next pass does not
//! act on what was before.

use std::sync::Arc;

use api_types::{
    AgentRuntime,
    enrolment::TargetKind,
    registration::{CLIENT_ID_KEY, FINALIZER, MANAGER},
};
use controller_kit::{
    apply::{self, FieldManager},
    controller::PassError,
    lean::LeanMeta,
    watch::Key as ObjectKey,
    workload::resource,
};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    conditions::{self, Report},
    context::Context,
    error::Error,
    index::Runtime,
    secret::SecretMeta,
    workload::{Unit, Workload, WorkloadKey, WorkloadView},
};

const FIELDS: FieldManager = FieldManager::new(MANAGER);
/// Any version, for kinds that have none to choose.
const NO_SANDBOX: &str = "v1alpha1";

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }
}

fn secrets(ctx: &Context, namespace: &str) -> Api<ApiSecret> {
    Api::namespaced(ctx.client.clone(), namespace)
}

fn store(
    ctx: &Context,
    meta: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<SecretMeta> {
    let gone = meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
    let meta = SecretMeta::of(meta)?;
    if gone {
        // The change took the last finalizer. The watch may have said so before the answer came: put back now, the
        // Secret would stay in the index for good, and hold up whoever comes next under its name.
        ctx.index.secrets.remove_until(&meta.key, &meta.version);
    } else if ctx.index.secrets.upsert(meta.clone()).is_ok() && ctx.settings.watch_secrets {
        // Otherwise something newer has arrived by the watch, which acted on it. The event of this one is no news.
        ctx.finish_soon(&meta);
    }
    Some(meta)
}

fn stored_version(
    ctx: &Context,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> String {
    store(ctx, metadata).map(|meta| meta.version).unwrap_or_default()
}

/// Reads a Secret with its data.
///
/// # Errors
/// What the API server says.
pub async fn read_secret(ctx: &Context, namespace: &str, name: &str) -> Result<Option<ApiSecret>, Error> {
    let read = secrets(ctx, namespace).get_opt(name).await;
    Ok(read.map_err(PassError::api("read", format!("Secret {namespace}/{name}")))?)
}

/// The client id that a Secret holds, when it can be read.
pub async fn held_client_id(ctx: &Context, namespace: &str, name: &str) -> Option<String> {
    let secret = read_secret(ctx, namespace, name).await.ok()??;
    String::from_utf8(secret.data?.remove(CLIENT_ID_KEY)?.0).ok()
}

/// Brings the index up to date where Secrets are not watched; what it knew, when there is no Secret any more.
///
/// # Errors
/// What the API server says.
pub async fn look_at_secret(ctx: &Context, unit: &Unit) -> Result<Option<Arc<SecretMeta>>, Error> {
    let name = unit.secret_name();
    let api = Api::<LeanMeta<ApiSecret>>::namespaced(ctx.client.clone(), &unit.namespace);
    let read = api.get_opt(&name).await;
    match read.map_err(PassError::api("read", format!("Secret {}/{name}", unit.namespace)))? {
        Some(live) => {
            store(ctx, live.metadata);
            Ok(None)
        }
        None => Ok(ctx.index.secrets.remove(&ObjectKey::new(&unit.namespace, name))),
    }
}

/// Creates a Secret; its version. `None` = there is one of that name.
///
/// # Errors
/// What the API server says.
pub async fn create_secret(
    ctx: &Context,
    namespace: &str,
    name: &str,
    fields: Value,
) -> Result<Option<String>, Error> {
    ctx.may_write()?;
    let failed = PassError::api("write", format!("Secret {namespace}/{name}"));
    let mut secret: ApiSecret = match serde_json::from_value(fields) {
        Ok(secret) => secret,
        Err(error) => return Err(failed(kube::Error::SerdeError(error)).into()),
    };
    secret.metadata.name = Some(name.to_owned());
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match secrets(ctx, namespace).create(&params, &secret).await {
        Ok(created) => Ok(Some(stored_version(ctx, created.metadata))),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(error) => Err(failed(error).into()),
    }
}

/// Sends the patch of [`crate::claim::takeover`].
///
/// # Errors
/// What the API server says; the Secret may have changed meanwhile.
pub async fn take_over_secret(
    ctx: &Context,
    namespace: &str,
    name: &str,
    takeover: &Value,
) -> Result<(), Error> {
    ctx.may_write()?;
    let patched = secrets(ctx, namespace).patch_metadata(name, &params(), &Patch::Merge(takeover)).await;
    patched.map_err(PassError::api("write", format!("Secret {namespace}/{name}")))?;
    Ok(())
}

/// Applies a Secret; its version afterwards.
///
/// # Errors
/// What the API server says.
pub async fn apply_secret(
    ctx: &Context,
    namespace: &str,
    name: &str,
    fields: Value,
) -> Result<String, Error> {
    ctx.may_write()?;
    let applied = apply::apply(&secrets(ctx, namespace), name, FIELDS, fields).await;
    let secret = applied.map_err(PassError::api("write", format!("Secret {namespace}/{name}")))?;
    Ok(stored_version(ctx, secret.metadata))
}

/// Deletes a Secret, if it is still this one.
///
/// # Errors
/// What the API server says.
pub async fn delete_secret(ctx: &Context, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
    ctx.may_write()?;
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match secrets(ctx, namespace).delete(name, &params).await {
        Ok(_) => Ok(()),
        // Gone, or another one by now.
        Err(error) if apply::is_not_found(&error) || apply::is_stale(&error) => Ok(()),
        Err(error) => Err(PassError::api("delete", format!("Secret {namespace}/{name}"))(error).into()),
    }
}

/// Changes the metadata of a Secret, as `change` turns the present into a merge patch (`None` = nothing to do). False =
/// it changed meanwhile: look again.
///
/// # Errors
/// What the API server says.
pub async fn change_secret(
    ctx: &Context,
    namespace: &str,
    name: &str,
    change: impl FnOnce(&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<Value>,
) -> Result<bool, Error> {
    let api = Api::<LeanMeta<ApiSecret>>::namespaced(ctx.client.clone(), namespace);
    let object = || format!("Secret {namespace}/{name}");
    // A live read: lists are replaced as a whole, and what others put into them must stay.
    let Some(live) = api.get_opt(name).await.map_err(PassError::api("read", object()))? else {
        return Ok(true);
    };
    let Some(mut patch) = change(&live.metadata) else { return Ok(true) };
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("uid".to_owned(), json!(live.metadata.uid));
        metadata.insert("resourceVersion".to_owned(), json!(live.metadata.resource_version));
    }
    ctx.may_write()?;
    match secrets(ctx, namespace).patch_metadata(name, &params(), &Patch::Merge(&patch)).await {
        Ok(answer) => {
            store(ctx, answer.metadata);
            Ok(true)
        }
        Err(error) if apply::is_not_found(&error) => Ok(true),
        Err(error) if apply::is_stale(&error) => Ok(false),
        Err(error) => Err(PassError::api("change", object())(error).into()),
    }
}

/// Takes our finalizer off a Secret. False = look again.
///
/// # Errors
/// What the API server says.
pub async fn remove_finalizer(ctx: &Context, namespace: &str, name: &str) -> Result<bool, Error> {
    change_secret(ctx, namespace, name, |meta| {
        let mut names = meta.finalizers.clone().unwrap_or_default();
        let before = names.len();
        names.retain(|name| name != FINALIZER);
        (names.len() != before).then(|| json!({ "metadata": { "finalizers": names } }))
    })
    .await
}

/// The API of a kind of workload; `None` when the kind is not served.
pub fn workloads(ctx: &Context, kind: TargetKind, namespace: &str) -> Option<Api<WorkloadView>> {
    let version = match kind {
        TargetKind::Sandbox => ctx.sandbox_version()?,
        TargetKind::Deployment | TargetKind::StatefulSet => NO_SANDBOX,
    };
    Some(Api::namespaced_with(ctx.client.clone(), namespace, &resource(kind, version)))
}

/// Whether the very workload that was looked at still exists.
///
/// # Errors
/// What the API server says.
pub async fn is_alive(ctx: &Context, workload: &Workload) -> Result<bool, Error> {
    let WorkloadKey { unit, kind } = &workload.key;
    let Some(api) = workloads(ctx, *kind, &unit.namespace) else { return Ok(false) };
    let live = api.get_metadata_opt(&unit.name).await;
    let live = live.map_err(PassError::api("read", workload.key.to_string()))?;
    Ok(live.is_some_and(|live| {
        live.metadata.uid.as_deref() == Some(workload.uid.as_str())
            && live.metadata.deletion_timestamp.is_none()
    }))
}

/// Whether a workload of this name and kind exists.
///
/// # Errors
/// What the API server says.
pub async fn exists(ctx: &Context, key: &WorkloadKey) -> Result<bool, Error> {
    let Some(api) = workloads(ctx, key.kind, &key.unit.namespace) else { return Ok(false) };
    let live = api.get_metadata_opt(&key.unit.name).await;
    Ok(live.map_err(PassError::api("read", key.to_string()))?.is_some())
}

/// What became of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// Done, or the workload is gone.
    Done,
    /// It has changed since it was looked at.
    Stale,
}

/// Patches a workload.
///
/// # Errors
/// What the API server says.
pub async fn patch_workload(ctx: &Context, key: &WorkloadKey, body: &Value) -> Result<Patched, Error> {
    let Some(api) = workloads(ctx, key.kind, &key.unit.namespace) else { return Ok(Patched::Done) };
    ctx.may_write()?;
    match api.patch(&key.unit.name, &params(), &Patch::Merge(body)).await {
        Ok(view) => {
            let version = ctx.sandbox_version().unwrap_or(NO_SANDBOX);
            if let Some(workload) = Workload::from_view(key.kind, &resource(key.kind, version), view) {
                let _ = ctx.index.workloads.upsert(workload);
            }
            Ok(Patched::Done)
        }
        Err(error) if apply::is_not_found(&error) => Ok(Patched::Done),
        Err(error) if apply::is_stale(&error) => Ok(Patched::Stale),
        Err(error) => Err(PassError::api("patch", key.to_string())(error).into()),
    }
}

/// Writes the conditions of an AgentRuntime, unless they say this already.
///
/// # Errors
/// What the API server says.
pub async fn report(ctx: &Context, runtime: &Arc<Runtime>, report: &Report) -> Result<(), Error> {
    let status = conditions::next(&runtime.conditions, report, runtime.generation, ctx.now());
    status_of(ctx, runtime, status).await
}

/// Takes our conditions off an AgentRuntime.
///
/// # Errors
/// What the API server says.
pub async fn withdraw(ctx: &Context, runtime: &Arc<Runtime>) -> Result<(), Error> {
    status_of(ctx, runtime, conditions::withdrawn(&runtime.conditions)).await
}

async fn status_of(ctx: &Context, runtime: &Arc<Runtime>, status: Option<Value>) -> Result<(), Error> {
    let Some(status) = status else { return Ok(()) };
    ctx.may_write()?;
    let (namespace, name) = (&runtime.key.namespace, &runtime.key.name);
    let api = Api::<AgentRuntime>::namespaced(ctx.client.clone(), namespace);
    match apply::apply_status(&api, name, FIELDS, status).await {
        Ok(answer) => {
            let _ = ctx.index.runtimes.upsert(Runtime::of(answer));
            Ok(())
        }
        Err(error) if apply::is_not_found(&error) => Ok(()),
        Err(error) => {
            Err(PassError::api("write", format!("the status of AgentRuntime {namespace}/{name}"))(error)
                .into())
        }
    }
}
