//! Which cards are made.

use anyhow::Result;
use e2e::{Json as _, kinds, objects, secs};
use serde_json::{Value, json};

use super::fixture::{Stage, agent, labelled};

/// Card scenario 1.
#[tokio::test]
async fn card_01_auto_create() -> Result<()> {
    let stage = Stage::new("card-01", &[]).await?;
    let ns = &stage.ns;
    ns.create(agent("echo").replicas(0)).await?;
    ns.create(labelled(objects::stateful_set("store")).replicas(0)).await?;
    ns.create(agent("hammer").replicas(0).label("kagenti.io/type", "tool")).await?;
    ns.create(objects::deployment("mute").replicas(0).label("kagenti.io/type", "agent")).await?;
    let made = |_: &Value| true;
    let card = ns.until(secs(5), kinds::AGENT_CARD, "echo-deployment-card", "the card", made).await?;
    assert_eq!(card.text("/metadata/labels/app.kubernetes.io~1managed-by"), "kagenti-operator");
    assert_eq!(card.text("/metadata/labels/app.kubernetes.io~1name"), "echo");
    let workload = ns.get(kinds::DEPLOYMENT, "echo").await?;
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "echo", "uid": workload.text("/metadata/uid"),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    assert_eq!(card["metadata"]["ownerReferences"], owner);
    let spec = json!({
        "syncPeriod": "30s",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo"},
    });
    assert_eq!(card["spec"], spec, "no identityBinding without a trust domain");
    ns.until(secs(5), kinds::AGENT_CARD, "store-statefulset-card", "the card", made).await?;
    // Both were seen by now, as the others were.
    let names: Vec<String> =
        ns.list(kinds::AGENT_CARD, "").await?.iter().map(|card| card.name().to_owned()).collect();
    assert_eq!(names, ["echo-deployment-card", "store-statefulset-card"]);
    // A card that somebody deletes comes back.
    ns.delete(kinds::AGENT_CARD, "echo-deployment-card").await?;
    let again = |found: &Value| found.text("/metadata/uid") != card.text("/metadata/uid");
    ns.until(secs(5), kinds::AGENT_CARD, "echo-deployment-card", "another card", again).await?;
    Ok(())
}

/// Card scenario 1: with a trust domain cards are bound.
#[tokio::test]
async fn card_01_binding_with_a_trust_domain() -> Result<()> {
    let stage = Stage::new("card-01-domain", &["--spire-trust-domain=example.org"]).await?;
    stage.ns.create(agent("echo").replicas(0)).await?;
    let card =
        stage.ns.until(secs(5), kinds::AGENT_CARD, "echo-deployment-card", "the card", |_| true).await?;
    assert_eq!(card["spec"]["identityBinding"], json!({"strict": false}));
    Ok(())
}
