//! The two conditions on an AgentRuntime (client-registration §12). Pure.

use api_types::{conditions::set_condition, registration::condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use crate::reason::Reason;

/// Condition types that client-registration-ctl owns.
pub const OWNED: [&str; 2] = [condition::CLIENT_REGISTERED, condition::AUDIENCE_SCOPE_READY];

/// The longest message that is written, in characters.
const LONGEST_MESSAGE: usize = 4096;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

/// What one condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub truth: Truth,
    /// Reason.
    pub reason: Reason,
    /// Object, field and remedy.
    pub message: String,
    /// A Warning Event tells of it.
    pub warns: bool,
}

impl Verdict {
    /// `True`.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::True, reason, message: message.into(), warns: false }
    }

    /// `False`, and somebody should look.
    pub fn failing(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::False, reason, message: message.into(), warns: true }
    }

    /// `False`, and that is as somebody wants it.
    pub fn off(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::False, reason, message: message.into(), warns: false }
    }

    /// `Unknown`.
    pub fn pending(message: impl Into<String>) -> Self {
        Self { truth: Truth::Unknown, reason: Reason::Pending, message: message.into(), warns: false }
    }
}

/// The audience scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This was found out.
    Known(Verdict),
    /// It was not looked at: what was said before stands.
    AsBefore,
    /// There is none.
    Absent,
}

/// What a pass found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `ClientRegistered`.
    pub registered: Verdict,
    /// `AudienceScopeReady`.
    pub audience: Audience,
}

impl Report {
    /// A report about the registration alone.
    pub fn new(registered: Verdict) -> Self {
        Self { registered, audience: Audience::AsBefore }
    }
}

/// The status to apply; `None` = the conditions say this already. `before` are the AgentRuntime's conditions of ours.
pub fn next(before: &[Condition], report: &Report, generation: i64, now: Timestamp) -> Option<Value> {
    let mut conditions: Vec<Condition> = before.to_vec();
    let condition = |type_: &str, verdict: &Verdict| Condition {
        type_: type_.to_owned(),
        status: match verdict.truth {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
        .to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: rest_client::quote::bounded(&verdict.message, LONGEST_MESSAGE),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    let mut changed =
        set_condition(&mut conditions, condition(condition::CLIENT_REGISTERED, &report.registered), now);
    match &report.audience {
        Audience::Known(verdict) => {
            changed |=
                set_condition(&mut conditions, condition(condition::AUDIENCE_SCOPE_READY, verdict), now);
        }
        // It still holds; its own pass may come an hour after a change of the AgentRuntime.
        Audience::AsBefore => {
            for said in conditions.iter_mut().filter(|said| said.type_ == condition::AUDIENCE_SCOPE_READY) {
                changed |= said.observed_generation != Some(generation);
                said.observed_generation = Some(generation);
            }
        }
        Audience::Absent => {
            let count = conditions.len();
            conditions.retain(|condition| condition.type_ != condition::AUDIENCE_SCOPE_READY);
            changed |= conditions.len() != count;
        }
    }
    changed.then(|| json!({ "conditions": conditions }))
}

/// The status to apply when there is nothing to be said any more; `None` = nothing was said.
pub fn withdrawn(before: &[Condition]) -> Option<Value> {
    (!before.is_empty()).then(|| json!({ "conditions": [] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn applied(value: &Value) -> Vec<Condition> {
        serde_json::from_value(value["conditions"].clone()).unwrap()
    }

    #[test]
    fn the_same_report_writes_nothing() {
        let report = Report {
            registered: Verdict::yes(Reason::Registered, "m"),
            audience: Audience::Known(Verdict::failing(Reason::ScopeFailed, "x")),
        };
        let first = applied(&next(&[], &report, 1, at(1)).unwrap());
        assert_eq!(first.len(), 2);
        assert_eq!(next(&first, &report, 1, at(9)), None);
        let unlooked = Report::new(Verdict::yes(Reason::Registered, "m"));
        assert_eq!(next(&first, &unlooked, 1, at(9)), None, "what was not looked at stays");
        let newer = applied(&next(&first, &unlooked, 2, at(9)).unwrap());
        assert!(
            newer.iter().all(|said| said.observed_generation == Some(2)),
            "it holds for the new generation"
        );
        assert_eq!(newer[1].last_transition_time, Time(at(1)));
        let other = Report::new(Verdict::failing(Reason::KeycloakForbidden, "m"));
        let second = applied(&next(&first, &other, 1, at(9)).unwrap());
        assert_eq!(second.len(), 2, "an apply repeats what stays");
        let gone = Report { audience: Audience::Absent, ..other };
        assert_eq!(applied(&next(&second, &gone, 1, at(9)).unwrap()).len(), 1);
        assert!(applied(&withdrawn(&second).unwrap()).is_empty());
        assert_eq!(withdrawn(&[]), None);
    }

    #[test]
    fn the_time_moves_with_the_status() {
        let first = applied(&next(&[], &Report::new(Verdict::pending("a")), 1, at(1)).unwrap());
        let second = applied(&next(&first, &Report::new(Verdict::pending("b")), 1, at(2)).unwrap());
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        let third =
            applied(&next(&second, &Report::new(Verdict::off(Reason::UserProvided, "")), 2, at(3)).unwrap());
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }
}
