//! One pass over the workloads of a name (client-registration §12).

use std::{sync::Arc, time::Duration};

use api_types::{
    credentials::{self, Eligibility},
    enrolment::TargetKind,
    registration::annotation as own,
};
use controller_kit::{backoff::jitter, controller::PassError, surroundings::NamespaceState};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use rest_client::Secret;
use tokio::time::Instant;

use crate::{
    audience::{self, AudienceError},
    clients::{self, ClientError, Registered},
    conditions::{Audience, Report, Truth, Verdict},
    config::{Config, Problem},
    context::{Checked, Context},
    delivery,
    error::Error,
    identity::Unresolved,
    keycloak::{KeycloakError, client::Ownership},
    leaving,
    metrics::UnitState,
    secret::{self, Place, Plan, SecretMeta, Wanted},
    settings::{ClientAuth, DeletionPolicy},
    sources::Source,
    subject::{self, Subject},
    trust::Refusal,
    workload::{Unit, Workload, WorkloadKey},
    write,
};

/// How a pass ends: with the next look, or with what a retry may fix.
pub type Next = Result<Option<Duration>, Error>;

/// One pass.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, unit: &Unit) -> Next {
    if !ctx.settings.enable_client_registration {
        return Ok(None);
    }
    synced(ctx, unit)?;
    if !ctx.settings.watch_secrets {
        write::look_at_secret(ctx, unit).await?;
    }
    let workloads = ctx.index.workloads_of(unit);
    let gates = ctx.gates()?;
    let secret = ctx.index.secret_of(unit);
    withdraw_absent(ctx, unit, &workloads, secret.as_deref()).await?;
    if workloads.is_empty() {
        return leaving::gone(ctx, unit, secret.as_deref()).await;
    }
    if !gates.global_enabled || !gates.client_registration {
        let off = Verdict::off(
            "GateDisabled",
            "gate globalEnabled or clientRegistration is off in ConfigMap kagenti-feature-gates: nothing is registered \
             or removed",
        );
        let agents =
            workloads.into_iter().filter(|w| w.eligibility(&gates) == Eligibility::Register).collect();
        return end(ctx, unit, &agents, Report::new(off), None).await;
    }
    let (mut eligible, others): (Vec<_>, Vec<_>) =
        workloads.into_iter().partition(|w| w.eligibility(&gates) == Eligibility::Register);
    if eligible.is_empty() {
        return leaving::unenrol(ctx, unit, &others, secret.as_deref(), &gates).await;
    }
    ctx.leaving.remove(unit);
    let provided: Vec<_> = eligible.extract_if(.., |workload| is_user_provided(workload)).collect();
    if !provided.is_empty() {
        let own =
            Verdict::off("UserProvided", "the pod template names a Secret of its own with the credentials");
        report(ctx, &provided, &Report::new(own)).await?;
    }
    let Some(primary) = eligible.first().cloned() else {
        ctx.metrics.set_state(unit, Some(UnitState::Skipped));
        return Ok(None);
    };
    if secret.as_ref().is_some_and(|secret| secret.deleting.is_some()) {
        let waiting = Verdict::pending(format!(
            "Secret {} of an earlier workload is being deleted",
            unit.secret_name()
        ));
        return end(ctx, unit, &eligible, Report::new(waiting), None).await;
    }
    if ctx.around.namespace(&unit.namespace)? == NamespaceState::Terminating {
        // A client that is made now would outlive its workload: the Secret that remembers it cannot be made any more.
        let ending = Verdict::pending(format!("Namespace {} is being deleted", unit.namespace));
        return end(ctx, unit, &eligible, Report::new(ending), None).await;
    }
    let subject = match resolve(ctx, &eligible, &primary)? {
        Ok(subject) => subject,
        Err(verdict) => {
            let settled = verdict.truth != Truth::Unknown;
            let again = (!settled).then_some(Duration::from_secs(60));
            return end(ctx, unit, &eligible, Report::new(verdict), again).await;
        }
    };
    let outcome = match secret.as_deref().and_then(|secret| Some((secret, unchanged(ctx, &subject, secret)?)))
    {
        Some((secret, due)) => settled(ctx, &subject, secret, due).await,
        None => exchange(ctx, &subject).await,
    };
    if let Err(error) = &outcome
        && error.is_refusal()
    {
        let refused = Verdict::failing("PatchFailed", format!("the API server does not let us: {error}"));
        end(ctx, unit, &subject.workloads, Report::new(refused), None).await?;
    }
    outcome
}

/// Of a workload that is gone nothing is said, but what its clean-up waits for.
async fn withdraw_absent(
    ctx: &Context,
    unit: &Unit,
    workloads: &[Arc<Workload>],
    secret: Option<&SecretMeta>,
) -> Result<(), Error> {
    if secret.is_some_and(|secret| secret.finalizer && secret.deleting.is_some()) {
        return Ok(());
    }
    for kind in TargetKind::ALL {
        if workloads.iter().any(|workload| workload.key.kind == kind) {
            continue;
        }
        if let Some(runtime) = ctx.index.runtime_of(&WorkloadKey { unit: unit.clone(), kind }) {
            write::withdraw(ctx, &runtime).await?;
        }
    }
    Ok(())
}

fn is_user_provided(workload: &Workload) -> bool {
    workload.template_secret().is_some_and(|name| !credentials::is_operator_secret(name))
}

fn synced(ctx: &Context, unit: &Unit) -> Result<(), Error> {
    let kinds = TargetKind::ALL.map(Source::Workloads);
    for source in kinds.into_iter().chain([Source::Runtimes, Source::Secrets]) {
        if !ctx.sources.is_synced(source, &unit.namespace) {
            let what = match source {
                Source::Workloads(_) => "workloads",
                Source::Runtimes => "agentruntimes",
                Source::Secrets | Source::Admin => "secrets",
            };
            return Err(PassError::NotSynced(what).into());
        }
    }
    Ok(())
}

/// Configuration and identity; inside, the condition that says why there is none.
fn resolve(
    ctx: &Context,
    eligible: &[Arc<Workload>],
    primary: &Arc<Workload>,
) -> Result<Result<Subject, Verdict>, Error> {
    let data = ctx.around.authbridge(&primary.key.unit.namespace)?;
    let config = match Config::read(data.as_deref(), &ctx.settings, &ctx.trust()) {
        Ok(config) => config,
        Err(Problem::Waiting { message, unexpected: false }) => {
            return Ok(Err(Verdict::off("WaitingForConfig", message)));
        }
        Err(Problem::Waiting { message, unexpected: true }) => {
            return Ok(Err(Verdict::failing("WaitingForConfig", message)));
        }
        Err(Problem::Invalid(message)) => return Ok(Err(Verdict::failing("InvalidConfig", message))),
        Err(Problem::Refused(refusal)) => {
            let reason = match &refusal {
                Refusal::Url { .. } | Refusal::PlainHttp { .. } => "UntrustedKeycloakURL",
                Refusal::Realm { .. } | Refusal::RealmName { .. } => "RealmNotAllowed",
            };
            return Ok(Err(Verdict::failing(reason, refusal.to_string())));
        }
    };
    for warning in &config.warnings {
        ctx.announcer.warning(primary, "ConfigValueIgnored", warning);
    }
    let identity = match subject::identity_of(ctx, primary)? {
        Ok(identity) => identity,
        Err(error @ Unresolved::Looking) => return Ok(Err(Verdict::pending(error.to_string()))),
        Err(error) => return Ok(Err(Verdict::failing("IdentityUnresolved", error.to_string()))),
    };
    let Some(cluster_id) = ctx.cluster_id() else {
        let text = "the UID of Namespace kube-system is not known yet: allow to read it, or set --cluster-id";
        return Ok(Err(Verdict::pending(text)));
    };
    Ok(Ok(Subject::new(ctx, eligible.to_vec(), primary.clone(), config, identity, cluster_id)))
}

/// When the registration is to be compared with Keycloak next; `None` = now.
fn unchanged(ctx: &Context, subject: &Subject, secret: &SecretMeta) -> Option<Instant> {
    let due = match ctx.checked.get(&subject.unit) {
        Some(checked) if checked.version == secret.version => checked.due,
        Some(_) => return None,
        // Not looked at since the start of the process: spread over the whole period.
        None => {
            let due = Instant::now() + ctx.settings.resync_period.mul_f64(fastrand::f64());
            ctx.checked.insert(subject.unit.clone(), Checked { version: secret.version.clone(), due });
            due
        }
    };
    let audience_done = !subject.config.audience
        || (secret.annotation(own::SCOPE_ID).is_some() && ctx.audience_pending.get(&subject.unit).is_none());
    let asked = subject.rotation().filter(|value| secret.annotation(own::ROTATED_FOR) != Some(value));
    let same = secret.annotation(own::REGISTRATION_HASH) == Some(subject.hash.as_str())
        && audience_done
        && asked.is_none()
        && Instant::now() < due;
    same.then_some(due)
}

/// Nothing has changed: only owner references and template are looked after, and no call to Keycloak is made.
async fn settled(ctx: &Context, subject: &Subject, secret: &SecretMeta, due: Instant) -> Next {
    if !secret::covers_owners(&secret.owners, &secret::owners(&subject.workloads)) {
        // An apply repeats the data, which only a full look reads.
        return exchange(ctx, subject).await;
    }
    ctx.revisions.insert(subject.unit.clone(), secret.revision());
    let mut again = due.saturating_duration_since(Instant::now());
    if let Some(wait) = delivery::templates(ctx, subject, secret.revision(), false).await? {
        again = again.min(wait);
    }
    if let Some(wait) = delivery::previous(ctx, subject, secret).await? {
        again = again.min(wait);
    }
    end(ctx, &subject.unit, &subject.workloads, Report::new(registered(subject)), Some(again)).await
}

fn registered(subject: &Subject) -> Verdict {
    Verdict::yes(
        "Registered",
        format!("client {} is registered in {}", subject.identity.client_id, subject.config.server),
    )
}

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
            ClientError::Conflict(why) => Self::Say(Verdict::failing("ClientConflict", why)),
        }
    }
}

/// The full comparison with Keycloak.
async fn exchange(ctx: &Context, subject: &Subject) -> Next {
    let started = Instant::now();
    let stop = match register(ctx, subject).await {
        Ok(next) => {
            ctx.metrics.registered("Registered", true, started.elapsed());
            return Ok(next);
        }
        Err(stop) => stop,
    };
    let (verdict, next) = match stop {
        Stop::Error(error) => {
            if error.is_refusal() {
                ctx.metrics.registered("PatchFailed", false, started.elapsed());
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

async fn register(ctx: &Context, subject: &Subject) -> Result<Option<Duration>, Stop> {
    let Subject { unit, config, primary, .. } = subject;
    let name = unit.secret_name();
    let live = write::read_secret(ctx, &unit.namespace, &name).await?;
    if live.as_ref().is_some_and(|live| live.metadata.deletion_timestamp.is_some()) {
        return Err(Stop::Say(Verdict::pending(format!("Secret {name} is being deleted"))));
    }
    if live.as_ref().is_some_and(is_kept) {
        return Err(Stop::Say(Verdict::off(
            "UserProvided",
            format!("Secret {name} has annotation {}: \"false\", so it is left alone", own::MANAGED),
        )));
    }
    if let Some(other) = live.as_ref().and_then(|live| secret::controller(live, unit)) {
        return Err(Stop::Say(Verdict::failing(
            "SecretConflict",
            format!(
                "Secret {name} is controlled by {other}, so it is left alone: delete it there, or set its annotation {}: \
                 \"false\" if the workload is to use it",
                own::MANAGED
            ),
        )));
    }
    let inherited = live.as_ref().is_some_and(|live| secret::is_inherited(live, &subject.identity.client_id));
    let client = clients::ensure(
        ctx,
        &config.server,
        &subject.identity.client_id,
        &subject.cluster_id,
        inherited,
        |found| subject.client(ctx, found),
    )
    .await?;
    announce_owner(ctx, subject, &client);
    let (secret, rotated_for) = credentials_of(ctx, subject, &client, live.as_ref()).await?;
    let recorded = live.as_ref().and_then(|live| annotation(live, own::SCOPE_ID));
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
        finalizer: deletable && ctx.settings.client_deletion_policy == DeletionPolicy::Delete,
        used_revision: subject::used_revision(ctx, unit, &subject.workloads),
    };
    let plan = secret::plan(live.as_ref(), &wanted, ctx.now());
    if matches!(plan, Plan::Apply { .. }) && !write::is_alive(ctx, primary).await? {
        tracing::info!(workload = %unit, "the workload was deleted while it was being registered");
        undo(ctx, subject, &client, ready).await?;
        return Ok(None);
    }
    let delivered = match delivery::secret(ctx, subject, live.as_ref(), plan).await {
        // Nothing would remember the client.
        Err(error) if error.is_refusal() && live.is_none() => {
            undo(ctx, subject, &client, ready).await?;
            return Err(Stop::Error(error));
        }
        delivered => delivered?,
    };
    let due = Instant::now() + jitter(ctx.settings.resync_period, 0.2);
    ctx.revisions.insert(unit.clone(), delivered.revision);
    ctx.checked.insert(unit.clone(), Checked { version: delivered.version, due });
    let mut again = due.saturating_duration_since(Instant::now());
    for wait in [
        delivery::templates(ctx, subject, delivered.revision, true).await?,
        match ctx.index.secret_of(unit) {
            Some(meta) => delivery::previous(ctx, subject, &meta).await?,
            None => None,
        },
    ]
    .into_iter()
    .flatten()
    {
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
    finish(ctx, subject, scope, again).await
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
        Ok(Some(ready)) if ready.missing.is_empty() => {
            Audience::Known(Verdict::yes("Attached", "tokens for the agent carry its client id as audience"))
        }
        Ok(Some(ready)) => Audience::Known(Verdict::off(
            "PlatformClientMissing",
            format!(
                "the audience scope is attached to the agent's own client, but Keycloak has no client {}: create it, or \
                 correct PLATFORM_CLIENT_IDS",
                ready.missing.join(", ")
            ),
        )),
        Err(error) => Audience::Known(Verdict::failing("ScopeFailed", error.to_string())),
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
    let report = Report { registered: registered(subject), audience };
    end(ctx, &subject.unit, &subject.workloads, report, None).await?;
    match scope {
        Ok(_) => Ok(Some(again)),
        Err(error) => Err(Stop::Error(Error::Audience(error.to_string()))),
    }
}

fn annotation(secret: &ApiSecret, key: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned()
}

fn is_kept(secret: &ApiSecret) -> bool {
    annotation(secret, own::MANAGED).as_deref() == Some("false")
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
    let obeyed = live.and_then(|live| annotation(live, own::ROTATED_FOR));
    // A workload that comes with the annotation gets a fresh secret anyway.
    if let Some(value) = asked
        && live.is_some()
        && obeyed.as_deref() != Some(value)
    {
        if matches!(client.ownership, Ownership::Shared(_)) {
            return Err(Stop::Say(Verdict::failing(
                "ClientConflict",
                "the client belongs to another cluster, so its secret is not rotated from here: remove the annotation",
            )));
        }
        let secret = ctx.keycloak.new_secret(server, uuid).await?;
        tracing::info!(workload = %subject.unit, client = subject.identity.client_id, "the client has a new secret");
        return Ok((secret, Some(value.to_owned())));
    }
    let rotated_for = asked.map(str::to_owned);
    // Some servers show asterisks in the place of a secret.
    let shown =
        client.client.secret.clone().filter(|secret| !secret.expose().bytes().all(|byte| byte == b'*'));
    let secret = match shown {
        Some(secret) => Some(secret),
        None => ctx.keycloak.secret(server, uuid).await?,
    };
    if secret.is_none() && subject.config.auth == ClientAuth::ClientSecret {
        return Err(Stop::Keycloak(KeycloakError::Transient {
            operation: "read the client's secret",
            detail: "Keycloak shows none".to_owned(),
        }));
    }
    Ok((secret, rotated_for))
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
                ctx.announcer.warning(&subject.primary, "FederationUnavailable", &note);
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
    if client.created {
        ctx.keycloak.delete_client(&subject.config.server, &client.client.id).await?;
    }
    if let Some(scope) = scope.filter(|scope| scope.created) {
        ctx.keycloak.delete_scope(&subject.config.server, &scope.id).await?;
    }
    ctx.forget(&subject.unit);
    Ok(())
}

/// Writes the conditions, tells of trouble, and ends the pass.
pub async fn end(
    ctx: &Context,
    unit: &Unit,
    workloads: &Vec<Arc<Workload>>,
    report: Report,
    again: Option<Duration>,
) -> Next {
    let verdict = &report.registered;
    let state = match (verdict.truth, verdict.warns) {
        (Truth::True, _) => UnitState::Registered,
        (_, true) => UnitState::Failing,
        (Truth::Unknown, false) => UnitState::Waiting,
        (Truth::False, false) if verdict.reason == "WaitingForConfig" => UnitState::Waiting,
        (Truth::False, false) => UnitState::Skipped,
    };
    ctx.metrics.set_state(unit, Some(state));
    if verdict.warns {
        for workload in workloads {
            ctx.announcer.warning(workload, verdict.reason, &verdict.message);
        }
    }
    self::report(ctx, workloads, &report).await?;
    Ok(again)
}

/// Writes the conditions on the AgentRuntimes of these workloads.
pub async fn report(ctx: &Context, workloads: &[Arc<Workload>], report: &Report) -> Result<(), Error> {
    for workload in workloads {
        if let Some(runtime) = ctx.index.runtime_of(&workload.key) {
            write::report(ctx, &runtime, report).await?;
        }
    }
    Ok(())
}
