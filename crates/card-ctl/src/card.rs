//! One pass over one AgentCard (card §6).

use std::{sync::Arc, time::Duration};

use api_types::{
    CardSource, TargetRef,
    card::{A2A, condition, reason},
    go_duration,
};
use controller_kit::events::NewEvent;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    binding::{self, Binding, Identities},
    conditions::verdict_of,
    context::Context,
    error::Error,
    events::{self, Told},
    evidence::{Evidence, Signature},
    index::{Card, ObjectKey, Service},
    invalid,
    pace::Pace,
    readiness::Readiness,
    reading::{self, Place, Reading},
    reconcile::Next,
    renewal::Renewal,
    schedule,
    settings::LabelMode,
    source::{self, Way},
    status::{self, Findings, Stop},
    sync,
    target::{self, Resolved},
    verdict::{self, Mechanisms, Truth},
    workload::Workload,
    write::{self, Written},
};

/// What a pass has found so far.
#[derive(Default)]
struct Found {
    target: Option<TargetRef>,
    workload: Option<Arc<Workload>>,
    stop: Option<Stop>,
    evidence: Option<Arc<crate::evaluation::Evaluated>>,
    /// Hash of the pod template that was fully rolled out when the agent gave the evidence.
    template: Option<Arc<str>>,
    fallback: bool,
    next: Option<Duration>,
}

impl Found {
    fn stopped(stop: Stop, scaled_to_zero: bool) -> Self {
        let next = schedule::after_stop(stop.reason, scaled_to_zero);
        Self { stop: Some(stop), next, ..Self::default() }
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref().and_then(|evaluated| evaluated.result.as_ref().ok())
    }

    /// The evidence is about Pods of this template: they served it, or it stands in a ConfigMap and no Pod did.
    fn speaks_for(&self, template: &str) -> bool {
        self.evidence().is_some_and(|evidence| evidence.source == CardSource::ConfigMap)
            || self.template.as_deref() == Some(template)
    }
}

/// One pass.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &ObjectKey) -> Result<Next, Error> {
    let Some(card) = ctx.index.cards.get(key) else {
        if let Some(bad) = ctx.undecodable.get(key) {
            return invalid::report(ctx, key, &bad).await;
        }
        ctx.forget_card(key);
        return Ok(None);
    };
    let Some(card) = write::strip_finalizers(ctx, card).await? else { return Ok(None) };
    if card.terminating {
        return Ok(None);
    }
    let Some(found) = find(ctx, &card).await? else { return Ok(None) };
    conclude(ctx, &card, &found).await
}

/// `None` = wait for the answer to a fetch.
async fn find(ctx: &Context, card: &Card) -> Result<Option<Found>, Error> {
    let workload = match target::resolve(ctx, card).await? {
        Resolved::Workload(workload) => workload,
        Resolved::Not(stop) => return Ok(Some(Found::stopped(stop, false))),
    };
    let Some(mut found) = settle(ctx, card, &workload).await? else { return Ok(None) };
    found.target = Some(sync::target_ref(&workload));
    found.workload = Some(workload);
    Ok(Some(found))
}

async fn settle(ctx: &Context, card: &Card, workload: &Workload) -> Result<Option<Found>, Error> {
    let key = &workload.key;
    let Some(protocol) = workload.protocol.as_deref() else {
        let message = format!(
            "{} {} has no protocol label: set protocol.kagenti.io/{A2A} on its metadata",
            key.kind, key.name
        );
        return Ok(Some(Found::stopped(Stop::definitive(reason::NO_PROTOCOL, message), false)));
    };
    if protocol != A2A {
        let message = format!(
            "{} {} speaks {protocol:?}, and only {A2A} is implemented: set the label protocol.kagenti.io/{A2A}",
            key.kind, key.name
        );
        return Ok(Some(Found::stopped(Stop::definitive(reason::PROTOCOL_NOT_SUPPORTED, message), false)));
    }
    let service = ctx.index.services.of_workload(workload);
    if workload.readiness != Readiness::Ready {
        return not_ready(ctx, card, workload, service.as_deref()).await.map(Some);
    }
    let Some(service) = service else {
        let message = format!(
            "no Service leads to {} {}: make one of the same name, or one whose selector matches its Pods",
            key.kind, key.name
        );
        return Ok(Some(Found::stopped(Stop::inconclusive(reason::SERVICE_NOT_FOUND, message), false)));
    };
    tell_port(ctx, card, &service);
    let period = period(ctx, card).0;
    let place = Place { workload, service: &service, held: ctx.held(key), period };
    let fallback = matches!(
        source::choose(&ctx.settings, ctx.verified_fetch(), place.held, &service),
        Way::Plain { fallback: true, .. }
    );
    Ok(match reading::read(ctx, &place).await? {
        Reading::Waiting => None,
        Reading::Document { evaluated, again, template } => Some(Found {
            evidence: Some(evaluated),
            template,
            next: Some(again),
            fallback,
            ..Found::default()
        }),
        Reading::Failed(stop, next) => Some(Found { stop: Some(stop), next, fallback, ..Found::default() }),
    })
}

/// A workload that cannot serve is not asked, but what it signed counts (card §6.1).
async fn not_ready(
    ctx: &Context,
    card: &Card,
    workload: &Workload,
    service: Option<&Service>,
) -> Result<Found, Error> {
    let key = &workload.key;
    // Once it is ready the old answer is of no use.
    ctx.observations.expire(key);
    let zero = workload.readiness == Readiness::ScaledToZero;
    let why = if zero { "is scaled to zero" } else { "is not ready" };
    let message = format!("{} {} {why}", key.kind, key.name);
    let mut found = Found::stopped(Stop::inconclusive(reason::WORKLOAD_NOT_READY, message), zero);
    if let Some(service) = service {
        let way = source::choose(&ctx.settings, ctx.verified_fetch(), ctx.held(&key.clone()), service);
        if matches!(way, Way::Plain { config_map: true, .. }) {
            found.evidence = reading::config_map(ctx, workload, service).await?;
            if found.evidence.is_some() && found.next.is_none() {
                found.next = Some(period(ctx, card).0);
            }
        }
    }
    Ok(found)
}

fn period(ctx: &Context, card: &Card) -> (Duration, Option<String>) {
    let (min, max) = (ctx.settings.min_sync_period, ctx.settings.max_sync_period);
    let read = go_duration::sync_period_within(card.spec.sync_period.as_deref(), min, max);
    (read.period, read.problem.map(|problem| problem.to_string()))
}

fn tell_port(ctx: &Context, card: &Card, service: &Service) {
    match service.choice().warning {
        Some(warning) => {
            if ctx.news(&card.key, events::PORT_IGNORED, &warning) {
                tracing::warn!(card = %card.key, service = service.name, "{warning}");
            }
        }
        None => ctx.no_news(&card.key, events::PORT_IGNORED),
    }
}

fn bind(ctx: &Context, card: &Card, found: &Found) -> Option<Binding> {
    let spec = card.spec.identity_binding.as_ref()?;
    let evidence = found.evidence();
    let domain = ctx.trust.domain();
    let signed = match evidence.map(|evidence| &evidence.signature) {
        Some(Signature::Valid { spiffe_id, .. }) => Some(spiffe_id),
        _ => None,
    };
    let identities = Identities {
        attested: evidence.and_then(|evidence| evidence.attested.as_ref()),
        signed,
        trust_domain: domain.as_ref(),
        namespace: &card.key.namespace,
        service_account: found.workload.as_ref().and_then(|workload| workload.service_account.as_deref()),
        default_scope: &ctx.settings.identity_binding_scope,
    };
    Some(binding::evaluate(spec, identities))
}

/// The mechanisms that count for a card: one that was verified over mTLS stays so while there is no SVID (card §7).
fn mechanisms(ctx: &Context, card: &Card) -> Mechanisms {
    let on = ctx.mechanisms();
    Mechanisms { mtls: on.mtls || (ctx.verified_fetch().enabled && is_held(card)), ..on }
}

/// The stored verdict of a card is `mTLSVerified`.
pub fn is_held(card: &Card) -> bool {
    card.is_about_target()
        && verdict_of(&card.stored.status.conditions, condition::VERIFIED)
            .is_some_and(|verdict| verdict.truth == Truth::True && verdict.reason == reason::MTLS_VERIFIED)
}

async fn conclude(ctx: &Context, card: &Arc<Card>, found: &Found) -> Result<Next, Error> {
    let binding = bind(ctx, card, found);
    let on = mechanisms(ctx, card);
    let limit =
        SignedDuration::try_from(ctx.settings.verification_staleness_limit).unwrap_or(SignedDuration::MAX);
    let workload = found.workload.as_deref();
    let template = workload
        .filter(|workload| ctx.settings.verified_label_mode == LabelMode::Pods && workload.rolled_out)
        .map(|workload| workload.template_hash.as_str())
        .filter(|hash| found.speaks_for(hash));
    let findings = Findings {
        generation: card.generation,
        wanted: card.spec.target_ref.as_ref(),
        target: found.target.clone(),
        protocol: workload.and_then(|workload| workload.protocol.as_deref()),
        stop: found.stop.clone(),
        evidence: found.evidence(),
        on,
        binding_spec: card.spec.identity_binding.as_ref(),
        binding: binding.clone(),
        template_hash: template,
        verified_at: ctx.verified_at.get(&card.key),
        limit,
        now: ctx.now(),
    };
    let next = status::next(&card.stored, &findings);
    remember(ctx, card, found, &next);
    let told = Told {
        fallback: found.fallback,
        period_problem: period(ctx, card).1,
        missing: found.evidence().map_or(&[], |evidence| evidence.missing.as_slice()),
        weak: binding.as_ref().is_some_and(|binding| binding.weak),
    };
    if let Some(patch) = status::patch(&card.stored, &next) {
        let now = tokio::time::Instant::now();
        let pace = ctx.paces.get(&card.key);
        let edge = is_edge(card, &next);
        if !turned(&card.stored, &next, condition::VERIFIED)
            && let Some(wait) = pace.and_then(|pace| pace.wait(now, edge))
        {
            return Ok(Some(wait));
        }
        match write::status(ctx, card, patch).await? {
            Written::Done(_) => {
                ctx.paces.insert(card.key.clone(), Pace::after(pace, now, edge));
            }
            // A conflict although nothing has changed is somebody's refusal: no reason for haste.
            Written::Stale(live) if live.resource_version == card.resource_version => {
                return Ok(Some(Duration::from_secs(1)));
            }
            Written::Stale(_) => return Ok(Some(Duration::ZERO)),
            Written::Gone => return Ok(None),
        }
        let reference = card.reference();
        for event in events::of_change(&card.stored.status, &next.status, &told) {
            ctx.events.publish(&reference, event);
        }
        log(card, &next);
        if binding.is_some_and(|binding| binding.foreign_domain) {
            ctx.metrics.foreign_domains.inc();
        }
        if let Some(target) = &card.target {
            ctx.wake_workload(target.clone(), Duration::ZERO);
        }
    }
    tell_duplicates(ctx, card);
    Ok(next_look(ctx, found, &next))
}

/// What later passes need to know of this one.
fn remember(ctx: &Context, card: &Card, found: &Found, next: &status::Stored) {
    let verified = verdict_of(&next.status.conditions, condition::VERIFIED);
    let looked =
        found.evidence().is_some_and(|evidence| !matches!(evidence.signature, Signature::Unavailable(_)));
    if looked && verified.is_some_and(|verdict| verdict.truth == Truth::True) {
        ctx.verified_at.insert(card.key.clone(), ctx.now());
    }
    let before = ctx.renewals.get(&card.key);
    let under = found.evidence().and_then(|evidence| evidence.under.clone()).unwrap_or_default();
    let renewal = match found.evidence().map(|evidence| &evidence.signature) {
        Some(Signature::Valid { key_id, not_after, spiffe_id, .. }) => Some(Renewal::Valid {
            key_id: key_id.clone(),
            not_after: *not_after,
            own_domain: ctx.trust.domain().is_some_and(|domain| *spiffe_id.trust_domain() == domain),
            under,
            inherited: Renewal::inherits(
                before.as_ref(),
                card.stored.status.signature_not_after.as_ref().map(|time| time.0),
                *not_after,
            ),
        }),
        Some(Signature::Invalid { chain_of: Some(key), .. }) => {
            let stored = card.stored.status.signature_key_id.as_deref();
            Renewal::broken(before.as_ref(), stored, key, &under)
        }
        Some(Signature::Invalid { chain_of: None, .. } | Signature::NotEvaluated) => None,
        // Nothing new is known.
        Some(Signature::Unavailable(_)) | None => before.clone().filter(|_| card.is_about_target()),
    };
    if renewal == before {
        return;
    }
    match renewal {
        Some(renewal) => ctx.renewals.insert(card.key.clone(), renewal),
        None => ctx.renewals.remove(&card.key),
    };
    if let Some(target) = &card.target {
        ctx.wake_workload(target.clone(), Duration::ZERO);
    }
}

/// Each card of several for one workload names the others, once per change (card §17.2).
fn tell_duplicates(ctx: &Context, card: &Card) {
    let Some(target) = &card.target else { return };
    let others: Vec<Arc<Card>> = ctx
        .index
        .cards
        .linked(target)
        .into_iter()
        .filter(|other| other.key != card.key && !other.terminating)
        .collect();
    if others.is_empty() {
        ctx.no_news(&card.key, events::DUPLICATE_TARGET);
        return;
    }
    let list = others.iter().map(|other| other.key.name.as_str()).collect::<Vec<_>>().join(", ");
    // A card that was looked at before this process started has been told of the others that were there then.
    let started = ctx.started_at();
    let old =
        |other: &Arc<Card>| other.created.is_none_or(|created| created.as_second() < started.as_second());
    let told = card.stored.status.observed_generation.is_some() && others.iter().all(old);
    let first = ctx.said.get(&(card.key.clone(), events::DUPLICATE_TARGET)).is_none();
    if ctx.news(&card.key, events::DUPLICATE_TARGET, &list) && !(told && first && ctx.is_settling()) {
        let note = format!("{target} is also the target of {list}: delete all but one");
        ctx.events.publish(&card.reference(), NewEvent::warning(events::DUPLICATE_TARGET, "Reconcile", note));
    }
}

/// The workload became ready or unready, and nobody changed the card.
fn is_edge(card: &Card, next: &status::Stored) -> bool {
    let waits = |stored: &status::Stored| {
        let synced = verdict_of(&stored.status.conditions, condition::SYNCED)?;
        Some(synced.reason == reason::WORKLOAD_NOT_READY)
    };
    let before = waits(&card.stored);
    before.is_some()
        && before != waits(next)
        && card.stored.status.observed_generation == next.status.observed_generation
}

/// Status or reason of a condition differ.
fn turned(before: &status::Stored, next: &status::Stored, kind: &str) -> bool {
    let of = |stored: &status::Stored| {
        verdict_of(&stored.status.conditions, kind).map(|verdict| (verdict.truth, verdict.reason))
    };
    of(before) != of(next)
}

fn log(card: &Card, next: &status::Stored) {
    let synced = |stored: &status::Stored| verdict_of(&stored.status.conditions, condition::SYNCED);
    let verified = |stored: &status::Stored| verdict_of(&stored.status.conditions, condition::VERIFIED);
    if [condition::SYNCED, condition::VERIFIED].iter().all(|kind| !turned(&card.stored, next, kind)) {
        return;
    }
    let text = |verdict: Option<crate::verdict::Verdict>| verdict.map_or_else(|| "-".into(), |v| v.reason);
    tracing::info!(card = %card.key, synced = text(synced(next)), verified = text(verified(next)), "card");
}

/// Since when nobody has found out anything.
fn pending_since(stored: &status::Stored) -> Option<&Time> {
    let list = &stored.status.conditions;
    let pending = verdict_of(list, condition::VERIFIED).is_some_and(|verdict| verdict::is_pending(&verdict));
    let verified = api_types::conditions::condition(list, condition::VERIFIED).filter(|_| pending)?;
    Some(&verified.last_transition_time)
}

/// The earliest of: the next fetch, the time at which time alone changes the outcome, the end of staleness.
fn next_look(ctx: &Context, found: &Found, next: &status::Stored) -> Next {
    let now = ctx.now();
    let until = |at: jiff::Timestamp| {
        let rest = at.duration_since(now);
        // One second more, so that the time has certainly come.
        Duration::try_from(rest).unwrap_or_default().saturating_add(Duration::from_secs(1))
    };
    let recheck = found.evidence().and_then(|evidence| evidence.recheck_at).map(until);
    // Nothing was found out, be it for want of a document or of the bundle to check it with.
    let kept =
        found.evidence().is_none_or(|evidence| matches!(evidence.signature, Signature::Unavailable(_)));
    let verified = next.status.last_verified_time.as_ref();
    let since = verified.or_else(|| pending_since(next)).filter(|_| kept);
    let stale = since.and_then(|time| {
        let limit = SignedDuration::try_from(ctx.settings.verification_staleness_limit).ok()?;
        time.0.checked_add(limit).ok().map(until)
    });
    [found.next, recheck, stale].into_iter().flatten().min()
}
