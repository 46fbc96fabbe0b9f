//! Card scenario 24: objects as the previous operator left them.

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use local_cluster::{Component, ComponentOptions, http};
use serde_json::{Value, json};

use super::bare::{Timeline, bundle, document, set_bundle};
use super::fixture::{CARD_CTL, agent, cluster, start};

const CARD: &str = "echo-deployment-card";
const STATE: &str = "verified-state.agent.kagenti.dev/echo-deployment-card";
const HASH: &str = "agentcard.kagenti.dev/bundle-hash";
const TRIGGER: &str = "agentcard.kagenti.dev/resign-trigger";
const LAST_STATE: &str = "agent.kagenti.dev/last-verified-state";
const LABEL: &str = "agent.kagenti.dev/signature-verified";
const OLD_LEASE: &str = "b7c4ae34.kagenti.dev";
const SPIFFE_ID: &str = "spiffe://dev.cluster.local/ns/demo/sa/echo-sa";

/// A verified agent: labelled template, marks of both kinds, a ConfigMap without our label.
async fn workload(ns: &Ns) -> Result<Value> {
    let data = json!({"agent-card.json": document("es256-legacy").to_string()});
    ns.create(objects::config_map("echo-card-signed", data)).await?;
    ns.create(objects::service("echo", "echo", json!([{"name": "a2a", "port": 8000}]))).await?;
    let hash = "ab".repeat(32);
    ns.create(
        agent("echo")
            .annotation(STATE, "true")
            .annotation(LAST_STATE, "true")
            .annotation(HASH, &hash)
            .template_label(LABEL, "true")
            .template_annotation(TRIGGER, "2025-01-01T00:00:00Z"),
    )
    .await?;
    ns.rolled_out(secs(30), kinds::DEPLOYMENT, "echo").await
}

/// Its card: both finalizers, and a status with fields that the previous operator never took away.
async fn card(ns: &Ns, workload: &Value) -> Result<()> {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo"});
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "echo", "uid": workload.uid(),
        "controller": true, "blockOwnerDeletion": true,
    });
    let object = objects::named(kinds::AGENT_CARD, CARD)
        .label("app.kubernetes.io/name", "echo")
        .label("app.kubernetes.io/managed-by", "kagenti-operator")
        .with(json!({"metadata": {
            "ownerReferences": [owner],
            "finalizers": [
                "agentcard.kagenti.dev/finalizer", "agentcard.kagenti.dev/network-policy", "example.com/mine",
            ],
        }}))
        .spec(json!({"syncPeriod": "30s", "targetRef": target, "identityBinding": {}}));
    ns.create(object).await?;
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "as before",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let mut stored = document("es256-legacy");
    stored["url"] = json!(format!("http://echo.{}.svc.cluster.local:8000", ns.name()));
    let status = json!({
        "card": stored,
        "cardId": "cd".repeat(32),
        "lastSyncTime": "2026-01-01T00:00:00Z",
        "protocol": "a2a",
        "targetRef": target,
        "validSignature": true,
        "signatureVerificationDetails": "as before",
        "signatureKeyId": "an-old-key",
        "signatureSpiffeId": "spiffe://old.example/ns/x/sa/y",
        "signatureIdentityMatch": false,
        "attestedAgentSpiffeID": "spiffe://old.example/ns/x/sa/y",
        "expectedSpiffeID": "spiffe://old.example/ns/x/sa/y",
        "sigstoreBundleVerified": true,
        "sigstoreIdentity": "old@example.com",
        "rekorLogIndex": "7",
        "slsaRepository": "github.com/old/old",
        "slsaCommitSHA": "0123456",
        "conditions": [
            condition("Synced", "SyncSucceeded"), condition("Verified", "SignatureVerified"),
            condition("SignatureVerified", "SignatureValid"), condition("SigstoreVerified", "SigstoreVerified"),
            condition("Bound", "Bound"), condition("Ready", "ReadyToServe"),
        ],
    });
    ns.patch_status(kinds::AGENT_CARD, CARD, json!({"status": status})).await.map(drop)
}

#[tokio::test]
async fn card_24_upgrade() -> Result<()> {
    let suite = cluster().await?;
    let ns = suite.namespace("card-24", Value::Null).await?;
    set_bundle(&ns, &bundle("spiffe-json")).await?;
    let before = workload(&ns).await?;
    card(&ns, &before).await?;
    let timeline = Timeline::start(&ns).await?;
    let flags = [
        "--require-a2a-signature",
        "--spire-trust-domain=dev.cluster.local",
        "--spire-trust-bundle-configmap=spire-bundle",
        "--spire-trust-bundle-configmap-namespace=card-24",
        "--resign-on-bundle-change=always",
        "--resign-restarts=always",
        "--resign-qps=0",
    ];
    let process = start(&suite, "card-24", &flags).await?;

    let taken = |card: &Value| {
        card["metadata"]["finalizers"] == json!(["example.com/mine"])
            && card.text("/status/signatureSpiffeId") == SPIFFE_ID
    };
    let seen = ns
        .until(secs(20), kinds::AGENT_CARD, CARD, "a card of ours", taken)
        .await
        .with_context(|| process.log_tail())?;
    let status = &seen["status"];
    for gone in [
        "attestedAgentSpiffeID",
        "sigstoreBundleVerified",
        "sigstoreIdentity",
        "rekorLogIndex",
        "slsaRepository",
        "slsaCommitSHA",
    ] {
        assert_eq!(status[gone], Value::Null, "{gone} stays: {}", seen.readable());
    }
    assert_eq!(seen.condition("SigstoreVerified").short(), "/", "a condition that nobody keeps true");
    assert_eq!(status.text("/expectedSpiffeID"), SPIFFE_ID);
    assert_eq!(status["signatureIdentityMatch"], true);
    assert_eq!(status["observedGeneration"], 1);
    assert_ne!(status.text("/cardId"), "cd".repeat(32));
    assert_eq!(seen["spec"]["syncPeriod"], "30s");
    let transition = seen.condition("Verified").last_transition_time;
    assert_eq!(transition, "2026-01-01T00:00:00Z", "the verdict did not flip");
    assert_eq!(timeline.verdicts(CARD), ["True/SignatureVerified"], "never anything else");

    let marked = |object: &Value| {
        object.annotation(LAST_STATE).is_none()
            && object.annotation(HASH).is_some_and(|hash| hash.starts_with("v2:"))
    };
    let after = ns
        .until(secs(10), kinds::DEPLOYMENT, "echo", "marks of ours", marked)
        .await
        .with_context(|| process.log_tail())?;
    assert_eq!(after.annotation(STATE), Some("true"));
    // Long enough for another period of the clean-up and for a restart that should not be.
    ns.stays(secs(8), kinds::AGENT_CARD, CARD).await?;
    let after = ns.get(kinds::DEPLOYMENT, after.name()).await?;
    assert_eq!(after.template(), before.template(), "no pod template changes");
    assert_eq!(ns.replica_sets("echo").await?.len(), 1);
    for reason in ["CardContentChanged", "ResignTriggered", "ResignRequired", "SignatureFailed"] {
        let events = ns.events(CARD, reason).await?;
        ensure!(events.is_empty(), "{reason}: {events:?}");
    }
    // Nothing of ours holds the card.
    ns.patch(kinds::AGENT_CARD, CARD, json!({"metadata": {"finalizers": null}})).await?;
    process.kill9().await?;
    ns.delete(kinds::AGENT_CARD, CARD).await?;
    ns.gone(secs(5), kinds::AGENT_CARD, CARD).await
}

async fn renew(operator: &Ns) -> Result<()> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let lease = objects::named(kinds::LEASE, OLD_LEASE).spec(json!({
        "holderIdentity": "old-operator-0", "leaseDurationSeconds": 6, "acquireTime": now, "renewTime": now,
    }));
    operator.apply(lease).await.map(drop)
}

/// While the previous operator renews its Lease nothing is written; afterwards work begins without a restart.
#[tokio::test]
async fn card_24_the_previous_operator_still_runs() -> Result<()> {
    let suite = cluster().await?;
    let ns = suite.namespace("card-24-lease", Value::Null).await?;
    // A release of its own: the Lease must not stop the other tests.
    let operator = suite.namespace("card-24-release", Value::Null).await?;
    ns.create(agent("echo").replicas(0)).await?;
    renew(&operator).await?;
    let renewing = tokio::spawn({
        let operator = operator.clone();
        async move {
            loop {
                renew(&operator).await?;
                tokio::time::sleep(secs(1)).await;
            }
            #[allow(unreachable_code, reason = "names the type of the error")]
            anyhow::Ok(())
        }
    });
    let options = ComponentOptions::new(CARD_CTL)
        .instance("card-ctl-card-24-lease")
        .namespace(operator.name())
        .namespaced([ns.name()])
        .args(["--fetch-dial=endpoints", "--enable-verified-fetch=false"]);
    let process = Component::start(suite.cluster(), options).await?;
    wait_for(secs(20), "/readyz to name the Lease", async || {
        let (status, text) = http::get(&format!("{}/readyz?verbose", process.probe_url())).await?;
        ensure!(status.as_u16() == 503 && text.contains(OLD_LEASE), "{status}: {text}");
        Ok(Some(()))
    })
    .await?;
    // Longer than the Lease lasts: it is the renewal that counts.
    tokio::time::sleep(secs(8)).await;
    assert!(ns.list(kinds::AGENT_CARD, "").await?.is_empty(), "a card was made");
    renewing.abort();
    process.wait_ready(secs(30)).await?;
    ns.until(secs(10), kinds::AGENT_CARD, CARD, "the card", |_| true).await.map(drop)
}
