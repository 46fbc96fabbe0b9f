//! `unenroll`: what is asked of the API server, and when it ends (packaging §15).

use std::{collections::VecDeque, time::Duration};

use controller_kit::scope::Scope;
use http::{Method, StatusCode};
use runtime_ctl::unenroll::{self, Stuck};
use scripted_api::{Call, Calls, Reply, client, refusal};
use serde_json::{Value, json};

const ALL: &str = "/apis/agent.kagenti.dev/v1alpha1/agentruntimes";

fn runtime(name: &str, going: bool) -> Value {
    let mut metadata = json!({"namespace": "team1", "name": name, "uid": format!("uid-{name}"),
        "resourceVersion": "5", "finalizers": ["example.com/hold"]});
    if going {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    json!({"apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime", "metadata": metadata, "spec": {}})
}

fn event(kind: &str, name: &str) -> Value {
    json!({"type": kind, "object": runtime(name, true)})
}

fn list(items: &[Value]) -> Reply {
    json!({"kind": "AgentRuntimeList", "apiVersion": "agent.kagenti.dev/v1alpha1",
        "metadata": {"resourceVersion": "10"}, "items": items})
    .into()
}

/// What the server says.
#[derive(Default)]
struct Script {
    /// Objects of every list.
    items: Vec<Value>,
    /// What watches then tell, one event per connection.
    events: VecDeque<Value>,
    /// Refusals of the first deletions.
    refusals: VecDeque<Reply>,
}

impl Script {
    fn new(items: &[&str], events: &[(&str, &str)]) -> Self {
        let items = items.iter().map(|name| runtime(name, false)).collect();
        let events = events.iter().map(|(kind, name)| event(kind, name)).collect();
        Self { items, events, ..Self::default() }
    }

    fn refusing(mut self, reply: Reply) -> Self {
        self.refusals.push_back(reply);
        self
    }

    async fn run(mut self, scope: &Scope, within: Duration) -> (Result<usize, Stuck>, Calls) {
        let (client, calls) = client(move |call| {
            let watch = call.query.contains("watch=true");
            match call.method {
                Method::GET if watch => self.events.pop_front().map_or(Reply::Never, Reply::from),
                Method::GET => list(&self.items),
                Method::DELETE => self.refusals.pop_front().unwrap_or_else(|| runtime("x", true).into()),
                _ => refusal(405, "MethodNotAllowed", "only reads and deletions"),
            }
        });
        (unenroll::run(&client, scope, "ops", 2, within, |_| {}).await, calls)
    }
}

fn deletions(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.method == Method::DELETE).collect()
}

/// One list and one watch for all objects, one deletion each, of the object that was seen.
#[tokio::test(start_paused = true)]
async fn everything_goes_with_one_deletion_each() {
    let names = ["a", "b", "c"];
    let events = names.iter().flat_map(|name| [("MODIFIED", *name), ("DELETED", *name)]).collect::<Vec<_>>();
    let (done, calls) = Script::new(&names, &events).run(&Scope::Cluster, Duration::from_secs(300)).await;
    assert_eq!(done, Ok(3));
    let calls = calls.take();
    let lists = calls.iter().filter(|call| call.method == Method::GET && !call.query.contains("watch=true"));
    assert_eq!(lists.map(|call| call.path.as_str()).collect::<Vec<_>>(), [ALL]);
    assert!(calls[0].query.contains("limit="), "pages: {}", calls[0].query);
    let mut deleted: Vec<String> = deletions(&calls).iter().map(|call| call.line()).collect();
    deleted.sort_unstable();
    let wanted = names
        .map(|name| format!("DELETE /apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes/{name}"));
    assert_eq!(deleted, wanted);
    let uids = deletions(&calls).into_iter().all(|call| {
        let name = call.path.rsplit('/').next().unwrap();
        call.body["preconditions"]["uid"] == format!("uid-{name}")
    });
    assert!(uids, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_is_done_at_once() {
    let (done, calls) = Script::new(&[], &[]).run(&Scope::Cluster, Duration::from_secs(300)).await;
    assert_eq!(done, Ok(0));
    assert!(deletions(&calls.take()).is_empty());
}

/// Only the namespaces of the release are looked at.
#[tokio::test(start_paused = true)]
async fn a_list_of_namespaces_is_kept_to() {
    let scope = Scope::parse("team1,team2").unwrap();
    let (done, calls) = Script::new(&[], &[]).run(&scope, Duration::from_secs(300)).await;
    assert_eq!(done, Ok(0));
    let calls = calls.take();
    assert!(calls.iter().all(|call| call.path.contains("/namespaces/team")), "{calls:?}");
}

/// What is refused once is tried again; what stays is named, with what holds it.
#[tokio::test(start_paused = true)]
async fn stuck_objects_are_named() {
    let script = Script::new(&["a", "b"], &[("DELETED", "a"), ("MODIFIED", "b")]).refusing(refusal(
        500,
        "InternalError",
        "later",
    ));
    let (done, calls) = script.run(&Scope::Cluster, Duration::from_secs(60)).await;
    let stuck = done.unwrap_err();
    assert_eq!(stuck.summary, "1 of 2 AgentRuntimes are still there after 60s: team1/b");
    assert!(stuck.lines[0].contains("finalizer example.com/hold is not ours"), "{:?}", stuck.lines);
    let calls = calls.take();
    assert!((2..=3).contains(&deletions(&calls).len()), "one more than objects at most: {calls:?}");
}

/// The first tries are quick, later ones seldom: a refusal that lasts is no storm.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_lasts_is_told() {
    let mut script = Script::new(&["a"], &[]);
    for _ in 0..1000 {
        script = script.refusing(refusal(403, "Forbidden", "a webhook says no"));
    }
    let (done, calls) = script.run(&Scope::Cluster, Duration::from_secs(300)).await;
    let stuck = done.unwrap_err();
    assert_eq!(stuck.lines, ["team1/a: the API server refuses to delete it: a webhook says no"]);
    let count = deletions(&calls.take()).len();
    assert!((5..=30).contains(&count), "{count} deletions in five minutes");
}

/// Definitions that are not installed any more: there is nothing to take out.
#[tokio::test(start_paused = true)]
async fn without_definitions_there_is_nothing() {
    let (client, _) = client(|_| {
        Reply::Now(
            StatusCode::NOT_FOUND,
            json!({"kind": "Status", "apiVersion": "v1",
        "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound", "message": "no such resource"}),
        )
    });
    let done = unenroll::run(&client, &Scope::Cluster, "ops", 8, Duration::from_secs(60), |_| {}).await;
    assert_eq!(done, Ok(0));
}

/// A missing right: the answer is not "nothing there".
#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named() {
    let (client, _) = client(|_| refusal(403, "Forbidden", "agentruntimes is forbidden"));
    let done = unenroll::run(&client, &Scope::Cluster, "ops", 8, Duration::from_secs(60), |_| {}).await;
    let stuck = done.unwrap_err();
    assert!(
        stuck.lines[0].contains("not allowed to list agentruntimes.agent.kagenti.dev"),
        "{:?}",
        stuck.lines
    );
}
