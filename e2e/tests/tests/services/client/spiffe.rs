//! Scenarios 2 and 3: client ids from SPIFFE identities.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{agent, credentials_secret, until_credentials};
use e2e::services::registration::{NEXT_CHECK, Registration, Setup};
use e2e::services::{Account, agents};
use e2e::{Options, kinds, objects, secs};
use serde_json::json;
use tokio::sync::OnceCell;

pub(crate) static SPIRE: OnceCell<Result<Arc<Registration>, String>> = OnceCell::const_new();

/// A cluster with SPIRE and the webhook.
pub(crate) fn spire() -> Setup {
    let suite = Options::default().without_runtime_ctl();
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
    ns.create(objects::agent_runtime("weather-agent", "weather-agent")).await?;
    // What is said of the scope is found out by a full check.
    ns.until_condition(NEXT_CHECK, "weather-agent", "AudienceScopeReady", "True/Attached").await?;
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
    ns.create(objects::agent_runtime("opted-out", "opted-out")).await?;
    ns.create(agent("opted-out").template_label("kagenti.io/inject", "disabled")).await?;
    ns.create(agent("weather-agent")).await?;
    let credentials = agents::account(&until_credentials(&ns, secs(20), "weather-agent").await?)?;
    ensure!(credentials.id == "spiffe://example.org/ns/client-03/sa/weather-agent", "{credentials:?}");
    // That is who the Pod is, too.
    let pods = ns.until_pods(secs(40), "weather-agent", 1).await?;
    ensure!(pods[0].text("/spec/serviceAccountName") == "weather-agent", "{}", pods[0].readable());

    let runtime =
        registration.until_registered(&ns, secs(20), "opted-out", "False/IdentityUnresolved").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("serviceAccountName"), "{message}");
    ns.until_event(secs(10), "opted-out", "IdentityUnresolved").await?;
    // Over a full check (10 s and a fifth) it is said once.
    tokio::time::sleep(secs(14)).await;
    let events = ns.events("opted-out", "IdentityUnresolved").await?;
    ensure!(e2e::Ns::occurrences(&events) == 1, "{events:?}");
    ensure!(credentials_secret(&ns, "opted-out").await?.is_none());
    let ids = registration.realm().agents().await?;
    ensure!(!ids.iter().any(|id| id.contains("opted-out") || id.ends_with("/sa/default")), "{ids:?}");

    // A name for it ends the wait.
    let named = json!({"template": {"spec": {"serviceAccountName": "mine"}}});
    ns.set_spec(kinds::DEPLOYMENT, "opted-out", named).await?;
    let credentials = agents::account(&until_credentials(&ns, secs(20), "opted-out").await?)?;
    ensure!(credentials.id == "spiffe://example.org/ns/client-03/sa/mine", "{credentials:?}");
    Ok(())
}
