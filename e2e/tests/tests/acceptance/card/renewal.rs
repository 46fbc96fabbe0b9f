//! Bundles that rotate and certificates that end.

use anyhow::{Context as _, Result};
use e2e::{Json as _, kinds, secs};
use serde_json::{Value, json};

use super::fixture::{Stage, agent};
use super::trust::{CARD, checking, set_bundle, sign, signed, until_marked};

const TRIGGER: &str = "/spec/template/metadata/annotations/agentcard.kagenti.dev~1resign-trigger";
const LEAF: &str = "/spec/template/metadata/annotations/agentcard.kagenti.dev~1resign-leaf-expiry";
const HASH: &str = "/metadata/annotations/agentcard.kagenti.dev~1bundle-hash";

/// An init container of this name is a signer.
fn signer() -> Value {
    json!({"initContainers": [{"name": "sign-agentcard", "image": "registry.k8s.io/pause:3.10"}]})
}

async fn hash(stage: &Stage) -> Result<String> {
    let found = |object: &Value| object.text(HASH).starts_with("v2:");
    let object = stage.ns.until(secs(10), kinds::DEPLOYMENT, "echo", "a bundle hash", found).await?;
    Ok(object.text(HASH).to_owned())
}

async fn until_other_hash(stage: &Stage, old: &str) -> Result<Value> {
    stage
        .ns
        .until(secs(15), kinds::DEPLOYMENT, "echo", "another bundle hash", |object| {
            object.text(HASH).starts_with("v2:") && object.text(HASH) != old
        })
        .await
        .with_context(|| stage.process.log_tail())
}

async fn events(stage: &Stage, reason: &str) -> Result<usize> {
    let events = stage.ns.list(kinds::EVENT, "").await?;
    Ok(events.iter().filter(|event| event["reason"] == reason).count())
}

/// Card scenario 14: with a signer in the Pods a bundle without its root restarts it, once.
#[tokio::test]
async fn card_14_bundle_rotation() -> Result<()> {
    let stage = checking("card-14", &[]).await?;
    signed(&stage, agent("echo").pod_spec(signer()), "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    let first = hash(&stage).await?;
    set_bundle(&stage, "rotating").await?;
    let rotated = until_other_hash(&stage, &first).await?;
    assert_eq!(rotated.pointer(TRIGGER), None, "still verified: no restart");
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    // Nothing but the sequence: the roots are the same.
    let text = stage.ns.get(kinds::CONFIG_MAP, "spire-bundle").await?;
    let mut bundle: Value = serde_json::from_str(text.text("/data/bundle.spiffe"))?;
    bundle["spiffe_sequence"] = json!(4711);
    let data = json!({"data": {"bundle.spiffe": bundle.to_string()}});
    stage.ns.patch(kinds::CONFIG_MAP, "spire-bundle", data).await?;
    // The last change of the template was the label.
    set_bundle(&stage, "after-rotation").await?;
    stage.until(CARD, "Verified", "False", "SignatureInvalid").await?;
    let what = "a restart";
    let restarted = stage
        .ns
        .until(secs(90), kinds::DEPLOYMENT, "echo", what, |object| object.pointer(TRIGGER).is_some())
        .await
        .with_context(|| stage.process.log_tail())?;
    let trigger = restarted.text(TRIGGER).to_owned();
    tokio::time::sleep(secs(6)).await;
    let later = stage.ns.get(kinds::DEPLOYMENT, "echo").await?;
    assert_eq!(later.text(TRIGGER), trigger, "exactly one");
    assert_eq!(events(&stage, "ResignTriggered").await?, 1);
    Ok(())
}

/// Card scenario 14: without a signer there is one event instead.
#[tokio::test]
async fn card_14_without_a_signer() -> Result<()> {
    let stage = checking("card-14-none", &[]).await?;
    signed(&stage, agent("echo"), "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    hash(&stage).await?;
    set_bundle(&stage, "after-rotation").await?;
    stage.until(CARD, "Verified", "False", "SignatureInvalid").await?;
    e2e::poll(secs(10), async || Ok((events(&stage, "ResignRequired").await? == 1).then_some(()))).await?;
    tokio::time::sleep(secs(6)).await;
    assert_eq!(events(&stage, "ResignRequired").await?, 1);
    let workload = stage.ns.get(kinds::DEPLOYMENT, "echo").await?;
    assert_eq!(workload.pointer(TRIGGER), None);
    Ok(())
}

/// Card scenario 15.
#[tokio::test]
async fn card_15_expiry() -> Result<()> {
    let stage = checking("card-15", &["--svid-expiry-grace-period=900000h"]).await?;
    signed(&stage, agent("echo").pod_spec(signer()), "es256-legacy").await?;
    let restarted = stage
        .ns
        .until(secs(30), kinds::DEPLOYMENT, "echo", "a restart", |object| object.pointer(TRIGGER).is_some())
        .await
        .with_context(|| stage.process.log_tail())?;
    assert!(restarted.text(LEAF).starts_with("2119-"), "{}", restarted.text(LEAF));
    let card = stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    assert_eq!(restarted.text(LEAF), card.text("/status/signatureNotAfter"));
    // The cooldown has the length of the grace, so it is taken away: the leaf alone must hold a second restart back.
    let none = json!({"spec": {"template": {"metadata": {"annotations": {
        "agentcard.kagenti.dev/resign-trigger": "2000-01-01T00:00:00Z",
    }}}}});
    stage.ns.patch(kinds::DEPLOYMENT, "echo", none).await?;
    tokio::time::sleep(secs(6)).await;
    let later = stage.ns.get(kinds::DEPLOYMENT, "echo").await?;
    assert_eq!(later.text(TRIGGER), "2000-01-01T00:00:00Z");
    Ok(())
}

/// Card scenario 18: what does not belong to a live card any more leaves the workload.
#[tokio::test]
async fn card_18_cleanup() -> Result<()> {
    let stage = checking("card-18", &["--enable-card-sync=false"]).await?;
    let target =
        |name: &str| json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}});
    sign(&stage, "es256-legacy").await?;
    let service = e2e::objects::service("echo", "echo", json!([{"name": "a2a", "port": 8000}]));
    stage.ns.create(service).await?;
    stage.ns.create(agent("echo")).await?;
    for name in ["one", "two"] {
        stage.ns.create(e2e::objects::named(kinds::AGENT_CARD, name).spec(target("echo"))).await?;
    }
    let states = |object: &Value| {
        let annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let prefix = "verified-state.agent.kagenti.dev/";
        let mut names: Vec<String> =
            annotations.keys().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let until = async |want: &[&str], label: bool| {
        let what = format!("states {want:?} and label {label}");
        let object = stage.ns.until(secs(15), kinds::DEPLOYMENT, "echo", &what, |object| {
            states(object) == want && object.pointer(super::trust::LABEL).is_some() == label
        });
        object.await.with_context(|| stage.process.log_tail())
    };
    until(&["one", "two"], true).await?;
    stage.ns.set_spec(kinds::AGENT_CARD, "two", target("elsewhere")).await?;
    until(&["one"], true).await?;
    stage.ns.set_labels(kinds::DEPLOYMENT, "echo", json!({"kagenti.io/type": null})).await?;
    until(&[], false).await?;
    stage.until("one", "Synced", "False", "NotAgentWorkload").await?;
    stage.ns.set_labels(kinds::DEPLOYMENT, "echo", json!({"kagenti.io/type": "agent"})).await?;
    stage.until("one", "Verified", "True", "SignatureVerified").await?;
    stage.ns.delete(kinds::AGENT_CARD, "one").await?;
    until(&[], false).await?;
    Ok(())
}
