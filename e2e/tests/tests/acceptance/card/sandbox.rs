//! Card scenario 1 for Sandboxes, whose CRD may come after card-ctl.

use anyhow::{Context as _, Result};
use e2e::{Json as _, Options, Suite, kinds, objects, secs};
use local_cluster::ClusterOptions;
use serde_json::{Value, json};

use super::bare::{document, set_bundle, verifying};
use super::fixture::{labelled, start};

const LABEL: &str = "agent.kagenti.dev/signature-verified";

fn sandbox(name: &str) -> objects::Object {
    labelled(objects::named(kinds::SANDBOX, name)).spec(json!({
        "operatingMode": "Running",
        "podTemplate": {"spec": {"containers": [objects::container(8000)]}},
    }))
}

/// The card is made, read and judged, and the label goes to the pod template, which the Sandbox's own controller uses.
#[tokio::test]
async fn card_01_sandbox() -> Result<()> {
    let cluster =
        ClusterOptions { nodes: 0, controller_manager: false, scheduler: false, ..ClusterOptions::default() };
    let options = Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() };
    let suite = Suite::own(options).await?;
    let ns = suite.namespace("card-sandbox", Value::Null).await?;
    set_bundle(&ns, &super::bare::bundle("spiffe-json")).await?;
    let flags = verifying("card-sandbox");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let process = start(&suite, "card-sandbox", &flags).await?;
    let pid = process.pid();
    suite.global().await?.create(e2e::suite::sandbox_crd("v1beta1")?).await?;
    e2e::poll(secs(30), async || ns.post(sandbox("box")).await?.ok().map(Some)).await?;
    let tool = objects::named(kinds::SANDBOX, "tool").label("kagenti.io/type", "tool");
    ns.create(tool.spec(json!({"podTemplate": {"spec": {"containers": [objects::container(8000)]}}})))
        .await?;
    // Until the kind is known it is looked for at growing intervals.
    let name = "box-sandbox-card";
    let card = ns
        .until(secs(60), kinds::AGENT_CARD, name, "the card", |_| true)
        .await
        .with_context(|| process.log_tail())?;
    let owner = ns.get(kinds::SANDBOX, "box").await?;
    assert_eq!(
        card["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": "box", "uid": owner.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }])
    );
    let target = json!({"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": "box"});
    assert_eq!(card["spec"]["targetRef"], target);
    ns.create(objects::service("box", "box", json!([{"name": "a2a", "port": 8000}]))).await?;
    let data = json!({"agent-card.json": document("es256-legacy").to_string()});
    ns.create(objects::config_map("box-card-signed", data).label("kagenti.io/card-signed", "true")).await?;
    ns.until(secs(30), kinds::AGENT_CARD, name, "the verdict", |card| {
        card.condition("Verified").short() == "True/SignatureVerified"
    })
    .await
    .with_context(|| process.log_tail())?;
    let marked = ns
        .until(secs(30), kinds::SANDBOX, "box", "the label", |object| {
            object.template_label(LABEL) == Some("true")
        })
        .await
        .with_context(|| process.log_tail())?;
    assert_eq!(marked.annotation("verified-state.agent.kagenti.dev/box-sandbox-card"), Some("true"));
    assert_eq!(marked.text("/spec/operatingMode"), "Running", "nothing is restarted");
    assert_eq!(marked.annotation(api_types::names::annotation::RESTART_PENDING), None);
    let names: Vec<String> =
        ns.list(kinds::AGENT_CARD, "").await?.iter().map(|card| card.name().to_owned()).collect();
    assert_eq!(names, [name]);
    assert_eq!(process.pid(), pid);
    Ok(())
}
