//! Duplicate targets and the rest of the validators' own work (runtime §9.1, card §17.1, README
//! decision 27).

use std::sync::Arc;

use crate::api_server::{Call, Calls, Reply, api, refusal};
use api_types::{AgentCard, AgentRuntime};
use authbridge_webhook::{
    caches::Caches,
    live::Live,
    metrics::Metrics,
    review::{Answer, Request},
    server::endpoint::{Handler, Progress},
    validators::{CardValidator, RuntimeValidator, recent::Recent},
};
use controller_kit::scope::Scope;
use serde_json::{Value, json};
use tokio::time::Instant;

const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";

fn runtime(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
        "metadata": {"name": name, "namespace": "team1", "uid": name},
        "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
    })
}

fn card(name: &str, target: Option<&str>) -> Value {
    let mut card = json!({
        "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard",
        "metadata": {"name": name, "namespace": "team1", "uid": name}, "spec": {},
    });
    if let Some(target) = target {
        card["spec"]["targetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": target});
    }
    card
}

struct World {
    runtimes: RuntimeValidator,
    cards: CardValidator,
    caches: Arc<Caches>,
    calls: Calls,
}

fn world(answer: impl FnMut(&Call) -> Reply + Send + 'static) -> World {
    let (client, calls) = api(answer);
    let caches = Arc::new(Caches::default());
    let live = Arc::new(Live::new(client, Arc::new(Metrics::default())));
    World {
        runtimes: RuntimeValidator {
            caches: caches.clone(),
            live: live.clone(),
            recent: Recent::default(),
            scope: Scope::Cluster,
        },
        cards: CardValidator {
            caches: caches.clone(),
            live,
            recent: Recent::default(),
            scope: Scope::Cluster,
        },
        caches,
        calls,
    }
}

fn request(kind: &str, new: &Value, old: &Value) -> Request {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "agent.kagenti.dev", "version": "v1alpha1", "kind": kind},
        "namespace": "team1", "name": new["metadata"]["name"], "operation": operation,
        "object": new, "oldObject": old,
    }});
    Request::parse(body.to_string().as_bytes()).unwrap()
}

async fn ask(validator: &dyn Handler, request: Request) -> Answer {
    let deadline = Instant::now() + std::time::Duration::from_secs(4);
    validator.handle(request, Progress::new(deadline)).await
}

async fn create(world: &World, object: &Value) -> Answer {
    match object["kind"].as_str().unwrap() {
        "AgentCard" => ask(&world.cards, request("AgentCard", object, &Value::Null)).await,
        _ => ask(&world.runtimes, request("AgentRuntime", object, &Value::Null)).await,
    }
}

fn store(world: &World, object: Value) {
    match object["kind"].as_str().unwrap() {
        "AgentCard" => {
            world.caches.cards.put("team1", serde_json::from_value::<AgentCard>(object).unwrap().into());
        }
        _ => {
            world
                .caches
                .runtimes
                .put("team1", serde_json::from_value::<AgentRuntime>(object).unwrap().into());
        }
    }
}

#[tokio::test]
async fn a_duplicate_is_read_once_and_named() {
    let world = world(|_| runtime("first", "w").into());
    store(&world, runtime("first", "w"));
    let answer = create(&world, &runtime("second", "w")).await;
    assert!(!answer.allowed);
    assert_eq!(answer.message, "an AgentRuntime already targets Deployment w in namespace team1: first");
    assert_eq!(world.calls.take(), [format!("GET {RUNTIMES}/first")]);
    assert!(create(&world, &runtime("third", "other")).await.allowed);
    assert_eq!(world.calls.take(), [""; 0], "no duplicate, no request");
}

/// A stale entry refuses nobody: not found, being deleted, or another target by now.
#[tokio::test]
async fn a_stale_entry_refuses_nobody() {
    let mut dying = runtime("first", "w");
    dying["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for answer in [None, Some(dying), Some(runtime("first", "moved"))] {
        let world = world(move |_| answer.clone().map_or_else(|| refusal(404, "NotFound"), Reply::from));
        store(&world, runtime("first", "w"));
        assert!(create(&world, &runtime("second", "w")).await.allowed);
        assert_eq!(world.calls.take().len(), 1);
    }
}

#[tokio::test]
async fn a_read_error_lets_the_object_pass() {
    let world = world(|_| refusal(500, "InternalError"));
    store(&world, runtime("first", "w"));
    assert!(create(&world, &runtime("second", "w")).await.allowed);
}

/// What this replica admitted a moment ago counts although no watch event has come yet.
#[tokio::test(start_paused = true)]
async fn a_recent_admission_counts_for_ten_seconds() {
    let world = world(|_| runtime("first", "w").into());
    assert!(create(&world, &runtime("first", "w")).await.allowed);
    assert!(!create(&world, &runtime("second", "w")).await.allowed);
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert!(create(&world, &runtime("second", "w")).await.allowed, "the store speaks from now on");
}

/// With both present from before, metadata may change and either may go.
#[tokio::test]
async fn updates_that_leave_the_spec_alone_are_not_judged() {
    let world = world(|_| runtime("first", "w").into());
    store(&world, runtime("first", "w"));
    store(&world, runtime("second", "w"));
    let mut labelled = runtime("second", "w");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let same = request("AgentRuntime", &labelled, &runtime("second", "w"));
    assert!(ask(&world.runtimes, same).await.allowed);
    let mut dying = runtime("second", "changed");
    dying["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(ask(&world.runtimes, request("AgentRuntime", &dying, &runtime("second", "w"))).await.allowed);
    assert_eq!(world.calls.take(), [""; 0]);
    let mut changed = runtime("second", "w");
    changed["spec"]["mtlsMode"] = json!("strict");
    let real = request("AgentRuntime", &changed, &runtime("second", "w"));
    assert!(!ask(&world.runtimes, real).await.allowed, "a change of the spec is judged");
}

#[tokio::test]
async fn contradictions_are_refused_and_unknown_kinds_only_warned_about() {
    let world = world(|_| refusal(500, "InternalError"));
    let mut envoy = runtime("a", "w");
    envoy["spec"]["tlsBridgeMode"] = json!("enabled");
    envoy["spec"]["authBridgeMode"] = json!("envoy-sidecar");
    let answer = create(&world, &envoy).await;
    assert!(
        answer.message.starts_with("tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite")
    );
    let mut job = runtime("b", "w");
    job["spec"]["targetRef"]["kind"] = json!("Job");
    let answer = create(&world, &job).await;
    assert!(answer.allowed && answer.warnings.len() == 1);
    let mut newer = runtime("c", "w");
    newer["spec"]["type"] = json!({"a": "form of another release"});
    let answer = create(&world, &newer).await;
    assert!(answer.allowed && answer.warnings.len() == 1, "unreadable: the schema has judged it");
}

#[tokio::test]
async fn cards_need_a_target_of_their_own() {
    let world = world(|_| card("first", Some("w")).into());
    assert!(create(&world, &card("none", None)).await.message.contains("spec.targetRef is required"));
    store(&world, card("first", Some("w")));
    let answer = create(&world, &card("second", Some("w"))).await;
    assert_eq!(answer.message, "an AgentCard already targets Deployment w in namespace team1: first");
    let legacy = request("AgentCard", &card("old", None), &card("old", None));
    assert!(ask(&world.cards, legacy).await.allowed, "a legacy card can lose its finalizer");
}
