//! From the conditions of the cards of a workload to the kind of policy it gets (card §15.3). Pure.

use std::time::Duration;

use api_types::card::reason;
use jiff::{SignedDuration, Timestamp};

use crate::card::Card;

/// What the condition `Verified` of one card says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// True.
    Verified,
    /// False or Unknown.
    Refused,
    /// The audit mode speaks: no effect on traffic (card §10.2).
    Audit,
    /// Unknown, because nobody has looked yet.
    Pending,
    /// There is no such condition.
    Absent,
    /// False, because the workload does not exist or is no agent.
    NoAgent,
}

impl Verdict {
    /// Reads the condition's status and reason.
    pub fn of(status: &str, reason: &str) -> Self {
        match (status, reason) {
            ("True", _) => Self::Verified,
            (_, reason) if reason::is_audit(reason) => Self::Audit,
            (_, reason::WORKLOAD_NOT_FOUND | reason::NOT_AGENT_WORKLOAD) => Self::NoAgent,
            ("Unknown", reason::PENDING) => Self::Pending,
            _ => Self::Refused,
        }
    }
}

/// What a policy lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Verified: verified peers come in, everything goes out.
    Permissive,
    /// Not verified: only allowed namespaces come in, only the API server is reached.
    Restrictive,
}

impl Mode {
    /// Name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "permissive",
            Self::Restrictive => "restrictive",
        }
    }
}

/// What the cards of a workload together want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The strictest wish; `None` = no policy.
    pub mode: Option<Mode>,
    /// A card without verdict has no say until then, from now.
    pub wait: Option<Duration>,
}

/// The strictest wish of all cards. `exists`: the workload has a policy already, which the initial delay must not open.
pub fn outcome<'a>(
    cards: impl Iterator<Item = &'a Card>,
    delay: Duration,
    exists: bool,
    now: Timestamp,
) -> Outcome {
    let (mut mode, mut wait) = (None, None::<Duration>);
    for card in cards {
        let wish = match card.verdict {
            Verdict::Verified => Some(Mode::Permissive),
            Verdict::Refused | Verdict::NoAgent => Some(Mode::Restrictive),
            Verdict::Audit => None,
            Verdict::Pending | Verdict::Absent => match remaining(card, delay, now) {
                None => Some(Mode::Restrictive),
                Some(rest) => {
                    wait = Some(wait.map_or(rest, |known| known.min(rest)));
                    None
                }
            },
        };
        mode = mode.max(wish);
    }
    if mode.is_none() && wait.is_some() && exists {
        return Outcome { mode: Some(Mode::Restrictive), wait: None };
    }
    Outcome { mode, wait }
}

/// How long the card may still wait for its first verdict.
fn remaining(card: &Card, delay: Duration, now: Timestamp) -> Option<Duration> {
    let end = card.created?.checked_add(SignedDuration::try_from(delay).ok()?).ok()?;
    Duration::try_from(end.duration_since(now)).ok().filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_kit::watch::Key;
    use rstest::rstest;

    /// Card §15.3, §10.2, §10.3.
    #[rstest]
    #[case("True", "mTLSVerified", Verdict::Verified)]
    #[case("True", "SignatureVerified", Verdict::Verified)]
    #[case("False", "SignatureInvalid", Verdict::Refused)]
    #[case("False", "SignatureInvalidAudit", Verdict::Audit)]
    #[case("False", "NotVerifiedAudit", Verdict::Audit)]
    #[case("Unknown", "VerificationStale", Verdict::Refused)]
    #[case("Unknown", "Pending", Verdict::Pending)]
    #[case("False", "WorkloadNotFound", Verdict::NoAgent)]
    #[case("False", "NotAgentWorkload", Verdict::NoAgent)]
    #[case("true", "SignatureVerified", Verdict::Refused)]
    #[case("", "", Verdict::Refused)]
    fn conditions(#[case] status: &str, #[case] reason: &str, #[case] want: Verdict) {
        assert_eq!(Verdict::of(status, reason), want);
    }

    fn card(verdict: Verdict, created: i64) -> Card {
        Card {
            key: Key::new("ns", "c"),
            uid: "u".into(),
            resource_version: "1".into(),
            created: Timestamp::from_second(created).ok(),
            automatic: false,
            terminating: false,
            target: None,
            verdict,
            finalizers: None,
            unreadable: false,
        }
    }

    use Mode::{Permissive, Restrictive};
    use Verdict::{Absent, Audit, Pending, Refused, Verified};

    /// All live cards, AND: the strictest wish wins, in any order.
    #[rstest]
    #[case(&[Verified], Some(Permissive))]
    #[case(&[Refused], Some(Restrictive))]
    #[case(&[Absent], Some(Restrictive))]
    #[case(&[Pending], Some(Restrictive))]
    #[case(&[Audit], None)]
    #[case(&[Verified, Verified], Some(Permissive))]
    #[case(&[Verified, Refused], Some(Restrictive))]
    #[case(&[Verified, Absent], Some(Restrictive))]
    #[case(&[Verified, Audit], Some(Permissive))]
    #[case(&[Refused, Audit], Some(Restrictive))]
    #[case(&[], None)]
    fn the_strictest_wins(#[case] verdicts: &[Verdict], #[case] want: Option<Mode>) {
        let mut cards: Vec<Card> = verdicts.iter().map(|verdict| card(*verdict, 0)).collect();
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(outcome(cards.iter(), Duration::ZERO, false, now), Outcome { mode: want, wait: None });
        cards.reverse();
        assert_eq!(outcome(cards.iter(), Duration::ZERO, true, now).mode, want);
    }

    /// Card §15.3: a new card without verdict is not isolated before `--initial-policy-delay`.
    #[rstest]
    #[case::new(&[(Absent, 90)], false, None, Some(20))]
    #[case::over(&[(Absent, 70)], false, Some(Restrictive), None)]
    #[case::never_opened(&[(Absent, 90)], true, Some(Restrictive), None)]
    #[case::no_say(&[(Verified, 0), (Pending, 95)], true, Some(Permissive), Some(25))]
    #[case::refused_at_once(&[(Refused, 99)], false, Some(Restrictive), None)]
    #[case::first(&[(Absent, 90), (Pending, 85)], false, None, Some(15))]
    fn the_initial_delay(
        #[case] cards: &[(Verdict, i64)],
        #[case] exists: bool,
        #[case] mode: Option<Mode>,
        #[case] wait: Option<u64>,
    ) {
        let cards: Vec<Card> = cards.iter().map(|(verdict, created)| card(*verdict, *created)).collect();
        let now = Timestamp::from_second(100).unwrap();
        let got = outcome(cards.iter(), Duration::from_secs(30), exists, now);
        assert_eq!(got, Outcome { mode, wait: wait.map(Duration::from_secs) });
    }
}
