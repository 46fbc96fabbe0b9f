//! Reading the card of a workload from what is at hand, and ordering a fetch when that is too old (card §6.4, §6.5).

use std::{
    sync::Arc,
    time::{Duration, Instant as WallInstant},
};

use api_types::card::{reason, signed, signed_config_map};
use tokio::time::Instant;

use crate::{
    context::Context,
    error::Error,
    evaluation::{self, Check, Evaluated, Inputs},
    events,
    fetch::FetchError,
    index::{ObjectKey, Service},
    kinds::TargetKey,
    metrics::CONFIG_MAP,
    observation::{Document, Observation},
    schedule,
    settings::{LabelMode, SourceKind},
    source::{self, Way},
    status::{Stop, Weight},
    workload::Workload,
};

/// What is known of the card.
#[derive(Clone, Debug)]
pub enum Reading {
    /// A document.
    Document {
        /// What was made of it.
        evaluated: Arc<Evaluated>,
        /// When to look again.
        again: Duration,
        /// Hash of the pod template that was fully rolled out while the agent was asked; `None` also for a ConfigMap.
        template: Option<Arc<str>>,
    },
    /// A fetch was ordered and nothing is known yet.
    Waiting,
    /// There is none; look again then.
    Failed(Stop, Option<Duration>),
}

/// What reading needs to know of a workload.
pub struct Place<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// Its Service.
    pub service: &'a Service,
    /// A card of the workload has the verdict `mTLSVerified`.
    pub held: bool,
    /// The sync period.
    pub period: Duration,
}

/// What evaluations depend on.
pub fn inputs(ctx: &Context, workload: &Workload, service: &Service) -> Inputs {
    Inputs {
        url: source::url(service, &workload.key.namespace, &ctx.settings.cluster_domain),
        max_bytes: usize::try_from(ctx.settings.card_status_max_bytes).unwrap_or(usize::MAX),
        check: ctx.trust.check(),
    }
}

/// Reads the card.
///
/// # Errors
/// Only when the process is ending.
pub async fn read(ctx: &Context, place: &Place<'_>) -> Result<Reading, Error> {
    let Place { workload, service, .. } = *place;
    match source::choose(&ctx.settings, ctx.verified_fetch(), place.held, service) {
        Way::Refused(stop) => {
            let again = schedule::after_stop(stop.reason, false);
            Ok(Reading::Failed(stop, again))
        }
        Way::Mtls(port) => fetched(ctx, place, port, true).await,
        Way::Plain { http, .. } => {
            let mut failed = None;
            for kind in &ctx.settings.card_sources {
                let reading = match (kind, http) {
                    (SourceKind::ConfigMap, _) => match config_map(ctx, workload, service).await? {
                        Some(evaluated) => {
                            let again = config_map_look(ctx, place);
                            return Ok(Reading::Document { evaluated, again, template: None });
                        }
                        None => continue,
                    },
                    (SourceKind::Http, Some(port)) => fetched(ctx, place, port, false).await?,
                    (SourceKind::Http, None) => continue,
                };
                match reading {
                    Reading::Failed(stop, again) => failed = Some((stop, again)),
                    found => return Ok(found),
                }
            }
            let name = signed_config_map(&workload.key.name);
            let (mut stop, again) = failed.unwrap_or_else(|| {
                let message =
                    format!("ConfigMap {name} holds no card, and --card-sources allows nothing else");
                (Stop::inconclusive(reason::FETCH_FAILED, message), Some(Duration::from_secs(60)))
            });
            if let Some(why) = ctx.refused.get(&workload.key) {
                stop.message = format!("{}; ConfigMap {name} cannot be read: {why}", stop.message);
            }
            Ok(Reading::Failed(stop, again))
        }
    }
}

/// When to look at a card from a ConfigMap again: its timer only re-checks what time changes, and an unlabelled
/// ConfigMap is asked for again.
fn config_map_look(ctx: &Context, place: &Place<'_>) -> Duration {
    let key = &place.workload.key;
    if ctx.index.documents.get(&key.namespace, &key.name).is_some() {
        return place.period.mul_f64(schedule::spread());
    }
    let Some(wait) = ctx.unlabelled.wait(key, &place.workload.content_hash) else {
        ctx.fetch(key, Instant::now());
        return place.period;
    };
    wait.min(place.period.mul_f64(schedule::spread()))
}

/// The first usable document of the workload's ConfigMap.
///
/// # Errors
/// Only when the process is ending.
pub async fn config_map(
    ctx: &Context,
    workload: &Workload,
    service: &Service,
) -> Result<Option<Arc<Evaluated>>, Error> {
    let key = &workload.key;
    let labelled = ctx.index.documents.get(&key.namespace, &key.name);
    let Some(candidates) = labelled.or_else(|| ctx.unlabelled.get(key)) else { return Ok(None) };
    // The first existing key counts, not the first good one.
    let Some(raw) = candidates.first() else {
        useless(ctx, key, &format!("it holds none of the keys {}", signed::KEYS.join(", ")));
        return Ok(None);
    };
    let (document, new) = ctx.observations.config_map(key, raw);
    let evaluated = evaluate(ctx, &document, inputs(ctx, workload, service)).await?;
    let (result, found) = match &evaluated.result {
        Ok(_) => {
            ctx.no_news(&name_of(key), events::UNUSABLE_CONFIG_MAP);
            ("success", Some(evaluated))
        }
        Err(why) => {
            useless(ctx, key, why);
            ("invalid_card", None)
        }
    };
    if new {
        ctx.metrics.fetched(CONFIG_MAP, result);
    }
    Ok(found)
}

fn name_of(key: &TargetKey) -> ObjectKey {
    ObjectKey::new(key.namespace.clone(), key.name.clone())
}

fn useless(ctx: &Context, key: &TargetKey, why: &str) {
    if ctx.news(&name_of(key), events::UNUSABLE_CONFIG_MAP, why) {
        tracing::warn!(workload = %key, "the ConfigMap with the signed card is of no use: {why}");
        ctx.metrics.unusable_config_map();
    }
}

async fn fetched(ctx: &Context, place: &Place<'_>, port: u16, mtls: bool) -> Result<Reading, Error> {
    let Place { workload, service, period, .. } = *place;
    let key = &workload.key;
    let host = source::host(&service.name, &key.namespace, &ctx.settings.cluster_domain);
    let of = source::fingerprint(workload, &host, port, mtls);
    let known = ctx.observations.last(key).filter(|(last, _)| last.of == of);
    let Some((last, renew)) = known else {
        ctx.fetch(key, Instant::now());
        return Ok(Reading::Waiting);
    };
    if let Some(due) = renew.filter(|due| *due <= Instant::now()) {
        ctx.fetch(key, due);
        return Ok(Reading::Waiting);
    }
    let evaluated = match &last.result {
        Ok(document) => Ok(evaluate(ctx, document, inputs(ctx, workload, service)).await?),
        Err(error) => Err(error),
    };
    let wait = match &evaluated {
        Ok(evaluated) if evaluated.result.is_err() => schedule::after_bad_document(period, last.spread),
        Ok(_) => schedule::next_fetch(period, None, last.spread),
        Err(error) => schedule::next_fetch(period, Some((error, last.failures)), last.spread),
    };
    let due = [Some(last.at + wait), renew, rolled_out(ctx, workload, &last)];
    let due = due.into_iter().flatten().min().unwrap_or(last.at);
    let rest = Some(due.saturating_duration_since(Instant::now())).filter(|rest| !rest.is_zero());
    if rest.is_none() {
        // What is known counts until the answer is here, which wakes this card again.
        ctx.fetch(key, due);
    }
    let again = rest.unwrap_or(wait);
    Ok(match evaluated {
        Err(error) => Reading::Failed(stop_of(error, &service.name), Some(again)),
        Ok(evaluated) => match &evaluated.result {
            Ok(_) => Reading::Document { evaluated, again, template: last.template.clone() },
            Err(why) => Reading::Failed(Stop::inconclusive(reason::INVALID_CARD, why.clone()), Some(again)),
        },
    })
}

/// Where Pods are labelled, a template that has just been rolled out is looked at soon: until then nobody has seen its
/// card (card §11.2).
fn rolled_out(ctx: &Context, workload: &Workload, last: &Observation) -> Option<Instant> {
    let unseen = ctx.settings.verified_label_mode == LabelMode::Pods
        && workload.rolled_out
        && last.template.as_deref() != Some(workload.template_hash.as_str());
    unseen.then(|| last.at + schedule::READY_AGAIN)
}

/// What a failed fetch says about the card (card §6.1, §6.5, §7).
pub fn stop_of(error: &FetchError, service: &str) -> Stop {
    let message = match error {
        // The document is at fault, not the Service.
        FetchError::TooLarge(_) => error.to_string(),
        _ => format!("Service {service}: {error}"),
    };
    match error {
        FetchError::TooLarge(_) => Stop::inconclusive(reason::INVALID_CARD, message),
        FetchError::ForbiddenAddress => Stop::inconclusive(reason::FORBIDDEN_TARGET, message),
        FetchError::PeerUntrusted(_) => {
            Stop { reason: reason::FETCH_FAILED, message, weight: Weight::Definitive(reason::PEER_UNTRUSTED) }
        }
        _ => Stop::inconclusive(reason::FETCH_FAILED, message),
    }
}

/// Evaluates a document, unless the last evaluation still holds. Cryptography runs beside the other work.
async fn evaluate(ctx: &Context, document: &Arc<Document>, inputs: Inputs) -> Result<Arc<Evaluated>, Error> {
    let now = ctx.now();
    if let Some(known) = document.evaluated().filter(|known| known.holds(&inputs, now)) {
        return Ok(known);
    }
    let checks = matches!(inputs.check, Check::Bundle { .. });
    if matches!(inputs.check, Check::Unavailable(_)) {
        ctx.metrics.not_verifiable();
    }
    let started = WallInstant::now();
    let work = {
        let document = document.clone();
        move || evaluation::evaluate(&document, inputs, now)
    };
    let evaluated = match tokio::task::spawn_blocking(work).await {
        Ok(evaluated) => Arc::new(evaluated),
        // A panic is a bug of ours; it concerns this key only.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => return Err(Error::NotLeader),
        },
    };
    if checks {
        let valid = evaluated.result.as_ref().is_ok_and(|evidence| evidence.signature.is_valid());
        ctx.metrics.verified(valid, ctx.settings.signature_audit_mode, &evaluated.codes, started.elapsed());
    }
    document.keep(evaluated.clone());
    Ok(evaluated)
}
