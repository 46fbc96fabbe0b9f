//! The one status of a pass (card §2.2, §10.3). Pure.
//!
//! A status is a function of what is known now; whatever the present evaluation does not produce is removed. The one
//! exception are failures to find out: they keep what was known, for a while.

use std::sync::Arc;

use api_types::{
    AgentCardStatus, BindingStatus, IdentityBinding, TargetRef,
    card::{condition, reason},
    names::reason::INVALID_SPEC,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::{
    binding::Binding,
    conditions::{Conditions, MESSAGE_LIMIT, clean, verdict_of},
    evidence::{Evidence, Signature},
    index::is_about,
    verdict::{self, Before, Kept, Mechanisms, Outcome, Truth, Verdict},
};

/// Longest list of uncovered members (card §2.2).
const UNSIGNED_LIMIT: usize = 32;

/// What a failure says about trust (card §10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing: what was known is kept for a while.
    Inconclusive,
    /// It is certain that this is no verified agent; the reason of Verified.
    Definitive(&'static str),
}

/// Why there is no card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Reason of Synced.
    pub reason: &'static str,
    /// For people: object, field, remedy.
    pub message: String,
    /// What it says about trust.
    pub weight: Weight,
}

impl Stop {
    /// A failure to find out.
    pub fn inconclusive(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), weight: Weight::Inconclusive }
    }

    /// A failure that settles the verdict, under the same reason.
    pub fn definitive(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), weight: Weight::Definitive(reason) }
    }

    /// The workload could not be resolved (card §6.1).
    pub fn is_target_failure(&self) -> bool {
        [reason::WORKLOAD_ERROR, reason::WORKLOAD_NOT_FOUND, reason::NOT_AGENT_WORKLOAD]
            .contains(&self.reason)
    }
}

/// A stored status; the card is text, because it is compared often and looked at seldom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Everything but the card.
    pub status: AgentCardStatus,
    /// The card as JSON.
    pub card: Option<Arc<str>>,
}

/// What one pass found out.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.targetRef`.
    pub wanted: Option<&'a TargetRef>,
    /// The workload, once it was resolved.
    pub target: Option<TargetRef>,
    /// Its protocol.
    pub protocol: Option<&'a str>,
    /// Why there is no card, or why it does not count as synced.
    pub stop: Option<Stop>,
    /// The card that was looked at.
    pub evidence: Option<&'a Evidence>,
    /// Which mechanisms count.
    pub on: Mechanisms,
    /// `spec.identityBinding`.
    pub binding_spec: Option<&'a IdentityBinding>,
    /// The binding of the identities of `evidence`, or of none.
    pub binding: Option<Binding>,
    /// `status.verifiedTemplateHash` of a verdict given now (card §11.2).
    pub template_hash: Option<&'a str>,
    /// When a pass last gave a positive verdict, exactly.
    pub verified_at: Option<Timestamp>,
    /// `--verification-staleness-limit`.
    pub limit: SignedDuration,
    /// The wall clock.
    pub now: Timestamp,
}

/// The next status.
pub fn next(before: &Stored, found: &Findings<'_>) -> Stored {
    let mut build = Build {
        before,
        found,
        next: Stored::default(),
        conditions: Conditions::new(&before.status.conditions, found.generation, found.now),
    };
    build.next.status.observed_generation = Some(found.generation);
    build.next.status.protocol = found.protocol.map(str::to_owned);
    match found.evidence {
        Some(evidence) => build.looked_at(evidence),
        None => build.nothing_seen(),
    }
    let Build { mut next, conditions, .. } = build;
    next.status.conditions = conditions.finish();
    next
}

struct Build<'a> {
    before: &'a Stored,
    found: &'a Findings<'a>,
    next: Stored,
    conditions: Conditions<'a>,
}

impl Build<'_> {
    fn looked_at(&mut self, evidence: &Evidence) {
        let found = self.found;
        let strict = found.binding_spec.is_some_and(|spec| spec.strict);
        let failed = found.binding.as_ref().filter(|binding| strict && !binding.bound);
        let why = failed.map(|binding| binding.message.as_str());
        let outcome = verdict::judge(found.on, evidence.attested.is_some(), &evidence.signature, why);
        let attested = evidence.attested.is_some() && found.on.mtls;
        let refused = found.on.signature
            && !found.on.audit
            && !attested
            && matches!(evidence.signature, Signature::Invalid { .. });
        self.next.status.target_ref.clone_from(&found.target);
        self.conditions.set(condition::SYNCED, &synced(found.stop.as_ref(), evidence, refused));
        match outcome {
            Outcome::Unknown => {
                let why = match &evidence.signature {
                    Signature::Unavailable(why) => why.as_str(),
                    _ => "the signature was not checked",
                };
                // A document that nobody vouches for is not shown, but the one that was verified stays.
                self.inconclusive(why);
            }
            Outcome::Absent | Outcome::Known(_) => {
                self.card_of(evidence, !refused);
                self.next.status.attested_agent_spiffe_id =
                    evidence.attested.as_ref().map(ToString::to_string);
                self.signature_fields(&evidence.signature);
                self.bind();
                if let Outcome::Known(verdict) = outcome {
                    self.known(&verdict);
                }
            }
        }
        if found.on.signature {
            self.signature_condition(&evidence.signature);
        }
    }

    fn nothing_seen(&mut self) {
        let Some(stop) = &self.found.stop else { return };
        self.conditions
            .set(condition::SYNCED, &Verdict::new(Truth::False, stop.reason, stop.message.clone()));
        match stop.weight {
            Weight::Inconclusive => {
                self.inconclusive(&stop.message);
                let before = verdict_of(&self.before.status.conditions, condition::SIGNATURE_VERIFIED);
                if let Some(before) = before.filter(|_| self.found.on.signature && self.keeps_signature()) {
                    let audit = self.found.on.audit;
                    let kept = if audit { before } else { verdict::enforced(before) };
                    self.conditions.set(condition::SIGNATURE_VERIFIED, &kept);
                }
            }
            Weight::Definitive(reason) => {
                self.bind();
                if self.found.on.any() {
                    self.known(&Verdict::new(Truth::False, reason, stop.message.clone()));
                }
            }
        }
        if stop.is_target_failure() && self.found.binding_spec.is_some() {
            let text = stop.message.clone();
            self.binding_status(false, reason::AGENT_NOT_FOUND, &text);
            self.next.status.expected_spiffe_id = None;
            self.next.status.signature_identity_match = Some(false);
        }
    }

    fn keeps_signature(&self) -> bool {
        self.next.status.valid_signature.is_some()
    }

    /// Nothing could be found out: what was known stays, unless it is too old, or about another workload.
    fn inconclusive(&mut self, why: &str) {
        let old = &self.before.status;
        if !is_about(old.target_ref.as_ref(), self.found.wanted) {
            if self.found.on.any() {
                self.conditions.set(condition::VERIFIED, &not_verified_yet(why));
            }
            self.bind();
            return;
        }
        let status = &mut self.next.status;
        self.next.card.clone_from(&self.before.card);
        status.target_ref = old.target_ref.clone().or(status.target_ref.take());
        // The previous operator's is made otherwise: kept, it would look like another card's later (card §6.8).
        status.card_id = old.card_id.clone().filter(|_| old.observed_generation.is_some());
        status.last_sync_time.clone_from(&old.last_sync_time);
        status.card_source.clone_from(&old.card_source);
        status.advertised_url.clone_from(&old.advertised_url);
        status.unsigned_members.clone_from(&old.unsigned_members);
        if status.protocol.is_none() {
            status.protocol.clone_from(&old.protocol);
        }
        if !self.found.on.any() {
            self.bind();
            return;
        }
        let known = self.known_before();
        let kept = if known.as_ref().is_some_and(|known| self.is_refuted(&known.verdict)) {
            Kept::Replaced(not_verified_yet(why))
        } else {
            verdict::keep(known.as_ref(), self.found.now, self.found.limit, why)
        };
        match kept {
            Kept::Replaced(verdict) => {
                self.conditions.set(condition::VERIFIED, &verdict);
                self.next.status.unsigned_members = None;
                self.bind();
            }
            Kept::Previous => self.keep(known.as_ref()),
        }
    }

    /// The stored verdict, if the mechanism it stands on is still in use.
    fn known_before(&self) -> Option<Before> {
        let old = &self.before.status;
        let on = self.found.on;
        let verdict = verdict_of(&old.conditions, condition::VERIFIED)?;
        // What the audit only reported is known, too, and has its effect once the audit is over.
        let verdict = if on.audit { verdict } else { verdict::enforced(verdict) };
        let counts = match verdict.reason.as_str() {
            reason::MTLS_VERIFIED => on.mtls,
            reason::SIGNATURE_VERIFIED | reason::SIGNATURE_INVALID | reason::SIGNATURE_INVALID_AUDIT => {
                on.signature
            }
            _ => true,
        };
        let stored = old.last_verified_time.as_ref().map(|time| time.0);
        let since = api_types::conditions::condition(&old.conditions, condition::VERIFIED)
            .map(|condition| condition.last_transition_time.0);
        counts.then_some(Before { verdict, verified_at: self.found.verified_at.max(stored), since })
    }

    /// It said that there is no agent, or that the card cannot be read, and that is not so any more. Not `Pending`, which leaves marks of before as they are.
    fn is_refuted(&self, verdict: &Verdict) -> bool {
        let about_the_target = [
            reason::WORKLOAD_NOT_FOUND,
            reason::NOT_AGENT_WORKLOAD,
            reason::NO_PROTOCOL,
            reason::PROTOCOL_NOT_SUPPORTED,
            reason::NOT_VERIFIED_YET,
        ];
        let text = verdict.reason.as_str();
        text == INVALID_SPEC || self.found.target.is_some() && about_the_target.contains(&text)
    }

    fn keep(&mut self, known: Option<&Before>) {
        let (on, old) = (self.found.on, &self.before.status);
        if let Some(known) = known {
            self.conditions.set(condition::VERIFIED, &known.verdict);
        }
        let status = &mut self.next.status;
        if on.signature {
            status.valid_signature = old.valid_signature;
            status.signature_verification_details.clone_from(&old.signature_verification_details);
            status.signature_key_id.clone_from(&old.signature_key_id);
            status.signature_spiffe_id.clone_from(&old.signature_spiffe_id);
            status.signature_profile.clone_from(&old.signature_profile);
            status.signature_not_after.clone_from(&old.signature_not_after);
        } else {
            status.unsigned_members = None;
        }
        if on.mtls {
            status.attested_agent_spiffe_id.clone_from(&old.attested_agent_spiffe_id);
        }
        if known.is_some_and(|known| known.verdict.truth == Truth::True) {
            // Written anyway when a failure begins, so the exact time goes along.
            let exact = known.and_then(|known| known.verified_at).unwrap_or(self.found.now);
            let stored = old.last_verified_time.clone().filter(|_| self.was_failing());
            self.next.status.last_verified_time = Some(stored.unwrap_or(Time(exact)));
            self.next.status.verified_template_hash.clone_from(&old.verified_template_hash);
        }
        if self.found.binding_spec.is_none() {
            return;
        }
        match (&old.binding_status, verdict_of(&old.conditions, condition::BOUND)) {
            (Some(_), Some(bound)) if bound.reason != reason::AGENT_NOT_FOUND => {
                self.next.status.binding_status.clone_from(&old.binding_status);
                self.next.status.expected_spiffe_id.clone_from(&old.expected_spiffe_id);
                self.next.status.signature_identity_match = old.signature_identity_match;
                self.conditions.keep(condition::BOUND);
            }
            _ => self.bind(),
        }
    }

    fn was_failing(&self) -> bool {
        verdict_of(&self.before.status.conditions, condition::SYNCED)
            .is_some_and(|synced| synced.truth != Truth::True)
    }

    fn known(&mut self, verdict: &Verdict) {
        self.conditions.set(condition::VERIFIED, verdict);
        if verdict.truth != Truth::True {
            return;
        }
        let old = &self.before.status;
        let was = verdict_of(&old.conditions, condition::VERIFIED)
            .is_some_and(|verdict| verdict.truth == Truth::True)
            && is_about(old.target_ref.as_ref(), self.found.wanted);
        let fresh = old.last_verified_time.clone().filter(|time| {
            let age = self.found.now.duration_since(time.0);
            was && !age.is_negative() && age < verdict::rewrite_after(self.found.limit)
        });
        self.next.status.last_verified_time = Some(fresh.unwrap_or(Time(self.found.now)));
        let kept = old.verified_template_hash.clone().filter(|_| was);
        self.next.status.verified_template_hash = self.found.template_hash.map(str::to_owned).or(kept);
    }

    fn card_of(&mut self, evidence: &Evidence, shown: bool) {
        let old = &self.before.status;
        let status = &mut self.next.status;
        status.card_id = Some(evidence.card_id.clone());
        let same = old.card_id.as_deref() == Some(&evidence.card_id);
        let since = old.last_sync_time.clone().filter(|_| same);
        status.last_sync_time = Some(since.unwrap_or(Time(self.found.now)));
        status.card_source = Some(evidence.source.clone());
        if shown {
            self.next.card = Some(evidence.card.clone());
            status.advertised_url = evidence.advertised_url.as_deref().map(|url| clean(url, MESSAGE_LIMIT));
        }
    }

    fn signature_fields(&mut self, signature: &Signature) {
        let status = &mut self.next.status;
        match signature {
            Signature::NotEvaluated | Signature::Unavailable(_) => {}
            Signature::Valid { key_id, spiffe_id, profile, not_after, expired, unsigned } => {
                status.valid_signature = Some(true);
                let text = if *expired { "valid, the certificate has expired" } else { "valid" };
                status.signature_verification_details = Some(format!("{text}; payload {profile}"));
                status.signature_key_id = key_id.as_deref().map(|id| clean(id, MESSAGE_LIMIT));
                status.signature_spiffe_id = Some(spiffe_id.to_string());
                status.signature_profile = Some(profile.clone());
                status.signature_not_after = Some(Time(*not_after));
                let listed: Vec<String> = unsigned.iter().take(UNSIGNED_LIMIT).cloned().collect();
                status.unsigned_members = Some(listed).filter(|list| !list.is_empty());
            }
            Signature::Invalid { details, .. } => {
                status.valid_signature = Some(false);
                status.signature_verification_details = Some(clean(details, MESSAGE_LIMIT));
            }
        }
    }

    fn signature_condition(&mut self, signature: &Signature) {
        let verdict = match signature {
            Signature::NotEvaluated => return,
            Signature::Unavailable(why) => {
                Verdict::new(Truth::Unknown, reason::TRUST_BUNDLE_UNAVAILABLE, why.clone())
            }
            Signature::Valid { expired: true, not_after, .. } => {
                let message =
                    format!("valid; the certificate expired at {not_after} and counts a while longer");
                Verdict::new(Truth::True, reason::SIGNATURE_VALID, message)
            }
            Signature::Valid { spiffe_id, .. } => {
                Verdict::new(Truth::True, reason::SIGNATURE_VALID, format!("signed by {spiffe_id}"))
            }
            Signature::Invalid { details, .. } if self.found.on.audit => {
                Verdict::new(Truth::False, reason::SIGNATURE_INVALID_AUDIT, details.clone())
            }
            Signature::Invalid { details, .. } => {
                Verdict::new(Truth::False, reason::SIGNATURE_INVALID, details.clone())
            }
        };
        self.conditions.set(condition::SIGNATURE_VERIFIED, &verdict);
    }

    fn bind(&mut self) {
        let (Some(binding), Some(_)) = (&self.found.binding, self.found.binding_spec) else { return };
        let reason = if binding.bound { reason::BOUND } else { reason::NOT_BOUND };
        self.next.status.expected_spiffe_id.clone_from(&binding.id);
        // An identity counts only when it is attested or signed, and without one nothing is bound.
        self.next.status.signature_identity_match = Some(binding.bound);
        self.binding_status(binding.bound, reason, &binding.message);
    }

    fn binding_status(&mut self, bound: bool, reason: &str, message: &str) {
        let message = clean(message, MESSAGE_LIMIT);
        let old = self.before.status.binding_status.as_ref().filter(|old| {
            old.bound == bound
                && old.reason.as_deref() == Some(reason)
                && old.message.as_deref() == Some(message.as_str())
        });
        let since = old.and_then(|old| old.last_evaluation_time.clone()).unwrap_or(Time(self.found.now));
        let truth = if bound { Truth::True } else { Truth::False };
        self.conditions.set(condition::BOUND, &Verdict::new(truth, reason, message.clone()));
        self.next.status.binding_status = Some(BindingStatus {
            bound,
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_evaluation_time: Some(since),
        });
    }
}

fn not_verified_yet(why: &str) -> Verdict {
    let message = format!("this workload was never verified with this card: {why}");
    Verdict::new(Truth::Unknown, reason::NOT_VERIFIED_YET, message)
}

fn synced(stop: Option<&Stop>, evidence: &Evidence, refused: bool) -> Verdict {
    if let Some(stop) = stop {
        return Verdict::new(Truth::False, stop.reason, stop.message.clone());
    }
    if refused {
        let details = match &evidence.signature {
            Signature::Invalid { details, .. } => details.as_str(),
            _ => "",
        };
        return Verdict::new(Truth::False, reason::SIGNATURE_INVALID, details);
    }
    if let Some(size) = evidence.too_large {
        let message = format!(
            "the card has {size} bytes, more than --card-status-max-bytes; only name, version, url and the beginning \
             of the description are stored"
        );
        return Verdict::new(Truth::False, reason::CARD_TOO_LARGE, message);
    }
    Verdict::new(Truth::True, reason::SYNC_SUCCEEDED, format!("read from {}", evidence.source))
}

/// The JSON merge patch of the status that makes `before` to `next`, with nulls for what goes; `None` = equal.
pub fn patch(before: &Stored, next: &Stored) -> Option<Value> {
    let document = |stored: &Stored, with_card: bool| {
        let mut value = serde_json::to_value(&stored.status).unwrap_or_default();
        let card =
            stored.card.as_deref().filter(|_| with_card).and_then(|card| serde_json::from_str(card).ok());
        if let (Some(card), Some(map)) = (card, value.as_object_mut()) {
            map.insert("card".to_owned(), card);
        }
        value
    };
    let with_card = before.card != next.card;
    difference(&document(before, with_card), &document(next, with_card))
}

/// RFC 7396: the patch from one value to another.
pub fn difference(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return Some(to.clone()) };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, want) in to {
        match from.get(key) {
            None => {
                patch.insert(key.clone(), want.clone());
            }
            Some(have) => {
                if let Some(inner) = difference(have, want) {
                    patch.insert(key.clone(), inner);
                }
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests;
