//! Whose signature is renewed first, and what is told of it (card §12, §14.2).

use std::{sync::Arc, time::Duration};

use card_ctl::{index::ObjectKey, renewal::Renewal, settings::Settings};
use controller_kit::limiter::Turn;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::stage::{NS, Stage};

/// Card-ctl with the bundle of the vectors; its clock stands at 1970, where it also started.
fn checking(resign_qps: f64) -> Stage {
    let stage = Stage::with(Settings {
        enable_verified_fetch: false,
        enable_card_sync: false,
        require_a2a_signature: true,
        spire_trust_bundle_configmap: "bundle".into(),
        spire_trust_domain: "dev.cluster.local".into(),
        resign_qps,
        ..Settings::defaults()
    });
    let text = include_str!("../../../agent-trust/tests/vectors/card-vectors.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    stage.ctx.trust.load(vectors["trustBundles"]["spiffe-json"]["text"].as_str().unwrap());
    stage
}

/// An agent and its verified card, whose certificate ends so many minutes from now.
fn agent(stage: &Stage, name: &str, init_containers: Value, minutes: i64, inherited: bool) {
    let under: Arc<str> = stage.ctx.trust.known().fingerprint.unwrap();
    let annotations = json!({"agentcard.kagenti.dev/bundle-hash": &*under, format!("verified-state.agent.kagenti.dev/{name}"): "true"});
    let template = json!({"metadata": {"labels": {"agent.kagenti.dev/signature-verified": "true"}},
        "spec": {"initContainers": init_containers}});
    stage.agent(name, json!({"metadata": {"annotations": annotations}, "spec": {"template": template}}));
    let verified = json!([{"type": "Verified", "status": "True", "reason": "SignatureVerified", "message": "",
        "lastTransitionTime": "1970-01-01T00:00:00Z"}]);
    stage.card(name, name, json!({"status": {"conditions": verified}}));
    let not_after = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
    let renewal = Renewal::Valid { key_id: None, not_after, own_domain: true, under, inherited };
    stage.ctx.renewals.insert(ObjectKey::new(NS, name), renewal);
}

/// Card §12: the limiter serves the certificate that ends first, whoever asked first.
#[tokio::test(start_paused = true)]
async fn the_earliest_expiry_is_renewed_first() {
    let stage = checking(1.0);
    let signer = json!([{"name": "sign-agentcard", "image": "i"}]);
    for (name, minutes) in [("late", 20), ("early", 5), ("middle", 10)] {
        agent(&stage, name, signer.clone(), minutes, false);
    }
    for n in 0..20 {
        assert_eq!(
            stage.ctx.limiter.try_acquire(&Stage::target(&format!("other-{n}"))),
            Turn::Granted,
            "the burst"
        );
    }
    let names = ["late", "early", "middle"];
    for name in names {
        assert!(stage.agent_pass(name).await.is_empty(), "{name} waits");
    }
    let mut restarted = Vec::new();
    for _ in 0..names.len() {
        tokio::time::advance(Duration::from_secs(1)).await;
        for name in names {
            if !stage.agent_pass(name).await.is_empty() {
                restarted.push(name);
                break;
            }
        }
    }
    assert_eq!(restarted, ["early", "middle", "late"]);
}

/// Card §14.2: a restart of the process repeats no event, but one that nobody may have told is told.
#[tokio::test]
async fn what_must_be_signed_elsewhere_is_told_once() {
    for (minutes, inherited, told) in [(5, true, false), (5, false, true), (25, true, true)] {
        let stage = checking(0.0);
        agent(&stage, "echo", json!([]), minutes, inherited);
        assert!(stage.agent_pass("echo").await.is_empty());
        stage.agent_pass("echo").await;
        let want: &[&str] = if told { &["ResignRequired echo"] } else { &[] };
        assert_eq!(stage.events().await, want, "{minutes} {inherited}");
    }
}

/// Card §5.2: once per change; a process that finds it so was there before is none.
#[tokio::test]
async fn a_conflict_is_told_once() {
    let (old, new) = ("1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z");
    for (observed, created, told) in
        [(json!(1), old, false), (json!(0), old, true), (Value::Null, old, true), (json!(1), new, true)]
    {
        let stage = Stage::new();
        stage.agent("echo", json!({"metadata": {"creationTimestamp": created}}));
        stage.card("echo-deployment-card", "other", json!({"status": {"observedGeneration": observed}}));
        stage.agent_pass("echo").await;
        stage.agent_pass("echo").await;
        let want: &[&str] = if told { &["TargetRefConflict echo"] } else { &[] };
        assert_eq!(stage.events().await, want, "{observed} {created}");
    }
}
