//! Passes over workloads: cards that are made, labels, restarts.

use std::sync::Arc;

use card_ctl::{context::Key, index::ObjectKey, kinds::TargetKey, settings::Settings};
use serde_json::{Value, json};

use crate::stage::{CARDS, DEPLOYMENTS, NS, Stage, lines, pair};

const CARD: &str = "echo-deployment-card";
const STATE: &str = "verified-state.agent.kagenti.dev/echo-deployment-card";

fn checking() -> Stage {
    Stage::with(Settings {
        enable_verified_fetch: false,
        require_a2a_signature: true,
        spire_trust_bundle_configmap: "bundle".into(),
        resign_qps: 0.0,
        ..Settings::defaults()
    })
}

fn verdict(status: &str, reason: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Verified", "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// A card that its workload owns, as card-ctl makes it.
fn owned(change: Value) -> Value {
    let mut object = json!({"metadata": {
        "labels": {"app.kubernetes.io/managed-by": "kagenti-operator"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo", "uid": "uid-echo",
            "controller": true, "blockOwnerDeletion": true}],
    }});
    if let (Some(into), Some(from)) = (object.as_object_mut(), change.as_object()) {
        into.extend(from.clone());
    }
    object
}

/// Card §5.1: the card is made once.
#[tokio::test]
async fn a_card_is_made_once() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    assert_eq!(lines(&stage.agent_pass("echo").await), [format!("POST {CARDS}")]);
    let card = stage.object(&format!("{CARDS}/{CARD}"));
    assert_eq!(card["spec"]["syncPeriod"], "30s");
    // The index knows the card before its watch tells of it, so nobody else would have it looked at.
    let mut asked = Vec::new();
    for _ in 0..stage.ctx.queue.depth() {
        asked.push(stage.ctx.queue.next().await);
    }
    assert!(asked.contains(&Key::Card(ObjectKey::new(NS, CARD))), "{asked:?}");
    assert!(stage.agent_pass("echo").await.is_empty());
}

/// Card §5.2: a card that exists already is looked at, not overwritten.
#[tokio::test]
async fn a_card_that_is_there_already_is_read() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.card(CARD, "echo", json!({}));
    stage.ctx.index.cards.remove(&ObjectKey::new(NS, CARD));
    let (calls, next) = stage.pass(Key::Workload(Stage::target("echo"))).await;
    assert_eq!(lines(&calls), [format!("POST {CARDS}"), format!("GET {CARDS}/{CARD}")]);
    assert!(next.expect("no error").is_some(), "it is decided again");
    assert!(stage.agent_pass("echo").await.is_empty(), "it is somebody's own");
}

/// Card §5.2: a manual card wins over an automatic one, and is itself left alone.
#[tokio::test]
async fn a_manual_card_wins() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.card("mine", "echo", json!({}));
    assert!(stage.agent_pass("echo").await.is_empty());
    stage.card(CARD, "echo", owned(json!({})));
    let calls = stage.agent_pass("echo").await;
    assert_eq!(lines(&calls), [format!("DELETE {CARDS}/{CARD}")]);
    assert_eq!(calls[0].body["preconditions"]["uid"], format!("uid-{CARD}"));
}

#[tokio::test]
async fn an_automatic_card_without_owner_is_adopted() {
    let stage = Stage::new();
    stage.agent("echo", json!({}));
    stage.card(
        CARD,
        "echo",
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "kagenti-operator"}},
        "spec": {"syncPeriod": "1h"}}),
    );
    assert_eq!(lines(&stage.agent_pass("echo").await), [format!("PATCH {CARDS}/{CARD}")]);
    let card = stage.object(&format!("{CARDS}/{CARD}"));
    assert_eq!(card["metadata"]["ownerReferences"][0]["uid"], "uid-echo");
    assert_eq!(card["spec"]["syncPeriod"], "1h", "the user's");
    assert!(stage.agent_pass("echo").await.is_empty());
}

/// Card §11.1: label and annotation in one patch, then nothing.
#[tokio::test]
async fn a_verified_workload_is_labelled_once() {
    let stage = checking();
    stage.agent("echo", json!({}));
    stage.card(CARD, "echo", owned(verdict("True", "SignatureVerified")));
    let calls = stage.agent_pass("echo").await;
    assert_eq!(lines(&calls), [format!("PATCH {DEPLOYMENTS}/echo")]);
    assert!(calls[0].body["metadata"]["resourceVersion"].is_string());
    let workload = stage.object(&format!("{DEPLOYMENTS}/echo"));
    assert_eq!(workload["metadata"]["annotations"][STATE], "true");
    assert_eq!(
        workload["spec"]["template"]["metadata"]["labels"],
        json!({"app": "echo", "agent.kagenti.dev/signature-verified": "true"})
    );
    assert!(stage.agent_pass("echo").await.is_empty());
}

/// Card §11.1: while no mechanism is on, nothing is touched.
#[tokio::test]
async fn without_a_mechanism_marks_are_left_alone() {
    let stage = Stage::new();
    stage.agent("echo", json!({"metadata": {"annotations": {STATE: "true"}}}));
    stage.card(CARD, "echo", owned(verdict("False", "SignatureInvalid")));
    assert!(stage.agent_pass("echo").await.is_empty());
}

/// Card §11.1: a patch that comes too late is made again from what is there now.
#[tokio::test]
async fn a_conflict_is_repeated_on_what_is_there() {
    let stage = checking();
    stage.agent("echo", json!({}));
    stage.card(CARD, "echo", owned(verdict("False", "SignatureInvalid")));
    stage.change_unseen(&format!("{DEPLOYMENTS}/echo"), json!({"metadata": {"annotations": {"x": "y"}}}));
    let calls = stage.agent_pass("echo").await;
    let path = format!("{DEPLOYMENTS}/echo");
    assert_eq!(lines(&calls), [format!("PATCH {path}"), format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(stage.object(&path)["metadata"]["annotations"], json!({STATE: "false", "x": "y"}));
}

/// Card §11.3: a workload that is no agent any more loses its marks.
#[tokio::test]
async fn what_is_no_agent_any_more_is_cleaned() {
    let stage = checking();
    stage.agent(
        "echo",
        json!({
            "metadata": {"labels": {"kagenti.io/type": null}, "annotations": {STATE: "true", "other": "x"}},
            "spec": {"template": {"metadata": {"labels": {"agent.kagenti.dev/signature-verified": "true"}}}},
        }),
    );
    let calls = stage.agent_pass("echo").await;
    let path = format!("{DEPLOYMENTS}/echo");
    assert_eq!(lines(&calls), [format!("GET {path}"), format!("PATCH {path}")]);
    let workload = stage.object(&path);
    assert_eq!(workload["metadata"]["annotations"], json!({"other": "x"}));
    assert_eq!(workload["spec"]["template"]["metadata"]["labels"], json!({"app": "echo"}));
}

/// Card §11.2: a label just taken off is not put back within the minute; taking it off never waits.
#[tokio::test]
async fn the_template_does_not_flap() {
    let stage = checking();
    stage.agent("echo", json!({}));
    stage.card(CARD, "echo", owned(verdict("True", "SignatureVerified")));
    assert_eq!(stage.agent_pass("echo").await.len(), 1);
    stage.card(CARD, "echo", owned(verdict("False", "SignatureInvalid")));
    assert_eq!(stage.agent_pass("echo").await.len(), 1, "at once");
    stage.card(CARD, "echo", owned(verdict("True", "SignatureVerified")));
    stage.agent_pass("echo").await;
    let workload = stage.object(&format!("{DEPLOYMENTS}/echo"));
    assert_eq!(workload["metadata"]["annotations"][STATE], "true");
    assert_eq!(workload["spec"]["template"]["metadata"]["labels"], json!({"app": "echo"}));
}

/// Card §7, §10.3: without an SVID a verdict over mTLS is kept, and nothing is touched, until it is too old.
#[tokio::test]
async fn a_verdict_over_mtls_that_is_too_old_takes_the_label_off() {
    let stage = Stage::with(Settings { resign_qps: 0.0, ..Settings::defaults() });
    let labels = json!({"agent.kagenti.dev/signature-verified": "true"});
    let template = json!({"template": {"metadata": {"labels": labels}}});
    stage.agent("echo", json!({"metadata": {"annotations": {STATE: "true"}}, "spec": template}));
    stage.card(CARD, "echo", owned(verdict("True", "mTLSVerified")));
    assert!(stage.agent_pass("echo").await.is_empty());
    stage.card(CARD, "echo", owned(verdict("Unknown", "VerificationStale")));
    assert_eq!(lines(&stage.agent_pass("echo").await), [format!("PATCH {DEPLOYMENTS}/echo")]);
    let workload = stage.object(&format!("{DEPLOYMENTS}/echo"));
    assert_eq!(workload["metadata"]["annotations"][STATE], "false");
    assert_eq!(workload["spec"]["template"]["metadata"]["labels"], json!({"app": "echo"}));
}

/// What is not watched tells nobody when it goes, so nothing is remembered of it.
#[tokio::test(start_paused = true)]
async fn what_is_no_agent_is_forgotten() {
    let stage = checking();
    let (target, now) = (Stage::target("echo"), tokio::time::Instant::now());
    stage.ctx.template_patched.insert(target.clone(), now);
    stage.ctx.observations.begin(&target, now);
    stage.agent("echo", json!({"metadata": {"labels": {"kagenti.io/type": null}}}));
    let (_, next) = stage.pass(Key::Workload(target.clone())).await;
    assert!(stage.ctx.observations.due(&target).is_none());
    let rest = next.unwrap().unwrap();
    assert!(stage.ctx.template_patched.get(&target).is_some(), "its minute is not over");
    tokio::time::advance(rest).await;
    let (_, next) = stage.pass(Key::Workload(target.clone())).await;
    assert_eq!(next.unwrap(), None);
    assert!(stage.ctx.template_patched.get(&target).is_none());

    let stranger = TargetKey { namespace: NS.into(), group: "x".into(), kind: "Y".into(), name: "z".into() };
    stage.ctx.strangers.insert(stranger.clone(), Arc::default());
    stage.pass(Key::Workload(stranger.clone())).await.1.unwrap();
    assert!(stage.ctx.strangers.get(&stranger).is_none());
}

/// Card §10.3, §11.3: what is known of one workload is never believed of another, neither before nor after the first look.
#[tokio::test]
async fn a_card_that_is_pointed_elsewhere_brings_no_verdict() {
    let stage = checking();
    stage.agent("echo", json!({}));
    let mut verified = verdict("True", "SignatureVerified");
    verified["status"]["targetRef"] =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "former"});
    stage.card("mine", "echo", verified);
    assert!(stage.agent_pass("echo").await.is_empty());
    // There is no Service, so nothing can be found out.
    stage.card_pass("mine").await;
    assert_eq!(stage.condition("mine", "Verified"), pair("Unknown", "NotVerifiedYet"));
    assert_eq!(stage.condition("mine", "Synced"), pair("False", "ServiceNotFound"));
    stage.agent_pass("echo").await;
    let workload = stage.object(&format!("{DEPLOYMENTS}/echo"));
    assert_eq!(workload["metadata"]["annotations"]["verified-state.agent.kagenti.dev/mine"], "false");
    assert_eq!(workload["spec"]["template"]["metadata"]["labels"], json!({"app": "echo"}));
}
