//! Passes over AgentCards and AgentRuntimes.

use card_ctl::{context::Key, index::ObjectKey, settings::Settings};
use serde_json::json;

use crate::stage::{CARDS, DEPLOYMENTS, NS, RUNTIMES, Stage, lines, pair};

fn card() -> serde_json::Value {
    json!({"name": "echo", "url": "http://mine", "version": "1", "x-unknown": 1,
        "capabilities": {"extensions": [{"uri": "u", "params": {"n": 1.0, "gone": null}}]}})
}

/// Card §14.1: one status patch with the version that was read; the second pass makes no request at all, although the
/// card has numbers and nulls that the API server stores differently.
#[tokio::test]
async fn a_card_is_written_once() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.service("echo");
    stage.signed("echo", &card());
    stage.card("a", "echo", json!({}));
    let calls = stage.card_pass("a").await;
    assert_eq!(lines(&calls), [format!("PATCH {CARDS}/a/status")]);
    assert_eq!(calls[0].body["metadata"]["resourceVersion"], "102");
    assert_eq!(stage.condition("a", "Synced"), pair("True", "SyncSucceeded"));
    assert_eq!(stage.condition("a", "Ready"), pair("True", "ReadyToServe"));
    assert_eq!(stage.condition("a", "Verified"), None);
    let object = stage.object(&format!("{CARDS}/a"));
    assert_eq!(object["status"]["card"]["url"], "http://echo.team1.svc.cluster.local:8000");
    assert_eq!(object["status"]["advertisedURL"], "http://mine");
    assert_eq!(object["status"]["cardSource"], "ConfigMap");
    assert_eq!(object["status"]["card"]["capabilities"]["extensions"][0]["params"], json!({"n": 1}));
    assert!(stage.card_pass("a").await.is_empty());
}

/// Card §19: another leader's write is not overwritten; the next look works with it.
#[tokio::test]
async fn a_conflict_is_looked_at_again() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.service("echo");
    stage.signed("echo", &card());
    stage.card("a", "echo", json!({}));
    stage.change_unseen(&format!("{CARDS}/a"), json!({"metadata": {"labels": {"x": "y"}}}));
    let (calls, next) = stage.pass(Key::Card(ObjectKey::new(NS, "a"))).await;
    assert_eq!(lines(&calls), [format!("PATCH {CARDS}/a/status"), format!("GET {CARDS}/a")]);
    assert_eq!(next.unwrap(), Some(std::time::Duration::ZERO));
    assert_eq!(stage.card_pass("a").await.len(), 1);
    assert!(stage.card_pass("a").await.is_empty());
}

/// Card §11.3, §15.5: exactly the finalizers of the previous operator go, also from a card that is being deleted.
#[tokio::test]
async fn legacy_finalizers_are_stripped() {
    let stage = Stage::new();
    let finalizers = ["agentcard.kagenti.dev/finalizer", "x/y", "agentcard.kagenti.dev/network-policy"];
    stage.card(
        "a",
        "echo",
        json!({"metadata": {"finalizers": finalizers, "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let calls = stage.card_pass("a").await;
    assert_eq!(lines(&calls), [format!("PATCH {CARDS}/a")]);
    assert_eq!(calls[0].body["metadata"]["finalizers"], json!(["x/y"]));
    assert!(stage.card_pass("a").await.is_empty());
}

/// Card §6.1: "not there" and "no agent" are told apart by a live read.
#[tokio::test]
async fn a_workload_that_is_no_agent_is_read_live() {
    let stage = Stage::new();
    stage.card("a", "echo", json!({}));
    let calls = stage.card_pass("a").await;
    assert_eq!(lines(&calls), [format!("GET {DEPLOYMENTS}/echo"), format!("PATCH {CARDS}/a/status")]);
    assert_eq!(stage.condition("a", "Synced"), pair("False", "WorkloadNotFound"));
    stage.agent("echo", json!({"metadata": {"labels": {"kagenti.io/type": "tool"}}}));
    stage.card_pass("a").await;
    assert_eq!(stage.condition("a", "Synced"), pair("False", "NotAgentWorkload"));
}

/// Card §6.1, §6.2: each stop has its reason and writes once.
#[tokio::test]
async fn stops_are_told() {
    let stage = Stage::new();
    stage.agent("mute", json!({"metadata": {"labels": {"protocol.kagenti.io/a2a": null}}}));
    stage.agent(
        "mcp",
        json!({"metadata": {"labels": {"protocol.kagenti.io/a2a": null, "protocol.kagenti.io/mcp": ""}}}),
    );
    stage.agent("down", json!({"status": {"conditions": []}}));
    stage.agent("lonely", json!({}));
    for (name, reason) in [
        ("mute", "NoProtocol"),
        ("mcp", "ProtocolNotSupported"),
        ("down", "WorkloadNotReady"),
        ("lonely", "ServiceNotFound"),
    ] {
        stage.card(name, name, json!({}));
        stage.card_pass(name).await;
        assert_eq!(stage.condition(name, "Synced"), pair("False", reason));
        assert!(stage.card_pass(name).await.is_empty(), "{name}");
    }
}

/// Card §6.5: what must be fetched is ordered, and nothing is written until the answer is there.
#[tokio::test]
async fn a_fetch_is_waited_for() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.service("echo");
    stage.card("a", "echo", json!({}));
    stage.card("b", "echo", json!({}));
    assert!(stage.card_pass("a").await.is_empty());
    assert!(stage.card_pass("b").await.is_empty());
}

/// Card §18: the AgentRuntime gets the card of the same document, written once, with its change key.
#[tokio::test]
async fn a_runtime_gets_the_card() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.service("echo");
    stage.signed("echo", &card());
    stage.runtime("rt", "echo");
    let key = || Key::Runtime(ObjectKey::new(NS, "rt"));
    let (calls, _) = stage.pass(key()).await;
    assert_eq!(lines(&calls), [format!("PATCH {RUNTIMES}/rt/status"), format!("PATCH {RUNTIMES}/rt")]);
    assert_eq!(calls[0].body["status"].as_object().map(serde_json::Map::len), Some(1), "only card");
    let object = stage.object(&format!("{RUNTIMES}/rt"));
    assert_eq!(object["status"]["card"]["transportSecurity"], "http");
    assert_eq!(object["metadata"]["annotations"]["agent.kagenti.dev/last-card-fetch-hash"], "1");
    let (calls, _) = stage.pass(key()).await;
    assert!(calls.is_empty());
}

/// Card §18: switched off, the card is taken away, once.
#[tokio::test]
async fn discovery_can_be_switched_off() {
    let off = Settings { enable_card_discovery: false, enable_verified_fetch: false, ..Settings::defaults() };
    let stage = Stage::with(off);
    stage.runtime("rt", "echo");
    let (calls, _) = stage.pass(Key::Runtime(ObjectKey::new(NS, "rt"))).await;
    assert!(calls.is_empty(), "nothing to take away");
}
