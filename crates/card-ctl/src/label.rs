//! The verified label and the per-card annotations of a workload (card §11). Pure.

use std::collections::BTreeMap;

use api_types::{
    card::{self, annotation, condition},
    names::label,
};
use controller_kit::workload::template_field;
use serde_json::{Map, Value, json};

use crate::{
    conditions::verdict_of,
    index::Card,
    renewal::{self, Cause},
    settings::LabelMode,
    verdict::Truth,
    workload::Workload,
};

/// What a card says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It is verified.
    Yes,
    /// It is not.
    No,
    /// Nothing new: as before.
    AsBefore,
    /// It was not looked at yet.
    NotYet,
}

/// What a card's stored verdict says about its workload.
pub fn says(card: &Card) -> Says {
    let verdict = verdict_of(&card.stored.status.conditions, condition::VERIFIED);
    let Some(verdict) = verdict.filter(|_| card.is_about_target()) else { return Says::NotYet };
    match verdict.truth {
        _ if verdict.is_audit() => Says::AsBefore,
        Truth::True => Says::Yes,
        Truth::Unknown if verdict.reason == card::reason::PENDING => Says::AsBefore,
        Truth::False | Truth::Unknown => Says::No,
    }
}

/// How a workload should be marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Annotations `verified-state...` by their name part.
    pub states: BTreeMap<String, String>,
    /// All cards are verified.
    pub verified: bool,
    /// One of them was not looked at yet, and no other stands against the label: it stays as it is, so that a new
    /// card does not take it off for a moment.
    pub undecided: bool,
}

/// Decides from all live cards of the workload. A workload that is no agent, or speaks no protocol, has no marks.
pub fn decide<'a>(workload: &Workload, cards: impl IntoIterator<Item = &'a Card>) -> Marks {
    let mut marks = Marks::default();
    if !workload.is_eligible() {
        return marks;
    }
    let mut all = true;
    let mut any = false;
    for card in cards.into_iter().filter(|card| !card.terminating) {
        let name = card::short(&card.key.name);
        let value = match says(card) {
            Says::Yes => Some("true".to_owned()),
            Says::No => Some("false".to_owned()),
            // What stands there is not of this verdict.
            Says::NotYet if !card.is_about_target() => None,
            Says::AsBefore | Says::NotYet => workload.states.get(&name).cloned(),
        };
        any = true;
        if says(card) == Says::NotYet && value.is_none() {
            marks.undecided = true;
        } else {
            all &= value.as_deref() == Some("true");
        }
        marks.states.extend(value.map(|value| (name, value)));
    }
    marks.undecided &= all;
    marks.verified = any && all && !marks.undecided;
    marks
}

/// What differs between a workload and what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Metadata annotations by full key; `None` removes.
    pub annotations: BTreeMap<String, Option<String>>,
    /// The template's label.
    pub label: Option<bool>,
    /// A restart.
    pub restart: Option<Cause>,
}

impl Changes {
    /// Differences of the marks. With label mode `pods` the template's label is only ever taken off.
    pub fn of(workload: &Workload, marks: &Marks, mode: LabelMode) -> Self {
        let key = |name: &String| format!("{}{name}", annotation::VERIFIED_STATE_PREFIX);
        let mut annotations = BTreeMap::new();
        for name in workload.states.keys().filter(|name| !marks.states.contains_key(*name)) {
            annotations.insert(key(name), None);
        }
        for (name, value) in
            marks.states.iter().filter(|(name, value)| workload.states.get(*name) != Some(value))
        {
            annotations.insert(key(name), Some(value.clone()));
        }
        if workload.has_legacy_state {
            annotations.insert(annotation::LAST_VERIFIED_STATE.to_owned(), None);
        }
        let has = workload.has_verified_label();
        let right =
            workload.template_labels.get(label::SIGNATURE_VERIFIED).is_some_and(|value| value == "true");
        let label = match (marks.verified, mode) {
            _ if marks.undecided => None,
            (true, LabelMode::Template) if !right => Some(true),
            (false, _) if has => Some(false),
            _ => None,
        };
        Self { annotations, label, restart: None }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes Pods be replaced for something that nobody is in danger without: takes a token (card §11.2).
    pub fn may_wait(&self) -> bool {
        self.label == Some(true) || self.restart.is_some()
    }

    /// Without what may wait.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        if self.label == Some(true) {
            self.label = None;
        }
        if self.restart.take().is_some() {
            // Goes along with the restart.
            self.annotations.remove(annotation::BUNDLE_HASH);
        }
        self
    }

    /// The JSON merge patch. Version and uid make it a patch of the object that was looked at.
    pub fn document(&self, workload: &Workload, now: jiff::Timestamp) -> Value {
        let mut metadata = json!({ "uid": workload.uid, "resourceVersion": workload.resource_version });
        if let (false, Some(map)) = (self.annotations.is_empty(), metadata.as_object_mut()) {
            map.insert("annotations".into(), json!(self.annotations));
        }
        let mut template = Map::new();
        if let Some(on) = self.label {
            let value = if on { json!("true") } else { Value::Null };
            template.insert("labels".into(), json!({ label::SIGNATURE_VERIFIED: value }));
        }
        if let Some(cause) = self.restart {
            let mut marks =
                Map::from_iter([(annotation::RESIGN_TRIGGER.to_owned(), json!(renewal::stamp(now)))]);
            if let Cause::Expiry(not_after) = cause {
                marks.insert(annotation::RESIGN_LEAF_EXPIRY.to_owned(), json!(renewal::stamp(not_after)));
            }
            template.insert("annotations".into(), Value::Object(marks));
        }
        let mut document = json!({ "metadata": metadata });
        if let (false, Some(map)) = (template.is_empty(), document.as_object_mut()) {
            let field = workload.key.workload_kind().map_or("template", template_field);
            map.insert("spec".into(), json!({ field: { "metadata": template } }));
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::WorkloadKind;
    use crate::{index::tests::card as indexed, workload::tests::workload};
    use rstest::rstest;

    const KEY: &str = "verified-state.agent.kagenti.dev/a";

    fn card_with(name: &str, verified: Option<(&str, &str)>) -> Card {
        let conditions: Vec<Value> = verified
            .into_iter()
            .map(|(status, reason)| {
                json!({"type": "Verified", "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        indexed(
            json!({"metadata": {"namespace": "team1", "name": name}, "status": {"conditions": conditions}}),
        )
    }

    fn agent(states: &[(&str, &str)], labelled: bool) -> Workload {
        let annotations: BTreeMap<String, &str> = states
            .iter()
            .map(|(name, value)| (format!("{}{name}", annotation::VERIFIED_STATE_PREFIX), *value))
            .collect();
        let labels = if labelled { json!({label::SIGNATURE_VERIFIED: "true"}) } else { json!({"app": "x"}) };
        workload(
            WorkloadKind::Deployment,
            json!({
                "metadata": {"labels": {"kagenti.io/type": "agent", "protocol.kagenti.io/a2a": ""},
                    "annotations": annotations, "resourceVersion": "7"},
                "spec": {"template": {"metadata": {"labels": labels}}},
            }),
        )
    }

    const TRUE: Option<(&str, &str)> = Some(("True", "SignatureVerified"));
    const FALSE: Option<(&str, &str)> = Some(("False", "SignatureInvalid"));
    const STALE: Option<(&str, &str)> = Some(("Unknown", "VerificationStale"));
    const PENDING: Option<(&str, &str)> = Some(("Unknown", "Pending"));
    const YET: Option<(&str, &str)> = Some(("Unknown", "NotVerifiedYet"));
    const AUDIT: Option<(&str, &str)> = Some(("False", "SignatureInvalidAudit"));

    /// Card §11.1: the label is the AND over all cards.
    #[rstest]
    #[case(&[("a", TRUE)], &[], true, &[("a", "true")])]
    #[case(&[("a", TRUE), ("b", FALSE)], &[], false, &[("a", "true"), ("b", "false")])]
    #[case(&[("a", TRUE), ("b", PENDING)], &[], false, &[("a", "true")])]
    #[case(&[("a", TRUE), ("b", None)], &[], false, &[("a", "true")])]
    #[case(&[("a", FALSE), ("b", None)], &[], false, &[("a", "false")])]
    #[case(&[("a", STALE)], &[("a", "true")], false, &[("a", "false")])]
    #[case::a_workload_that_came_back(&[("a", YET)], &[("a", "true")], false, &[("a", "false")])]
    #[case::audit_keeps_true(&[("a", AUDIT)], &[("a", "true")], true, &[("a", "true")])]
    #[case::audit_keeps_nothing(&[("a", AUDIT)], &[], false, &[])]
    #[case::audit_keeps_false(&[("a", AUDIT)], &[("a", "false")], false, &[("a", "false")])]
    #[case::no_card(&[], &[("a", "true")], false, &[])]
    fn marks(
        #[case] cards: &[(&str, Option<(&str, &str)>)],
        #[case] states: &[(&str, &str)],
        #[case] verified: bool,
        #[case] want: &[(&str, &str)],
    ) {
        let cards: Vec<Card> = cards.iter().map(|(name, verdict)| card_with(name, *verdict)).collect();
        let marks = decide(&agent(states, false), &cards);
        let want: BTreeMap<String, String> = want.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert_eq!((marks.verified, marks.states), (verified, want));
    }

    /// A second card must not take the label off for the moment until it is looked at.
    #[test]
    fn a_new_card_leaves_the_label_as_it_is() {
        for labelled in [true, false] {
            let workload = agent(&[("a", "true")], labelled);
            let marks = decide(&workload, &[card_with("a", TRUE), card_with("b", None)]);
            assert!(marks.undecided && Changes::of(&workload, &marks, LabelMode::Template).is_empty());
        }
        let marks = decide(&agent(&[], true), &[card_with("a", FALSE), card_with("b", None)]);
        assert!(!marks.undecided, "one says no");
    }

    /// A verdict is about one workload: a card that is pointed at another one brings it nothing, not even for a moment.
    #[test]
    fn a_verdict_does_not_move_to_another_workload() {
        let mut card = card_with("a", TRUE);
        let target = |name: &str| api_types::TargetRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: name.into(),
        };
        card.spec.target_ref = Some(target("w"));
        card.stored.status.target_ref = Some(target("w"));
        assert!(decide(&agent(&[], false), [&card]).verified);
        card.stored.status.target_ref = Some(target("former"));
        for states in [&[][..], &[("a", "true")]] {
            let marks = decide(&agent(states, false), [&card]);
            assert!(!marks.verified && marks.states.is_empty(), "{marks:?}");
        }
    }

    #[test]
    fn a_terminating_card_counts_for_nothing() {
        let mut card = card_with("a", TRUE);
        card.terminating = true;
        assert_eq!(decide(&agent(&[("a", "true")], true), [&card]), Marks::default());
    }

    /// Card §11.3: a workload that is no agent any more has no marks.
    #[test]
    fn what_is_no_agent_is_cleaned() {
        let mut workload = agent(&[("a", "true")], true);
        workload.is_agent = false;
        let changes =
            Changes::of(&workload, &decide(&workload, [&card_with("a", TRUE)]), LabelMode::Template);
        assert_eq!(changes.annotations, BTreeMap::from([(KEY.to_owned(), None)]));
        assert_eq!(changes.label, Some(false));
    }

    #[test]
    fn what_is_settled_is_left_alone() {
        let workload = agent(&[("a", "true")], true);
        let marks = decide(&workload, [&card_with("a", TRUE)]);
        assert!(Changes::of(&workload, &marks, LabelMode::Template).is_empty());
    }

    /// Card §11.2: adding the label may wait, taking it off may not; mode `pods` never adds it.
    #[test]
    fn only_additions_wait() {
        let yes = Marks { verified: true, ..Marks::default() };
        let add = Changes::of(&agent(&[], false), &yes, LabelMode::Template);
        assert_eq!((add.label, add.may_wait()), (Some(true), true));
        assert!(add.urgent().is_empty());
        assert!(Changes::of(&agent(&[], false), &yes, LabelMode::Pods).is_empty());
        let remove = Changes::of(&agent(&[], true), &Marks::default(), LabelMode::Pods);
        assert_eq!((remove.label, remove.may_wait()), (Some(false), false));
    }

    #[test]
    fn label_and_restart_are_one_patch() {
        let now = jiff::Timestamp::from_second(0).unwrap();
        let workload = agent(&[], false);
        let mut changes =
            Changes { label: Some(true), restart: Some(Cause::Expiry(now)), ..Changes::default() };
        changes.annotations.insert(KEY.into(), Some("true".into()));
        assert_eq!(
            changes.document(&workload, now),
            json!({
                "metadata": {"uid": "uid-1", "resourceVersion": "7", "annotations": {KEY: "true"}},
                "spec": {"template": {"metadata": {
                    "labels": {"agent.kagenti.dev/signature-verified": "true"},
                    "annotations": {
                        "agentcard.kagenti.dev/resign-trigger": "1970-01-01T00:00:00Z",
                        "agentcard.kagenti.dev/resign-leaf-expiry": "1970-01-01T00:00:00Z",
                    },
                }}},
            })
        );
    }
}
