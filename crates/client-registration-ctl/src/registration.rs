//! One pass over the workloads of a name (client-registration §12).

use std::{sync::Arc, time::Duration};

use api_types::{
    credentials::{self, Eligibility},
    enrolment::TargetKind,
    registration::{annotation as own, condition},
};
use controller_kit::{backoff::jitter, controller::PassError, surroundings::NamespaceState};
use tokio::time::Instant;

use crate::{
    conditions::{Audience, Report, Truth, Verdict},
    config::{Config, Problem},
    context::{Checked, Context},
    delivery,
    error::Error,
    exchange::exchange,
    identity::Unresolved,
    leaving,
    metrics::UnitState,
    reason::Reason,
    secret::{self, SecretMeta},
    sources::Source,
    subject::{self, Subject},
    trust::Refusal,
    workload::{Unit, Workload, WorkloadKey},
    write,
};

/// How often a Secret is looked at that is not watched.
const UNWATCHED: Duration = Duration::from_secs(300);

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
    if ctx.settings.watch_secrets {
        return look(ctx, unit).await;
    }
    if let Some(wait) = leaving::unwatched(ctx, unit).await? {
        return Ok(Some(wait));
    }
    let next = look(ctx, unit).await?;
    if ctx.index.secret_of(unit).is_none() {
        return Ok(next);
    }
    // Nobody tells when somebody deletes it.
    let again = jitter(UNWATCHED, 0.2);
    Ok(Some(next.map_or(again, |next| next.min(again))))
}

async fn look(ctx: &Context, unit: &Unit) -> Next {
    let workloads = ctx.index.workloads_of(unit);
    let gates = ctx.gates()?;
    let secret = ctx.index.secret_of(unit);
    withdraw_absent(ctx, unit, &workloads, secret.as_deref()).await?;
    if workloads.is_empty() {
        return leaving::gone(ctx, unit, secret.as_deref()).await;
    }
    if !gates.global_enabled || !gates.client_registration {
        let off = Verdict::off(
            Reason::GateDisabled,
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
        let own = Verdict::off(
            Reason::UserProvided,
            "the pod template names a Secret of its own with the credentials",
        );
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
        let refused =
            Verdict::failing(Reason::PatchFailed, format!("the API server does not let us: {error}"));
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
            return Ok(Err(Verdict::off(Reason::WaitingForConfig, message)));
        }
        Err(Problem::Waiting { message, unexpected: true }) => {
            return Ok(Err(Verdict::failing(Reason::WaitingForConfig, message)));
        }
        Err(Problem::Invalid(message)) => return Ok(Err(Verdict::failing(Reason::InvalidConfig, message))),
        Err(Problem::Refused(Refusal::Url { .. })) if !ctx.looked_for_public_url() => {
            return Err(PassError::NotSynced("the public URL of Keycloak").into());
        }
        Err(Problem::Refused(refusal)) => {
            let reason = match &refusal {
                Refusal::Url { .. } | Refusal::PlainHttp { .. } => Reason::UntrustedKeycloakURL,
                Refusal::Realm { .. } | Refusal::RealmName { .. } => Reason::RealmNotAllowed,
            };
            return Ok(Err(Verdict::failing(reason, refusal.to_string())));
        }
    };
    for warning in &config.warnings {
        ctx.announcer.warning(primary, Reason::ConfigValueIgnored, warning);
    }
    let identity = match subject::identity_of(ctx, primary)? {
        Ok(identity) => identity,
        Err(error @ Unresolved::Looking) => return Ok(Err(Verdict::pending(error.to_string()))),
        Err(error) => return Ok(Err(Verdict::failing(Reason::IdentityUnresolved, error.to_string()))),
    };
    let Some(cluster_id) = ctx.cluster_id() else {
        let text = if ctx.scope.is_namespaced() {
            "the mark of this cluster's clients is not known: set --cluster-id, since with --watch-namespaces Namespace \
             kube-system is not read"
        } else {
            "the UID of Namespace kube-system is not known yet: allow to read it, or set --cluster-id"
        };
        return Ok(Err(Verdict::pending(text)));
    };
    Ok(Ok(Subject::new(ctx, eligible.to_vec(), primary.clone(), config, identity, cluster_id)))
}

/// When the registration is to be compared with Keycloak next; `None` = now.
fn unchanged(ctx: &Context, subject: &Subject, secret: &SecretMeta) -> Option<Instant> {
    if !secret.is_ours() {
        return None;
    }
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
    let known = ctx.audience.get(&subject.unit);
    if known.is_none() && subject.config.audience && lacks_audience(ctx, &subject.workloads) {
        // An AgentRuntime that came while no process looked has nobody else to tell it.
        return exchange(ctx, subject).await;
    }
    let report = Report { registered: registered(subject), audience: known.unwrap_or(Audience::AsBefore) };
    ctx.revisions.insert(subject.unit.clone(), secret.revision());
    let mut again = due.saturating_duration_since(Instant::now());
    if let Some(wait) = delivery::templates(ctx, subject, secret.revision(), false).await? {
        again = again.min(wait);
    }
    let said = end(ctx, &subject.unit, &subject.workloads, report, Some(again)).await?;
    let earlier = delivery::previous(ctx, subject, secret).await?;
    Ok(said.into_iter().chain(earlier).min())
}

/// An AgentRuntime of these says nothing about the audience scope.
fn lacks_audience(ctx: &Context, workloads: &[Arc<Workload>]) -> bool {
    let runtimes = workloads.iter().filter_map(|workload| ctx.index.runtime_of(&workload.key));
    runtimes
        .into_iter()
        .any(|runtime| !runtime.conditions.iter().any(|of| of.type_ == condition::AUDIENCE_SCOPE_READY))
}

pub(crate) fn registered(subject: &Subject) -> Verdict {
    Verdict::yes(
        Reason::Registered,
        format!("client {} is registered in {}", subject.identity.client_id, subject.config.server),
    )
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
        (Truth::False, false) if verdict.reason == Reason::WaitingForConfig => UnitState::Waiting,
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
