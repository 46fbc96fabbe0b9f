//! The trust domain that nobody configured (card §4.3, client-registration §14).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{AgentServer, Json as _, Ns, Options, Suite, kinds, objects, poll, secs};
use local_cluster::{ClusterOptions, Component, ComponentOptions, http};
use serde_json::{Value, json};

use super::bare::{auto, bundle, document, ready_agent, set_bundle};
use super::fixture::{CARD_CTL, agent};

const NAMESPACE: &str = "card-discovery";
/// Until a domain is known it is looked for every minute.
const LOOKED_AGAIN: Duration = secs(110);
const LIMIT: Duration = secs(30);

/// A card-ctl for the whole cluster, which alone may read the object, without a configured domain.
async fn start(suite: &Suite) -> Result<Component> {
    let options = ComponentOptions::new(CARD_CTL).args([
        "--fetch-dial=endpoints".to_owned(),
        "--enable-verified-fetch=false".to_owned(),
        "--require-a2a-signature".to_owned(),
        "--spire-trust-bundle-configmap=roots".to_owned(),
        format!("--spire-trust-bundle-configmap-namespace={NAMESPACE}"),
        "--min-sync-period=1s".to_owned(),
        "--max-sync-period=1s".to_owned(),
    ]);
    Component::start(suite.cluster(), options).await
}

async fn readyz(process: &Component) -> Result<(bool, String)> {
    let (status, body) = http::get(&format!("{}/readyz?verbose", process.probe_url())).await?;
    Ok((status.is_success(), body))
}

fn manager(domain: &str) -> objects::Object {
    objects::named(kinds::TRUST_MANAGER, "cluster").spec(json!({"trustDomain": domain}))
}

async fn until(ns: &Ns, process: &Component, limit: Duration, condition: &str, short: &str) -> Result<Value> {
    let what = format!("{condition} {short}");
    ns.until(limit, kinds::AGENT_CARD, &auto("echo"), &what, |card| {
        card.condition(condition).short() == short
    })
    .await
    .with_context(|| process.log_tail())
}

async fn restart(process: &Component) -> Result<()> {
    process.kill9().await?;
    process.restart().await
}

/// OpenShift's object: absent, present, changed while card-ctl runs and before it starts, gone.
#[tokio::test]
async fn card_trust_domain_of_openshift() -> Result<()> {
    let cluster =
        ClusterOptions { nodes: 0, controller_manager: false, scheduler: false, ..ClusterOptions::default() };
    let options = Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() };
    let suite = Suite::own(options).await?;
    let (global, ns) = (suite.global().await?, suite.namespace(NAMESPACE, Value::Null).await?);
    let roots = objects::config_map("roots", json!({"bundle.spiffe": bundle("spiffe-json")}));
    ns.create(roots).await?;
    let process = start(&suite).await?;
    // Up, but not ready: an answer that says why.
    let server = AgentServer::with_card(suite.cluster(), 8000, document("es256-legacy"))?;
    ready_agent(&ns, agent("echo"), &server).await?;
    let made = ns.until(LIMIT, kinds::AGENT_CARD, &auto("echo"), "the card", |_| true).await?;
    assert_eq!(made["spec"]["identityBinding"], Value::Null, "no trust domain is known");
    ns.set_spec(kinds::AGENT_CARD, &auto("echo"), json!({"identityBinding": {"strict": true}})).await?;
    until(&ns, &process, LIMIT, "Bound", "False/NotBound").await?;
    let pending = until(&ns, &process, LIMIT, "Verified", "Unknown/Pending").await?;
    let message = pending.condition("Verified").message;
    ensure!(message.contains("--spire-trust-domain"), "{message}");
    let (ready, body) = readyz(&process).await?;
    ensure!(!ready && body.contains("--spire-trust-domain"), "{body}");

    // The kind, and then its object, appear while it runs.
    global.create(objects::open_crd(kinds::TRUST_MANAGER)).await?;
    poll(LIMIT, async || global.post(manager("Dev.Cluster.Local")).await?.ok().map(Some)).await?;
    until(&ns, &process, LOOKED_AGAIN, "Bound", "True/Bound").await?;
    until(&ns, &process, LIMIT, "Verified", "True/SignatureVerified").await?;
    process.wait_ready(LIMIT).await?;
    ns.delete(kinds::AGENT_CARD, &auto("echo")).await?;
    let again = ns
        .until(LIMIT, kinds::AGENT_CARD, &auto("echo"), "another card", |card| card.uid() != made.uid())
        .await?;
    assert_eq!(again["spec"]["identityBinding"], json!({"strict": false}), "now it is bound by default");
    until(&ns, &process, LIMIT, "Bound", "True/Bound").await?;

    // A change re-keys every agent: a running process wants two equal readings five minutes apart.
    global.patch(kinds::TRUST_MANAGER, "cluster", json!({"spec": {"trustDomain": "other.example"}})).await?;
    let bound = |card: &Value| card.condition("Bound").short() == "True/Bound";
    ns.holds(secs(4), kinds::AGENT_CARD, &auto("echo"), "the binding", bound).await?;
    restart(&process).await?;
    let refused = until(&ns, &process, LIMIT, "Bound", "False/NotBound").await?;
    let message = refused.condition("Bound").message;
    ensure!(message.contains("other.example") && message.contains("dev.cluster.local"), "{message}");

    // Without it the published bundle tells, and a federated one does not choose for anybody.
    global.delete(kinds::TRUST_MANAGER, "cluster").await?;
    set_bundle(&ns, &bundle("spiffe-json")).await?;
    restart(&process).await?;
    process.wait_ready(LIMIT).await.with_context(|| process.log_tail())?;
    until(&ns, &process, LIMIT, "Bound", "True/Bound").await?;
    let one: Value = serde_json::from_str(&bundle("spiffe-json"))?;
    set_bundle(&ns, &json!({"a.example": one, "b.example": one}).to_string()).await?;
    restart(&process).await?;
    poll(LIMIT, async || {
        Ok(process.log().contains("several trust domains were found, set --spire-trust-domain").then_some(()))
    })
    .await?;
    // Not to know is no verdict (card §10.3).
    until(&ns, &process, LIMIT, "SignatureVerified", "Unknown/TrustBundleUnavailable").await?;
    until(&ns, &process, LIMIT, "Verified", "True/SignatureVerified").await?;
    until(&ns, &process, LIMIT, "Bound", "True/Bound").await?;
    let (ready, _) = readyz(&process).await?;
    ensure!(!ready, "several are as good as none");
    Ok(())
}
