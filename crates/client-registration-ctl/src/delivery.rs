//! Bringing credentials to the Pods: the Secret, the pod template, and the end of clients that were left behind
//! (client-registration §8-§10).

use std::time::Duration;

use api_types::{enrolment::TargetKind, registration::annotation as own};
use controller_kit::limiter::Turn;
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    annotation::{self, Marks, Wish},
    claim,
    context::Context,
    error::Error,
    leaving, pods,
    reason::Reason,
    secret::{Place, Plan, SecretMeta},
    settings::DeletionPolicy,
    subject::Subject,
    workload::Workload,
    write::{self, Patched},
};

/// How long the first Pod of a workload is waited for, to see whether the webhook annotates it (§9).
const FIRST_POD: Duration = Duration::from_secs(5);
const LOOK_FOR_POD: Duration = Duration::from_secs(1);
/// A patch met a newer version; the watch brings it.
const STALE: Duration = Duration::from_millis(200);
/// How often a rollout is looked at whose end is waited for; its events come sooner.
const ROLLOUT: Duration = Duration::from_secs(30);
/// How often the Secret's name is put back into one template.
const PUT_BACK_EVERY: Duration = Duration::from_secs(600);
/// How often the Pod of a Sandbox is looked at, which nobody but its user may ever replace.
const SANDBOX: Duration = Duration::from_secs(300);

/// A Secret that is as it should be.
#[derive(Debug)]
pub struct Delivered {
    /// Its version.
    pub version: String,
    /// Revision of its data.
    pub revision: u64,
    /// Its data changed.
    pub rotated: bool,
    /// It did not exist before.
    pub first: bool,
}

/// Writes the Secret; `None` = there is one although `live` says that there is none.
///
/// # Errors
/// What the API server says.
pub async fn secret(
    ctx: &Context,
    subject: &Subject,
    live: Option<&ApiSecret>,
    plan: Plan,
) -> Result<Option<Delivered>, Error> {
    let (namespace, name) = (&subject.unit.namespace, subject.unit.secret_name());
    let version = |live: Option<&ApiSecret>| {
        live.and_then(|live| live.metadata.resource_version.clone()).unwrap_or_default()
    };
    match plan {
        Plan::Leave => {
            Ok(Some(Delivered { version: version(live), revision: 1, rotated: false, first: false }))
        }
        Plan::Keep { revision } => {
            // Not in the index when Secrets are not watched.
            if let Some(meta) = live.and_then(|live| SecretMeta::of(live.metadata.clone())) {
                let _ = ctx.index.secrets.upsert(meta);
            }
            Ok(Some(Delivered { version: version(live), revision, rotated: false, first: false }))
        }
        Plan::Apply { fields, revision, rotated, replace } => {
            let written = match live {
                // Not an apply: that would write over a Secret which the watch does not show.
                None => write::create_secret(ctx, namespace, &name, fields).await?,
                Some(live) if replace => {
                    // Without the finalizer, or the client would go with the Secret.
                    write::remove_finalizer(ctx, namespace, &name).await?;
                    let uid = live.metadata.uid.as_deref().unwrap_or_default();
                    write::delete_secret(ctx, namespace, &name, uid).await?;
                    write::create_secret(ctx, namespace, &name, fields).await?
                }
                Some(live) => {
                    if let Some(takeover) = claim::takeover(&live.metadata) {
                        write::take_over_secret(ctx, namespace, &name, &takeover).await?;
                    }
                    Some(write::apply_secret(ctx, namespace, &name, fields).await?)
                }
            };
            let Some(version) = written else { return Ok(None) };
            tracing::info!(workload = %subject.unit, secret = name, revision, "credentials delivered");
            Ok(Some(Delivered { version, revision, rotated, first: live.is_none() }))
        }
    }
}

/// Annotates the pod templates where that is needed; says when to look again. `look` = the Pods may be listed to see
/// whether the webhook annotates them.
///
/// # Errors
/// What the API server says.
pub async fn templates(
    ctx: &Context,
    subject: &Subject,
    revision: u64,
    look: bool,
) -> Result<Option<Duration>, Error> {
    let mut again: Option<Duration> = None;
    for workload in &subject.workloads {
        // What this pass or another one wrote.
        let workload = ctx.index.workloads.get(&workload.key).unwrap_or_else(|| workload.clone());
        if let Some(wait) = template(ctx, &workload, &subject.unit.secret_name(), revision, look).await? {
            again = Some(again.map_or(wait, |known| known.min(wait)));
        }
    }
    Ok(again)
}

async fn template(
    ctx: &Context,
    workload: &Workload,
    secret: &str,
    revision: u64,
    look: bool,
) -> Result<Option<Duration>, Error> {
    let mut wish = annotation::wish(ctx.settings.template_annotation, workload, secret, revision);
    if workload.template_secret() == Some(secret) {
        ctx.named.insert(workload.key.clone(), ());
    }
    // Somebody has taken it off, and the Pods of before would tell nothing. Who does so again and again is not fought: each
    // time is a rollout.
    let puts_back = wish == Wish::LookAtPods
        && ctx.named.get(&workload.key).is_some()
        && ctx.put_back.get(&workload.key).is_none_or(|at| at.elapsed() >= PUT_BACK_EVERY);
    if puts_back {
        wish = Wish::Write(Marks { secret: Some(secret.to_owned()), revision: None });
    }
    if wish == Wish::LookAtPods {
        let since = match ctx.waiting_for_pods.get(&workload.key) {
            Some(since) => since,
            None if look => ctx.waiting_for_pods.get_or_insert(workload.key.clone(), Instant::now()),
            None => return Ok(None),
        };
        let seen = pods::annotated(ctx, workload, secret).await?;
        match annotation::after_look(secret, seen, since.elapsed() >= FIRST_POD) {
            None => return Ok(Some(LOOK_FOR_POD)),
            Some(next) => wish = next,
        }
    }
    let Wish::Write(marks) = wish else {
        ctx.waiting_for_pods.remove(&workload.key);
        ctx.limiter.forget(&workload.key);
        return Ok(None);
    };
    if workload.ready > 0
        && let Turn::Wait(wait) = ctx.limiter.try_acquire(&workload.key)
    {
        return Ok(Some(wait));
    }
    let patched = write::patch_workload(ctx, &workload.key, &annotation::patch(workload, &marks)).await?;
    if patched == Patched::Stale {
        return Ok(Some(STALE));
    }
    if puts_back {
        ctx.put_back.insert(workload.key.clone(), Instant::now());
    }
    ctx.waiting_for_pods.remove(&workload.key);
    tracing::info!(workload = %workload.key, secret, revision, "pod template annotated");
    Ok(None)
}

/// Deletes the clients that the workload had before its identity changed, once no Pod uses them (§10). A Keycloak that
/// does not let them go is given up after `--cleanup-timeout`.
///
/// # Errors
/// What the API server says.
pub async fn previous(
    ctx: &Context,
    subject: &Subject,
    secret: &SecretMeta,
) -> Result<Option<Duration>, Error> {
    let places = secret.previous();
    if places.is_empty() {
        ctx.earlier.remove(&subject.unit);
        return Ok(None);
    }
    for key in subject.workloads.iter().map(|workload| &workload.key) {
        if let Some(workload) = ctx.index.workloads.get(key)
            && let Some(wait) = still_rolling(ctx, &workload, secret).await?
        {
            return Ok(Some(wait));
        }
    }
    let left = delete(ctx, secret, &places).await?;
    if let Some((_, error)) = left.first() {
        let since = ctx.earlier.get_or_insert(subject.unit.clone(), Instant::now());
        let timeout = ctx.settings.cleanup_timeout;
        let time = timeout.saturating_sub(since.elapsed());
        if !time.is_zero() {
            let note = format!(
                "an earlier client of the workload is not deleted in Keycloak yet, and is left there if that takes \
                 longer than --cleanup-timeout ({} s): {error}",
                timeout.as_secs()
            );
            ctx.announcer.warning(&subject.primary, Reason::CleanupPending, &note);
            return Ok(Some(ROLLOUT.min(time).max(STALE)));
        }
    }
    let (namespace, name) = (&secret.key.namespace, &secret.key.name);
    let done = write::change_secret(ctx, namespace, name, |_| {
        Some(json!({ "metadata": { "annotations": { own::PREVIOUS: null } } }))
    })
    .await?;
    if let Some(meta) = ctx.index.secret_of(&subject.unit)
        && let Some(mut checked) = ctx.checked.get(&subject.unit)
    {
        // Our own change is no reason to ask Keycloak again.
        checked.version.clone_from(&meta.version);
        ctx.checked.insert(subject.unit.clone(), checked);
    }
    if !done {
        return Ok(Some(STALE));
    }
    ctx.earlier.remove(&subject.unit);
    for (place, error) in &left {
        ctx.metrics.orphans.inc();
        tracing::warn!(
            workload = %subject.unit,
            client_uuid = place.uuid,
            realm = place.realm,
            url = place.url,
            "an orphan: an earlier client stays in Keycloak, it could not be deleted there for {} s: {error}",
            ctx.settings.cleanup_timeout.as_secs()
        );
    }
    Ok(None)
}

/// Deletes earlier clients; those that Keycloak does not let go are returned, with why.
async fn delete(ctx: &Context, secret: &SecretMeta, places: &[Place]) -> Result<Vec<(Place, Error)>, Error> {
    let mut left = Vec::new();
    if ctx.settings.client_deletion_policy != DeletionPolicy::Delete {
        return Ok(left);
    }
    let current = secret.annotation(own::CLIENT_UUID);
    // Another URL of the same Keycloak leads to the client in use.
    for place in places.iter().filter(|place| current != Some(&place.uuid)) {
        match leaving::delete_client(ctx, &secret.key, place, None).await {
            Ok(()) => {}
            Err(error @ (Error::Keycloak(_) | Error::Audience(_))) => left.push((place.clone(), error)),
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

/// When to look again at a workload some Pods of which may have earlier credentials; `None` = none has.
async fn still_rolling(
    ctx: &Context,
    workload: &Workload,
    secret: &SecretMeta,
) -> Result<Option<Duration>, Error> {
    let revision = secret.revision();
    // Before the template is annotated no rollout has begun, and the workload looks complete.
    let told = revision == 1 || workload.template_revision() == Some(revision.to_string().as_str());
    if !told || !workload.rolled_out {
        return Ok(Some(ROLLOUT));
    }
    // The status of a Sandbox does not say which template its Pod was made of.
    let behind = workload.key.kind == TargetKind::Sandbox
        && revision > 1
        && pods::any_behind(ctx, workload, &secret.key.name, revision).await?;
    Ok(behind.then_some(SANDBOX))
}
