//! Faults: the component's own credentials and the realm they are for.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{agent, authbridge_config, credentials_secret, until_credentials};
use e2e::services::realm::REGISTRAR;
use e2e::services::registration::{ADMIN_NAMESPACE, ADMIN_SECRET, Login, Registration, Setup};
use e2e::services::{Realm, keycloak, without_pods};
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

/// An agent with its AgentRuntime, without Pods.
async fn newcomer(ns: &Ns, name: &str) -> Result<()> {
    ns.create(objects::agent_runtime(name, name)).await?;
    ns.create(agent(name).replicas(0)).await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_login_missing_wrong_and_rotated() -> Result<()> {
    // No full check during the test: it would be a reason for calls of its own.
    let setup = Setup::new("client-login").suite(without_pods()).proxied().args(["--resync-period=1h"]);
    let registration = Registration::own(setup).await?;
    let (realm, proxy, ns) =
        (registration.realm(), registration.proxy()?, registration.place("team1").await?);
    let admin = registration.global().await?.other(ADMIN_NAMESPACE);
    let logins = |mark: usize| proxy.since(mark).into_iter().filter(e2e::services::Seen::is_token).count();
    registration.registered(&ns, "first").await?;
    registration.until_registered(&ns, secs(20), "first", "True/Registered").await?;
    let before = until_credentials(&ns, secs(5), "first").await?;

    // Missing: nothing is asked of Keycloak, and what was delivered stays.
    admin.delete(kinds::SECRET, ADMIN_SECRET).await?;
    wait_for(secs(10), "the component to miss its Secret", async || {
        let log = registration.component().log();
        Ok(log.contains("does not exist: agents are not registered").then_some(()))
    })
    .await?;
    let mark = proxy.mark();
    newcomer(&ns, "second").await?;
    let runtime =
        registration.until_registered(&ns, secs(20), "second", "False/WaitingForAdminCredentials").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("Secret keycloak/keycloak-initial-admin"), "{message}");
    ns.until_event(secs(10), "second", "WaitingForAdminCredentials").await?;
    ensure!(proxy.since(mark).is_empty(), "{:?}", proxy.since(mark));
    ensure!(until_credentials(&ns, secs(5), "first").await?.version() == before.version());

    // Wrong: said, and not tried again and again.
    let account = |secret: &str| {
        let data = json!({"stringData": {"client-id": REGISTRAR, "client-secret": secret}});
        objects::named(kinds::SECRET, ADMIN_SECRET).with(data)
    };
    let wrong = "not-the-secret-of-anybody";
    admin.create(account(wrong)).await?;
    registration.until_registered(&ns, secs(20), "second", "False/KeycloakUnauthorized").await?;
    newcomer(&ns, "third").await?;
    registration.until_registered(&ns, secs(20), "third", "False/KeycloakUnauthorized").await?;
    tokio::time::sleep(secs(8)).await;
    ensure!(logins(mark) == 1, "{} logins with a wrong secret", logins(mark));
    ensure!(credentials_secret(&ns, "second").await?.is_none());

    // Rotated in Keycloak, then in the Secret: one login with the new one, and everybody gets on.
    let second = realm.rotate(REGISTRAR).await?;
    let mark = proxy.mark();
    let set = async |value: &str| {
        admin
            .patch(kinds::SECRET, ADMIN_SECRET, json!({"stringData": {"client-secret": value}}))
            .await
            .map(drop)
    };
    set(&second).await?;
    for name in ["second", "third"] {
        until_credentials(&ns, secs(20), name).await?;
        registration.until_registered(&ns, secs(20), name, "True/Registered").await?;
    }
    ensure!(logins(mark) == 1, "{} logins after the rotation", logins(mark));

    // Rotated while a token of the old one is still good.
    let third = realm.rotate(REGISTRAR).await?;
    let mark = proxy.mark();
    set(&third).await?;
    newcomer(&ns, "fourth").await?;
    until_credentials(&ns, secs(20), "fourth").await?;
    ensure!(logins(mark) <= 1, "{} logins after the second rotation", logins(mark));
    registration.keeps_secrets(&[wrong.to_owned(), second, third]).await
}

/// With the administrator's password the admin API says that a realm is missing; a service account of the realm already
/// hears it from the token endpoint, and also that one is disabled.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_realm_missing() -> Result<()> {
    let setup = Setup::new("client-realm").suite(without_pods()).login(Login::Password);
    let (shared, registration) = tokio::try_join!(Registration::shared(), Registration::own(setup))?;
    let missing = async |registration: &Registration, ns: &Ns, realm: &str| {
        ns.create(authbridge_config(registration.url(), realm)).await?;
        newcomer(ns, "weather").await?;
        let runtime = registration.until_registered(ns, secs(30), "weather", "False/RealmNotFound").await?;
        ns.until_event(secs(10), "weather", "RealmNotFound").await?;
        ensure!(credentials_secret(ns, "weather").await?.is_none());
        anyhow::Ok(runtime.condition("ClientRegistered").message)
    };
    let ns = shared.namespace("client-no-realm", Value::Null).await?;
    let message = missing(&shared, &ns, "client-realm-nowhere").await?;
    ensure!(message.contains("realm client-realm-nowhere does not exist"), "{message}");

    let keycloak = keycloak().await?;
    let off = Realm::create(&keycloak, "client-realm-off").await?;
    off.write(hyper::Method::PUT, "", &json!({"enabled": false})).await?;
    let ns = shared.namespace("client-realm-off", Value::Null).await?;
    let message = missing(&shared, &ns, off.name()).await?;
    ensure!(message.contains("realm client-realm-off is disabled"), "{message}");

    let ns = registration.namespace("team1", Value::Null).await?;
    let message = missing(&registration, &ns, "client-realm-later").await?;
    ensure!(message.contains("realm client-realm-later does not exist"), "{message}");
    let later = Realm::create(&keycloak, "client-realm-later").await?;
    // Looked for once a minute; a change of the workload asks at once.
    let label = json!({"template": {"metadata": {"labels": {"kagenti.io/looked-at": "again"}}}});
    ns.set_spec(kinds::DEPLOYMENT, "weather", label).await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    later.existing("team1/weather").await.map(drop).context("the client in the realm that was made later")
}
