//! A registration is compared with Keycloak, and what differs is made so: client, secret, audience scope, Secret,
//! template (client-registration §12).

use std::time::Duration;

use api_types::registration::annotation as own;
use controller_kit::{backoff::jitter, controller::PassError, watch::Key as ObjectKey};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use rest_client::Secret;
use tokio::time::Instant;

use crate::{
    audience::{self, AudienceError},
    claim,
    clients::{self, ClientError, Registered},
    conditions::{Audience, Report, Verdict},
    context::{Checked, Context},
    delivery::{self, Delivered},
    error::Error,
    keycloak::{KeycloakError, client::Ownership},
    reason::Reason,
    registration::{Next, end, registered},
    secret::{self, Place, Plan, Wanted},
    settings::ClientAuth,
    sharing::{self, Turn},
    subject::{self, Subject},
    workload::Unit,
    write,
};

/// How often the Secret is looked at again when it comes and goes while it is written.
const ROUNDS: u32 = 3;

/// Why a registration stopped.
enum Stop {
    /// Keycloak.
    Keycloak(KeycloakError),
    /// A person has to do something.
    Say(Verdict),
    /// Kubernetes.
    Error(Error),
}

impl From<KeycloakError> for Stop {
    fn from(error: KeycloakError) -> Self {
        Self::Keycloak(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Keycloak(error) => Self::Keycloak(error),
            ClientError::Conflict(why) => Self::Say(Verdict::failing(Reason::ClientConflict, why)),
        }
    }
}

/// The full comparison with Keycloak.
///
/// # Errors
/// What a retry may fix.
pub async fn exchange(ctx: &Context, subject: &Subject) -> Next {
    let Some(turn) = ctx.turns.take(&subject.identity.client_id) else { return Ok(Some(sharing::pause())) };
    let started = Instant::now();
    let stop = match register(ctx, subject, turn).await {
        Ok(next) => {
            ctx.metrics.registered(Reason::Registered, true, started.elapsed());
            return Ok(next);
        }
        Err(stop) => stop,
    };
    let (verdict, next) = match stop {
        Stop::Error(error) => {
            if error.is_refusal() {
                ctx.metrics.registered(Reason::PatchFailed, false, started.elapsed());
            }
            return Err(error);
        }
        Stop::Say(verdict) => (verdict, Ok(Some(jitter(ctx.settings.resync_period, 0.2)))),
        Stop::Keycloak(error) => {
            let verdict = Verdict::failing(error.reason(), error.to_string());
            let next = match error.retry_in() {
                Some(wait) => Ok(Some(jitter(wait, 0.1))),
                None => Err(Error::Keycloak(error)),
            };
            (verdict, next)
        }
    };
    ctx.metrics.registered(verdict.reason, false, started.elapsed());
    end(ctx, &subject.unit, &subject.workloads, Report::new(verdict), None).await?;
    next
}

/// `turn` is given back when the Secret is written: from then on others see who uses the client.
async fn register(ctx: &Context, subject: &Subject, turn: Turn) -> Result<Option<Duration>, Stop> {
    let Subject { unit, config, primary, .. } = subject;
    // A Secret without our label is not in the index. When there is no client either, creating the Secret tells in time,
    // and a new agent costs no read.
    let expected = ctx.index.secret_of(unit).is_some() || ctx.taken.get(unit).is_some();
    let mut live = if expected { claim(ctx, unit).await? } else { None };
    let found = ctx.keycloak.find_client(&config.server, &subject.identity.client_id).await?;
    if live.is_none() && found.is_some() {
        live = claim(ctx, unit).await?;
    }
    let inherited = live.as_ref().is_some_and(|live| secret::is_inherited(live, &subject.identity.client_id));
    let client = clients::ensure(
        ctx,
        &config.server,
        &subject.identity.client_id,
        &subject.cluster_id,
        (found, inherited),
        |found| subject.client(ctx, found),
    )
    .await?;
    announce_owner(ctx, subject, &client);
    let (secret, rotated_for) = credentials_of(ctx, subject, &client, live.as_ref()).await?;
    let recorded = live.as_ref().and_then(|live| claim::annotation(live, own::SCOPE_ID));
    let scope = scope(ctx, subject, &client, recorded.as_deref()).await;
    if config.auth == ClientAuth::FederatedJwt {
        look_at_features(ctx, subject).await;
    }
    let place = Place {
        url: config.server.base().to_string(),
        realm: config.server.realm().to_owned(),
        uuid: client.client.id.clone(),
    };
    let ready = scope.as_ref().ok().and_then(Option::as_ref);
    let deletable = matches!(client.ownership, Ownership::Ours | Ownership::Inherited)
        && client.client.attributes.get(crate::keycloak::attributes::ADOPTED) != Some("true");
    let wanted = Wanted {
        unit,
        owners: &subject.workloads,
        client_id: &subject.identity.client_id,
        secret: secret.as_ref(),
        place: &place,
        scope_id: ready.map(|ready| ready.id.as_str()).or(recorded.as_deref()),
        hash: &subject.hash,
        rotated_for: rotated_for.as_deref(),
        finalizer: deletable && ctx.settings.holds_secrets(),
        used_revision: subject::used_revision(ctx, unit, &subject.workloads),
    };
    let Some(delivered) = deliver(ctx, subject, &client, ready, live, &wanted).await? else {
        return Ok(None);
    };
    let due = Instant::now() + jitter(ctx.settings.resync_period, 0.2);
    ctx.revisions.insert(unit.clone(), delivered.revision);
    ctx.checked.insert(unit.clone(), Checked { version: delivered.version, due });
    drop(turn);
    let mut again = due.saturating_duration_since(Instant::now());
    if let Some(wait) = delivery::templates(ctx, subject, delivered.revision, true).await? {
        again = again.min(wait);
    }
    if delivered.rotated {
        ctx.announcer.normal(
            primary,
            "CredentialsRotated",
            "the client has a new secret; Pods are replaced to get it",
        );
    } else if delivered.first {
        let note = format!("client {} is registered in {}", subject.identity.client_id, config.server);
        ctx.announcer.normal(primary, "ClientRegistered", &note);
    }
    let said = finish(ctx, subject, scope, again).await;
    // Whatever an earlier Keycloak does: how the present registration stands was said.
    let earlier = match ctx.index.secret_of(unit) {
        Some(meta) => delivery::previous(ctx, subject, &meta).await?,
        None => None,
    };
    Ok(said?.into_iter().chain(earlier).min())
}

/// The Secret, read live; an error when it is to be left alone.
async fn claim(ctx: &Context, unit: &Unit) -> Result<Option<ApiSecret>, Stop> {
    let live = write::read_secret(ctx, &unit.namespace, &unit.secret_name()).await?;
    if let Some(verdict) = live.as_ref().and_then(|live| claim::objection(live, unit)) {
        return Err(Stop::Say(verdict));
    }
    ctx.taken.remove(unit);
    Ok(live)
}

/// Brings the Secret about; `None` = the workload is gone. Where it cannot be, what this pass made in Keycloak goes.
async fn deliver(
    ctx: &Context,
    subject: &Subject,
    client: &Registered,
    scope: Option<&audience::Ready>,
    mut live: Option<ApiSecret>,
    wanted: &Wanted<'_>,
) -> Result<Option<Delivered>, Stop> {
    let unit = &subject.unit;
    for _ in 0..ROUNDS {
        let plan = secret::plan(live.as_ref(), wanted, ctx.now());
        if matches!(plan, Plan::Apply { .. }) && !write::is_alive(ctx, &subject.primary).await? {
            tracing::info!(workload = %unit, "the workload was deleted while it was being registered");
            undo(ctx, subject, client, scope).await?;
            return Ok(None);
        }
        match delivery::secret(ctx, subject, live.as_ref(), plan).await {
            Ok(Some(delivered)) => return Ok(Some(delivered)),
            Ok(None) => match claim(ctx, unit).await {
                Ok(found) => live = found,
                Err(stop) => {
                    undo(ctx, subject, client, scope).await?;
                    ctx.taken.insert(unit.clone(), ());
                    return Err(stop);
                }
            },
            // Nothing would remember the client.
            Err(error) if error.is_refusal() && live.is_none() => {
                undo(ctx, subject, client, scope).await?;
                return Err(Stop::Error(error));
            }
            Err(error) => return Err(Stop::Error(error)),
        }
    }
    Err(Stop::Error(PassError::NotSynced("secrets").into()))
}

/// Says how it stands; an audience scope that is not ready asks for another try.
async fn finish(
    ctx: &Context,
    subject: &Subject,
    scope: Result<Option<audience::Ready>, AudienceError>,
    again: Duration,
) -> Result<Option<Duration>, Stop> {
    let audience = match &scope {
        Ok(None) => Audience::Absent,
        Ok(Some(ready)) if ready.missing.is_empty() => Audience::Known(Verdict::yes(
            Reason::Attached,
            "tokens for the agent carry its client id as audience",
        )),
        Ok(Some(ready)) => Audience::Known(Verdict::off(
            Reason::PlatformClientMissing,
            format!(
                "the audience scope is attached to the agent's own client, but Keycloak has no client {}: create it, or \
                 correct PLATFORM_CLIENT_IDS",
                ready.missing.join(", ")
            ),
        )),
        Err(error) => Audience::Known(Verdict::failing(Reason::ScopeFailed, error.to_string())),
    };
    if let Audience::Known(verdict) = &audience
        && verdict.warns
    {
        ctx.announcer.warning(&subject.primary, verdict.reason, &verdict.message);
    }
    let pending = scope.is_err();
    if pending {
        ctx.audience_pending.insert(subject.unit.clone(), ());
    } else {
        ctx.audience_pending.remove(&subject.unit);
    }
    ctx.audience.insert(subject.unit.clone(), audience.clone());
    let report = Report { registered: registered(subject), audience };
    end(ctx, &subject.unit, &subject.workloads, report, None).await?;
    match scope {
        Ok(_) => Ok(Some(again)),
        Err(error) => Err(Stop::Error(Error::Audience(error.to_string()))),
    }
}

fn announce_owner(ctx: &Context, subject: &Subject, client: &Registered) {
    let id = &subject.identity.client_id;
    match &client.ownership {
        Ownership::Adopted => {
            let note = format!("client {id} was there before: it is used, and will not be deleted");
            ctx.announcer.normal(&subject.primary, "ClientAdopted", &note);
        }
        Ownership::Shared(other) => {
            tracing::debug!(workload = %subject.unit, client = id, cluster = other, "the client of another cluster is shared");
        }
        Ownership::Ours | Ownership::Inherited | Ownership::Conflict(_) => {}
    }
}

/// The client's secret, a new one when that is asked for, and the request that was obeyed.
async fn credentials_of(
    ctx: &Context,
    subject: &Subject,
    client: &Registered,
    live: Option<&ApiSecret>,
) -> Result<(Option<Secret>, Option<String>), Stop> {
    let (server, uuid) = (&subject.config.server, &client.client.id);
    let asked = subject.rotation();
    let obeyed = live.and_then(|live| claim::annotation(live, own::ROTATED_FOR));
    // A workload that comes with the annotation gets a fresh secret anyway.
    let fresh = asked.filter(|value| {
        live.is_some()
            && obeyed.as_deref() != Some(value)
            && !sharing::is_rotated_for(ctx, &subject.unit, uuid, value)
    });
    // Some servers show asterisks in the place of a secret.
    let shown =
        client.client.secret.clone().filter(|secret| !secret.expose().bytes().all(|byte| byte == b'*'));
    let secret = match (fresh, shown) {
        (Some(_), _) if matches!(client.ownership, Ownership::Shared(_)) => {
            return Err(Stop::Say(Verdict::failing(
                Reason::ClientConflict,
                "the client belongs to another cluster, so its secret is not rotated from here: remove the annotation",
            )));
        }
        (Some(_), _) => {
            // The old secret is refused at once.
            sharing::have_others_compare(ctx, &subject.unit, uuid).await?;
            let secret = ctx.keycloak.new_secret(server, uuid).await?;
            if secret.is_some() {
                tracing::info!(workload = %subject.unit, client = subject.identity.client_id, "the client has a new secret");
            }
            secret
        }
        (None, Some(secret)) => Some(secret),
        (None, None) => ctx.keycloak.secret(server, uuid).await?,
    };
    if secret.is_none() && subject.config.auth == ClientAuth::ClientSecret {
        return Err(Stop::Keycloak(KeycloakError::Transient {
            operation: "read the client's secret",
            detail: "Keycloak shows none".to_owned(),
        }));
    }
    Ok((secret, asked.map(str::to_owned)))
}

/// The audience scope; `None` when the namespace wants none.
async fn scope(
    ctx: &Context,
    subject: &Subject,
    client: &Registered,
    recorded: Option<&str>,
) -> Result<Option<audience::Ready>, AudienceError> {
    if !subject.config.audience {
        return Ok(None);
    }
    audience::ensure(ctx, &subject.config, &subject.scope(), recorded, &client.client).await.map(Some)
}

/// Keycloak takes `federated-jwt` also when it cannot do it, and then refuses every token (§6.1).
async fn look_at_features(ctx: &Context, subject: &Subject) {
    match ctx.keycloak.features(&subject.config.server).await {
        Ok(info) => {
            if let Some(missing) = info.missing_for_federation().filter(|missing| !missing.is_empty()) {
                let note = format!(
                    "CLIENT_AUTH_TYPE is federated-jwt, but Keycloak has not on: {}. Start it with \
                     --features=client-auth-federated,spiffe",
                    missing.join(", ")
                );
                ctx.announcer.warning(&subject.primary, Reason::FederationUnavailable, &note);
            }
        }
        Err(error) => tracing::debug!(%error, "the features of Keycloak are not known"),
    }
}

/// The registration cannot be finished: what this pass made goes too.
async fn undo(
    ctx: &Context,
    subject: &Subject,
    client: &Registered,
    scope: Option<&audience::Ready>,
) -> Result<(), Stop> {
    let own = ObjectKey::new(&subject.unit.namespace, subject.unit.secret_name());
    if client.created && !sharing::is_used_by_others(ctx, &own, &client.client.id) {
        ctx.keycloak.delete_client(&subject.config.server, &client.client.id).await?;
    }
    if let Some(scope) = scope.filter(|scope| scope.created) {
        ctx.keycloak.delete_scope(&subject.config.server, &scope.id).await?;
    }
    ctx.forget(&subject.unit);
    Ok(())
}
