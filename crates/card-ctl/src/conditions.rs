//! Conditions of an AgentCard (card §14.1). Pure.

use api_types::card::{condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::verdict::{Truth, Verdict};

/// Longest message of a condition (card §6.5).
pub const MESSAGE_LIMIT: usize = 1024;

/// Text that may go into a status or an event: no control characters, at most `limit` characters.
pub fn clean(text: &str, limit: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limit).collect()
}

/// The conditions of one pass, with the transition times of what was before.
pub struct Conditions<'a> {
    before: &'a [Condition],
    generation: i64,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// No condition yet.
    pub fn new(before: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { before, generation, now, list: Vec::new() }
    }

    /// Sets a condition. Its transition time moves only when the status flips.
    pub fn set(&mut self, type_: &str, verdict: &Verdict) {
        let old = api_types::conditions::condition(self.before, type_);
        let status = verdict.truth.as_str();
        let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        self.list.retain(|condition| condition.type_ != type_);
        self.list.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.clone(),
            message: clean(&verdict.message, MESSAGE_LIMIT),
            observed_generation: Some(self.generation),
            last_transition_time: since.unwrap_or(Time(self.now)),
        });
    }

    /// Keeps a condition as it was, for the present generation.
    pub fn keep(&mut self, type_: &str) {
        if let Some(verdict) = verdict_of(self.before, type_) {
            self.set(type_, &verdict);
        }
    }

    /// All of them, sorted, with `Ready` (card §10.3).
    pub fn finish(mut self) -> Vec<Condition> {
        let ready = ready(&self.list);
        self.set(condition::READY, &ready);
        self.list.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.list
    }
}

/// A stored condition as a verdict.
pub fn verdict_of(list: &[Condition], type_: &str) -> Option<Verdict> {
    let condition = api_types::conditions::condition(list, type_)?;
    let truth = match condition.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    };
    Some(Verdict::new(truth, &condition.reason, condition.message.clone()))
}

fn ready(list: &[Condition]) -> Verdict {
    let synced = verdict_of(list, condition::SYNCED);
    match synced {
        Some(synced) if synced.truth == Truth::True => match verdict_of(list, condition::VERIFIED) {
            Some(verified) if verified.truth != Truth::True && !verified.is_audit() => {
                let message = format!("{}: {}", verified.reason, verified.message);
                Verdict::new(Truth::False, reason::VERIFICATION_FAILED, message)
            }
            _ => Verdict::new(Truth::True, reason::READY_TO_SERVE, "the card is synced"),
        },
        Some(synced) => {
            Verdict::new(Truth::False, reason::SYNC_FAILED, format!("{}: {}", synced.reason, synced.message))
        }
        None => Verdict::new(Truth::False, reason::SYNC_FAILED, "not synced yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_new_message_does_not_move_the_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut first = Conditions::new(&[], 1, at(1));
        first.set(condition::SYNCED, &Verdict::new(Truth::True, "A", "one"));
        let before = first.finish();
        let mut second = Conditions::new(&before, 2, at(2));
        second.set(condition::SYNCED, &Verdict::new(Truth::True, "A", "two"));
        let after = second.finish();
        let synced = api_types::conditions::condition(&after, condition::SYNCED).unwrap();
        assert_eq!((synced.last_transition_time.0, synced.observed_generation), (at(1), Some(2)));
        assert_eq!(after.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Ready", "Synced"]);
    }

    /// Card §6.5.
    #[test]
    fn messages_are_short_and_harmless() {
        let text = clean(&"\u{1b}[31mé\n".repeat(1000), MESSAGE_LIMIT);
        assert_eq!(text.chars().count(), MESSAGE_LIMIT);
        assert!(!text.chars().any(char::is_control));
    }

    /// Card §10.3, the rule of Ready.
    #[rstest]
    #[case(Truth::True, None, Truth::True, "ReadyToServe")]
    #[case(Truth::True, Some((Truth::True, "mTLSVerified")), Truth::True, "ReadyToServe")]
    #[case(Truth::True, Some((Truth::False, "SignatureInvalidAudit")), Truth::True, "ReadyToServe")]
    #[case(Truth::True, Some((Truth::False, "NotVerified")), Truth::False, "VerificationFailed")]
    #[case(Truth::True, Some((Truth::Unknown, "Pending")), Truth::False, "VerificationFailed")]
    #[case(Truth::False, Some((Truth::True, "mTLSVerified")), Truth::False, "SyncFailed")]
    fn readiness(
        #[case] synced: Truth,
        #[case] verified: Option<(Truth, &str)>,
        #[case] ready: Truth,
        #[case] reason: &str,
    ) {
        let mut conditions = Conditions::new(&[], 1, Timestamp::UNIX_EPOCH);
        conditions.set(condition::SYNCED, &Verdict::new(synced, "S", "s"));
        if let Some((truth, reason)) = verified {
            conditions.set(condition::VERIFIED, &Verdict::new(truth, reason, "v"));
        }
        let got = verdict_of(&conditions.finish(), condition::READY).unwrap();
        assert_eq!((got.truth, got.reason.as_str()), (ready, reason));
    }
}
