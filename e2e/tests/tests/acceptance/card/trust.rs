//! Signatures, binding, the label, and what happens when nothing can be found out.
//!
//! Documents and bundles are vectors of the signature crate.

use anyhow::{Context as _, Result};
use e2e::{Json as _, kinds, objects, poll, secs};
use serde_json::{Value, json};

use super::bare::VECTORS;
use super::fixture::{Stage, agent, card, signature_flags};

pub(super) const CARD: &str = "echo-deployment-card";
const STATE: &str = "verified-state.agent.kagenti.dev/echo-deployment-card";
pub(super) const LABEL: &str = "/spec/template/metadata/labels/agent.kagenti.dev~1signature-verified";

/// The document of a verification vector.
fn document(id: &str) -> Value {
    let vector = VECTORS.items("/verification").iter().find(|vector| vector["id"] == id);
    vector.map(|vector| vector["card"].clone()).unwrap_or_default()
}

/// Card-ctl that checks signatures against a bundle in the namespace of the test.
pub(super) async fn checking(namespace: &str, flags: &[&str]) -> Result<Stage> {
    let all = signature_flags(namespace, flags);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let stage = Stage::new(namespace, &all).await?;
    set_bundle(&stage, "spiffe-json").await?;
    Ok(stage)
}

pub(super) async fn set_bundle(stage: &Stage, name: &str) -> Result<()> {
    let data = json!({"bundle.spiffe": VECTORS["trustBundles"][name]["text"]});
    stage.ns.apply(objects::config_map("spire-bundle", data)).await.map(drop)
}

/// Puts a vector's card where a signer would put it.
pub(super) async fn sign(stage: &Stage, id: &str) -> Result<()> {
    let map = objects::config_map("echo-card-signed", json!({"agent-card.json": document(id)}))
        .label("kagenti.io/card-signed", "true");
    stage.ns.apply(map).await.map(drop)
}

/// An agent with a signed card that is synced every few seconds and strictly bound.
async fn signed_agent(stage: &Stage, id: &str) -> Result<()> {
    signed(stage, agent("echo"), id).await
}

/// The same with a workload called `echo`.
pub(super) async fn signed(stage: &Stage, workload: objects::Object, id: &str) -> Result<()> {
    sign(stage, id).await?;
    stage.ns.create(objects::service("echo", "echo", json!([{"name": "a2a", "port": 8000}]))).await?;
    stage.ns.create(workload).await?;
    stage.ns.until(secs(10), kinds::AGENT_CARD, CARD, "the card", |_| true).await?;
    let spec = json!({"syncPeriod": "2s", "identityBinding": {"strict": true}});
    stage.ns.set_spec(kinds::AGENT_CARD, CARD, spec).await.map(drop)
}

/// Waits until annotation and label of the workload are so.
pub(super) async fn until_marked(stage: &Stage, value: &str, label: bool) -> Result<Value> {
    let what = format!("annotation {value} and label {label}");
    stage
        .ns
        .until(secs(70), kinds::DEPLOYMENT, "echo", &what, |object| {
            object["metadata"]["annotations"][STATE].as_str().unwrap_or_default() == value
                && (object.pointer(LABEL) == Some(&json!("true"))) == label
        })
        .await
        .with_context(|| stage.process.log_tail())
}

/// Card scenario 7.
#[tokio::test]
async fn card_07_signed_card() -> Result<()> {
    let stage = checking("card-07", &[]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    let verified = stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    assert_eq!(verified["status"]["validSignature"], true);
    assert_eq!(verified.text("/status/signatureSpiffeId"), VECTORS.text("/spiffeId"));
    assert_eq!(verified.text("/status/cardSource"), "ConfigMap");
    stage.until(CARD, "SignatureVerified", "True", "SignatureValid").await?;
    stage.until(CARD, "Bound", "True", "Bound").await?;
    until_marked(&stage, "true", true).await?;
    let rolled_out = |object: &Value| {
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
            && object["status"]["readyReplicas"] == 1
            && object["status"]["updatedReplicas"] == 1
            && object["status"]["replicas"] == 1
    };
    stage.ns.until(secs(30), kinds::DEPLOYMENT, "echo", "the rollout to end", rolled_out).await?;
    stage.until(CARD, "Synced", "True", "SyncSucceeded").await?;
    let versions = async || -> Result<(String, String)> {
        let version = |object: Value| object.text("/metadata/resourceVersion").to_owned();
        let card = stage.ns.get(kinds::AGENT_CARD, CARD).await?;
        Ok((version(card), version(stage.ns.get(kinds::DEPLOYMENT, "echo").await?)))
    };
    // The rollout's last conditions come a moment later.
    crate::runtime::at_rest(&stage.ns, secs(2), kinds::DEPLOYMENT, "echo").await?;
    crate::runtime::at_rest(&stage.ns, secs(1), kinds::AGENT_CARD, CARD).await?;
    let before = versions().await?;
    tokio::time::sleep(secs(8)).await;
    assert_eq!(versions().await?, before, "three further periods write nothing");
    Ok(())
}

/// Card scenario 8.
#[tokio::test]
async fn card_08_tampered() -> Result<()> {
    let stage = checking("card-08", &[]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    sign(&stage, "tampered-payload").await?;
    let refused = stage.until(CARD, "Verified", "False", "SignatureInvalid").await?;
    assert_eq!(refused["status"]["signatureSpiffeId"], Value::Null);
    assert_eq!(refused["status"]["validSignature"], false);
    let marked = until_marked(&stage, "false", false).await?;
    assert_eq!(marked.pointer(LABEL), None, "absent, never false");
    stage.until(CARD, "Synced", "False", "SignatureInvalid").await.ok();
    tokio::time::sleep(secs(7)).await;
    let events = stage.ns.list(kinds::EVENT, "").await?;
    let failed: Vec<&str> = events
        .iter()
        .filter(|event| event["reason"] == "SignatureFailed")
        .map(|event| event.text("/note"))
        .collect();
    assert_eq!(failed.len(), 1, "one event after three further periods: {failed:?}");
    Ok(())
}

/// Card scenario 9.
#[tokio::test]
async fn card_09_audit() -> Result<()> {
    let stage = checking("card-09", &["--signature-audit-mode"]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    sign(&stage, "tampered-payload").await?;
    stage.until(CARD, "Verified", "False", "SignatureInvalidAudit").await?;
    stage.until(CARD, "Synced", "True", "SyncSucceeded").await.or_else(|_| {
        // The rollout for the label may still be under way.
        anyhow::Ok(Value::Null)
    })?;
    until_marked(&stage, "true", true).await?;
    Ok(())
}

/// Card scenario 11.
#[tokio::test]
async fn card_11_unsigned_members() -> Result<()> {
    let stage = checking("card-11", &[]).await?;
    signed_agent(&stage, "unsigned-extra-members").await?;
    let verified = stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    let unsigned = verified.items("/status/unsignedMembers");
    assert_eq!(unsigned.len(), 2, "{unsigned:?}");
    for pointer in unsigned {
        let pointer = format!("/status/card{}", pointer.as_str().unwrap_or_default());
        assert_eq!(verified.pointer(&pointer), None, "{pointer}");
    }
    Ok(())
}

/// Card scenario 12.
#[tokio::test]
async fn card_12_strict_binding() -> Result<()> {
    let stage = checking("card-12", &[]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    let bind = async |binding: Value| {
        stage.ns.set_spec(kinds::AGENT_CARD, CARD, json!({"identityBinding": binding})).await
    };
    bind(json!({"trustDomain": "other.example", "strict": true})).await?;
    stage.until(CARD, "Bound", "False", "NotBound").await?;
    stage.until(CARD, "Verified", "False", "NotVerified").await?;
    until_marked(&stage, "false", false).await?;
    bind(json!({"strict": false})).await?;
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    stage.until(CARD, "Bound", "False", "NotBound").await?;
    until_marked(&stage, "true", true).await?;
    bind(json!({"trustDomain": null})).await?;
    stage.until(CARD, "Bound", "True", "Bound").await?;
    Ok(())
}

/// Card scenario 22.
#[tokio::test]
async fn card_22_fetch_failure_keeps_trust() -> Result<()> {
    let stage =
        checking("card-22", &["--verification-staleness-limit=20s", "--fetch-connect-timeout=1s"]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    // Without the ConfigMap the agent would have to be fetched, and nobody answers.
    stage.ns.delete(kinds::CONFIG_MAP, "echo-card-signed").await?;
    let lost = stage.until(CARD, "Synced", "False", "FetchFailed").await?;
    assert_eq!(lost.condition("Verified").status, "True");
    assert_eq!(lost.text("/status/card/name"), "Echo Agent");
    let too_old = |card: &Value| card.condition("Verified").reason == "VerificationStale";
    stage.ns.until(secs(40), kinds::AGENT_CARD, CARD, "a stale verdict", too_old).await?;
    until_marked(&stage, "false", false).await?;
    Ok(())
}

/// Card scenario 20: names that are too long for a label or an annotation.
#[tokio::test]
async fn card_20_long_names() -> Result<()> {
    let stage = checking("card-20", &[]).await?;
    let name = format!("echo-{}", "x".repeat(58));
    let map = objects::config_map(
        &format!("{name}-card-signed"),
        json!({"agent-card.json": document("es256-legacy")}),
    )
    .label("kagenti.io/card-signed", "true");
    stage.ns.create(map).await?;
    stage.ns.create(objects::service(&name, &name, json!([{"name": "a2a", "port": 8000}]))).await?;
    stage.ns.create(agent(&name)).await?;
    stage.until(&format!("{name}-deployment-card"), "Verified", "True", "SignatureVerified").await?;
    let marked = |object: &Value| {
        let states = object["metadata"]["annotations"].as_object();
        object.pointer(LABEL) == Some(&json!("true"))
            && states
                .into_iter()
                .flatten()
                .any(|(key, value)| key.starts_with("verified-state.") && value == "true")
    };
    stage.ns.until(secs(20), kinds::DEPLOYMENT, &name, "label and annotation", marked).await?;
    Ok(())
}

/// Card scenario 21.
#[tokio::test]
async fn card_21_two_protocols() -> Result<()> {
    let stage = Stage::new("card-21", &["--min-sync-period=100ms"]).await?;
    let server = stage.agent_server("echo", card("echo")).await?;
    stage.ns.create(agent("echo").label("protocol.kagenti.io/mcp", "")).await?;
    stage.until(CARD, "Synced", "True", "SyncSucceeded").await?;
    stage.ns.set_spec(kinds::AGENT_CARD, CARD, json!({"syncPeriod": "100ms"})).await?;
    poll(secs(30), async || Ok((server.requests().len() >= 50).then_some(()))).await?;
    let card = stage.ns.get(kinds::AGENT_CARD, CARD).await?;
    assert_eq!(card.text("/status/protocol"), "a2a");
    assert_eq!(card.condition("Synced").reason, "SyncSucceeded");
    Ok(())
}

/// Card scenario 13: the vector is signed by another service account.
#[tokio::test]
async fn card_13_scope() -> Result<()> {
    let stage = checking("card-13", &[]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    stage.until(CARD, "Bound", "True", "Bound").await?;
    let bind = async |binding: Value| {
        stage.ns.set_spec(kinds::AGENT_CARD, CARD, json!({"identityBinding": binding})).await
    };
    bind(json!({"strict": false, "scope": "ServiceAccount"})).await?;
    stage.until(CARD, "Bound", "False", "NotBound").await?;
    bind(json!({"allowedSpiffeIDs": [VECTORS.text("/spiffeId")]})).await?;
    stage.until(CARD, "Bound", "True", "Bound").await?;
    Ok(())
}

/// Card §19: a card-ctl that starts in a world that has not changed writes nothing.
#[tokio::test]
async fn card_restart_writes_nothing() -> Result<()> {
    let stage = checking("card-restart", &[]).await?;
    signed_agent(&stage, "es256-legacy").await?;
    until_marked(&stage, "true", true).await?;
    // The label rolls the workload, and while that lasts the world does change.
    stage.ns.rolled_out(secs(60), kinds::DEPLOYMENT, "echo").await?;
    crate::runtime::at_rest(&stage.ns, secs(3), kinds::DEPLOYMENT, "echo").await?;
    stage.until(CARD, "Synced", "True", "SyncSucceeded").await?;
    crate::runtime::at_rest(&stage.ns, secs(3), kinds::AGENT_CARD, CARD).await?;
    stage.process.kill9().await?;
    let audit = stage.suite.cluster().audit()?;
    let mark = audit.mark()?;
    stage.process.restart().await?;
    stage.process.wait_ready(secs(30)).await?;
    tokio::time::sleep(secs(6)).await;
    let writes = audit.since(mark, |request| {
        request.namespace == "card-restart"
            && request.short_user() == super::fixture::CARD_CTL
            && request.is_write()
    })?;
    assert!(writes.is_empty(), "{writes:?}");
    Ok(())
}
