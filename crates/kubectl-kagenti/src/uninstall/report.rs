//! What was done, object by object. Pure.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::print::table;

use super::leftover::Leftover;
use super::stuck::Stuck;

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It would be worked on.
    Planned,
    /// That was its last finalizer: it is gone.
    Deleted,
    /// It can be deleted now.
    Released,
    /// Finalizers of others keep it.
    Held(Vec<String>),
    /// Somebody else was quicker.
    Gone,
    /// It is as it was, and why.
    Failed(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Planned => "would be removed",
            Self::Deleted => "deleted",
            Self::Released => "removed",
            Self::Held(_) => "removed, still held",
            Self::Gone => "gone already",
            Self::Failed(_) => "failed",
        }
    }

    /// What is still to be done about it.
    fn remark(&self) -> Option<String> {
        match self {
            Self::Held(others) => Some(format!(
                "finalizer {} is not the suite's: whoever set it has to take it off",
                others.join(", ")
            )),
            Self::Failed(why) if why.contains("failed calling webhook") => Some(format!(
                "{why}\n  kubectl delete mutatingwebhookconfigurations,validatingwebhookconfigurations -l \
                 app.kubernetes.io/part-of=kagenti-operator   # when the webhook is gone for good; then try again"
            )),
            Self::Failed(why) => Some(why.clone()),
            Self::Planned | Self::Deleted | Self::Released | Self::Gone => None,
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Planned => "planned",
            Self::Deleted => "deleted",
            Self::Released => "released",
            Self::Held(_) => "held",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        })
    }
}

/// An object and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    kind: &'static str,
    namespace: String,
    name: String,
    finalizers: Vec<&'static str>,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    stays_behind: Vec<Leftover>,
}

impl Done {
    pub(super) fn new(object: &Stuck, result: Outcome, stays_behind: Vec<Leftover>) -> Self {
        Self {
            kind: object.kind.as_str(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            finalizers: object.ours.clone(),
            message: result.remark(),
            result,
            stays_behind,
        }
    }

    fn row(&self) -> [String; 5] {
        let result = self.result.word().to_owned();
        [self.namespace.clone(), self.kind.to_owned(), self.name.clone(), self.finalizers.join(","), result]
    }
}

/// What would be done to an object.
pub(super) fn planned(object: &Stuck) -> Done {
    Done::new(object, Outcome::Planned, Vec::new())
}

/// The table that somebody says yes to.
pub(super) fn plan(wanted: &[Stuck]) -> String {
    let rows = wanted.iter().map(|object| {
        let [namespace, kind, name, finalizers, _] = planned(object).row();
        [namespace, kind, name, finalizers]
    });
    table(["NAMESPACE", "KIND", "NAME", "FINALIZERS"], rows)
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    dry_run: bool,
    /// One entry per object.
    pub(super) objects: Vec<Done>,
    /// Objects with a finalizer of the suite that nobody has deleted.
    not_deleted: usize,
    /// What could not be looked at.
    pub(super) unknown: Vec<String>,
}

impl Report {
    pub(super) fn new(dry_run: bool, not_deleted: usize, unknown: Vec<String>) -> Self {
        Self { dry_run, objects: Vec::new(), not_deleted, unknown }
    }

    /// Nothing waits any more, as far as could be seen, and all could be seen.
    pub(super) fn is_clean(&self) -> bool {
        let waits = |done: &Done| matches!(done.result, Outcome::Held(_) | Outcome::Failed(_));
        self.unknown.is_empty() && !self.objects.iter().any(waits)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = if self.objects.is_empty() {
            "No object waits for a finalizer of the suite.\n".to_owned()
        } else {
            let rows = self.objects.iter().map(Done::row);
            table(["NAMESPACE", "KIND", "NAME", "FINALIZERS", "RESULT"], rows)
        };
        let mut add = |line: String| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{line}");
        };
        if self.not_deleted > 0 {
            add(format!(
                "{} objects have a finalizer of the suite and are not being deleted: they stay as they are (--all \
                 takes it off them, too)\n",
                self.not_deleted
            ));
        }
        let remarks = self.objects.iter().filter_map(|done| Some((done, done.message.as_ref()?)));
        for (index, (done, message)) in remarks.enumerate() {
            if index == 0 {
                add("\nWhat is left to do:\n".to_owned());
            }
            add(format!("{} {}/{}: {message}\n", done.kind, done.namespace, done.name));
        }
        for (index, left) in self.objects.iter().flat_map(|done| &done.stays_behind).enumerate() {
            if index == 0 {
                add("\nWhat stays behind, and what takes it away:\n".to_owned());
            }
            add(left.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::leftover::{Workload, left_behind};
    use super::super::stuck::Kind;
    use super::super::stuck::tests::stuck;
    use super::*;

    fn runtime() -> Stuck {
        stuck(Kind::AgentRuntime, &["kagenti.io/cleanup", "x/y"], &json!({})).expect("stuck")
    }

    fn report(objects: Vec<Done>) -> Report {
        Report { objects, ..Report::new(false, 0, Vec::new()) }
    }

    #[test]
    fn a_table_then_what_is_left() {
        let object = runtime();
        let left = left_behind(&object, &Workload::There { enrolled: true, verified: false });
        let text = report(vec![Done::new(&object, Outcome::Held(vec!["x/y".into()]), left)]).text();
        let expected = "\
NAMESPACE   KIND           NAME      FINALIZERS           RESULT
team1       AgentRuntime   weather   kagenti.io/cleanup   removed, still held

What is left to do:
AgentRuntime team1/weather: finalizer x/y is not the suite's: whoever set it has to take it off

What stays behind, and what takes it away:
Deployment weather in namespace team1 stays labelled as an agent, its Pods keep their sidecars
  kubectl -n team1 patch deployment weather";
        assert!(text.starts_with(expected), "{text}");
    }

    /// Exit code 0 only when nothing waits, and all could be seen.
    #[rstest]
    #[case(Outcome::Deleted, true)]
    #[case(Outcome::Released, true)]
    #[case(Outcome::Gone, true)]
    #[case(Outcome::Planned, true)]
    #[case(Outcome::Held(vec!["x/y".into()]), false)]
    #[case(Outcome::Failed("no".into()), false)]
    fn clean_or_not(#[case] outcome: Outcome, #[case] clean: bool) {
        let mut report = report(vec![Done::new(&runtime(), outcome, Vec::new())]);
        assert_eq!(report.is_clean(), clean);
        report.unknown.push("which Secrets are stuck: needs the right to list secrets".into());
        assert!(!report.is_clean());
    }

    #[test]
    fn a_webhook_that_is_gone_has_a_remedy() {
        let why = "failed calling webhook \"vagentruntime.kb.io\": no endpoints";
        let text = report(vec![Done::new(&runtime(), Outcome::Failed(why.into()), Vec::new())]).text();
        assert!(
            text.contains("kubectl delete mutatingwebhookconfigurations,validatingwebhookconfigurations -l"),
            "{text}"
        );
    }

    #[test]
    fn scripts_get_one_entry_per_object() {
        let text = serde_json::to_value(report(vec![planned(&runtime())])).expect("JSON");
        let expected = json!({"dryRun": false, "notDeleted": 0, "unknown": [], "objects": [{
            "kind": "AgentRuntime", "namespace": "team1", "name": "weather",
            "finalizers": ["kagenti.io/cleanup"], "result": "planned", "staysBehind": [],
        }]});
        assert_eq!(text, expected);
    }
}
