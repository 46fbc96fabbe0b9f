//! Several AgentRuntimes or AgentCards for one workload: who wins (runtime §9.2, card §17.2).

use std::cmp::Ordering;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{AgentCard, AgentRuntime, TargetRef, names};

/// One object that claims a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Its name.
    pub name: &'a str,
    /// `metadata.creationTimestamp`; an object without one counts as the newest.
    pub created: Option<Timestamp>,
    /// It has a deletionTimestamp and counts for nothing.
    pub terminating: bool,
    /// AgentCards only: made by card-ctl (label `managed-by=kagenti-operator`), so a manual one goes first.
    pub automatic: bool,
}

impl<'a> Claim<'a> {
    /// The claim of an AgentRuntime.
    pub fn of_runtime(runtime: &'a AgentRuntime) -> Self {
        Self {
            name: runtime.metadata.name.as_deref().unwrap_or_default(),
            created: runtime.metadata.creation_timestamp.as_ref().map(|time| time.0),
            terminating: runtime.metadata.deletion_timestamp.is_some(),
            automatic: false,
        }
    }

    /// The claim of an AgentCard.
    pub fn of_card(card: &'a AgentCard) -> Self {
        Self {
            name: card.metadata.name.as_deref().unwrap_or_default(),
            created: card.metadata.creation_timestamp.as_ref().map(|time| time.0),
            terminating: card.metadata.deletion_timestamp.is_some(),
            automatic: card.labels().get(names::label::MANAGED_BY).map(String::as_str)
                == Some(names::MANAGED_BY_OPERATOR),
        }
    }

    fn age_then_name(&self, other: &Self) -> Ordering {
        let key = |claim: &Self| claim.created.unwrap_or(Timestamp::MAX);
        key(self).cmp(&key(other)).then_with(|| self.name.cmp(other.name))
    }
}

/// The AgentRuntime that owns the workload (runtime §9.2): of those not being deleted the oldest, then the
/// smallest name. Independent of the order of `claims`.
pub fn runtime_winner<'a>(claims: impl IntoIterator<Item = Claim<'a>>) -> Option<Claim<'a>> {
    claims.into_iter().filter(|claim| !claim.terminating).min_by(Claim::age_then_name)
}

/// The AgentCard that speaks for the workload (card §17.2): manual before automatic, then oldest, then smallest
/// name; those being deleted count for nothing. Independent of the order of `claims`.
pub fn card_winner<'a>(claims: impl IntoIterator<Item = Claim<'a>>) -> Option<Claim<'a>> {
    claims
        .into_iter()
        .filter(|claim| !claim.terminating)
        .min_by(|a, b| a.automatic.cmp(&b.automatic).then_with(|| a.age_then_name(b)))
}

/// Same group, kind and name; the version is ignored (runtime §7.4). An apiVersion that cannot be parsed equals
/// only itself.
pub fn same_target(a: &TargetRef, b: &TargetRef) -> bool {
    a.kind == b.kind
        && a.name == b.name
        && match (a.group(), b.group()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a.api_version == b.api_version,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn claim(name: &'static str, second: Option<i64>, terminating: bool, automatic: bool) -> Claim<'static> {
        let created = second.map(|second| Timestamp::from_second(second).expect("in range"));
        Claim { name, created, terminating, automatic }
    }

    /// Runtime §9.2, in any order.
    #[rstest]
    #[case::oldest(&[("b", Some(1), false), ("a", Some(2), false)], Some("b"))]
    #[case::name(&[("b", Some(1), false), ("a", Some(1), false)], Some("a"))]
    #[case::terminating(&[("b", Some(1), true), ("a", Some(2), false)], Some("a"))]
    #[case::no_time(&[("a", None, false), ("b", Some(9), false)], Some("b"))]
    #[case::none(&[("a", Some(1), true)], None)]
    fn runtime(#[case] claims: &[(&'static str, Option<i64>, bool)], #[case] winner: Option<&str>) {
        let claims: Vec<_> = claims.iter().map(|(n, t, d)| claim(n, *t, *d, false)).collect();
        assert_eq!(runtime_winner(claims.iter().copied()).map(|c| c.name), winner);
        assert_eq!(runtime_winner(claims.iter().rev().copied()).map(|c| c.name), winner);
    }

    /// Card §17.2: manual before automatic.
    #[rstest]
    #[case(&[("auto", 1, true), ("manual", 2, false)], "manual")]
    #[case(&[("auto2", 2, true), ("auto1", 1, true)], "auto1")]
    #[case(&[("m2", 1, false), ("m1", 1, false), ("a0", 0, true)], "m1")]
    fn card(#[case] claims: &[(&'static str, i64, bool)], #[case] winner: &str) {
        let claims: Vec<_> = claims.iter().map(|(n, t, a)| claim(n, Some(*t), false, *a)).collect();
        assert_eq!(card_winner(claims.iter().copied()).map(|c| c.name), Some(winner));
        assert_eq!(card_winner(claims.iter().rev().copied()).map(|c| c.name), Some(winner));
    }

    #[rstest]
    #[case("apps/v1", "apps/v1beta2", true)]
    #[case("v1", "v1beta1", true)]
    #[case("apps/v1", "v1", false)]
    #[case("a/b/c", "a/b/c", true)]
    #[case("a/b/c", "a/v1", false)]
    fn targets_ignore_the_version(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
        let target = |api_version: &str| TargetRef {
            api_version: api_version.into(),
            kind: "Deployment".into(),
            name: "x".into(),
        };
        assert_eq!(same_target(&target(a), &target(b)), same);
        assert!(!same_target(&target(a), &TargetRef { name: "y".into(), ..target(a) }));
        assert!(!same_target(&target(a), &TargetRef { kind: "StatefulSet".into(), ..target(a) }));
    }
}
