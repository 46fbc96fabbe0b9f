//! Scenarios 15 and 17: a workload goes, or is no agent any more.

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{TYPE, account, agent, credentials_secret, until_credentials};
use e2e::services::registration::{Registration, Setup};
use e2e::services::without_pods;
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

/// Waits until nothing of a workload is left, neither in the namespace nor in Keycloak.
async fn until_gone(registration: &Registration, ns: &Ns, workload: &str) -> Result<()> {
    let (realm, id) = (registration.realm(), format!("{}/{workload}", ns.name()));
    let scope = format!("agent-{}-{workload}-aud", ns.name());
    wait_for(secs(30), "Secret, client and scope to go", async || {
        let gone = credentials_secret(ns, workload).await?.is_none()
            && realm.client(&id).await?.is_none()
            && realm.scope(&scope).await?.is_none();
        Ok(gone.then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_15_delete() -> Result<()> {
    let registration = Registration::shared().await?;
    let (realm, ns) = (registration.realm(), registration.place("client-15").await?);
    registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    ensure!(realm.scope("agent-client-15-weather-aud").await?.is_some());
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    until_gone(&registration, &ns, "weather").await?;
    // Nothing is said of what is not there.
    let silent = |object: &Value| object.condition("ClientRegistered").status.is_empty();
    ns.until(secs(10), kinds::AGENT_RUNTIME, "weather", "no condition", silent).await?;

    // A client that was there before is used and stays.
    realm.create_client(&json!({"clientId": "client-15/mine", "publicClient": false})).await?;
    registration.registered(&ns, "mine").await?;
    ns.until_event(secs(10), "mine", "ClientAdopted").await?;
    ensure!(realm.existing("client-15/mine").await?["attributes"]["kagenti.adopted"] == "true");
    ns.delete(kinds::DEPLOYMENT, "mine").await?;
    wait_for(secs(30), "the Secret to go", async || {
        Ok(credentials_secret(&ns, "mine").await?.is_none().then_some(()))
    })
    .await?;
    realm.existing("client-15/mine").await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_15_retain() -> Result<()> {
    let setup =
        Setup::new("client-15-retain").suite(without_pods()).args(["--client-deletion-policy=Retain"]);
    let registration = Registration::own(setup).await?;
    let ns = registration.place("team1").await?;
    registration.registered(&ns, "weather").await?;
    let secret = until_credentials(&ns, secs(5), "weather").await?;
    ensure!(secret.texts("/metadata/finalizers").is_empty(), "{secret}");
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    ns.gone(secs(30), kinds::SECRET, secret.name()).await?;
    tokio::time::sleep(secs(3)).await;
    registration.realm().existing("team1/weather").await?;
    ensure!(registration.realm().scope("agent-team1-weather-aud").await?.is_some());
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_17_un_enrol() -> Result<()> {
    // A grace that leaves time to change one's mind: 5 min by a factor of 25.
    let grace = secs(12);
    let registration = Registration::own(Setup::new("client-17").args(["--unregister-grace=12s"])).await?;
    let ns = registration.place("team1").await?;
    let before = registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let label = async |value: Value, paused: bool| {
        let change = json!({"template": {"metadata": {"labels": {TYPE: value}}}, "paused": paused});
        ns.set_spec(kinds::DEPLOYMENT, "weather", change).await.map(drop)
    };
    label(Value::Null, false).await?;
    tokio::time::sleep(secs(3)).await;
    label(json!("agent"), false).await?;
    tokio::time::sleep(grace).await;
    let kept = async || {
        let after = account(&until_credentials(&ns, secs(5), "weather").await?)?;
        ensure!(after == before, "other credentials than before");
        registration.realm().token(&before).await.map(drop)
    };
    kept().await?;

    // The rollout does not end before it is let go on.
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    label(Value::Null, true).await?;
    tokio::time::sleep(grace + secs(4)).await;
    kept().await?;
    ns.set_spec(kinds::DEPLOYMENT, "weather", json!({"paused": false})).await?;
    until_gone(&registration, &ns, "weather").await?;
    ns.until_event(secs(10), "weather", "ClientDeregistered").await?;
    let deployment = ns.get(kinds::DEPLOYMENT, "weather").await?;
    ensure!(deployment.template_label(TYPE).is_none());
    Ok(())
}

/// The grace is kept although the rollout has ended.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_17_grace() -> Result<()> {
    let setup = Setup::new("client-17-grace").suite(without_pods()).args(["--unregister-grace=8s"]);
    let registration = Registration::own(setup).await?;
    let ns = registration.place("team1").await?;
    ns.create(agent("weather").replicas(0)).await?;
    until_credentials(&ns, secs(20), "weather").await?;
    let other = json!({"template": {"metadata": {"labels": {TYPE: "gateway"}}}});
    let since = tokio::time::Instant::now();
    ns.set_spec(kinds::DEPLOYMENT, "weather", other).await?;
    until_gone(&registration, &ns, "weather").await?;
    ensure!(since.elapsed() >= secs(8), "gone after {:?}", since.elapsed());
    Ok(())
}

/// The workload goes while another one of its name stays.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_15_shared_by_two_workloads() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.place("client-15-two").await?;
    ns.create(agent("weather")).await?;
    ns.create(objects::stateful_set("weather").template_label(TYPE, "agent")).await?;
    let both = |secret: &Value| secret.items("/metadata/ownerReferences").len() == 2;
    let name = until_credentials(&ns, secs(20), "weather").await?.name().to_owned();
    ns.until(secs(30), kinds::SECRET, &name, "two owners", both).await?;
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    tokio::time::sleep(secs(5)).await;
    let secret = ns.get(kinds::SECRET, &name).await?;
    registration.realm().token(&account(&secret)?).await?;
    ns.delete(kinds::STATEFUL_SET, "weather").await?;
    until_gone(&registration, &ns, "weather").await
}
