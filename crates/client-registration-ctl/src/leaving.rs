//! Workloads that go or are agents no more (client-registration §10).
//!
//! What an annotation says is not believed: a client is deleted only when it carries our mark and its id is one of the
//! Secret's own namespace, because whoever may edit a Secret there could name any other client.

use std::{sync::Arc, time::Duration};

use api_types::{
    credentials::Eligibility, enrolment::TargetKind, gates::FeatureGates, namespace_config::AuthbridgeConfig,
    registration::annotation as own,
};
use controller_kit::watch::Key as ObjectKey;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    annotation,
    conditions::{Report, Verdict},
    context::Context,
    error::Error,
    identity::is_of_namespace,
    keycloak::{
        KeycloakError,
        client::{self, Client},
        scope::{self, Scope},
    },
    metrics::UnitState,
    pods,
    reason::Reason,
    registration::{self, Next},
    secret::{Place, SecretMeta},
    settings::DeletionPolicy,
    sharing,
    trust::{Refusal, Server},
    workload::{Unit, Workload, WorkloadKey},
    write,
};

/// How often Pods are looked at that still mount the Secret.
const ROLLOUT: Duration = Duration::from_secs(30);
/// How often a Keycloak is tried that a deletion waits for.
const RETRY: Duration = Duration::from_secs(10);
const STALE: Duration = Duration::from_millis(200);

/// A Secret that is gone, whose client is not.
#[derive(Clone, Debug)]
pub struct Left {
    /// What it said.
    pub secret: Arc<SecretMeta>,
    /// Since when that is known.
    pub since: Timestamp,
}

/// There is no workload of this name any more. The garbage collector deletes the Secret with its last owner; one without
/// owners is ours to delete.
///
/// # Errors
/// What the API server says.
pub async fn gone(ctx: &Context, unit: &Unit, secret: Option<&SecretMeta>) -> Next {
    ctx.forget(unit);
    ctx.revisions.remove(unit);
    if !ctx.settings.watch_secrets
        && secret.is_some_and(|secret| secret.is_ours() && !secret.owners.is_empty())
    {
        // Nobody tells when the garbage collector has begun.
        return Ok(Some(RETRY));
    }
    let Some(secret) =
        secret.filter(|secret| secret.is_ours() && secret.deleting.is_none() && secret.owners.is_empty())
    else {
        return Ok(None);
    };
    let gates = ctx.gates()?;
    if !gates.global_enabled || !gates.client_registration {
        return Ok(None);
    }
    if exists(ctx, unit).await? {
        return Ok(Some(RETRY));
    }
    write::delete_secret(ctx, &secret.key.namespace, &secret.key.name, &secret.uid).await?;
    Ok(look_after_deletion(ctx))
}

/// Where Secrets are not watched, a look tells that one is gone.
fn look_after_deletion(ctx: &Context) -> Option<Duration> {
    (!ctx.settings.watch_secrets).then_some(STALE)
}

/// A Secret that is read by name only has no finalizer: a process that starts anew knows no names of workloads that are
/// gone, and such a Secret would hold up its namespace for ever. So what the Secret said is remembered, and the client
/// goes after it. `None` = nothing is left of an earlier Secret of this name.
///
/// # Errors
/// What the API server says.
pub async fn unwatched(ctx: &Context, unit: &Unit) -> Next {
    if let Some(before) = write::look_at_secret(ctx, unit).await?
        && before.is_ours()
    {
        ctx.left.insert(unit.clone(), Left { secret: before, since: ctx.now() });
    }
    if let Some(secret) = ctx.index.secret_of(unit).filter(|secret| secret.deleting.is_some()) {
        // The finalizer is from a time when Secrets were watched.
        let again = finish(ctx, &secret.key.namespace, &secret.key.name).await?;
        let is_there = ctx.index.secret_of(unit).is_some();
        return Ok(again.or_else(|| is_there.then_some(RETRY)));
    }
    let Some(left) = ctx.left.get(unit) else { return Ok(None) };
    let gates = ctx.gates()?;
    let workloads = ctx.index.workloads_of(unit);
    let uses = |workload: &Arc<Workload>| {
        matches!(workload.eligibility(&gates), Eligibility::Register | Eligibility::ToolsOff)
            && left.secret.owners.iter().any(|owner| owner.uid == workload.uid)
    };
    if !workloads.iter().any(uses) {
        if workloads.is_empty() && exists(ctx, unit).await? {
            return Ok(Some(RETRY));
        }
        if let Some(again) = settle(ctx, &left.secret, left.since).await? {
            return Ok(Some(again));
        }
    }
    // Otherwise only the Secret was deleted, and the client goes into a new one.
    ctx.left.remove(unit);
    Ok(None)
}

/// A live read before something is destroyed: the index may be behind.
async fn exists(ctx: &Context, unit: &Unit) -> Result<bool, Error> {
    for kind in TargetKind::ALL {
        if write::exists(ctx, &WorkloadKey { unit: unit.clone(), kind }).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Workloads of this name exist, and none is to be registered.
///
/// # Errors
/// What the API server or Keycloak says.
pub async fn unenrol(
    ctx: &Context,
    unit: &Unit,
    workloads: &[Arc<Workload>],
    secret: Option<&SecretMeta>,
    gates: &FeatureGates,
) -> Next {
    let kinds: Vec<Eligibility> = workloads.iter().map(|workload| workload.eligibility(gates)).collect();
    let released = kinds.contains(&Eligibility::LegacyRegistrar);
    if released {
        let legacy = Verdict::off(
            Reason::LegacyRegistrar,
            "label kagenti.io/client-registration-inject: \"true\" asks for registration inside the Pod",
        );
        registration::report(ctx, workloads, &Report::new(legacy)).await?;
    }
    // A gate never removes anything.
    if kinds.contains(&Eligibility::ToolsOff) {
        let off =
            Verdict::off(Reason::GateDisabled, "gate injectTools is off in ConfigMap kagenti-feature-gates");
        registration::report(ctx, workloads, &Report::new(off)).await?;
        ctx.metrics.set_state(unit, Some(UnitState::Skipped));
        return Ok(None);
    }
    let Some(secret) = secret.filter(|secret| secret.is_ours() && secret.deleting.is_none()) else {
        ctx.forget(unit);
        return Ok(None);
    };
    let since = ctx.leaving.get_or_insert(unit.clone(), Instant::now());
    if let Some(left) =
        ctx.settings.unregister_grace.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    {
        return Ok(Some(left));
    }
    let in_use = !workloads.iter().all(|workload| workload.rolled_out)
        || pods::any_mounts(ctx, &unit.namespace, &secret.key.name).await?;
    if in_use {
        return Ok(Some(ROLLOUT));
    }
    if released {
        release(ctx, secret).await?;
    }
    for workload in workloads {
        ctx.named.remove(&workload.key);
        ctx.put_back.remove(&workload.key);
        // Taking them off rolls the Pods, so it waits for a rollout that happens anyway.
        if (workload.ready == 0 || !workload.rolled_out)
            && let Some(patch) = annotation::removal(workload, &secret.key.name)
            && write::patch_workload(ctx, &workload.key, &patch).await? == write::Patched::Stale
        {
            return Ok(Some(STALE));
        }
    }
    let ours: Vec<&str> = workloads.iter().map(|workload| workload.uid.as_str()).collect();
    if secret.owners.iter().all(|owner| ours.contains(&owner.uid.as_str())) {
        write::delete_secret(ctx, &secret.key.namespace, &secret.key.name, &secret.uid).await?;
    } else {
        let done = write::change_secret(ctx, &secret.key.namespace, &secret.key.name, |meta| {
            let mut owners = meta.owner_references.clone().unwrap_or_default();
            owners.retain(|owner| !ours.contains(&owner.uid.as_str()));
            Some(json!({ "metadata": { "ownerReferences": owners } }))
        })
        .await?;
        if !done {
            return Ok(Some(STALE));
        }
    }
    if let Some(workload) = workloads.first() {
        let note = if released { "the client was released" } else { "the workload is no agent any more" };
        ctx.announcer.normal(workload, "ClientDeregistered", note);
    }
    ctx.forget(unit);
    // No Pod has files of the old Secret any more: a new one is the first again, and costs no rollout of its own.
    ctx.revisions.remove(unit);
    Ok(look_after_deletion(ctx))
}

/// The registration goes over to the Pod: the client stays, without our marks.
async fn release(ctx: &Context, secret: &SecretMeta) -> Result<(), Error> {
    let Some(place) = secret.place() else { return Ok(()) };
    let Some(server) = trusted(ctx, &place)? else { return Ok(()) };
    if let Some(client) = ours(ctx, &server, &place, &secret.key.namespace).await?
        && client.attributes.has_ours()
    {
        ctx.keycloak.update_client(&server, &client.id, &client::release_body(&client)).await?;
    }
    Ok(())
}

/// Finishes the deletion of a Secret that carries our finalizer.
///
/// # Errors
/// What the API server says.
pub async fn finish(ctx: &Context, namespace: &str, name: &str) -> Next {
    let Some(secret) = ctx.index.secrets.get(&ObjectKey::new(namespace, name)) else { return Ok(None) };
    let Some(since) = secret.deleting.filter(|_| secret.finalizer) else { return Ok(None) };
    if !ctx.sources.is_synced(crate::sources::Source::Secrets, namespace) {
        return Ok(Some(RETRY));
    }
    if let Some(again) = settle(ctx, &secret, since).await? {
        return Ok(Some(again));
    }
    let done = write::remove_finalizer(ctx, namespace, name).await?;
    Ok((!done).then_some(STALE))
}

/// Lets the client of a Secret go that is in deletion, or gone, since then. `None` = done, or given up.
async fn settle(ctx: &Context, secret: &SecretMeta, since: Timestamp) -> Next {
    let ObjectKey { namespace, name } = &secret.key;
    let waited = Duration::try_from(ctx.now().duration_since(since)).unwrap_or_default();
    let left = ctx.settings.cleanup_timeout.saturating_sub(waited);
    let gates = ctx.gates()?;
    let outcome = if !secret.is_ours() {
        // The client is theirs who keep the Secret.
        Ok(())
    } else if gates.global_enabled && gates.client_registration {
        clean(ctx, secret).await
    } else {
        // Nothing is removed while a gate is off, but a namespace must not hang for it either.
        Err(Error::Keycloak(KeycloakError::Rejected {
            operation: "clean up",
            detail: "a gate is off in ConfigMap kagenti-feature-gates".to_owned(),
        }))
    };
    match outcome {
        Ok(()) => {}
        Err(error @ (Error::Keycloak(_) | Error::Audience(_))) if left.is_zero() => {
            ctx.metrics.orphans.inc();
            let place = secret.place();
            let client = write::held_client_id(ctx, namespace, name).await.unwrap_or_default();
            tracing::warn!(
                secret = format!("{namespace}/{name}"),
                client,
                client_uuid = place.as_ref().map_or("", |place| &place.uuid),
                realm = place.as_ref().map_or("", |place| &place.realm),
                "an orphan: the client stays in Keycloak, it could not be deleted there for {} s: {error}",
                waited.as_secs()
            );
        }
        Err(error @ (Error::Keycloak(_) | Error::Audience(_))) => {
            tracing::debug!(secret = format!("{namespace}/{name}"), "not deleted yet: {error}");
            if let Some(unit) = &secret.unit {
                let waiting = Verdict::failing(
                    Reason::CleanupPending,
                    format!(
                        "the client is not deleted in Keycloak yet, and is left there if that takes longer than \
                         --cleanup-timeout ({} s): {error}",
                        ctx.settings.cleanup_timeout.as_secs()
                    ),
                );
                for kind in TargetKind::ALL {
                    // The workload itself may be gone.
                    if let Some(runtime) = ctx.index.runtime_of(&WorkloadKey { unit: unit.clone(), kind }) {
                        write::report(ctx, &runtime, &Report::new(waiting.clone())).await?;
                    }
                }
            }
            return Ok(Some(RETRY.min(left).max(STALE)));
        }
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// The Keycloak part of a deletion.
async fn clean(ctx: &Context, secret: &SecretMeta) -> Result<(), Error> {
    if ctx.settings.client_deletion_policy == DeletionPolicy::Retain {
        return Ok(());
    }
    for place in secret.place().into_iter().chain(secret.previous()) {
        // The scope is the workload's, whichever client it has.
        let scope_of = (secret.place().as_ref() == Some(&place)).then_some(secret);
        delete_client(ctx, &secret.key, &place, scope_of).await?;
    }
    Ok(())
}

/// Deletes a client, and the scope of the workload whose Secret goes, unless they are used by others or not ours.
///
/// # Errors
/// What Keycloak says.
pub async fn delete_client(
    ctx: &Context,
    key: &ObjectKey,
    place: &Place,
    scope_of: Option<&SecretMeta>,
) -> Result<(), Error> {
    let Some(server) = trusted(ctx, place)? else { return Ok(()) };
    if sharing::is_used_by_others(ctx, key, &place.uuid) {
        return Ok(());
    }
    let Some(cluster_id) = ctx.cluster_id() else {
        return Err(unknown("the mark of this cluster's clients is not known: set --cluster-id").into());
    };
    let client = ours(ctx, &server, place, &key.namespace).await?;
    match &client {
        Some(client) if !client::is_deletable(client, &cluster_id) => return Ok(()),
        Some(client) => {
            let busy = || Error::Busy(client.client_id.clone());
            let _turn = ctx.turns.take(&client.client_id).ok_or_else(busy)?;
            // Somebody may have found it meanwhile and written a Secret.
            if sharing::is_used_by_others(ctx, key, &place.uuid) {
                return Ok(());
            }
            ctx.keycloak.delete_client(&server, &client.id).await?;
            tracing::info!(client = client.client_id, server = %server, "client deleted");
        }
        None => {}
    }
    if let Some(secret) = scope_of {
        delete_scope(ctx, &server, secret, &cluster_id).await?;
    }
    Ok(())
}

/// What is not known yet may be known at the next try.
fn unknown(what: &str) -> KeycloakError {
    KeycloakError::Transient { operation: "delete the client", detail: what.to_owned() }
}

/// The server that an annotation names, when it is trusted (§2.4).
fn trusted(ctx: &Context, place: &Place) -> Result<Option<Server>, KeycloakError> {
    match ctx.trust().check(&place.url, &place.realm) {
        Ok(server) => Ok(Some(server)),
        Err(Refusal::Url { .. }) if !ctx.looked_for_public_url() => {
            Err(unknown("Keycloak's public URL was not looked for yet"))
        }
        Err(refusal) => {
            tracing::warn!(
                "a credentials Secret names a Keycloak that is not trusted, it is left alone: {refusal}"
            );
            Ok(None)
        }
    }
}

/// The client that an annotation names, when it can be one of this namespace.
async fn ours(
    ctx: &Context,
    server: &Server,
    place: &Place,
    namespace: &str,
) -> Result<Option<Client>, KeycloakError> {
    let client = match ctx.keycloak.read_client(server, &place.uuid).await {
        // What was in the realm is gone with it.
        Err(error) if error.is_realm_gone(&place.realm) => None,
        read => read?,
    };
    Ok(client.filter(|client| client.id == place.uuid && is_of_namespace(&client.client_id, namespace)))
}

async fn delete_scope(
    ctx: &Context,
    server: &Server,
    secret: &SecretMeta,
    cluster_id: &str,
) -> Result<(), Error> {
    let (Some(id), Some(unit)) = (secret.annotation(own::SCOPE_ID), &secret.unit) else { return Ok(()) };
    let read = match ctx.keycloak.read_scope(server, id).await {
        Err(error) if error.is_realm_gone(server.realm()) => None,
        read => read?,
    };
    let Some(found) = read else { return Ok(()) };
    if !is_own_scope(&found, unit, cluster_id) {
        return Ok(());
    }
    if ctx.keycloak.delete_scope(server, &found.id).await? {
        return Ok(());
    }
    // An older server, which keeps a scope that is in use.
    let data = ctx.around.authbridge(&unit.namespace).ok().flatten();
    let listed = AuthbridgeConfig(data.as_deref()).get("PLATFORM_CLIENT_IDS").unwrap_or("kagenti").to_owned();
    for client in listed.split(',').map(str::trim).filter(|client| !client.is_empty()) {
        ctx.platform_clients.detach(&ctx.keycloak, server, client, &found.id).await?;
    }
    ctx.keycloak.detach_from_realm(server, &found.id).await?;
    if ctx.keycloak.delete_scope(server, &found.id).await? {
        Ok(())
    } else {
        Err(Error::Audience(format!("client scope {} is still in use", found.name)))
    }
}

fn is_own_scope(found: &Scope, unit: &Unit, cluster_id: &str) -> bool {
    let desired = scope::Desired {
        namespace: unit.namespace.clone(),
        workload: unit.name.clone(),
        mark: WorkloadKey { unit: unit.clone(), kind: TargetKind::Deployment }.mark(),
        cluster_id: cluster_id.to_owned(),
        client_id: format!("{}/{}", unit.namespace, unit.name),
    };
    let (name, other) = desired.names();
    (found.name == name || found.name == other) && desired.is_ours(found)
}
