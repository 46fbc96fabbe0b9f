//! Which policies the workloads of one name want (card §15.2, §15.3, §17.2). Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api_types::{duplicates::card_winner, enrolment::TargetKind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{
    card::{Card, Target},
    naming,
    verdict::{Mode, Verdict, outcome},
    workload::by_convention,
};

/// What is known of a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// It is an agent; its Pods are selected like this, if they can be told from others.
    Agent(Option<Arc<LabelSelector>>),
    /// It does not exist or is no agent.
    Absent,
}

/// One policy that has to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The workload.
    pub target: Target,
    /// The card that owns the policy.
    pub card: Arc<Card>,
    /// The name, unless it is a foreign object's.
    pub name: String,
    /// The name then.
    pub fallback: String,
    /// Selects the Pods.
    pub selector: Arc<LabelSelector>,
    /// What it lets through.
    pub mode: Mode,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In alphabetical order of the kinds: the first one has the plain name.
    pub wanted: Vec<Wanted>,
    /// When to look again.
    pub wait: Option<Duration>,
    /// Workloads that have cards and do not exist or are no agents.
    pub absent: Vec<Target>,
    /// Owners of policies that cannot be, because nothing selects the Pods.
    pub unselectable: Vec<Arc<Card>>,
}

impl Plan {
    /// True when a policy of this name is, or may be, one of them.
    pub fn claims(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == name || wanted.fallback == name)
    }
}

/// Plans for the workloads called `name` from all their cards. `workload` looks one up, `exists` says whether there is
/// a policy of ours with a name.
pub fn plan(
    name: &str,
    cards: &[Arc<Card>],
    workload: impl Fn(&Target, TargetKind) -> Workload,
    exists: impl Fn(&str) -> bool,
    delay: Duration,
    now: Timestamp,
) -> Plan {
    let mut by_target: BTreeMap<&Target, Vec<&Arc<Card>>> = BTreeMap::new();
    for card in cards.iter().filter(|card| !card.terminating) {
        if let Some(target) = &card.target {
            by_target.entry(target).or_default().push(card);
        }
    }
    let mut plan = Plan::default();
    let mut kinds = 0;
    for (target, cards) in by_target {
        let found = match TargetKind::of(&target.group, &target.kind) {
            Some(kind) => workload(target, kind),
            // It cannot be looked up, but card-ctl can, and says so.
            None if cards.iter().any(|card| card.verdict == Verdict::NoAgent) => Workload::Absent,
            None => Workload::Agent(Some(Arc::new(by_convention(name)))),
        };
        let Workload::Agent(selector) = found else {
            plan.absent.push(target.clone());
            continue;
        };
        let winner = card_winner(cards.iter().map(|card| card.claim()));
        let Some(card) = winner.and_then(|winner| cards.iter().find(|card| card.key.name == winner.name))
        else {
            continue;
        };
        let fallback = naming::fallback(name, &card.uid);
        let mut own = if kinds == 0 { naming::plain(name) } else { naming::of_kind(name, &target.kind) };
        kinds += 1;
        // Two groups may have kinds of one name.
        if plan.claims(&own) {
            own.clone_from(&fallback);
        }
        let outcome =
            outcome(cards.iter().map(|card| &***card), delay, exists(&own) || exists(&fallback), now);
        plan.wait = [plan.wait, outcome.wait].into_iter().flatten().min();
        let Some(mode) = outcome.mode else { continue };
        let card = Arc::clone(card);
        match selector {
            Some(selector) => {
                plan.wanted.push(Wanted {
                    target: target.clone(),
                    card,
                    name: own,
                    fallback,
                    selector,
                    mode,
                });
            }
            None => plan.unselectable.push(card),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::CardView;
    use rstest::rstest;
    use serde_json::json;

    fn card(name: &str, kind: &str, verified: &str, created: i64) -> Arc<Card> {
        let group = if BOTH.iter().any(|known| known.as_str() == kind) { "apps/v1" } else { "x.io/v1" };
        let created = Timestamp::from_second(created).unwrap().to_string();
        let view: CardView = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": format!("0000000{}-1", name.len()),
                "creationTimestamp": created},
            "spec": {"targetRef": {"apiVersion": group, "kind": kind, "name": "w"}},
            "status": {"conditions": [{"type": "Verified", "status": verified, "reason": "R"}]},
        }))
        .unwrap();
        Arc::new(Card::from_view(view))
    }

    fn of(cards: &[Arc<Card>], known: &[TargetKind]) -> Plan {
        let workload = |_: &Target, kind: TargetKind| {
            if known.contains(&kind) {
                Workload::Agent(Some(Arc::new(by_convention("w"))))
            } else {
                Workload::Absent
            }
        };
        plan("w", cards, workload, |_| false, Duration::ZERO, Timestamp::from_second(100).unwrap())
    }

    fn lines(plan: &Plan) -> Vec<String> {
        let line =
            |w: &Wanted| format!("{} {} {} {}", w.target.kind, w.name, w.card.key.name, w.mode.as_str());
        plan.wanted.iter().map(line).collect()
    }

    const BOTH: [TargetKind; 2] = [TargetKind::Deployment, TargetKind::StatefulSet];

    #[test]
    fn one_policy_for_all_cards_of_a_workload_owned_by_the_oldest() {
        let cards = [card("b", "Deployment", "True", 1), card("a", "Deployment", "False", 2)];
        assert_eq!(lines(&of(&cards, &BOTH)), ["Deployment w-signature-policy b restrictive"]);
    }

    /// Card §15.2: the first kind in alphabetical order keeps the plain name, whatever its verdict.
    #[rstest]
    #[case("True")]
    #[case("False")]
    fn two_kinds_of_one_name(#[case] verdict: &str) {
        let cards = [card("s", "StatefulSet", "True", 1), card("d", "Deployment", verdict, 2)];
        let got = of(&cards, &BOTH);
        assert_eq!(got.wanted[0].name, "w-signature-policy");
        assert_eq!(got.wanted[0].target.kind, "Deployment");
        assert_eq!(got.wanted[1].name, "w-statefulset-signature-policy");
        assert!(got.claims("w-statefulset-signature-policy") && !got.claims("w-deployment-signature-policy"));
    }

    /// A card of a workload that does not exist is no claim to the name.
    #[test]
    fn an_absent_workload_wants_nothing() {
        let cards = [card("s", "StatefulSet", "True", 1), card("d", "Deployment", "True", 2)];
        let got = of(&cards, &[TargetKind::StatefulSet]);
        assert_eq!(lines(&got), ["StatefulSet w-signature-policy s permissive"]);
        assert_eq!(got.absent.len(), 1);
        assert_eq!(of(&cards, &[]).wanted, []);
    }

    /// Card §15.2: a kind that cannot be looked up is selected by convention.
    #[test]
    fn other_kinds() {
        let got = of(&[card("x", "Thing", "True", 1)], &[]);
        assert_eq!(lines(&got), ["Thing w-signature-policy x permissive"]);
        assert_eq!(*got.wanted[0].selector, by_convention("w"));
        let mut gone = (*card("x", "Thing", "False", 1)).clone();
        gone.verdict = Verdict::NoAgent;
        assert_eq!(of(&[Arc::new(gone)], &[]).wanted, []);
    }

    /// Card §17.2: a terminating card counts for nothing.
    #[test]
    fn a_terminating_card_has_no_say() {
        let mut old = (*card("old", "Deployment", "False", 1)).clone();
        old.terminating = true;
        let cards = [Arc::new(old), card("new", "Deployment", "True", 2)];
        assert_eq!(lines(&of(&cards, &BOTH)), ["Deployment w-signature-policy new permissive"]);
        assert_eq!(of(&cards[..1], &BOTH), Plan::default());
    }

    #[test]
    fn without_selector_there_is_no_policy() {
        let cards = [card("c", "Deployment", "True", 1)];
        let none = |_: &Target, _| Workload::Agent(None);
        let got = plan("w", &cards, none, |_| false, Duration::ZERO, Timestamp::UNIX_EPOCH);
        assert!(got.wanted.is_empty());
        assert_eq!(got.unselectable.len(), 1);
    }
}
