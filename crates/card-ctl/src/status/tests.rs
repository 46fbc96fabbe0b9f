//! The status as a function of what is known (card §2.2, §6.7, §6.8, §9, §10).

use api_types::{CardSource, SignatureProfile, card::condition};
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::verdict::Truth;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn evidence(signature: Signature) -> Evidence {
    Evidence {
        source: CardSource::Http,
        attested: None,
        card_id: "a".repeat(64),
        card: r#"{"name":"e"}"#.into(),
        too_large: None,
        advertised_url: Some("http://mine".into()),
        missing: Vec::new(),
        signature,
        under: None,
        recheck_at: None,
    }
}

fn valid() -> Signature {
    Signature::Valid {
        key_id: Some("kid".into()),
        spiffe_id: agent_trust::SpiffeId::parse("spiffe://example.org/ns/n/sa/s").unwrap(),
        profile: SignatureProfile::Legacy,
        not_after: at(9_000),
        expired: false,
        unsigned: vec!["/x".into()],
    }
}

fn invalid() -> Signature {
    Signature::Invalid { details: "jws_invalid".into(), chain_of: None }
}

const S: Mechanisms = Mechanisms { mtls: false, signature: true, audit: false };
const AUDIT: Mechanisms = Mechanisms { mtls: false, signature: true, audit: true };

fn findings(on: Mechanisms, evidence: Option<&Evidence>, now: i64) -> Findings<'_> {
    Findings {
        generation: 1,
        wanted: None,
        target: None,
        protocol: Some("a2a"),
        stop: None,
        evidence,
        on,
        binding_spec: None,
        binding: None,
        template_hash: None,
        verified_at: None,
        limit: SignedDuration::from_hours(24),
        now: at(now),
    }
}

fn failed(on: Mechanisms, stop: Stop, now: i64) -> Findings<'static> {
    Findings { stop: Some(stop), ..findings(on, None, now) }
}

fn says(stored: &Stored, type_: &str) -> Option<(Truth, String)> {
    verdict_of(&stored.status.conditions, type_).map(|verdict| (verdict.truth, verdict.reason))
}

#[allow(clippy::unnecessary_wraps, reason = "compared with what `says` gives")]
fn told(truth: Truth, reason: &str) -> Option<(Truth, String)> {
    Some((truth, reason.to_owned()))
}

fn target(name: &str) -> TargetRef {
    TargetRef { api_version: "apps/v1".into(), kind: "Deployment".into(), name: name.into() }
}

fn lost() -> Stop {
    Stop::inconclusive(reason::FETCH_FAILED, "refused")
}

/// Card §14.1: a second pass over the same world writes nothing.
#[rstest]
#[case(Mechanisms::default(), Signature::NotEvaluated)]
#[case(S, valid())]
#[case(S, invalid())]
#[case(AUDIT, invalid())]
#[case(S, Signature::Unavailable("no bundle".into()))]
fn a_second_pass_changes_nothing(#[case] on: Mechanisms, #[case] signature: Signature) {
    let evidence = evidence(signature);
    let first = next(&Stored::default(), &findings(on, Some(&evidence), 10));
    let second = next(&first, &findings(on, Some(&evidence), 20));
    assert_eq!(patch(&first, &second), None);
    let third = next(&second, &failed(on, lost(), 30));
    assert_eq!(patch(&third, &next(&third, &failed(on, lost(), 40))), None);
}

#[test]
fn a_valid_signature_is_shown_with_what_it_does_not_cover() {
    let evidence = evidence(valid());
    let stored = next(&Stored::default(), &findings(S, Some(&evidence), 10));
    let status = &stored.status;
    assert_eq!(says(&stored, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
    assert_eq!(says(&stored, condition::SIGNATURE_VERIFIED), told(Truth::True, "SignatureValid"));
    assert_eq!(says(&stored, condition::READY), told(Truth::True, "ReadyToServe"));
    assert_eq!(status.signature_spiffe_id.as_deref(), Some("spiffe://example.org/ns/n/sa/s"));
    assert_eq!(status.signature_key_id.as_deref(), Some("kid"));
    assert_eq!(status.unsigned_members.as_deref(), Some(["/x".to_owned()].as_slice()));
    assert_eq!(status.last_verified_time.as_ref().map(|time| time.0), Some(at(10)));
    assert_eq!(status.card_source, Some(CardSource::Http));
}

/// Card §6.7: nothing that nobody vouches for is shown, and what a signature said before is gone.
#[test]
fn an_invalid_signature_takes_card_and_identity_away() {
    let (good, bad) = (evidence(valid()), evidence(invalid()));
    let verified = next(&Stored::default(), &findings(S, Some(&good), 10));
    let refused = next(&verified, &findings(S, Some(&bad), 20));
    assert_eq!(says(&refused, condition::SYNCED), told(Truth::False, "SignatureInvalid"));
    assert_eq!(says(&refused, condition::VERIFIED), told(Truth::False, "SignatureInvalid"));
    assert_eq!(refused.card, None);
    assert_eq!(refused.status.signature_spiffe_id, None);
    assert_eq!(refused.status.signature_key_id, None);
    assert_eq!(refused.status.last_verified_time, None);
    assert_eq!(refused.status.valid_signature, Some(false));
    let patch = patch(&verified, &refused).unwrap();
    assert_eq!((&patch["card"], &patch["signatureSpiffeId"]), (&Value::Null, &Value::Null));
}

/// Card §10.2.
#[test]
fn audit_reports_and_changes_nothing_else() {
    let bad = evidence(invalid());
    let stored = next(&Stored::default(), &findings(AUDIT, Some(&bad), 10));
    assert_eq!(says(&stored, condition::SYNCED), told(Truth::True, "SyncSucceeded"));
    assert_eq!(says(&stored, condition::VERIFIED), told(Truth::False, "SignatureInvalidAudit"));
    assert_eq!(says(&stored, condition::READY), told(Truth::True, "ReadyToServe"));
    assert!(stored.card.is_some());
}

/// Card §10.3: what could not be found out keeps the verdict, until it is too old.
#[test]
fn a_failed_fetch_keeps_trust_for_a_while() {
    let good = evidence(valid());
    let verified = next(&Stored::default(), &findings(S, Some(&good), 10));
    let mut pass = failed(S, lost(), 20);
    pass.verified_at = Some(at(15));
    let kept = next(&verified, &pass);
    assert_eq!(says(&kept, condition::SYNCED), told(Truth::False, "FetchFailed"));
    assert_eq!(says(&kept, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
    assert_eq!(says(&kept, condition::SIGNATURE_VERIFIED), told(Truth::True, "SignatureValid"));
    assert_eq!(kept.card, verified.card);
    assert_eq!(kept.status.signature_spiffe_id, verified.status.signature_spiffe_id);
    assert_eq!(kept.status.last_verified_time.as_ref().map(|time| time.0), Some(at(15)), "the exact time");
    let day = 24 * 3600;
    let stale = next(&kept, &failed(S, lost(), 16 + day));
    assert_eq!(says(&stale, condition::VERIFIED), told(Truth::Unknown, "VerificationStale"));
    assert_eq!(stale.status.signature_spiffe_id, None);
    assert_eq!(stale.card, verified.card);
    let still = next(&stale, &failed(S, lost(), 17 + day));
    assert_eq!(patch(&stale, &still), None);
}

#[test]
fn without_a_verdict_it_is_pending_and_a_definitive_failure_settles_it() {
    let pending = next(&Stored::default(), &failed(S, lost(), 10));
    assert_eq!(says(&pending, condition::VERIFIED), told(Truth::Unknown, "Pending"));
    let gone = Stop::definitive(reason::WORKLOAD_NOT_FOUND, "gone");
    let good = evidence(valid());
    let verified = next(&Stored::default(), &findings(S, Some(&good), 10));
    let settled = next(&verified, &failed(S, gone.clone(), 20));
    assert_eq!(says(&settled, condition::VERIFIED), told(Truth::False, "WorkloadNotFound"));
    assert_eq!(settled.card, None);
    let off = next(&Stored::default(), &failed(Mechanisms::default(), gone, 20));
    assert_eq!(says(&off, condition::VERIFIED), None);
}

/// Card §8.6: a bundle that is missing is nobody's fault; the card that was verified stays.
#[test]
fn a_missing_bundle_keeps_the_verdict() {
    let (good, unknown) = (evidence(valid()), evidence(Signature::Unavailable("no bundle".into())));
    let verified = next(&Stored::default(), &findings(S, Some(&good), 10));
    let kept = next(&verified, &findings(S, Some(&unknown), 20));
    assert_eq!(says(&kept, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
    assert_eq!(says(&kept, condition::SIGNATURE_VERIFIED), told(Truth::Unknown, "TrustBundleUnavailable"));
    assert_eq!(kept.card, verified.card);
    let first = next(&Stored::default(), &findings(S, Some(&unknown), 20));
    assert_eq!(says(&first, condition::VERIFIED), told(Truth::Unknown, "Pending"));
    assert_eq!(first.card, None, "nobody vouches for it");
}

/// Card §2.2: fields of a mechanism that is off are removed, also those of the previous operator.
#[test]
fn what_the_evaluation_does_not_give_is_removed() {
    let sticky: AgentCardStatus = serde_json::from_value(json!({
        "validSignature": true, "signatureSpiffeId": "x", "attestedAgentSpiffeId": "y", "expectedSpiffeID": "z",
        "bindingStatus": {"bound": true}, "sigstoreBundleVerified": false, "cardId": "old",
        "conditions": [{"type": "Bound", "status": "True", "reason": "Bound", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }))
    .unwrap();
    let before = Stored { status: sticky, card: None };
    let plain = evidence(Signature::NotEvaluated);
    for findings in
        [findings(Mechanisms::default(), Some(&plain), 10), failed(Mechanisms::default(), lost(), 10)]
    {
        let stored = next(&before, &findings);
        let value = serde_json::to_value(&stored.status).unwrap();
        for field in [
            "validSignature",
            "signatureSpiffeId",
            "attestedAgentSpiffeId",
            "expectedSpiffeID",
            "bindingStatus",
            "sigstoreBundleVerified",
        ] {
            assert!(value.get(field).is_none(), "{field}");
        }
        assert_eq!(says(&stored, condition::BOUND), None);
    }
}

/// Card §6.8, §20: the id of the previous operator does not outlive its first pass, whatever that finds.
#[test]
fn a_legacy_card_id_is_dropped_although_nothing_is_found_out() {
    let of = |generation: Option<i64>| Stored {
        status: AgentCardStatus {
            card_id: Some("old".into()),
            observed_generation: generation,
            ..AgentCardStatus::default()
        },
        card: None,
    };
    let id = |before: &Stored| next(before, &failed(S, lost(), 10)).status.card_id;
    assert_eq!(id(&of(None)), None);
    assert_eq!(id(&of(Some(1))).as_deref(), Some("old"));
}

fn bound(bound: bool) -> Binding {
    Binding { bound, message: "m".into(), id: Some("id".into()), foreign_domain: !bound, weak: false }
}

/// Card §9, §10.1: a failed binding revokes Verified only when it is strict.
#[rstest]
#[case(false, true, Truth::True, "SignatureVerified")]
#[case(false, false, Truth::True, "SignatureVerified")]
#[case(true, true, Truth::True, "SignatureVerified")]
#[case(true, false, Truth::False, "NotVerified")]
fn strict_binding(#[case] strict: bool, #[case] binds: bool, #[case] truth: Truth, #[case] reason: &str) {
    let spec = IdentityBinding { strict, ..IdentityBinding::default() };
    let good = evidence(valid());
    let mut pass = findings(S, Some(&good), 10);
    pass.binding_spec = Some(&spec);
    pass.binding = Some(bound(binds));
    let stored = next(&Stored::default(), &pass);
    assert_eq!(says(&stored, condition::VERIFIED), told(truth, reason));
    assert_eq!(stored.status.signature_identity_match, Some(binds));
    assert_eq!(stored.status.expected_spiffe_id.as_deref(), Some("id"));
    let want = if binds { told(Truth::True, "Bound") } else { told(Truth::False, "NotBound") };
    assert_eq!(says(&stored, condition::BOUND), want);
}

/// Card §6.1: a missing workload is no agent to bind to; the time moves only with the outcome.
#[test]
fn a_missing_workload_is_not_bound() {
    let spec = IdentityBinding::default();
    let pass = |now| Findings {
        binding_spec: Some(&spec),
        binding: Some(bound(false)),
        ..failed(S, Stop::definitive(reason::WORKLOAD_NOT_FOUND, "gone"), now)
    };
    let first = next(&Stored::default(), &pass(10));
    assert_eq!(says(&first, condition::BOUND), told(Truth::False, "AgentNotFound"));
    assert_eq!(first.status.expected_spiffe_id, None);
    assert_eq!(patch(&first, &next(&first, &pass(20))), None);
}

/// Card §6.8: the time of the last change, not of the last look.
#[test]
fn last_sync_time_moves_with_the_content() {
    let one = evidence(Signature::NotEvaluated);
    let two = Evidence { card_id: "b".repeat(64), ..one.clone() };
    let off = Mechanisms::default();
    let first = next(&Stored::default(), &findings(off, Some(&one), 10));
    let again = next(&first, &findings(off, Some(&one), 20));
    let other = next(&again, &findings(off, Some(&two), 30));
    let time = |stored: &Stored| stored.status.last_sync_time.as_ref().map(|time| time.0);
    assert_eq!((time(&first), time(&again), time(&other)), (Some(at(10)), Some(at(10)), Some(at(30))));
}

/// Card §6.1: a signed ConfigMap counts although its workload cannot serve.
#[test]
fn trust_from_a_config_map_of_an_unready_workload() {
    let good = Evidence { source: CardSource::ConfigMap, ..evidence(valid()) };
    let mut pass = findings(S, Some(&good), 10);
    pass.stop = Some(Stop::inconclusive(reason::WORKLOAD_NOT_READY, "not ready"));
    let stored = next(&Stored::default(), &pass);
    assert_eq!(says(&stored, condition::SYNCED), told(Truth::False, "WorkloadNotReady"));
    assert_eq!(says(&stored, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
}

#[test]
fn the_patch_has_nulls_for_what_goes_and_nothing_else() {
    let value = |value: Value| value;
    assert_eq!(
        difference(&value(json!({"a": 1, "b": {"c": 1, "d": 2}})), &json!({"b": {"c": 1, "d": 3}})),
        Some(json!({"a": null, "b": {"d": 3}}))
    );
    assert_eq!(difference(&json!({"l": [1, 2]}), &json!({"l": [2]})), Some(json!({"l": [2]})));
    assert_eq!(difference(&json!({"a": {}}), &json!({"a": {}})), None);
}

/// Card §7: an untrusted peer settles it at once.
#[test]
fn an_untrusted_peer_is_definitive() {
    let stop = Stop {
        reason: reason::FETCH_FAILED,
        message: "m".into(),
        weight: Weight::Definitive(reason::PEER_UNTRUSTED),
    };
    let on = Mechanisms { mtls: true, ..Mechanisms::default() };
    let stored = next(&Stored::default(), &failed(on, stop, 10));
    assert_eq!(says(&stored, condition::SYNCED), told(Truth::False, "FetchFailed"));
    assert_eq!(says(&stored, condition::VERIFIED), told(Truth::False, "PeerUntrusted"));
}

/// Card §10.3: "there is no such workload" is not true any more once there is one, and a verdict there is not yet.
#[rstest]
#[case(reason::WORKLOAD_NOT_FOUND)]
#[case(reason::NOT_AGENT_WORKLOAD)]
#[case(reason::NO_PROTOCOL)]
fn a_workload_that_came_later_is_not_called_missing(#[case] missing: &'static str) {
    let binding = IdentityBinding::default();
    let gone = Findings { binding_spec: Some(&binding), ..failed(S, Stop::definitive(missing, "no"), 10) };
    let first = next(&Stored::default(), &gone);
    assert_eq!(says(&first, condition::VERIFIED), told(Truth::False, missing));
    let there = |why: &str, now| Findings {
        target: Some(target("w")),
        ..failed(S, Stop::inconclusive(reason::FETCH_FAILED, why), now)
    };
    let second = next(&first, &there("refused", 20));
    assert_eq!(says(&second, condition::VERIFIED), told(Truth::Unknown, "NotVerifiedYet"));
    assert_eq!(says(&second, condition::READY), told(Truth::False, "SyncFailed"));
    assert_eq!(patch(&second, &next(&second, &there("refused", 30))), None);
    let third = next(&second, &there("timed out", 40));
    let message = verdict_of(&third.status.conditions, condition::VERIFIED).unwrap().message;
    assert!(message.contains("timed out"), "{message}");
    // A workload that cannot be read is still as it was.
    let error = failed(S, Stop::inconclusive(reason::WORKLOAD_ERROR, "no answer"), 20);
    assert_eq!(says(&next(&first, &error), condition::VERIFIED), told(Truth::False, missing));
    // What an agent itself did wrong stays.
    let bad = next(&Stored::default(), &findings(S, Some(&evidence(invalid())), 10));
    assert_eq!(
        says(&next(&bad, &there("refused", 20)), condition::VERIFIED),
        told(Truth::False, "SignatureInvalid")
    );
}

/// Card §10.2, §10.3: what the audit found out is a negative verdict like any other once the audit is over, also when the
/// agent cannot be asked again. As "not known yet" it would leave the label of before where it is.
#[test]
fn the_end_of_the_audit_makes_its_findings_count() {
    let bad = evidence(invalid());
    let audited = next(&Stored::default(), &findings(AUDIT, Some(&bad), 10));
    assert_eq!(says(&audited, condition::VERIFIED), told(Truth::False, "SignatureInvalidAudit"));
    let kept = next(&audited, &failed(AUDIT, lost(), 20));
    assert_eq!(says(&kept, condition::VERIFIED), told(Truth::False, "SignatureInvalidAudit"));
    let enforced = next(&audited, &failed(S, lost(), 20));
    assert_eq!(says(&enforced, condition::VERIFIED), told(Truth::False, "SignatureInvalid"));
    assert_eq!(says(&enforced, condition::SIGNATURE_VERIFIED), told(Truth::False, "SignatureInvalid"));
    let message = verdict_of(&enforced.status.conditions, condition::VERIFIED).unwrap().message;
    assert!(!message.contains("audit"), "{message}");
    assert_eq!(patch(&enforced, &next(&enforced, &failed(S, lost(), 30))), None);
}

/// Card §10.3 keeps what is known of an agent. Of another agent nothing is known, however good the former one was.
#[test]
fn a_verdict_stays_with_its_workload() {
    let (good, binding) = (evidence(valid()), IdentityBinding::default());
    let (former, other) = (target("former"), target("other"));
    let of = |wanted| Findings {
        wanted: Some(wanted),
        target: Some(former.clone()),
        ..findings(S, Some(&good), 10)
    };
    let verified = next(&Stored::default(), &of(&former));
    assert_eq!(says(&verified, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
    let fails = |wanted, now| Findings {
        wanted: Some(wanted),
        target: Some(other.clone()),
        binding_spec: Some(&binding),
        ..failed(S, lost(), now)
    };
    let kept = next(&verified, &fails(&former, 20));
    assert_eq!(says(&kept, condition::VERIFIED), told(Truth::True, "SignatureVerified"));
    let moved = next(&verified, &fails(&other, 20));
    assert_eq!(says(&moved, condition::VERIFIED), told(Truth::Unknown, "NotVerifiedYet"));
    assert_eq!((moved.card.clone(), moved.status.valid_signature), (None, None));
    assert_eq!(
        (moved.status.signature_spiffe_id.clone(), moved.status.last_verified_time.clone()),
        (None, None)
    );
    let later = next(&moved, &fails(&other, 30));
    assert_eq!(patch(&moved, &later), None);
}
