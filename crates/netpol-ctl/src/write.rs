//! Every write of netpol-ctl: policies, and the finalizers of the previous operator.
//!
//! Answers go into the index at once, so that the next pass does not act on what was before.

use std::sync::Arc;

use controller_kit::{
    apply::{code_of, is_forbidden, is_not_found, is_stale},
    message::message_of,
    watch::Key,
};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde_json::{Value, json};

use crate::{
    card::{Card, CardView, is_legacy},
    context::Context,
    desired,
    error::{Error, PassError},
    metrics::Op,
    naming::MANAGER,
    policy::Policy,
};

/// How often a write is repeated at once after a conflict.
pub const ATTEMPTS: u32 = 5;

fn policies(ctx: &Context, namespace: &str) -> Api<NetworkPolicy> {
    Api::namespaced(ctx.client.clone(), namespace)
}

fn store(ctx: &Context, object: NetworkPolicy) -> Arc<Policy> {
    let policy = Policy::new(object);
    let key = policy.key.clone();
    let fallback = Arc::new(policy.clone());
    // Something newer may have arrived by the watch meanwhile.
    let _ = ctx.index.policies.upsert(policy);
    ctx.index.policies.get(&key).unwrap_or(fallback)
}

fn about(key: &Key) -> String {
    format!("NetworkPolicy {key}")
}

/// How a creation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Done,
    /// Something else has the name.
    Taken,
    /// The namespace goes away, and the workload with it.
    NamespaceEnds,
}

/// Creates a policy.
///
/// # Errors
/// What the API server says.
pub async fn create(
    ctx: &Context,
    name: &str,
    card: &Card,
    spec: NetworkPolicySpec,
) -> Result<Created, Error> {
    ctx.may_write()?;
    let key = Key::new(card.key.namespace.clone(), name);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match policies(ctx, &key.namespace).create(&params, &desired::object(name, card, spec)).await {
        Ok(object) => {
            ctx.metrics.wrote(Op::Create);
            store(ctx, object);
            Ok(Created::Done)
        }
        Err(error) if code_of(&error) == 409 => Ok(Created::Taken),
        Err(error) if is_forbidden(&error) && message_of(&error).contains("being terminated") => {
            Ok(Created::NamespaceEnds)
        }
        Err(error) => Err(PassError::api("create", about(&key))(error).into()),
    }
}

/// Makes `policy` the policy of `card` with this spec; nothing is sent when it is. `None` when it is gone.
///
/// # Errors
/// What the API server says, after a few conflicts.
pub async fn update(
    ctx: &Context,
    mut policy: Arc<Policy>,
    card: &Card,
    spec: &NetworkPolicySpec,
) -> Result<Option<()>, Error> {
    let key = policy.key.clone();
    let mut attempt = 0;
    loop {
        let patch = policy.patch(card, spec);
        if patch.is_empty() {
            return Ok(Some(()));
        }
        ctx.may_write()?;
        attempt += 1;
        match send(&policies(ctx, &key.namespace), &key.name, patch).await {
            Ok(object) => {
                ctx.metrics.wrote(Op::Update);
                store(ctx, object);
                return Ok(Some(()));
            }
            Err(error) if is_stale(&error) && attempt < ATTEMPTS => match read(ctx, &key).await? {
                Some(live) if live.is_managed() => policy = live,
                _ => return Ok(None),
            },
            Err(error) => return Err(PassError::api("change", about(&key))(error).into()),
        }
    }
}

async fn send(api: &Api<NetworkPolicy>, name: &str, patch: Vec<Value>) -> kube::Result<NetworkPolicy> {
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(patch)).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Json::<()>(patch)).await
}

/// Reads a policy live and brings the index up to date; `None` when it does not exist.
///
/// # Errors
/// What the API server says.
pub async fn read(ctx: &Context, key: &Key) -> Result<Option<Arc<Policy>>, Error> {
    let live =
        policies(ctx, &key.namespace).get_opt(&key.name).await.map_err(PassError::api("read", about(key)))?;
    if let Some(object) = live {
        let policy = Policy::new(object);
        if policy.is_managed() {
            return Ok(Some(store_read(ctx, policy)));
        }
        // Foreign objects are not watched, so nobody else would ever take them out of the index.
        ctx.index.policies.remove(key);
        Ok(Some(Arc::new(policy)))
    } else {
        ctx.index.policies.remove(key);
        Ok(None)
    }
}

fn store_read(ctx: &Context, policy: Policy) -> Arc<Policy> {
    let fresh = Arc::new(policy.clone());
    let _ = ctx.index.policies.upsert(policy);
    fresh
}

/// Deletes the very policy that was seen; fine when it is gone. False = it has changed since, look again.
///
/// # Errors
/// What the API server says.
pub async fn delete(ctx: &Context, policy: &Policy) -> Result<bool, Error> {
    ctx.may_write()?;
    let key = &policy.key;
    match remove(&policies(ctx, &key.namespace), policy).await {
        Ok(true) => {
            ctx.metrics.wrote(Op::Delete);
            ctx.index.policies.remove(key);
            tracing::info!(policy = %key, "deleted: no card wants it");
            Ok(true)
        }
        Ok(false) => {
            read(ctx, key).await?;
            Ok(false)
        }
        Err(error) => Err(PassError::api("delete", about(key))(error).into()),
    }
}

/// Deletes the very policy that was seen; a missing one counts as deleted. False = it has changed since.
///
/// # Errors
/// What the API server says.
pub async fn remove(api: &Api<NetworkPolicy>, policy: &Policy) -> kube::Result<bool> {
    let preconditions = Preconditions {
        uid: Some(policy.uid.clone()),
        resource_version: Some(policy.resource_version.clone()),
    };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&policy.key.name, &params).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(true),
        Err(error) if is_stale(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the finalizers of the previous operator off a card, and no other. True = there were some.
///
/// # Errors
/// What the API server says, after a few conflicts.
pub async fn strip_finalizers(client: &Client, card: &Card) -> kube::Result<bool> {
    let api = Api::<CardView>::namespaced(client.clone(), &card.key.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let mut card = card.clone();
    let mut attempt = 0;
    loop {
        let Some(finalizers) = &card.finalizers else { return Ok(false) };
        let rest: Vec<&String> = finalizers.iter().filter(|name| !is_legacy(name)).collect();
        // Bound to the version seen: the list goes as a whole, and others may add to it.
        let body = json!({"metadata": {"resourceVersion": card.resource_version, "uid": card.uid, "finalizers": rest}});
        attempt += 1;
        let answer: kube::Result<PartialObjectMeta<CardView>> =
            api.patch_metadata(&card.key.name, &params, &Patch::Merge(&body)).await;
        match answer {
            Ok(_) => return Ok(true),
            Err(error) if is_not_found(&error) => return Ok(true),
            Err(error) if is_stale(&error) && attempt < ATTEMPTS => {
                match api.get_opt(&card.key.name).await? {
                    Some(live) => card = Card::from_view(live),
                    None => return Ok(true),
                }
            }
            Err(error) => return Err(error),
        }
    }
}
