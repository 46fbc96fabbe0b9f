//! Scenarios 8 and 22: where credentials may go, and how little they may do.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{agent, credentials_secret, until_credentials};
use e2e::services::registration::{Login, Registration, Setup};
use e2e::{kinds, objects, secs};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_08_untrusted_url() -> Result<()> {
    let registration = Registration::own(Setup::new("client-08").without_pods().resync(3).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    let before = until_credentials(&ns, secs(5), "weather").await?;

    let listener = TcpListener::bind("127.0.0.1:0").context("the tenant's listener")?;
    listener.set_nonblocking(true).context("a look without waiting")?;
    let url = format!("http://{}", listener.local_addr().context("its address")?);
    let set = async |data: Value| {
        ns.patch(kinds::CONFIG_MAP, "authbridge-config", json!({"data": data})).await.map(drop)
    };
    set(json!({"KEYCLOAK_URL": url})).await?;
    registration.until_registered(&ns, secs(10), "weather", "False/UntrustedKeycloakURL").await?;
    ns.until_event(secs(10), "weather", "UntrustedKeycloakURL").await?;
    // A second agent has no earlier registration to fall back on.
    ns.create(objects::agent_runtime("second", "second")).await?;
    ns.create(agent("second")).await?;
    registration.until_registered(&ns, secs(20), "second", "False/UntrustedKeycloakURL").await?;
    tokio::time::sleep(secs(6)).await;
    ensure!(listener.accept().is_err(), "somebody connected to the tenant's listener");
    ensure!(credentials_secret(&ns, "second").await?.is_none());
    let after = until_credentials(&ns, secs(5), "weather").await?;
    ensure!(after.get("data") == before.get("data"), "the Secret changed");
    // The proxy is allowed; another path or a look-alike of it is not.
    for near in
        [format!("{}/elsewhere", registration.url()), registration.url().replace("127.0.0.1", "localhost")]
    {
        set(json!({"KEYCLOAK_URL": near})).await?;
        // The reason was the same for the URL before.
        let told = |object: &Value| {
            let said = object.condition("ClientRegistered");
            said.short() == "False/UntrustedKeycloakURL" && said.message.contains(&near)
        };
        ns.until(secs(10), kinds::AGENT_RUNTIME, "weather", "the URL in the condition", told).await?;
    }

    let both = async |limit: u64, short: &str| -> Result<()> {
        for agent in ["weather", "second"] {
            registration.until_registered(&ns, secs(limit), agent, short).await?;
        }
        Ok(())
    };
    set(json!({"KEYCLOAK_URL": registration.url()})).await?;
    both(20, "True/Registered").await?;
    for realm in ["master", "master;x=1", ".."] {
        set(json!({"KEYCLOAK_REALM": realm})).await?;
        both(10, "False/RealmNotAllowed").await?;
        let mark = proxy.mark();
        tokio::time::sleep(secs(6)).await;
        let calls = proxy.since(mark);
        let calls: Vec<String> = calls.into_iter().map(|seen| seen.path).collect();
        ensure!(calls.is_empty(), "realm {realm}: {calls:?}");
        set(json!({"KEYCLOAK_REALM": registration.realm().name()})).await?;
        both(20, "True/Registered").await?;
    }
    let realm = registration.realm().name().to_owned();
    let strange = |path: &str| path.contains("realms/") && !path.contains(&format!("realms/{realm}"));
    ensure!(!proxy.seen().iter().any(|seen| strange(&seen.path)), "another realm was asked");
    registration.keeps_secrets(&[]).await
}

/// That one role suffices for every scenario is shown by the others: they all run with it.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_22_least_privilege() -> Result<()> {
    let registration =
        Registration::own(Setup::new("client-22").without_pods().login(Login::NoRights)).await?;
    let ns = registration.place("team1").await?;
    ns.create(agent("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let runtime = registration.until_registered(&ns, secs(20), "weather", "False/KeycloakForbidden").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("manage-clients") && message.contains("realm-management"), "{message}");
    ns.until_event(secs(10), "weather", "KeycloakForbidden").await?;
    ensure!(credentials_secret(&ns, "weather").await?.is_none());
    ensure!(registration.realm().agents().await?.is_empty());
    registration.keeps_secrets(&[]).await
}
