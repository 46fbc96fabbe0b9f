//! AgentCards that cannot be read (card §19).

use card_ctl::{context::Key, index::ObjectKey};
use controller_kit::watch::Undecodable;
use serde_json::{Value, json};

use crate::stage::{CARDS, NS, Stage, lines, pair};

const CARD: &str = "echo-deployment-card";

fn unreadable(stage: &Stage, name: &str) {
    let bad = Undecodable {
        namespace: NS.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        generation: Some(1),
        error: "spec.syncPeriod: invalid type: integer `5`, expected a string".into(),
    };
    let key = ObjectKey::new(NS, name);
    stage.ctx.undecodable.insert(key.clone(), bad);
    stage.ctx.index.cards.remove(&key);
}

/// The user sees what is wrong, once; nothing that was verified stays.
#[tokio::test]
async fn an_unreadable_card_says_so_once() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    let verified = json!([{"type": "Verified", "status": "True", "reason": "SignatureVerified", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    stage.card("a", "echo", json!({"status": {"validSignature": true, "conditions": verified}}));
    unreadable(&stage, "a");
    let calls = stage.card_pass("a").await;
    assert_eq!(lines(&calls), [format!("GET {CARDS}/a"), format!("PATCH {CARDS}/a/status")]);
    assert_eq!(stage.condition("a", "Synced"), pair("False", "InvalidSpec"));
    assert_eq!(stage.condition("a", "Ready"), pair("False", "SyncFailed"));
    assert_eq!(stage.condition("a", "Verified"), None, "no mechanism is on");
    assert_eq!(stage.object(&format!("{CARDS}/a"))["status"]["validSignature"], Value::Null);
    assert_eq!(lines(&stage.card_pass("a").await), [format!("GET {CARDS}/a")]);
}

/// Card §11.3, §15.5: it stays deletable.
#[tokio::test]
async fn an_unreadable_card_loses_legacy_finalizers() {
    let stage = Stage::new();
    stage.card(
        "a",
        "echo",
        json!({"metadata": {"finalizers": ["x/y", "agentcard.kagenti.dev/finalizer"],
            "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    unreadable(&stage, "a");
    let calls = stage.card_pass("a").await;
    assert_eq!(lines(&calls), [format!("GET {CARDS}/a"), format!("PATCH {CARDS}/a")]);
    assert_eq!(calls[1].body["metadata"]["finalizers"], json!(["x/y"]));
    assert_eq!(lines(&stage.card_pass("a").await), [format!("GET {CARDS}/a")]);
}

/// Card §5.2: the own card is there, so none is made.
#[tokio::test]
async fn an_unreadable_own_card_is_not_made_again() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.card(CARD, "echo", json!({}));
    unreadable(&stage, CARD);
    assert!(stage.agent_pass("echo").await.is_empty());
}

/// What is gone is forgotten.
#[tokio::test]
async fn an_unreadable_card_that_is_gone_is_forgotten() {
    let stage = Stage::new();
    unreadable(&stage, "a");
    let (calls, next) = stage.pass(Key::Card(ObjectKey::new(NS, "a"))).await;
    assert_eq!((lines(&calls), next.unwrap()), (vec![format!("GET {CARDS}/a")], None));
    assert!(stage.ctx.undecodable.get(&ObjectKey::new(NS, "a")).is_none());
}
