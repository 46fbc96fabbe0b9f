//! Which AgentRuntimes are left, and what holds them. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use api_types::{
    AgentRuntime,
    names::{condition, finalizer, reason},
};
use controller_kit::watch::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, runtime::watcher::Event};
use serde::{Deserialize, Serialize};

use super::Stuck;

/// Objects that are described one by one.
const DESCRIBED: usize = 50;
/// Objects that the summary names.
const NAMED: usize = 10;

/// An AgentRuntime as read here. Nothing is ever written from this type.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = AgentRuntime)]
pub struct RuntimeView {
    /// Object metadata.
    #[serde(default, deserialize_with = "controller_kit::lean::metadata")]
    pub metadata: ObjectMeta,
    /// The part of the status that matters.
    #[serde(default)]
    pub status: StatusView,
}

/// The part of the status that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StatusView {
    /// Conditions.
    pub conditions: Option<Vec<ConditionView>>,
}

/// The part of a condition that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Reason in CamelCase.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

/// One object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its namespace and name.
    pub key: Key,
    /// Its uid: a younger object of the same name is another one.
    pub uid: String,
}

/// One object that is left.
#[derive(Debug)]
struct Left {
    uid: String,
    terminating: bool,
    finalizers: Vec<String>,
    /// What runtime-ctl says about a clean-up that failed.
    failed: Option<String>,
    /// What the API server said to the deletion.
    refused: Option<String>,
}

/// One place that is watched: the cluster, or a namespace.
#[derive(Debug, Default)]
struct Place {
    /// A list was complete at least once.
    listed: bool,
    /// What the running list has named.
    listing: HashSet<Key>,
    /// What is left here.
    left: BTreeMap<Key, Left>,
}

/// The AgentRuntimes of all places.
#[derive(Debug)]
pub struct Roll {
    places: Vec<Place>,
    seen: usize,
}

impl Roll {
    /// Nothing is known yet of `places` places.
    pub fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| Place::default()).collect(), seen: 0 }
    }

    /// Takes an event of the watch of a place; what it asks to delete.
    pub fn take(&mut self, place: usize, event: Event<RuntimeView>) -> Option<Order> {
        let seen = &mut self.seen;
        let place = self.places.get_mut(place)?;
        match event {
            Event::Init => {
                place.listing.clear();
                None
            }
            Event::InitApply(object) => {
                place.listing.insert(Key::of(&object));
                place.put(object, seen)
            }
            Event::InitDone => {
                let named = std::mem::take(&mut place.listing);
                place.left.retain(|key, _| named.contains(key));
                place.listed = true;
                None
            }
            Event::Apply(object) => place.put(object, seen),
            Event::Delete(object) => {
                place.left.remove(&Key::of(&object));
                None
            }
        }
    }

    /// The API server refused to delete an object.
    pub fn refused(&mut self, order: &Order, message: String) {
        for place in &mut self.places {
            if let Some(left) = place.left.get_mut(&order.key).filter(|left| left.uid == order.uid) {
                left.refused = Some(message);
                return;
            }
        }
    }

    /// True while the object has to be deleted still.
    pub fn wants(&self, order: &Order) -> bool {
        let found = self.places.iter().find_map(|place| place.left.get(&order.key));
        found.is_some_and(|left| left.uid == order.uid && !left.terminating)
    }

    /// True when every place was listed and nothing is left.
    pub fn is_done(&self) -> bool {
        self.places.iter().all(|place| place.listed && place.left.is_empty())
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.places.iter().map(|place| place.left.len()).sum()
    }

    /// How many there were.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// What is left after `waited`, what holds it, and what to do. `trouble` is what each watch last met, `home` the
    /// namespace of runtime-ctl.
    pub fn stuck(&self, waited: Duration, home: &str, trouble: &[Option<String>]) -> Stuck {
        let left = || self.places.iter().flat_map(|place| &place.left);
        let mut lines: Vec<String> = left()
            .take(DESCRIBED)
            .map(|(key, left)| format!("{key}: {}", left.describe(key, home)))
            .collect();
        let unseen = self.places.iter().zip(trouble).filter(|(place, _)| !place.listed);
        let unseen: Vec<&str> =
            unseen.map(|(_, text)| text.as_deref().unwrap_or("the API server does not answer")).collect();
        lines.extend(unseen.iter().map(|text| format!("cannot see what is left: {text}")));
        let count = self.left();
        if count > DESCRIBED {
            lines.push(format!("and {} more", count - DESCRIBED));
        }
        let mut names: Vec<String> = left().take(NAMED).map(|(key, _)| key.to_string()).collect();
        if count > NAMED {
            names.push(format!("and {} more", count - NAMED));
        }
        let mut summary = format!("{count} of {} AgentRuntimes are still there after {waited:?}", self.seen);
        if count > 0 {
            summary = format!("{summary}: {}", names.join(", "));
        }
        if !unseen.is_empty() {
            summary = format!("{summary}; not everything could be listed");
        }
        Stuck { lines, summary }
    }
}

impl Place {
    fn put(&mut self, object: RuntimeView, seen: &mut usize) -> Option<Order> {
        let key = Key::of(&object);
        let uid = object.metadata.uid.unwrap_or_default();
        let terminating = object.metadata.deletion_timestamp.is_some();
        let known = self.left.get(&key).filter(|left| left.uid == uid);
        let is_new = known.is_none();
        let failed = object
            .status
            .conditions
            .into_iter()
            .flatten()
            .find(|found| found.type_ == condition::READY && found.reason == reason::CLEANUP_FAILED);
        let left = Left {
            uid: uid.clone(),
            terminating,
            finalizers: object.metadata.finalizers.unwrap_or_default(),
            failed: failed.map(|found| found.message),
            refused: known.and_then(|left| left.refused.clone()).filter(|_| !terminating),
        };
        self.left.insert(key.clone(), left);
        *seen += usize::from(is_new);
        (is_new && !terminating).then_some(Order { key, uid })
    }
}

impl Left {
    fn describe(&self, key: &Key, home: &str) -> String {
        if let Some(message) = &self.refused {
            return format!("the API server refuses to delete it: {message}");
        }
        if !self.terminating {
            return "its deletion was not answered in time: run this again".to_owned();
        }
        let mut causes = Vec::new();
        if self.finalizers.iter().any(|name| name == finalizer::CLEANUP) {
            causes.push(self.failed.as_ref().map_or_else(
                || {
                    format!(
                        "runtime-ctl has not taken its finalizer {} off: is it running, and what does it say? kubectl \
                         -n {home} logs -l app.kubernetes.io/component=runtime-ctl",
                        finalizer::CLEANUP
                    )
                },
                |message| format!("runtime-ctl cannot clean its workload: {message}"),
            ));
        }
        let foreign: Vec<&str> =
            self.finalizers.iter().map(String::as_str).filter(|name| *name != finalizer::CLEANUP).collect();
        if !foreign.is_empty() {
            causes.push(format!(
                "finalizer {} is not ours: whoever set it has to take it off (by hand: kubectl -n {} edit agentruntime {})",
                foreign.join(", "),
                key.namespace,
                key.name
            ));
        }
        if causes.is_empty() {
            return "it is being deleted and has no finalizer any more: run this again".to_owned();
        }
        causes.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn runtime(name: &str, uid: &str, change: &Value) -> RuntimeView {
        let mut metadata = json!({"namespace": "team1", "name": name, "uid": uid});
        let mut status = json!({});
        for (key, value) in change.as_object().into_iter().flatten() {
            if key == "status" { status = value.clone() } else { metadata[key] = value.clone() }
        }
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn going(name: &str, finalizers: &[&str]) -> RuntimeView {
        runtime(name, name, &json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}))
    }

    fn listed(objects: impl IntoIterator<Item = RuntimeView>) -> (Roll, Vec<String>) {
        let mut roll = Roll::new(1);
        let events = std::iter::once(Event::Init)
            .chain(objects.into_iter().map(Event::InitApply))
            .chain(std::iter::once(Event::InitDone));
        let orders = events.filter_map(|event| roll.take(0, event)).map(|order| order.key.to_string());
        let orders = orders.collect();
        (roll, orders)
    }

    fn key(name: &str) -> Key {
        Key::new("team1", name)
    }

    #[test]
    fn each_object_is_deleted_once_and_waited_for() {
        let (mut roll, orders) =
            listed([runtime("a", "a", &json!({})), runtime("b", "b", &json!({})), going("c", &["x/y"])]);
        assert_eq!(orders, ["team1/a", "team1/b"], "c goes already");
        assert!(!roll.is_done());
        // Its status changes, it gets its deletionTimestamp: no second deletion.
        assert_eq!(roll.take(0, Event::Apply(runtime("a", "a", &json!({})))), None);
        assert_eq!(roll.take(0, Event::Apply(going("a", &[]))), None);
        for name in ["a", "b", "c"] {
            assert_eq!(roll.take(0, Event::Delete(going(name, &[]))), None);
        }
        assert!(roll.is_done());
        assert_eq!(roll.seen(), 3);
    }

    /// Made anew by somebody while the others go.
    #[test]
    fn a_younger_one_of_the_same_name_is_another_one() {
        let (mut roll, _) = listed([runtime("a", "1", &json!({}))]);
        let young = roll.take(0, Event::Apply(runtime("a", "9", &json!({})))).unwrap();
        assert_eq!((young.key.clone(), young.uid.as_str()), (key("a"), "9"));
        assert!(roll.wants(&young) && !roll.wants(&Order { key: key("a"), uid: "1".into() }));
    }

    #[test]
    fn a_new_list_says_what_went_unseen() {
        let (mut roll, _) = listed([runtime("a", "1", &json!({})), runtime("b", "2", &json!({}))]);
        for event in [Event::Init, Event::InitApply(going("b", &[])), Event::InitDone] {
            roll.take(0, event);
        }
        assert_eq!(roll.left(), 1);
        for event in [Event::Init, Event::InitDone] {
            roll.take(0, event);
        }
        assert!(roll.is_done());
    }

    #[test]
    fn a_place_that_was_never_listed_is_not_empty() {
        let mut roll = Roll::new(2);
        for event in [Event::Init, Event::InitDone] {
            roll.take(0, event);
        }
        assert!(!roll.is_done());
        let stuck =
            roll.stuck(Duration::from_secs(300), "ops", &[None, Some("not allowed to list x".into())]);
        assert_eq!(stuck.lines, ["cannot see what is left: not allowed to list x"]);
        let summary = "0 of 0 AgentRuntimes are still there after 300s; not everything could be listed";
        assert_eq!(stuck.summary, summary);
    }

    /// Packaging §15: the list of stuck objects says what holds each and what to do.
    #[rstest]
    #[case::foreign(going("a", &["example.com/hold"]), &["finalizer example.com/hold is not ours", "kubectl -n team1 edit agentruntime a"])]
    #[case::ours(going("a", &["kagenti.io/cleanup"]), &["runtime-ctl has not taken", "kubectl -n ops logs"])]
    #[case::both(going("a", &["kagenti.io/cleanup", "x/y"]), &["runtime-ctl has not", "finalizer x/y is not"])]
    #[case::failed(
        runtime("a", "1", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kagenti.io/cleanup"],
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "CleanupFailed", "message": "no way"}]}})),
        &["cannot clean its workload: no way"],
    )]
    #[case::not_answered(runtime("a", "1", &json!({})), &["not answered in time"])]
    fn what_holds_an_object(#[case] object: RuntimeView, #[case] says: &[&str]) {
        let (roll, _) = listed([object]);
        let stuck = roll.stuck(Duration::from_secs(300), "ops", &[None]);
        assert_eq!(stuck.summary, "1 of 1 AgentRuntimes are still there after 300s: team1/a");
        let [line] = stuck.lines.as_slice() else { panic!("{:?}", stuck.lines) };
        assert!(line.starts_with("team1/a: ") && says.iter().all(|word| line.contains(word)), "{line}");
    }

    #[test]
    fn a_refusal_is_told_until_the_object_goes() {
        let (mut roll, _) = listed([runtime("a", "1", &json!({}))]);
        let order = Order { key: key("a"), uid: "1".into() };
        roll.refused(&order, "webhook says no".into());
        roll.take(0, Event::Apply(runtime("a", "1", &json!({}))));
        let lines = roll.stuck(Duration::from_secs(1), "ops", &[None]).lines;
        assert_eq!(lines, ["team1/a: the API server refuses to delete it: webhook says no"]);
        roll.take(0, Event::Apply(runtime("a", "1", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))));
        assert!(!roll.stuck(Duration::from_secs(1), "ops", &[None]).lines[0].contains("refuses"));
    }

    /// The last words of a container are 2 KiB.
    #[test]
    fn the_summary_stays_short() {
        let objects = (0..100).map(|n| going(&format!("a-rather-long-name-of-an-agent-{n:03}"), &["x/y"]));
        let (roll, _) = listed(objects);
        let stuck = roll.stuck(Duration::from_secs(300), "ops", &[None]);
        assert_eq!(stuck.lines.len(), DESCRIBED + 1);
        assert!(stuck.summary.ends_with("and 90 more") && stuck.summary.len() < 1024, "{}", stuck.summary);
    }
}
