//! Agents that come and go: how often they are asked, and how often their status is written (card §6.1, §11.2, §19).

use std::time::Duration;

use api_types::CardSource;
use card_ctl::{
    context::Key,
    fetch::FetchError,
    index::ObjectKey,
    observation::{Asked, Document},
    schedule::READY_AGAIN,
    settings::{LabelMode, Settings},
    source,
};
use serde_json::{Value, json};

use crate::stage::{CARDS, NS, Stage, lines, pair};

/// A Deployment that is, or is not, available.
fn available(ready: bool) -> Value {
    json!({"status": {"conditions": [{"type": "Available", "status": if ready { "True" } else { "False" }}]}})
}

fn stage() -> Stage {
    stage_with(Settings { enable_verified_fetch: false, resign_qps: 0.0, ..Settings::defaults() })
}

fn stage_with(settings: Settings) -> Stage {
    let stage = Stage::with(settings);
    stage.agent("echo", available(true));
    stage.service("echo");
    stage.card("a", "echo", json!({}));
    stage
}

/// The agent answers a fetch.
fn answer(stage: &Stage, result: Result<&str, FetchError>) {
    let target = Stage::target("echo");
    let workload = stage.ctx.index.workloads.get(&target).unwrap();
    let of = source::fingerprint(&workload, "echo.team1.svc.cluster.local", 8000, false);
    let template = workload.rolled_out.then(|| workload.template_hash.as_str().into());
    stage.ctx.observations.begin(&target, tokio::time::Instant::now());
    let document = result.map(|text| Some(Document::new(text.as_bytes().to_vec(), CardSource::Http, None)));
    assert!(stage.ctx.observations.end(&target, Asked { of, template }, document, None));
}

/// One pass: how many writes, and whether it ordered a fetch and waits for the answer.
async fn look(stage: &Stage) -> (usize, bool) {
    let (calls, next) = stage.pass(Key::Card(ObjectKey::new(NS, "a"))).await;
    (calls.len(), next.unwrap().is_none())
}

/// A hundred changes in ten seconds: asked and written each [`READY_AGAIN`] at most, and the status is true afterwards.
#[tokio::test(start_paused = true)]
async fn a_flapping_agent_is_asked_and_written_now_and_then() {
    let stage = stage();
    assert_eq!(look(&stage).await, (0, true), "the first fetch");
    answer(&stage, Ok(r#"{"name": "e"}"#));
    assert_eq!(look(&stage).await.0, 1);
    let (mut writes, mut fetches) = (0, 0);
    for turn in 0..100 {
        tokio::time::advance(Duration::from_millis(100)).await;
        stage.agent("echo", available(turn % 2 == 1));
        let (written, waits) = look(&stage).await;
        writes += written;
        if waits {
            fetches += 1;
            answer(&stage, Ok(r#"{"name": "e"}"#));
            writes += look(&stage).await.0;
        }
    }
    let bound = 10 / READY_AGAIN.as_secs() as usize + 1;
    assert!((1..=bound).contains(&fetches), "{fetches} fetches");
    assert!((1..=bound).contains(&writes), "{writes} writes");
    tokio::time::advance(READY_AGAIN).await;
    if look(&stage).await.1 {
        answer(&stage, Ok(r#"{"name": "e"}"#));
        look(&stage).await;
    }
    assert_eq!(stage.condition("a", "Synced"), pair("True", "SyncSucceeded"));
}

/// The first readiness after a quiet time is asked for at once, whatever the last answer was; an answer of a moment ago
/// counts until then.
#[tokio::test(start_paused = true)]
async fn readiness_after_a_while_is_asked_for_at_once() {
    let stage = stage();
    look(&stage).await;
    answer(&stage, Err(FetchError::Refused));
    look(&stage).await;
    assert_eq!(stage.condition("a", "Synced"), pair("False", "FetchFailed"));
    tokio::time::advance(Duration::from_secs(20)).await;
    stage.agent("echo", available(false));
    look(&stage).await;
    assert_eq!(stage.condition("a", "Synced"), pair("False", "WorkloadNotReady"));
    stage.agent("echo", available(true));
    assert_eq!(look(&stage).await, (0, true), "long before the 60 s of a failure are over");
    answer(&stage, Ok(r#"{"name": "e"}"#));
    tokio::time::advance(READY_AGAIN).await;
    look(&stage).await;
    assert_eq!(stage.condition("a", "Synced"), pair("True", "SyncSucceeded"));

    tokio::time::advance(Duration::from_secs(20)).await;
    answer(&stage, Ok(r#"{"name": "e"}"#));
    tokio::time::advance(Duration::from_secs(1)).await;
    stage.agent("echo", available(false));
    assert_eq!(look(&stage).await.0, 1);
    stage.agent("echo", available(true));
    let (calls, next) = stage.pass(Key::Card(ObjectKey::new(NS, "a"))).await;
    assert!(calls.is_empty());
    assert!(next.unwrap().is_some_and(|next| next <= READY_AGAIN), "it waits");
}

/// A changed pod template is asked at once, however short ago the last answer is.
#[tokio::test(start_paused = true)]
async fn a_changed_template_is_asked_at_once() {
    let stage = stage();
    look(&stage).await;
    answer(&stage, Ok(r#"{"name": "e"}"#));
    look(&stage).await;
    tokio::time::advance(Duration::from_millis(100)).await;
    let changed = json!({"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "new"}]}}}});
    stage.agent("echo", changed);
    assert_eq!(look(&stage).await, (0, true));
}

/// An edit of the card is answered at once, however the agent flaps.
#[tokio::test(start_paused = true)]
async fn an_edited_card_does_not_wait() {
    let stage = stage();
    look(&stage).await;
    answer(&stage, Ok(r#"{"name": "e"}"#));
    look(&stage).await;
    stage.agent("echo", available(false));
    assert_eq!(look(&stage).await.0, 1);
    stage.agent("echo", available(true));
    assert_eq!(look(&stage).await.0, 0, "it was just told that it is not ready");
    let stored = stage.object(&format!("{CARDS}/a"));
    stage.card("a", "echo", json!({"metadata": {"generation": 2}, "status": stored["status"]}));
    assert_eq!(look(&stage).await.0, 1);
    assert_eq!(stage.object(&format!("{CARDS}/a"))["status"]["observedGeneration"], 2);
}

/// Card §11.2: an answer from before the rollout was over says nothing about the new Pods.
#[tokio::test(start_paused = true)]
async fn a_new_template_counts_once_its_pods_were_asked() {
    let stage = stage_with(Settings {
        enable_verified_fetch: false,
        require_a2a_signature: true,
        spire_trust_bundle_configmap: "bundle".into(),
        spire_trust_domain: "dev.cluster.local".into(),
        x5c_leaf_expiry_policy: agent_trust::verify::LeafExpiry::Ignore,
        verified_label_mode: LabelMode::Pods,
        ..Settings::defaults()
    });
    let vectors: Value =
        serde_json::from_str(include_str!("../../../agent-trust/tests/vectors/card-vectors.json")).unwrap();
    stage.ctx.trust.load(vectors["trustBundles"]["spiffe-json"]["text"].as_str().unwrap());
    let card = vectors["verification"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["id"] == "es256-legacy")
        .unwrap()["card"]
        .as_str()
        .unwrap();
    let hash = |stage: &Stage| stage.object(&format!("{CARDS}/a"))["status"]["verifiedTemplateHash"].clone();
    let rolled_out = json!({"replicas": 1, "updatedReplicas": 1});
    stage.agent("echo", json!({"status": rolled_out}));
    look(&stage).await;
    answer(&stage, Ok(card));
    look(&stage).await;
    assert_eq!(stage.condition("a", "Verified"), pair("True", "SignatureVerified"));
    let first = hash(&stage);
    assert!(first.is_string(), "{first}");

    let image = json!({"template": {"spec": {"containers": [{"name": "x", "image": "new"}]}}});
    stage.agent("echo", json!({"spec": image, "status": {"replicas": 2, "updatedReplicas": 1}}));
    assert_eq!(look(&stage).await, (0, true));
    answer(&stage, Ok(card));
    look(&stage).await;
    stage.agent("echo", json!({"spec": image, "status": rolled_out}));
    let (calls, next) = stage.pass(Key::Card(ObjectKey::new(NS, "a"))).await;
    assert_eq!(lines(&calls), [""; 0]);
    assert!(next.unwrap().is_some_and(|next| next <= READY_AGAIN), "it is asked soon");
    assert_eq!(hash(&stage), first, "an old Pod may have answered");
    answer(&stage, Ok(card));
    look(&stage).await;
    assert_ne!(hash(&stage), first);
}
