//! `AgentRuntime.status.card` (card §18, runtime §14), from the same document as the AgentCard of the workload.

use std::{sync::Arc, time::Duration};

use api_types::{
    AgentCardData, CardSource, CardStatus, card::A2A, duplicates::card_winner, go_duration, names::annotation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::Error,
    evidence::{Evidence, Signature},
    index::{ObjectKey, Runtime},
    kinds::WorkloadKind,
    readiness::Readiness,
    reading::{self, Place, Reading},
    reconcile::Next,
    status,
    workload::Workload,
    write::{self, Written},
};

/// When to look again at an agent that does not answer and has no AgentCard.
const AGAIN: Duration = Duration::from_secs(60);

/// One pass.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &ObjectKey) -> Result<Next, Error> {
    let Some(runtime) = ctx.index.runtimes.get(key).filter(|runtime| !runtime.terminating) else {
        return Ok(None);
    };
    if !ctx.settings.enable_card_discovery {
        return clear(ctx, &runtime).await;
    }
    let Some(workload) = runtime.target.as_ref().and_then(|target| ctx.index.workloads.get(target)) else {
        return Ok(None);
    };
    if !runtime.is_agent || workload.protocol.as_deref().is_some_and(|protocol| protocol != A2A) {
        return Ok(None);
    }
    let cards = ctx.index.cards.linked(&workload.key);
    let shared = card_winner(cards.iter().map(|card| card.claim()))
        .and_then(|winner| cards.iter().find(|card| card.key.name == winner.name));
    let fetched_for = workload.generation.to_string();
    let period = match shared {
        Some(card) => go_duration::sync_period(card.spec.sync_period.as_deref()).period,
        // Its own fetch happens once per change of the workload.
        None if runtime.card.is_some() && runtime.fetched_for.as_deref() == Some(&fetched_for) => {
            return Ok(None);
        }
        None => AGAIN,
    };
    let Some(service) = ctx.index.services.of_workload(&workload) else { return Ok(None) };
    if !serves(&workload) {
        return Ok(None);
    }
    let place = Place { workload: &workload, service: &service, held: ctx.held(&workload.key), period };
    let evaluated = match reading::read(ctx, &place).await? {
        Reading::Document { evaluated, .. } => evaluated,
        // The old card stays (runtime §14).
        Reading::Failed(_, next) => return Ok(next.filter(|_| shared.is_none())),
        Reading::Waiting => return Ok(None),
    };
    let Ok(evidence) = &evaluated.result else { return Ok(None) };
    write_card(ctx, runtime, evidence, &fetched_for).await?;
    // An AgentCard keeps the time; without one nothing more is to be done until the workload changes.
    Ok(None)
}

fn serves(workload: &Workload) -> bool {
    match workload.key.workload_kind() {
        Some(WorkloadKind::Deployment | WorkloadKind::StatefulSet) => {
            workload.ready_replicas > 0 && workload.readiness != Readiness::ScaledToZero
        }
        Some(WorkloadKind::Sandbox) | None => true,
    }
}

async fn clear(ctx: &Context, runtime: &Runtime) -> Result<Next, Error> {
    if runtime.card.is_none() {
        return Ok(None);
    }
    let body = json!({
        "metadata": { "resourceVersion": runtime.resource_version },
        "status": { "card": null },
    });
    match write::patch_runtime(ctx, runtime, &body, true).await? {
        Written::Stale(_) => Ok(Some(Duration::from_secs(1))),
        Written::Done(_) | Written::Gone => Ok(None),
    }
}

async fn write_card(
    ctx: &Context,
    mut runtime: Arc<Runtime>,
    evidence: &Evidence,
    fetched_for: &str,
) -> Result<(), Error> {
    for _ in 0..write::ATTEMPTS {
        let Some(patch) = patch(&runtime, evidence, ctx.now()) else { return Ok(()) };
        let body = json!({
            "metadata": { "resourceVersion": runtime.resource_version },
            "status": { "card": patch },
        });
        runtime = match write::patch_runtime(ctx, &runtime, &body, true).await? {
            Written::Done(next) => return note(ctx, &next, fetched_for).await,
            Written::Stale(next) => next,
            Written::Gone => return Ok(()),
        };
    }
    Ok(())
}

/// Writes the change key.
async fn note(ctx: &Context, runtime: &Runtime, fetched_for: &str) -> Result<(), Error> {
    if runtime.fetched_for.as_deref() == Some(fetched_for) {
        return Ok(());
    }
    let body = json!({ "metadata": { "annotations": { annotation::LAST_CARD_FETCH_HASH: fetched_for } } });
    write::patch_runtime(ctx, runtime, &body, false).await.map(drop)
}

/// The card as it should be. `before` gives the time of a card that has not changed.
fn desired(before: Option<&CardStatus>, evidence: &Evidence, now: jiff::Timestamp) -> CardStatus {
    let data: AgentCardData = serde_json::from_str(&evidence.card).unwrap_or_default();
    let same = before.filter(|before| before.card_hash.as_deref() == Some(&evidence.card_id));
    let since = same.and_then(|before| before.last_card_fetch_time.clone());
    let transport = if evidence.source == CardSource::Mtls { "mtls" } else { "http" };
    let mut card = CardStatus {
        data,
        last_card_fetch_time: Some(since.unwrap_or(Time(now))),
        card_hash: Some(evidence.card_id.clone()),
        protocol: Some(A2A.to_owned()),
        transport_security: Some(transport.to_owned()),
        attested_agent_spiffe_id: evidence.attested.as_ref().map(ToString::to_string),
        ..CardStatus::default()
    };
    match &evidence.signature {
        Signature::Valid { key_id, spiffe_id, .. } => {
            card.valid_signature = Some(true);
            card.signature_key_id.clone_from(key_id);
            card.signature_verification_details = Some(format!("signed by {spiffe_id}"));
        }
        Signature::Invalid { details, .. } => {
            card.valid_signature = Some(false);
            card.signature_verification_details = Some(details.clone());
        }
        Signature::NotEvaluated | Signature::Unavailable(_) => {}
    }
    card
}

/// The merge patch of `status.card`; `None` = it is as it should be.
fn patch(runtime: &Runtime, evidence: &Evidence, now: jiff::Timestamp) -> Option<Value> {
    let before: Option<CardStatus> = runtime.card.as_deref().and_then(|card| serde_json::from_str(card).ok());
    let next = serde_json::to_value(desired(before.as_ref(), evidence, now)).ok()?;
    let old = before.and_then(|before| serde_json::to_value(before).ok()).unwrap_or_else(|| json!({}));
    status::difference(&old, &next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(id: &str) -> Evidence {
        Evidence {
            source: CardSource::Http,
            attested: None,
            card_id: id.into(),
            card: r#"{"name":"e"}"#.into(),
            too_large: None,
            advertised_url: None,
            missing: Vec::new(),
            signature: Signature::Invalid { details: "d".into(), chain_of: None },
            under: None,
            recheck_at: None,
        }
    }

    fn runtime(card: &Value) -> Runtime {
        let object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": "n", "name": "r"},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
            "status": {"card": card},
        });
        Runtime::of(serde_json::from_value(object).unwrap()).unwrap()
    }

    /// Runtime §14: the time moves only with the hash, and what does not differ is not written.
    #[test]
    fn the_time_moves_with_the_hash() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let first = patch(&runtime(&Value::Null), &evidence("a"), at(1)).unwrap();
        assert_eq!(first["cardHash"], "a");
        assert_eq!(first["transportSecurity"], "http");
        assert_eq!(first["validSignature"], false);
        assert_eq!(patch(&runtime(&first), &evidence("a"), at(2)), None);
        let second = patch(&runtime(&first), &evidence("b"), at(3)).unwrap();
        assert_eq!(second, json!({"cardHash": "b", "lastCardFetchTime": "1970-01-01T00:00:03Z"}));
    }
}
