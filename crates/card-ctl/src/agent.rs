//! One pass over one workload: its card, its marks, its restarts (card §5, §11, §12).

use std::{sync::Arc, time::Duration};

use api_types::card::{annotation, condition, reason};
use controller_kit::{backoff::jitter, events::NewEvent, limiter::Turn};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    conditions::verdict_of,
    context::{Context, workload_reference},
    error::Error,
    events,
    index::{Card, ObjectKey},
    kinds::TargetKey,
    label::{self, Changes, Marks},
    pods,
    reconcile::Next,
    renewal::{self, Cause, Decision, Renewal, Rules},
    settings::LabelMode,
    sources::{Source, State},
    sync::{self, Action},
    workload::Workload,
    write::{self, ATTEMPTS, Written},
};

/// Shortest time between two changes of one pod template that may wait (card §11.2).
const TEMPLATE_PAUSE: Duration = Duration::from_secs(60);

/// One pass.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &TargetKey) -> Result<Next, Error> {
    let Some(kind) = key.workload_kind() else {
        if ctx.index.cards.linked(key).is_empty() {
            ctx.forget_workload(key);
        }
        return Ok(None);
    };
    for source in [Source::Cards, Source::Workloads(kind)] {
        if ctx.sources.state(source, &key.namespace) == State::Pending {
            return Err(Error::NotSynced("cards and workloads"));
        }
    }
    let workload = if let Some(workload) = ctx.index.workloads.get(key) {
        workload
    } else {
        // The watch selects agents: what left it may only have lost its label.
        let live = write::read_workload(ctx, key).await;
        let Some(workload) = live.map_err(Error::api("read", key.to_string()))? else {
            ctx.forget_workload(key);
            return Ok(None);
        };
        workload
    };
    if workload.deleting {
        return Ok(None);
    }
    let first = if ctx.settings.enable_card_sync && workload.is_eligible() {
        make_card(ctx, &workload).await?
    } else {
        None
    };
    let second = if judges(ctx, key) { mark(ctx, workload.clone()).await? } else { None };
    let third = if workload.is_agent { None } else { let_go(ctx, key) };
    Ok([first, second, third].into_iter().flatten().min())
}

/// Marks are touched only while a mechanism is on (card §11.1). A verdict over mTLS that was kept without an SVID, and
/// has grown too old, is still one to act upon (card §7, §10.3).
fn judges(ctx: &Context, key: &TargetKey) -> bool {
    let stale = |card: &Arc<Card>| {
        verdict_of(&card.stored.status.conditions, condition::VERIFIED)
            .is_some_and(|verdict| verdict.reason == reason::VERIFICATION_STALE)
    };
    ctx.mechanisms().any() || ctx.verified_fetch().enabled && ctx.index.cards.linked(key).iter().any(stale)
}

/// What is no agent any more is not watched, so nobody would tell that it is gone: what is remembered goes now, but for
/// the pause between two changes of its template.
fn let_go(ctx: &Context, key: &TargetKey) -> Next {
    let patched = ctx.template_patched.get(key);
    ctx.forget_workload(key);
    let rest = TEMPLATE_PAUSE.checked_sub(patched?.elapsed()).filter(|rest| !rest.is_zero())?;
    ctx.template_patched.insert(key.clone(), patched?);
    Some(rest)
}

async fn make_card(ctx: &Context, workload: &Workload) -> Result<Next, Error> {
    let name = api_types::card::auto_name(&workload.key.name, &workload.key.kind);
    let own_key = ObjectKey::new(workload.key.namespace.clone(), name.clone());
    if ctx.undecodable.get(&own_key).is_some() {
        // It is there, whatever it says; its own pass tells what is wrong with it.
        return Ok(None);
    }
    let own = ctx.index.cards.get(&own_key);
    let all = ctx.index.cards.linked(&workload.key);
    let others = all.iter().filter(|card| card.key.name != name).map(|card| card.claim());
    let action = sync::decide(workload, own.as_deref(), others);
    let object = ObjectKey::new(workload.key.namespace.clone(), workload.key.to_string());
    if action != Action::WaitForCollector {
        ctx.waited.remove(&workload.key);
    }
    match (action, own) {
        (Action::Create, _) => {
            let card = sync::desired(workload, ctx.trust.domain().is_some());
            if write::create_card(ctx, &card).await? {
                tracing::info!(workload = %workload.key, card = name, "made the card");
                return Ok(None);
            }
            // Somebody was faster, or the index is behind: decide again with what is there.
            return Ok(Some(Duration::from_millis(100)));
        }
        (Action::DeleteOwn, Some(own)) => {
            write::delete_card(ctx, &own).await?;
            tracing::info!(workload = %workload.key, card = name, "deleted the card: a manual one has the same target");
        }
        (Action::Adopt { retarget }, Some(own)) => return adopt(ctx, workload, own, retarget).await,
        (Action::Conflict { target }, Some(own)) => {
            let note = format!(
                "AgentCard {} targets {} {}, so no card can be made for {} {}: delete it or correct its spec.targetRef",
                own.key.name, target.kind, target.name, workload.key.kind, workload.key.name
            );
            let told = told_of_conflict(ctx, workload, &own);
            if ctx.news(&object, events::TARGET_REF_CONFLICT, &note) && !told {
                let event = NewEvent::warning(events::TARGET_REF_CONFLICT, "Reconcile", note);
                ctx.events.publish(&workload_reference(workload), event);
            }
            return Ok(None);
        }
        (Action::WaitForCollector, _) => {
            let waited = ctx.waited.get(&workload.key).unwrap_or_default();
            ctx.waited.insert(workload.key.clone(), waited.saturating_add(1));
            return Ok(Some(Duration::from_secs(if waited < 5 { 2 } else { 30 })));
        }
        _ => {}
    }
    ctx.no_news(&object, events::TARGET_REF_CONFLICT);
    Ok(None)
}

/// A process before this one has told that this card is in the way: it saw the card as it is, and the workload.
fn told_of_conflict(ctx: &Context, workload: &Workload, own: &Card) -> bool {
    // A status that this process wrote would say nothing.
    let seen =
        own.stored.status.observed_generation == Some(own.generation) && ctx.paces.get(&own.key).is_none();
    seen && ctx.is_settling() && workload.created.is_some_and(|created| ctx.was_told(created))
}

async fn adopt(
    ctx: &Context,
    workload: &Workload,
    mut own: Arc<Card>,
    retarget: bool,
) -> Result<Next, Error> {
    for _ in 0..ATTEMPTS {
        let mut owners = own.owners.clone();
        if !owners.iter().any(|owner| owner.controller == Some(true)) {
            owners.retain(|owner| owner.uid != workload.uid);
            owners.push(sync::owner_reference(workload));
        }
        let metadata = json!({ "ownerReferences": owners });
        let body = if retarget {
            json!({ "metadata": metadata, "spec": { "targetRef": sync::target_ref(workload) } })
        } else {
            json!({ "metadata": metadata })
        };
        match write::patch_card(ctx, &own, body).await? {
            Written::Done(_) => {
                tracing::info!(workload = %workload.key, card = %own.key, "adopted the card");
                return Ok(None);
            }
            Written::Stale(next) if next.uid == own.uid => own = next,
            Written::Stale(_) | Written::Gone => return Ok(Some(Duration::ZERO)),
        }
    }
    Ok(Some(Duration::from_secs(1)))
}

/// Brings label, annotations and restarts up to date.
async fn mark(ctx: &Context, mut workload: Arc<Workload>) -> Result<Next, Error> {
    for _ in 0..ATTEMPTS {
        let cards = ctx.index.cards.linked(&workload.key);
        let marks = label::decide(&workload, cards.iter().map(AsRef::as_ref));
        let mut changes = Changes::of(&workload, &marks, ctx.settings.verified_label_mode);
        let renewal = renew(ctx, &workload, &cards);
        let mut next = until(ctx, &renewal);
        if renewal.refresh
            && let Some(fingerprint) = ctx.trust.known().fingerprint
        {
            changes.annotations.insert(annotation::BUNDLE_HASH.to_owned(), Some(fingerprint.to_string()));
        }
        changes.restart = renewal.restart;
        if ctx.settings.verified_label_mode == LabelMode::Pods {
            let wait = pods::label(ctx, &workload, &cards, &marks).await?;
            next = [next, wait].into_iter().flatten().min();
        }
        let wait = if changes.may_wait() { turn(ctx, &workload, changes.restart) } else { None };
        if wait.is_some() {
            changes = changes.urgent();
            next = [next, wait].into_iter().flatten().min();
        } else if !changes.may_wait() {
            ctx.leave_queue(&workload.key);
        }
        if changes.is_empty() {
            return Ok(next);
        }
        let body = changes.document(&workload, ctx.now());
        match write::patch_workload(ctx, &workload.key, &body).await? {
            Written::Done(_) => {
                written(ctx, &workload, &changes, &marks, &cards);
                return Ok(next);
            }
            Written::Stale(live) if live.uid == workload.uid => workload = live,
            Written::Stale(_) | Written::Gone => return Ok(Some(Duration::ZERO)),
        }
    }
    Ok(Some(jitter(Duration::from_secs(1), 0.5)))
}

/// May the template change now? `Some` = ask again after that time.
///
/// Whose certificate ends first goes first (card §12); anything else goes by the time at which it first asked.
fn turn(ctx: &Context, workload: &Workload, restart: Option<Cause>) -> Option<Duration> {
    let since = ctx.template_patched.get(&workload.key).map(|at: Instant| at.elapsed());
    if let Some(rest) =
        since.and_then(|since| TEMPLATE_PAUSE.checked_sub(since)).filter(|rest| !rest.is_zero())
    {
        return Some(rest);
    }
    if workload.ready_replicas == 0
        && workload.key.workload_kind() != Some(crate::kinds::WorkloadKind::Sandbox)
    {
        // No Pod is restarted by it.
        return None;
    }
    let asked = ctx.asked.get(&workload.key).unwrap_or_else(|| ctx.now());
    let due = match restart {
        Some(Cause::Expiry(at)) => at,
        Some(Cause::Bundle) | None => asked,
    };
    match ctx.limiter.try_acquire_ranked(&workload.key, due.as_second()) {
        Turn::Granted => {
            ctx.asked.remove(&workload.key);
            None
        }
        Turn::Wait(wait) => {
            ctx.asked.insert(workload.key.clone(), asked);
            Some(wait)
        }
    }
}

fn renew(ctx: &Context, workload: &Workload, cards: &[Arc<Card>]) -> Decision {
    let Some(fingerprint) = ctx.trust.known().fingerprint.filter(|_| workload.is_agent) else {
        return Decision::default();
    };
    let live = cards.iter().filter(|card| !card.terminating && card.is_about_target());
    let renewals: Vec<_> = live.filter_map(|card| ctx.renewals.get(&card.key)).collect();
    let rules = Rules {
        grace: ctx.settings.svid_expiry_grace_period,
        on_bundle_change: ctx.settings.resign_on_bundle_change,
        restarts: ctx.settings.resign_restarts,
    };
    let decision = renewal::decide(workload, &renewals, &fingerprint, rules, ctx.now());
    tell_required(ctx, workload, cards, decision.required);
    decision
}

/// A process before this one has told that the certificate ends: it knew it when that became due. (A pruned root is told
/// once by itself: the annotation with the new fingerprint follows.)
fn told_of_expiry(ctx: &Context, cards: &[Arc<Card>], cause: Cause) -> bool {
    let Cause::Expiry(at) = cause else { return false };
    let grace =
        SignedDuration::try_from(ctx.settings.svid_expiry_grace_period).unwrap_or(SignedDuration::MAX);
    let inherited = |card: &Arc<Card>| matches!(ctx.renewals.get(&card.key), Some(Renewal::Valid { not_after, inherited: true, .. }) if not_after == at);
    ctx.was_told(at.saturating_sub(grace).unwrap_or(Timestamp::MIN)) && cards.iter().any(inherited)
}

fn tell_required(ctx: &Context, workload: &Workload, cards: &[Arc<Card>], cause: Option<Cause>) {
    let told = cause.is_some_and(|cause| told_of_expiry(ctx, cards, cause));
    for card in cards.iter().filter(|card| !card.terminating) {
        let Some(cause) = cause else {
            ctx.no_news(&card.key, events::RESIGN_REQUIRED);
            continue;
        };
        let why = match cause {
            Cause::Expiry(at) => format!("its certificate ends at {}", renewal::stamp(at)),
            Cause::Bundle => "its chain leads to no root of the trust bundle any more".to_owned(),
        };
        let note = format!(
            "the card of {} must be signed again, {why}: {} has no init container {} that a restart would run",
            workload.key,
            workload.key.name,
            api_types::card::SIGNER_CONTAINER
        );
        if ctx.news(&card.key, events::RESIGN_REQUIRED, &note) && !told {
            let event = NewEvent::warning(events::RESIGN_REQUIRED, "TriggerResign", note);
            ctx.events.publish(&card.reference(), event);
        }
    }
}

fn until(ctx: &Context, decision: &Decision) -> Next {
    let rest = decision.look_again?.duration_since(ctx.now());
    Some(Duration::try_from(rest).unwrap_or_default().saturating_add(Duration::from_secs(1)))
}

fn written(ctx: &Context, workload: &Workload, changes: &Changes, marks: &Marks, cards: &[Arc<Card>]) {
    if changes.label.is_some() || changes.restart.is_some() {
        ctx.template_patched.insert(workload.key.clone(), Instant::now());
    }
    if changes.label.is_some() {
        tracing::info!(workload = %workload.key, verified = marks.verified, "changed the verified label");
    }
    let Some(cause) = changes.restart else { return };
    ctx.metrics.restarted(cause.label());
    tracing::info!(workload = %workload.key, reason = cause.label(), "restarted to renew the signature");
    for card in cards.iter().filter(|card| !card.terminating) {
        let note = format!("restarted {} to sign its card again ({})", workload.key, cause.label());
        ctx.events.publish(&card.reference(), NewEvent::normal("ResignTriggered", "TriggerResign", note));
    }
}
