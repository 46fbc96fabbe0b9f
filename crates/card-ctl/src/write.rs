//! Every write of card-ctl (card §5.2, §11.1, §14.1): creates, deletes with preconditions, merge patches that carry
//! the version of what was looked at. Answers go into the index at once, so that the next pass does not act on what
//! was before.

use std::sync::Arc;

use api_types::{
    AgentCard, AgentCardDefinition, AgentRuntime,
    names::{finalizer, manager},
};
use controller_kit::{apply, workload::resource};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Map, Value, json};

use crate::{
    context::Context,
    error::Error,
    index::{Card, ObjectKey, Runtime},
    kinds::{self, TargetKey},
    news,
    workload::{Workload, WorkloadView},
};

/// How often a write is repeated at once after a conflict (card §11.1).
pub const ATTEMPTS: u32 = 5;

/// What became of a write.
#[derive(Clone, Debug)]
pub enum Written<T> {
    /// Done; the object as it is now.
    Done(T),
    /// It has changed since it was looked at; this is how it is now.
    Stale(T),
    /// It is gone.
    Gone,
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::CARD_CTL.into()), ..PatchParams::default() }
}

fn cards(ctx: &Context, namespace: &str) -> Api<AgentCard> {
    Api::namespaced(ctx.client.clone(), namespace)
}

fn store(ctx: &Context, card: AgentCard) -> Option<Arc<Card>> {
    let card = Card::of(card)?;
    let key = card.key.clone();
    let fallback = Arc::new(card.clone());
    // Something newer may have arrived by the watch meanwhile. What an answer brings of others' changes the watch
    // will not tell again.
    if let Ok(before) = ctx.index.cards.upsert(card) {
        news::card(ctx, before.as_deref(), &fallback);
    }
    Some(ctx.index.cards.get(&key).unwrap_or(fallback))
}

async fn reread(ctx: &Context, key: &ObjectKey) -> Result<Written<Arc<Card>>, Error> {
    let object = || format!("AgentCard {key}");
    let live = cards(ctx, &key.namespace).get_opt(&key.name).await.map_err(Error::api("read", object()))?;
    Ok(match live.and_then(|live| store(ctx, live)) {
        Some(card) => Written::Stale(card),
        None => Written::Gone,
    })
}

/// Creates a card; false when one of that name exists.
///
/// # Errors
/// What the API server says.
pub async fn create_card(ctx: &Context, card: &AgentCard) -> Result<bool, Error> {
    ctx.may_write()?;
    let namespace = card.metadata.namespace.as_deref().unwrap_or_default();
    let params = PostParams { field_manager: Some(manager::CARD_CTL.into()), ..PostParams::default() };
    // The generated root type writes apiVersion and kind; the one that is read does without them.
    let api = Api::<AgentCardDefinition>::namespaced(ctx.client.clone(), namespace);
    let object =
        AgentCardDefinition { metadata: card.metadata.clone(), spec: card.spec.clone(), status: None };
    match api.create(&params, &object).await {
        Ok(AgentCardDefinition { metadata, spec, status }) => {
            ctx.metrics.wrote("create_card");
            store(ctx, AgentCard { metadata, spec, status });
            Ok(true)
        }
        // Two reasons share this code; of a creation it says that the name is taken.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let key = ObjectKey::new(namespace, card.metadata.name.clone().unwrap_or_default());
            reread(ctx, &key).await?;
            Ok(false)
        }
        Err(error) => {
            let name = card.metadata.name.as_deref().unwrap_or_default();
            Err(Error::api("create", format!("AgentCard {namespace}/{name}"))(error))
        }
    }
}

/// Deletes exactly this card; fine when it is gone or another one.
///
/// # Errors
/// What the API server says.
pub async fn delete_card(ctx: &Context, card: &Card) -> Result<(), Error> {
    ctx.may_write()?;
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(card.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    match cards(ctx, &card.key.namespace).delete(&card.key.name, &params).await {
        Ok(_) => {
            ctx.metrics.wrote("delete_card");
            Ok(())
        }
        Err(error) if apply::is_stale(&error) => Ok(()),
        Err(error) => Err(Error::api("delete", format!("AgentCard {}", card.key))(error)),
    }
}

/// Sends a merge patch of a card's metadata and spec; `body` gets the version and uid of `card`.
///
/// # Errors
/// What the API server says.
pub async fn patch_card(ctx: &Context, card: &Card, body: Value) -> Result<Written<Arc<Card>>, Error> {
    ctx.may_write()?;
    let body = versioned(card, body);
    match cards(ctx, &card.key.namespace).patch(&card.key.name, &params(), &Patch::Merge(&body)).await {
        Ok(answer) => {
            ctx.metrics.wrote("patch_card");
            Ok(store(ctx, answer).map_or(Written::Gone, Written::Done))
        }
        Err(error) if apply::is_stale(&error) => reread(ctx, &card.key).await,
        Err(error) => Err(Error::api("change", format!("AgentCard {}", card.key))(error)),
    }
}

fn versioned(card: &Card, body: Value) -> Value {
    let mut body = match body {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut metadata = match body.remove("metadata") {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    metadata.insert("uid".into(), json!(card.uid));
    metadata.insert("resourceVersion".into(), json!(card.resource_version));
    body.insert("metadata".into(), Value::Object(metadata));
    Value::Object(body)
}

/// Takes the finalizers of the previous operator off a card, and nothing else (card §11.3, §15.5).
///
/// # Errors
/// What the API server says.
pub async fn strip_finalizers(ctx: &Context, mut card: Arc<Card>) -> Result<Option<Arc<Card>>, Error> {
    for _ in 0..ATTEMPTS {
        let Some(all) = &card.legacy_finalizers else { return Ok(Some(card)) };
        let legacy = [finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY];
        let rest: Vec<&String> = all.iter().filter(|name| !legacy.contains(&name.as_str())).collect();
        match patch_card(ctx, &card, json!({ "metadata": { "finalizers": rest } })).await? {
            Written::Done(next) => return Ok(Some(next)),
            Written::Stale(next) => card = next,
            Written::Gone => return Ok(None),
        }
    }
    Ok(Some(card))
}

/// Patches the status of a card.
///
/// # Errors
/// What the API server says.
pub async fn status(ctx: &Context, card: &Card, patch: Value) -> Result<Written<Arc<Card>>, Error> {
    ctx.may_write()?;
    let body = versioned(card, json!({ "status": patch }));
    let api = cards(ctx, &card.key.namespace);
    match api.patch_status(&card.key.name, &params(), &Patch::Merge(&body)).await {
        Ok(answer) => {
            ctx.metrics.status_writes.inc();
            Ok(store(ctx, answer).map_or(Written::Gone, Written::Done))
        }
        Err(error) if apply::is_stale(&error) => reread(ctx, &card.key).await,
        Err(error) => Err(Error::api("write", format!("the status of AgentCard {}", card.key))(error)),
    }
}

/// The API of the kind of a workload; `None` when the kind is not served or not one of ours.
fn workloads(ctx: &Context, key: &TargetKey) -> Option<(kube::discovery::ApiResource, Api<WorkloadView>)> {
    let kind = key.workload_kind()?;
    let version = match kind {
        kinds::WorkloadKind::Sandbox => ctx.sandbox_version()?,
        _ => "v1",
    };
    let resource = resource(kind, version);
    let api = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    Some((resource, api))
}

fn store_workload(
    ctx: &Context,
    resource: &kube::discovery::ApiResource,
    view: WorkloadView,
) -> Option<Arc<Workload>> {
    let workload = Workload::from_view(resource, view)?;
    let key = workload.key.clone();
    let fallback = Arc::new(workload.clone());
    if !workload.is_agent {
        // The watch selects agents only, so it would never take this one out again.
        return Some(fallback);
    }
    if let Ok(before) = ctx.index.workloads.upsert(workload) {
        news::workload(ctx, before.as_deref(), &fallback);
    }
    Some(ctx.index.workloads.get(&key).unwrap_or(fallback))
}

/// Reads a workload live; `None` when it does not exist.
///
/// # Errors
/// What the API server says.
pub async fn read_workload(ctx: &Context, key: &TargetKey) -> kube::Result<Option<Arc<Workload>>> {
    let Some((resource, api)) = workloads(ctx, key) else { return Ok(None) };
    Ok(api.get_opt(&key.name).await?.and_then(|view| store_workload(ctx, &resource, view)))
}

/// Sends a merge patch of a workload.
///
/// # Errors
/// What the API server says.
pub async fn patch_workload(
    ctx: &Context,
    key: &TargetKey,
    body: &Value,
) -> Result<Written<Arc<Workload>>, Error> {
    ctx.may_write()?;
    let Some((resource, api)) = workloads(ctx, key) else { return Ok(Written::Gone) };
    match api.patch(&key.name, &params(), &Patch::Merge(body)).await {
        Ok(view) => {
            ctx.metrics.wrote("patch_workload");
            Ok(store_workload(ctx, &resource, view).map_or(Written::Gone, Written::Done))
        }
        Err(error) if apply::is_stale(&error) => {
            // A live read: the index is behind what the API server holds.
            let live = read_workload(ctx, key).await.map_err(Error::api("read", key.to_string()))?;
            Ok(live.map_or(Written::Gone, Written::Stale))
        }
        Err(error) => Err(Error::api("change", key.to_string())(error)),
    }
}

/// Patches an AgentRuntime, or its status.
///
/// # Errors
/// What the API server says.
pub async fn patch_runtime(
    ctx: &Context,
    runtime: &Runtime,
    body: &Value,
    status: bool,
) -> Result<Written<Arc<Runtime>>, Error> {
    ctx.may_write()?;
    let key = &runtime.key;
    let api = Api::<AgentRuntime>::namespaced(ctx.client.clone(), &key.namespace);
    let answer = if status {
        api.patch_status(&key.name, &params(), &Patch::Merge(body)).await
    } else {
        api.patch(&key.name, &params(), &Patch::Merge(body)).await
    };
    let keep = |object: AgentRuntime| {
        let runtime = Runtime::of(object)?;
        let now = runtime.clone();
        if let Ok(before) = ctx.index.runtimes.upsert(runtime) {
            news::runtime(ctx, before.as_deref(), &now);
        }
        ctx.index.runtimes.get(&now.key)
    };
    match answer {
        Ok(object) => {
            ctx.metrics.wrote("patch_runtime");
            Ok(keep(object).map_or(Written::Gone, Written::Done))
        }
        Err(error) if apply::is_stale(&error) => {
            let live =
                api.get_opt(&key.name).await.map_err(Error::api("read", format!("AgentRuntime {key}")))?;
            Ok(live.and_then(keep).map_or(Written::Gone, Written::Stale))
        }
        Err(error) => Err(Error::api("change", format!("AgentRuntime {key}"))(error)),
    }
}
