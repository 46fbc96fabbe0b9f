//! The status of an AgentRuntime (runtime §7). Pure.

pub use api_types::conditions::Truth;
use api_types::{
    AgentRuntimeStatus,
    conditions::{condition as find, set_condition},
    names::{condition, reason},
    phase::phase_of,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

/// Condition types that runtime-ctl owns.
pub const OWNED: [&str; 8] = [
    condition::TARGET_RESOLVED,
    condition::CONFIG_RESOLVED,
    condition::ISTIO_MESH_ENROLLED,
    condition::MTLS_READY,
    condition::IDENTITY_READY,
    condition::TLS_BRIDGE_READY,
    condition::PODS_CONFIGURED,
    condition::READY,
];

/// What one condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub truth: Truth,
    /// Reason, one of [`reason`].
    pub reason: &'static str,
    /// Object, field and remedy.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(truth: Truth, reason: &'static str, message: impl Into<String>) -> Self {
        Self { truth, reason, message: message.into() }
    }

    /// `True`.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Truth::True, reason, message)
    }

    /// `False`.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Truth::False, reason, message)
    }
}

/// What one pass found out. Conditions that were not decided are absent from the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    conditions: Vec<(&'static str, Verdict)>,
    /// Pods that run with the current configuration.
    pub configured_pods: i32,
    /// Skills of the workload.
    pub linked_skills: Vec<String>,
}

impl Report {
    /// Sets a condition; the last one counts.
    pub fn set(&mut self, condition: &'static str, verdict: Verdict) {
        self.conditions.retain(|(known, _)| *known != condition);
        self.conditions.push((condition, verdict));
    }

    /// What was decided about a condition.
    pub fn get(&self, condition: &str) -> Option<&Verdict> {
        self.conditions.iter().find(|(known, _)| *known == condition).map(|(_, verdict)| verdict)
    }
}

/// The longest condition message the schema allows, in bytes to be safe.
const LONGEST_MESSAGE: usize = 32_768;

/// The next status; `None` when it equals the present one in every field that runtime-ctl owns.
///
/// Transition times stay unless the status of a condition flips. A condition in `kept` that the pass did not decide
/// stays as it was.
pub fn next(
    old: Option<&AgentRuntimeStatus>,
    report: &Report,
    generation: i64,
    kept: &[&str],
    now: Timestamp,
) -> Option<AgentRuntimeStatus> {
    let empty = AgentRuntimeStatus::default();
    let old = old.unwrap_or(&empty);
    let before: Vec<Condition> =
        old.conditions.iter().filter(|c| OWNED.contains(&c.type_.as_str())).cloned().collect();
    let mut conditions = before.clone();
    conditions.retain(|c| report.get(&c.type_).is_some() || kept.contains(&c.type_.as_str()));
    for (condition, verdict) in &report.conditions {
        let next = Condition {
            type_: (*condition).to_owned(),
            status: verdict.truth.as_str().to_owned(),
            reason: verdict.reason.to_owned(),
            message: cut(&verdict.message, LONGEST_MESSAGE).to_owned(),
            observed_generation: Some(generation),
            last_transition_time: Time(now),
        };
        set_condition(&mut conditions, next, now);
    }
    // The order on the server is that of the last apply: only the set counts.
    let same_conditions = conditions.len() == before.len()
        && conditions.iter().all(|c| find(&before, &c.type_).is_some_and(|known| known == c));
    let phase = phase_of(&conditions);
    let next = AgentRuntimeStatus {
        observed_generation: Some(generation),
        phase: Some(phase),
        configured_pods: Some(report.configured_pods),
        linked_skills: Some(report.linked_skills.clone()),
        conditions,
        card: None,
    };
    let same = same_conditions
        && old.observed_generation == next.observed_generation
        && old.phase == next.phase
        && old.configured_pods == next.configured_pods
        && old.linked_skills.as_deref().unwrap_or_default() == report.linked_skills;
    (!same).then_some(next)
}

/// True when `next` differs from the present status only in how far a rollout has come.
///
/// Writing each step would cost a request per Pod and say nothing that lasts.
pub fn is_progress(old: Option<&AgentRuntimeStatus>, next: &AgentRuntimeStatus) -> bool {
    let rolling = |status: &AgentRuntimeStatus| {
        find(&status.conditions, condition::PODS_CONFIGURED)
            .filter(|c| c.reason == reason::ROLLOUT_IN_PROGRESS)
            .map(|c| c.message.clone())
    };
    let Some(old) = old else { return false };
    let (Some(message), Some(_)) = (rolling(old), rolling(next)) else { return false };
    let mut same = next.clone();
    same.configured_pods = old.configured_pods;
    same.card.clone_from(&old.card);
    for c in same.conditions.iter_mut().filter(|c| c.type_ == condition::PODS_CONFIGURED) {
        c.message.clone_from(&message);
    }
    let by_type = |status: &AgentRuntimeStatus| {
        let mut conditions = status.conditions.clone();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        conditions
    };
    by_type(&same) == by_type(old)
        && AgentRuntimeStatus { conditions: Vec::new(), ..same }
            == AgentRuntimeStatus { conditions: Vec::new(), ..old.clone() }
}

/// The fields of a status for server-side apply: those runtime-ctl owns, lists always present (runtime §6.1).
pub fn document(status: &AgentRuntimeStatus) -> Value {
    json!({
        "observedGeneration": status.observed_generation,
        "phase": status.phase,
        "configuredPods": status.configured_pods.unwrap_or_default(),
        "linkedSkills": status.linked_skills.clone().unwrap_or_default(),
        "conditions": status.conditions,
    })
}

/// True when status or reason of a condition differ between two statuses: only then there is an event (runtime §7.3).
pub fn turned(old: Option<&AgentRuntimeStatus>, next: &AgentRuntimeStatus, condition: &str) -> bool {
    let of = |status: &AgentRuntimeStatus| {
        find(&status.conditions, condition).map(|c| (c.status.clone(), c.reason.clone()))
    };
    old.and_then(of) != of(next)
}

/// Counting of Pods and workload, for condition PodsConfigured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Pods with the current configuration.
    pub configured: i32,
    /// Pods wanted.
    pub desired: i32,
    /// The workload's controller has seen the current generation.
    pub observed: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// The limiter has not given a token yet.
    pub queued: bool,
}

impl Rollout {
    /// Condition PodsConfigured.
    pub fn verdict(self) -> Verdict {
        let Self { configured, desired, observed, paused, queued } = self;
        let count = format!("{configured} of {desired} Pods run with the current configuration");
        if queued {
            Verdict::no(
                reason::ROLLOUT_QUEUED,
                "the restart waits for its turn (flag --rollout-qps limits how many workloads restart at a time)",
            )
        } else if desired == 0 {
            Verdict::yes(reason::NO_PODS, "the workload wants no Pods")
        } else if configured >= desired && observed {
            Verdict::yes(reason::ROLLOUT_COMPLETE, count)
        } else if paused {
            Verdict::no(
                reason::ROLLOUT_PAUSED,
                format!("{count}; the Deployment is paused, set spec.paused to false to go on"),
            )
        } else {
            Verdict::no(reason::ROLLOUT_IN_PROGRESS, count)
        }
    }
}

/// At most `limit` bytes, cut at a character boundary.
pub fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready() -> Report {
        let mut report = Report { configured_pods: 1, ..Report::default() };
        report.set(condition::TARGET_RESOLVED, Verdict::yes(reason::TARGET_FOUND, "Deployment w resolved"));
        report.set(condition::READY, Verdict::yes(reason::CONFIGURED, "done"));
        report
    }

    /// Runtime §6: an unchanged outcome writes nothing, however often it is found.
    #[test]
    fn the_same_outcome_is_no_change() {
        let first = next(None, &ready(), 1, &[], at(10)).unwrap();
        assert_eq!(first.phase, Some(api_types::Phase::Active));
        assert_eq!(next(Some(&first), &ready(), 1, &[], at(20)), None);
        // Fields of card-ctl and conditions of others do not count.
        let mut other = first.clone();
        other.linked_skills = None;
        other.conditions.push(Condition { type_: "Other".into(), ..other.conditions[0].clone() });
        other.conditions.reverse();
        assert_eq!(next(Some(&other), &ready(), 1, &[], at(20)), None);
        // A new generation is one, without a new transition time.
        let second = next(Some(&first), &ready(), 2, &[], at(20)).unwrap();
        assert_eq!(second.conditions[0].last_transition_time, Time(at(10)));
        assert_eq!(second.conditions[0].observed_generation, Some(2));
    }

    #[test]
    fn a_condition_that_was_not_decided_goes_unless_kept() {
        let first = next(None, &ready(), 1, &[], at(10)).unwrap();
        let mut lost = Report::default();
        lost.set(condition::READY, Verdict::no(reason::TARGET_NOT_FOUND, "gone"));
        let second = next(Some(&first), &lost, 1, &[], at(20)).unwrap();
        assert_eq!(second.conditions.len(), 1);
        assert_eq!(second.phase, Some(api_types::Phase::Error));
        assert_eq!(second.conditions[0].last_transition_time, Time(at(20)));
        let kept = next(Some(&first), &lost, 1, &[condition::TARGET_RESOLVED], at(20)).unwrap();
        assert_eq!(kept.conditions.len(), 2);
    }

    #[test]
    fn a_transition_is_a_new_status_or_reason_only() {
        let first = next(None, &ready(), 1, &[], at(10)).unwrap();
        assert!(turned(None, &first, condition::READY));
        let mut report = ready();
        report.set(condition::READY, Verdict::yes(reason::CONFIGURED, "other text"));
        let second = next(Some(&first), &report, 1, &[], at(20)).unwrap();
        assert!(!turned(Some(&first), &second, condition::READY));
        assert!(!turned(Some(&first), &second, condition::MTLS_READY));
    }

    #[test]
    fn the_steps_of_a_rollout_are_progress_and_its_end_is_not() {
        let at_step = |configured: i32, observed: bool| {
            let mut report = ready();
            report.configured_pods = configured;
            let rollout = Rollout { configured, desired: 3, observed, paused: false, queued: false };
            report.set(condition::PODS_CONFIGURED, rollout.verdict());
            report
        };
        let first = next(None, &at_step(0, false), 1, &[], at(10)).unwrap();
        assert!(!is_progress(None, &first));
        let second = next(Some(&first), &at_step(1, true), 1, &[], at(20)).unwrap();
        assert!(is_progress(Some(&first), &second));
        let third = next(Some(&first), &at_step(3, true), 1, &[], at(20)).unwrap();
        assert!(!is_progress(Some(&first), &third));
        let edited = next(Some(&first), &at_step(1, true), 2, &[], at(20)).unwrap();
        assert!(!is_progress(Some(&first), &edited));
    }

    #[test]
    fn lists_are_always_in_the_document() {
        let status = next(None, &ready(), 1, &[], at(10)).unwrap();
        let document = document(&status);
        assert_eq!(document["linkedSkills"], json!([]));
        assert_eq!(document["configuredPods"], json!(1));
        assert!(document.get("card").is_none());
    }

    #[rstest]
    #[case(1, 1, true, false, false, Truth::True, reason::ROLLOUT_COMPLETE)]
    #[case(2, 1, true, false, false, Truth::True, reason::ROLLOUT_COMPLETE)]
    #[case(0, 0, false, false, false, Truth::True, reason::NO_PODS)]
    #[case(1, 1, false, false, false, Truth::False, reason::ROLLOUT_IN_PROGRESS)]
    #[case(0, 1, true, true, false, Truth::False, reason::ROLLOUT_PAUSED)]
    #[case(1, 1, true, false, true, Truth::False, reason::ROLLOUT_QUEUED)]
    fn pods_configured(
        #[case] configured: i32,
        #[case] desired: i32,
        #[case] observed: bool,
        #[case] paused: bool,
        #[case] queued: bool,
        #[case] truth: Truth,
        #[case] want: &str,
    ) {
        let verdict = Rollout { configured, desired, observed, paused, queued }.verdict();
        assert_eq!((verdict.truth, verdict.reason), (truth, want));
    }
}
