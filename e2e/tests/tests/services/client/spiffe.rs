//! Scenarios 2 and 3: client ids from SPIFFE identities.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{agent, credentials_secret, until_credentials};
use e2e::services::registration::{Registration, Setup};
use e2e::services::{Account, agents};
use e2e::{Options, kinds, objects, secs};
use serde_json::json;
use tokio::sync::OnceCell;

static SPIRE: OnceCell<Result<Arc<Registration>, String>> = OnceCell::const_new();

/// SPIRE is installed; nothing injects, but the decision whether something would is the same.
fn spire() -> Setup {
    let suite = Options::default().without_webhook().without_runtime_ctl().fixture("mlflow");
    Setup::new("client-spire").suite(suite).args(["--spire-trust-domain=example.org"])
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_02_spiffe_id() -> Result<()> {
    let registration = Registration::once(&SPIRE, spire).await?;
    let ns = registration.place("team1").await?;
    ns.create(agent("weather-agent").pod_spec(json!({"serviceAccountName": "mysa"}))).await?;
    let credentials = agents::account(&until_credentials(&ns, secs(20), "weather-agent").await?)?;
    ensure!(credentials.id == "spiffe://example.org/ns/team1/sa/mysa", "{credentials:?}");
    let realm = registration.realm();
    ensure!(realm.existing(&credentials.id).await?.text("/name") == "team1/weather-agent");
    let scope = realm.scope("agent-team1-weather-agent-aud").await?.unwrap_or_default();
    let mapper = &scope["protocolMappers"][0];
    ensure!(mapper["config"]["included.custom.audience"] == credentials.id.as_str(), "{scope}");
    realm.accepts(&realm.token(&credentials).await?, &credentials.id).await?;
    let stranger = Account { id: credentials.id.clone(), secret: "guessed".to_owned() };
    ensure!(realm.log_in(&stranger).await?.status == 401);
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_03_service_account_left_out() -> Result<()> {
    let registration = Registration::once(&SPIRE, spire).await?;
    let ns = registration.namespace("client-03", json!({"kagenti-enabled": "true"})).await?;
    ns.apply(agents::authbridge_config(registration.url(), registration.realm().name())).await?;
    ns.create(agent("weather-agent")).await?;
    let credentials = agents::account(&until_credentials(&ns, secs(20), "weather-agent").await?)?;
    ensure!(credentials.id == "spiffe://example.org/ns/client-03/sa/weather-agent", "{credentials:?}");

    ns.create(agent("opted-out").template_label("kagenti.io/inject", "disabled")).await?;
    ns.create(objects::agent_runtime("opted-out", "opted-out")).await?;
    let runtime =
        registration.until_registered(&ns, secs(20), "opted-out", "False/IdentityUnresolved").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("serviceAccountName"), "{message}");
    ns.until_event(secs(10), "opted-out", "IdentityUnresolved").await?;
    tokio::time::sleep(secs(15)).await;
    let events = ns.events("opted-out", "IdentityUnresolved").await?;
    ensure!(e2e::Ns::occurrences(&events) == 1, "{events:?}");
    ensure!(credentials_secret(&ns, "opted-out").await?.is_none());
    let ids = registration.realm().agents().await?;
    ensure!(!ids.iter().any(|id| id.contains("opted-out") || id.ends_with("/sa/default")), "{ids:?}");
    ensure!(ns.find(kinds::SECRET, "opted-out").await?.is_none());
    Ok(())
}
