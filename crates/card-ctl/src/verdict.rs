//! Is a card verified? (card §10). Pure.

use api_types::card::reason;
pub use api_types::conditions::Truth;
use jiff::{SignedDuration, Timestamp};

use crate::evidence::Signature;

/// Status, reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub truth: Truth,
    /// Reason, CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(truth: Truth, reason: &str, message: impl Into<String>) -> Self {
        Self { truth, reason: reason.to_owned(), message: message.into() }
    }

    /// True for a verdict of the audit mode.
    pub fn is_audit(&self) -> bool {
        reason::is_audit(&self.reason)
    }
}

/// How the message of a bad signature begins in audit mode.
const AUDIT: &str = "audit mode, no effect on traffic: ";

/// What a verdict of the audit mode says once that is off: the same, with effect. Anything else stays as it is.
pub fn enforced(verdict: Verdict) -> Verdict {
    let reason = match verdict.reason.as_str() {
        reason::SIGNATURE_INVALID_AUDIT => reason::SIGNATURE_INVALID,
        reason::NOT_VERIFIED_AUDIT => reason::NOT_VERIFIED,
        _ => return verdict,
    };
    let message = verdict.message.strip_prefix(AUDIT).unwrap_or(&verdict.message);
    Verdict::new(verdict.truth, reason, message)
}

/// Which trust mechanisms count for a card (card §10.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// M: verified fetch is active.
    pub mtls: bool,
    /// S: signatures are required.
    pub signature: bool,
    /// Failures have no effect on traffic (card §10.2).
    pub audit: bool,
}

impl Mechanisms {
    /// Any of the two.
    pub fn any(self) -> bool {
        self.mtls || self.signature
    }
}

/// The verdict on a document that was looked at (card §10.1). `None` = the condition is absent.
///
/// `strict_failure`: the binding is strict and did not succeed. A signature that could not be checked gives
/// [`Outcome::Unknown`], which keeps what is known (card §10.3).
pub fn judge(on: Mechanisms, attested: bool, signature: &Signature, strict_failure: Option<&str>) -> Outcome {
    if !on.any() {
        return Outcome::Absent;
    }
    let attested = attested && on.mtls;
    let strict = |audit: bool, otherwise: Verdict| match strict_failure {
        Some(why) if audit => Verdict::new(Truth::False, reason::NOT_VERIFIED_AUDIT, binding_failed(why)),
        Some(why) => Verdict::new(Truth::False, reason::NOT_VERIFIED, binding_failed(why)),
        None => otherwise,
    };
    let verdict = if attested {
        strict(
            on.audit,
            Verdict::new(Truth::True, reason::MTLS_VERIFIED, "the TLS peer proved its SPIFFE ID"),
        )
    } else if on.signature {
        match signature {
            Signature::Valid { expired, .. } => {
                let note =
                    if *expired { "; its certificate has expired and counts a while longer" } else { "" };
                let message = format!("the signature of the card is valid{note}");
                strict(on.audit, Verdict::new(Truth::True, reason::SIGNATURE_VERIFIED, message))
            }
            Signature::Invalid { details, .. } if on.audit => {
                let message = format!("{AUDIT}{details}");
                Verdict::new(Truth::False, reason::SIGNATURE_INVALID_AUDIT, message)
            }
            Signature::Invalid { details, .. } => {
                Verdict::new(Truth::False, reason::SIGNATURE_INVALID, details.clone())
            }
            Signature::Unavailable(_) | Signature::NotEvaluated => return Outcome::Unknown,
        }
    } else {
        let message = "the Service has no port agent-tls, so nobody proved an identity";
        Verdict::new(Truth::False, reason::NOT_VERIFIED, message)
    };
    Outcome::Known(verdict)
}

fn binding_failed(why: &str) -> String {
    format!("spec.identityBinding.strict is set and the identity is not bound: {why}")
}

/// What an evaluation says about Verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Neither mechanism is on.
    Absent,
    /// It could not be found out.
    Unknown,
    /// A definitive verdict.
    Known(Verdict),
}

/// What was known before (card §10.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The stored verdict.
    pub verdict: Verdict,
    /// The last positive verdict; `None` on an object that the previous operator wrote.
    pub verified_at: Option<Timestamp>,
    /// Since when the verdict has its status.
    pub since: Option<Timestamp>,
}

/// What to do when nothing could be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Keep the verdict and all that belongs to it.
    Previous,
    /// Nothing that is known counts any more.
    Replaced(Verdict),
}

/// Nobody has found out anything yet.
pub fn is_pending(verdict: &Verdict) -> bool {
    verdict.truth == Truth::Unknown && verdict.reason == reason::PENDING
}

/// Applies the staleness rule (card §10.3).
pub fn keep(before: Option<&Before>, now: Timestamp, limit: SignedDuration, why: &str) -> Kept {
    match before {
        None => {
            Kept::Replaced(Verdict::new(Truth::Unknown, reason::PENDING, format!("not verified yet: {why}")))
        }
        // Marks that were found on the workload do not count for ever either.
        Some(Before { verdict, since: Some(since), .. })
            if is_pending(verdict) && now.duration_since(*since) > limit =>
        {
            let message = format!("never verified, and nothing could be found out for a long time: {why}");
            Kept::Replaced(Verdict::new(Truth::Unknown, reason::VERIFICATION_STALE, message))
        }
        Some(Before { verdict, .. }) if is_pending(verdict) => {
            Kept::Replaced(Verdict::new(Truth::Unknown, reason::PENDING, format!("not verified yet: {why}")))
        }
        Some(Before { verdict, verified_at, .. }) if verdict.truth == Truth::True => {
            // Without a time the clock starts at first sight.
            let age = now.duration_since(verified_at.unwrap_or(now));
            if age > limit {
                let message =
                    format!("the last verification is too old, and nothing new can be found out: {why}");
                Kept::Replaced(Verdict::new(Truth::Unknown, reason::VERIFICATION_STALE, message))
            } else {
                Kept::Previous
            }
        }
        Some(_) => Kept::Previous,
    }
}

/// How old `lastVerifiedTime` may become before it is written again (card §10.3).
///
/// Never more often than each 15 minutes, or a tenth of the limit if that is shorter. Ten thousand cards must not
/// cost more than a write per second, so a long limit allows more: the exact time is written when a card is lost.
pub fn rewrite_after(limit: SignedDuration) -> SignedDuration {
    let tenth = limit / 10;
    let quarter_hour = SignedDuration::from_mins(15);
    if tenth < quarter_hour { tenth } else { (limit / 8).max(quarter_hour) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn valid() -> Signature {
        Signature::Valid {
            key_id: None,
            spiffe_id: agent_trust::SpiffeId::parse("spiffe://d/x").unwrap(),
            profile: api_types::SignatureProfile::Legacy,
            not_after: Timestamp::UNIX_EPOCH,
            expired: false,
            unsigned: Vec::new(),
        }
    }

    fn invalid() -> Signature {
        Signature::Invalid { details: "jws_invalid".into(), chain_of: None }
    }

    const ON: Mechanisms = Mechanisms { mtls: true, signature: true, audit: false };
    const M: Mechanisms = Mechanisms { mtls: true, signature: false, audit: false };
    const S: Mechanisms = Mechanisms { mtls: false, signature: true, audit: false };
    const AUDIT: Mechanisms = Mechanisms { mtls: false, signature: true, audit: true };
    const AUDIT_BOTH: Mechanisms = Mechanisms { mtls: true, signature: true, audit: true };

    fn known(outcome: Outcome) -> (Truth, String) {
        match outcome {
            Outcome::Known(verdict) => (verdict.truth, verdict.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Card §10.1, §10.2, one row each.
    #[rstest]
    #[case(M, true, Signature::NotEvaluated, false, Truth::True, "mTLSVerified")]
    #[case(ON, true, invalid(), false, Truth::True, "mTLSVerified")]
    #[case(ON, true, valid(), true, Truth::False, "NotVerified")]
    #[case(S, false, valid(), false, Truth::True, "SignatureVerified")]
    #[case(ON, false, valid(), false, Truth::True, "SignatureVerified")]
    #[case(S, false, valid(), true, Truth::False, "NotVerified")]
    #[case(S, false, invalid(), false, Truth::False, "SignatureInvalid")]
    #[case(S, false, invalid(), true, Truth::False, "SignatureInvalid")]
    #[case(S, true, invalid(), false, Truth::False, "SignatureInvalid")]
    #[case(M, false, Signature::NotEvaluated, false, Truth::False, "NotVerified")]
    #[case(AUDIT, false, invalid(), false, Truth::False, "SignatureInvalidAudit")]
    #[case(AUDIT, false, valid(), true, Truth::False, "NotVerifiedAudit")]
    #[case(AUDIT_BOTH, true, valid(), true, Truth::False, "NotVerifiedAudit")]
    fn table(
        #[case] on: Mechanisms,
        #[case] attested: bool,
        #[case] signature: Signature,
        #[case] strict: bool,
        #[case] truth: Truth,
        #[case] reason: &str,
    ) {
        let outcome = judge(on, attested, &signature, strict.then_some("wrong domain"));
        assert_eq!(known(outcome), (truth, reason.to_owned()));
    }

    #[test]
    fn without_a_mechanism_there_is_no_verdict_and_without_a_bundle_nobody_knows() {
        assert_eq!(judge(Mechanisms::default(), false, &valid(), None), Outcome::Absent);
        assert_eq!(judge(S, false, &Signature::Unavailable("x".into()), None), Outcome::Unknown);
    }

    /// Card §10.3.
    #[test]
    fn what_was_known_is_kept_for_a_while() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let before = |truth, reason: &str, ago: Option<i64>| Before {
            verdict: Verdict::new(truth, reason, ""),
            verified_at: ago.map(|ago| now - SignedDuration::from_secs(ago)),
            since: None,
        };
        let limit = SignedDuration::from_secs(100);
        let of = |before: Option<Before>| keep(before.as_ref(), now, limit, "why");
        assert_eq!(of(Some(before(Truth::True, "mTLSVerified", Some(100)))), Kept::Previous);
        assert_eq!(of(Some(before(Truth::True, "mTLSVerified", None))), Kept::Previous);
        assert_eq!(of(Some(before(Truth::False, "SignatureInvalid", None))), Kept::Previous);
        assert_eq!(of(Some(before(Truth::Unknown, "VerificationStale", None))), Kept::Previous);
        let reason = |kept| match kept {
            Kept::Replaced(verdict) => verdict.reason,
            Kept::Previous => "kept".into(),
        };
        assert_eq!(reason(of(Some(before(Truth::True, "mTLSVerified", Some(101))))), "VerificationStale");
        assert_eq!(reason(of(None)), "Pending");
        let pending = |ago| {
            let since = Some(now - SignedDuration::from_secs(ago));
            Some(Before { since, ..before(Truth::Unknown, "Pending", None) })
        };
        assert_eq!(reason(of(pending(100))), "Pending");
        assert_eq!(reason(of(pending(101))), "VerificationStale");
    }

    #[test]
    fn the_coarse_time_costs_less_than_a_write_per_second() {
        assert_eq!(rewrite_after(SignedDuration::from_secs(10)), SignedDuration::from_secs(1));
        let default = rewrite_after(SignedDuration::from_hours(24));
        assert!(10_000.0 / default.as_secs_f64() < 1.0);
        assert!(rewrite_after(SignedDuration::from_mins(160)) >= SignedDuration::from_mins(15));
    }
}
