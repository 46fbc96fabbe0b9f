//! What the status of a card tells in events (card §14.2). Pure.
//!
//! An event follows from the difference between the stored status and the next one, so a restart of the process, or a
//! pass that changes nothing, tells nothing.

use api_types::{
    AgentCardStatus, CardSource,
    card::{condition, reason},
};
use controller_kit::events::{EventType, NewEvent};

use crate::conditions::{clean, verdict_of};

/// Longest piece of a peer's or a card's text.
const FOREIGN: usize = 256;

/// Two cards for one workload.
pub const DUPLICATE_TARGET: &str = "DuplicateTarget";
/// A restart is due, but not card-ctl's to make.
pub const RESIGN_REQUIRED: &str = "ResignRequired";
/// The own name is taken by a card for something else.
pub const TARGET_REF_CONFLICT: &str = "TargetRefConflict";
/// The Service's port annotation is ignored.
pub const PORT_IGNORED: &str = "PortIgnored";
/// The object cannot be read.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// The workload's ConfigMap holds no usable card; only logged.
pub const UNUSABLE_CONFIG_MAP: &str = "UnusableConfigMap";
/// Reasons that are remembered per card.
pub const ONCE: [&str; 4] = [DUPLICATE_TARGET, RESIGN_REQUIRED, PORT_IGNORED, INVALID_SPEC];

/// What a pass knows beside the two statuses.
#[derive(Clone, Debug, Default)]
pub struct Told<'a> {
    /// A Service without port `agent-tls` was used although verified fetch is active.
    pub fallback: bool,
    /// The sync period is not used as written.
    pub period_problem: Option<String>,
    /// Required members that are missing.
    pub missing: &'a [String],
    /// A wide scope accepted an ID that a narrow one would refuse.
    pub weak: bool,
}

/// The events of one written status.
pub fn of_change(before: &AgentCardStatus, next: &AgentCardStatus, told: &Told<'_>) -> Vec<NewEvent> {
    let mut events = Vec::new();
    signature(before, next, &mut events);
    binding(before, next, told, &mut events);
    let new_card = before.card_id != next.card_id && next.card_id.is_some();
    if let (true, Some(previous), Some(current), Some(_)) =
        (new_card, &before.card_id, &next.card_id, before.observed_generation)
        && !previous.is_empty()
    {
        let note = format!("the card has changed: previous {previous}, current {current}");
        events.push(NewEvent::warning("CardContentChanged", "Reconcile", note));
    }
    if new_card && !told.missing.is_empty() {
        let list = clean(&told.missing.join(", "), FOREIGN);
        events.push(NewEvent::warning("CardIncomplete", "Reconcile", format!("the card lacks {list}")));
    }
    if let Some(unsigned) =
        next.unsigned_members.as_ref().filter(|list| Some(*list) != before.unsigned_members.as_ref())
    {
        let list = clean(&unsigned.join(", "), FOREIGN);
        let note = format!("the signature does not cover {list}; they are left out of status.card");
        events.push(NewEvent::warning("UnsignedMembers", "VerifySignature", note));
    }
    let plain =
        |source: &Option<CardSource>| matches!(source, Some(CardSource::Http | CardSource::ConfigMap));
    if told.fallback && plain(&next.card_source) && !plain(&before.card_source) {
        let note = "the Service has no port named agent-tls: the card was read without mTLS";
        events.push(NewEvent::warning("FallbackToHTTP", "FetchCard", note));
    }
    if let Some(problem) =
        told.period_problem.as_ref().filter(|_| before.observed_generation != next.observed_generation)
    {
        let note = clean(&format!("spec.syncPeriod: {problem}"), FOREIGN);
        events.push(NewEvent::warning("InvalidSyncPeriod", "Reconcile", note));
    }
    events
}

fn signature(before: &AgentCardStatus, next: &AgentCardStatus, events: &mut Vec<NewEvent>) {
    let Some(valid) = next.valid_signature else { return };
    let moved = before.valid_signature != next.valid_signature
        || (valid && before.signature_key_id != next.signature_key_id);
    if !moved {
        return;
    }
    let details = next.signature_verification_details.as_deref().unwrap_or_default();
    let details = clean(details, FOREIGN);
    let event = if valid {
        NewEvent::normal("SignatureEvaluated", "VerifySignature", format!("the signature is {details}"))
    } else {
        NewEvent::warning("SignatureFailed", "VerifySignature", format!("no signature is valid: {details}"))
    };
    events.push(event);
}

fn binding(before: &AgentCardStatus, next: &AgentCardStatus, told: &Told<'_>, events: &mut Vec<NewEvent>) {
    let of = |status: &AgentCardStatus| {
        let verdict = verdict_of(&status.conditions, condition::BOUND)?;
        Some((verdict.truth, verdict.reason == reason::AGENT_NOT_FOUND))
    };
    let (was, Some(is)) = (of(before), of(next)) else { return };
    if was == Some(is) {
        return;
    }
    let message =
        next.binding_status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
    let note = clean(message, FOREIGN);
    let bound = next.binding_status.as_ref().is_some_and(|status| status.bound);
    let (kind, reason, action) = match (is.1, bound) {
        (true, _) => (EventType::Warning, "AgentNotFound", "FetchAgentCard"),
        (false, true) => (EventType::Normal, "BindingEvaluated", "EvaluateBinding"),
        (false, false) => (EventType::Warning, "BindingFailed", "EvaluateBinding"),
    };
    events.push(NewEvent { kind, reason: reason.into(), action: action.into(), note });
    if bound && told.weak {
        let note = "the scope TrustDomain lets any workload of the trust domain serve this card, and it is served or \
                    signed by another service account: set spec.identityBinding.scope to ServiceAccount, or list the \
                    ID in allowedSpiffeIDs";
        events.push(NewEvent::warning("WeakIdentityBinding", "EvaluateBinding", note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn status(value: Value) -> AgentCardStatus {
        serde_json::from_value(value).unwrap()
    }

    fn bound(status: &str, reason: &str) -> Value {
        json!({
            "bindingStatus": {"bound": status == "True", "message": "m"},
            "conditions": [{"type": "Bound", "status": status, "reason": reason, "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        })
    }

    /// Card §14.2, only on change.
    #[rstest]
    #[case(json!({}), json!({"validSignature": true}), &["SignatureEvaluated"])]
    #[case(json!({"validSignature": true}), json!({"validSignature": true}), &[])]
    #[case(json!({"validSignature": true, "signatureKeyId": "a"}), json!({"validSignature": true, "signatureKeyId": "b"}), &["SignatureEvaluated"])]
    #[case(json!({"validSignature": true}), json!({"validSignature": false}), &["SignatureFailed"])]
    #[case(json!({"validSignature": false, "signatureVerificationDetails": "a"}), json!({"validSignature": false, "signatureVerificationDetails": "b"}), &[])]
    #[case(json!({"validSignature": true}), json!({}), &[])]
    #[case(json!({}), bound("True", "Bound"), &["BindingEvaluated"])]
    #[case(bound("True", "Bound"), bound("False", "NotBound"), &["BindingFailed"])]
    #[case(bound("False", "NotBound"), bound("False", "AgentNotFound"), &["AgentNotFound"])]
    #[case(bound("False", "NotBound"), bound("False", "NotBound"), &[])]
    #[case(json!({"cardId": "a", "observedGeneration": 1}), json!({"cardId": "b"}), &["CardContentChanged"])]
    #[case::of_the_previous_operator(json!({"cardId": "a"}), json!({"cardId": "b"}), &[])]
    #[case(json!({"observedGeneration": 1}), json!({"cardId": "b"}), &[])]
    #[case(json!({}), json!({"unsignedMembers": ["/x"]}), &["UnsignedMembers"])]
    fn changes(#[case] before: Value, #[case] next: Value, #[case] want: &[&str]) {
        let events = of_change(&status(before), &status(next), &Told::default());
        assert_eq!(events.iter().map(|event| event.reason.as_ref()).collect::<Vec<_>>(), want);
    }

    #[test]
    fn what_the_pass_knows_is_told_once() {
        let missing = ["/name".to_owned()];
        let told = Told { fallback: true, period_problem: Some("x".into()), missing: &missing, weak: true };
        let (old, new) = (
            status(json!({})),
            status(json!({"cardId": "a", "cardSource": "HTTP", "observedGeneration": 1})),
        );
        let reasons = |before: &AgentCardStatus| -> Vec<String> {
            of_change(before, &new, &told).into_iter().map(|event| event.reason.into_owned()).collect()
        };
        assert_eq!(reasons(&old), ["CardIncomplete", "FallbackToHTTP", "InvalidSyncPeriod"]);
        assert!(reasons(&new).is_empty());
    }

    /// Card §14.2: foreign text is harmless and short.
    #[test]
    fn foreign_text_is_cut() {
        let next = status(json!({"unsignedMembers": ["\u{7}".repeat(1000)]}));
        let events = of_change(&AgentCardStatus::default(), &next, &Told::default());
        assert!(events[0].note.len() < 400 && !events[0].note.chars().any(char::is_control));
    }
}
