//! One pass over one workload: its card, its marks, its restarts (card §5, §11, §12).

use std::{sync::Arc, time::Duration};

use api_types::card::annotation;
use controller_kit::{backoff::jitter, events::NewEvent, limiter::Turn};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    context::{Context, workload_reference},
    error::Error,
    events,
    index::{Card, ObjectKey},
    kinds::TargetKey,
    label::{self, Changes, Marks},
    pods,
    reconcile::Next,
    renewal::{self, Cause, Decision, Rules},
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
    let Some(kind) = key.workload_kind() else { return Ok(None) };
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
    let second = if ctx.mechanisms().any() { mark(ctx, workload).await? } else { None };
    Ok([first, second].into_iter().flatten().min())
}

async fn make_card(ctx: &Context, workload: &Workload) -> Result<Next, Error> {
    let name = api_types::card::auto_name(&workload.key.name, &workload.key.kind);
    let own = ctx.index.cards.get(&ObjectKey::new(workload.key.namespace.clone(), name.clone()));
    let all = ctx.index.cards.targeting(&workload.key);
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
            if ctx.news(&object, events::TARGET_REF_CONFLICT, &note) {
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
        let cards = ctx.index.cards.targeting(&workload.key);
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
        let wait = if changes.may_wait() { turn(ctx, &workload) } else { None };
        if wait.is_some() {
            changes = changes.urgent();
            next = [next, wait].into_iter().flatten().min();
        } else if !changes.may_wait() {
            ctx.limiter.forget(&workload.key);
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
fn turn(ctx: &Context, workload: &Workload) -> Option<Duration> {
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
    match ctx.limiter.try_acquire(&workload.key) {
        Turn::Granted => None,
        Turn::Wait(wait) => Some(wait),
    }
}

fn renew(ctx: &Context, workload: &Workload, cards: &[Arc<Card>]) -> Decision {
    let Some(fingerprint) = ctx.trust.known().fingerprint.filter(|_| workload.is_agent) else {
        return Decision::default();
    };
    let live = cards.iter().filter(|card| !card.terminating);
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

fn tell_required(ctx: &Context, workload: &Workload, cards: &[Arc<Card>], cause: Option<Cause>) {
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
        if ctx.news(&card.key, events::RESIGN_REQUIRED, &note) {
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
