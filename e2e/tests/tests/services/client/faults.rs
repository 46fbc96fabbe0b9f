//! Faults of the issue that no numbered scenario names: what Keycloak, administrators and tenants do wrong.

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{account, agent, credentials_secret, until_credentials};
use e2e::services::registration::{ADMIN_NAMESPACE, ADMIN_SECRET, NEXT_CHECK, Registration, Setup};
use e2e::services::{Account, Fault};
use e2e::{kinds, objects, secs, wait_for};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_strange_answers() -> Result<()> {
    let registration = Registration::own(Setup::new("client-answers").proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    let faults = [
        ("busy", Fault::json(429, &json!({"error": "slow down"}))),
        ("broken", Fault::json(500, &json!({"error": "unknown_error"}))),
        ("page", Fault::html(200, "<html>please log in</html>")),
        (
            "half",
            Fault::Answer {
                status: 200,
                content: "application/json",
                body: "[{\"id\": \"x\", \"clientId\": \"team1/ha".to_owned(),
                headers: Vec::new(),
            },
        ),
        (
            "moved",
            Fault::Answer {
                status: 302,
                content: "text/html",
                body: String::new(),
                headers: vec![("location", "http://127.0.0.1:9/".to_owned())],
            },
        ),
    ];
    for (name, fault) in faults {
        proxy.fault(move |seen| seen.path.contains("/admin/").then(|| fault.clone()));
        ns.create(agent(name).replicas(0)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        let failed = |object: &Value| {
            let found = object.condition("ClientRegistered");
            matches!(found.status.as_str(), "False" | "Unknown") && found.reason != "WaitingForConfig"
        };
        ns.until(secs(60), kinds::AGENT_RUNTIME, name, "a condition", failed).await?;
        ensure!(credentials_secret(&ns, name).await?.is_none(), "{name}: a Secret was written");
    }
    ensure!(registration.component().is_running());
    proxy.heal();
    wait_for(secs(300), "all agents in the end", async || {
        Ok((registration.realm().agents().await?.len() == 5).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_realm_missing() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.namespace("client-no-realm", Value::Null).await?;
    ns.create(e2e::services::agents::authbridge_config(registration.url(), "no-such-realm")).await?;
    ns.create(agent("weather").replicas(0)).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    // The service account belongs to realm `kagenti`, and the other does not exist.
    let found = |object: &Value| {
        matches!(
            object.condition("ClientRegistered").short().as_str(),
            "False/RealmNotFound" | "False/KeycloakForbidden"
        )
    };
    ns.until(secs(30), kinds::AGENT_RUNTIME, "weather", "the realm to be missed", found).await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_wrong_and_rotated_login() -> Result<()> {
    let registration = Registration::own(Setup::new("client-login").proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    let admin = registration.global().await?.other(ADMIN_NAMESPACE);
    let right = admin.get(kinds::SECRET, ADMIN_SECRET).await?["data"]["client-secret"].clone();
    let set = async |value: Value| {
        admin.patch(kinds::SECRET, ADMIN_SECRET, json!({"data": {"client-secret": value}})).await.map(drop)
    };
    set(json!("d3Jvbmc=")).await?;
    ns.create(agent("weather").replicas(0)).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    registration.until_registered(&ns, secs(30), "weather", "False/KeycloakUnauthorized").await?;
    let mark = proxy.mark();
    tokio::time::sleep(secs(20)).await;
    let logins = proxy.since(mark).iter().filter(|seen| seen.is_token()).count();
    ensure!(logins <= 1, "{logins} logins with a wrong secret in 20 s");
    set(right).await?;
    until_credentials(&ns, secs(20), "weather").await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_names_that_collide_in_a_scope() -> Result<()> {
    let registration = Registration::shared().await?;
    let realm = registration.realm();
    let (first, second) = (registration.place("col-a-b").await?, registration.place("col-a").await?);
    let one = registration.registered(&first, "c").await?;
    registration.until_registered(&first, secs(20), "c", "True/Registered").await?;
    let two = registration.registered(&second, "b-c").await?;
    registration.until_registered(&second, secs(20), "b-c", "True/Registered").await?;
    ensure!(one.id == "col-a-b/c" && two.id == "col-a/b-c");
    // Over two full checks neither takes the other's scope.
    let ends = tokio::time::Instant::now() + NEXT_CHECK;
    while tokio::time::Instant::now() < ends {
        for (own, other) in [(&one, &two), (&two, &one)] {
            let token = realm.token(own).await?;
            let audiences = token.audiences();
            ensure!(audiences.contains(&own.id.as_str()), "{} has {audiences:?}", own.id);
            ensure!(!audiences.contains(&other.id.as_str()), "{} has {audiences:?}", own.id);
        }
        tokio::time::sleep(secs(3)).await;
    }
    let scopes = realm.audience_scopes().await?;
    let ours = scopes.iter().filter(|name| name.starts_with("agent-col-a-b-c-aud")).count();
    ensure!(ours == 2, "{scopes:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_secret_and_client_changed_by_hand() -> Result<()> {
    let registration = Registration::shared().await?;
    let (realm, ns) = (registration.realm(), registration.place("client-by-hand").await?);
    let before = registration.registered(&ns, "weather").await?;
    let name = until_credentials(&ns, secs(5), "weather").await?.name().to_owned();
    let same = |secret: &Value| account(secret).is_ok_and(|account| account == before);

    ns.patch(kinds::SECRET, &name, json!({"data": {"client-secret.txt": "d3Jvbmc="}})).await?;
    ns.until(NEXT_CHECK, kinds::SECRET, &name, "the value to be set right", same).await?;
    ns.patch(kinds::SECRET, &name, json!({"metadata": {"finalizers": null}})).await?;
    ns.delete(kinds::SECRET, &name).await?;
    let valid = wait_for(NEXT_CHECK, "a Secret that works again", async || {
        let Some(secret) = credentials_secret(&ns, "weather").await? else { return Ok(None) };
        realm.token(&account(&secret)?).await.map(Some)
    });
    valid.await?;

    realm.delete_client("client-by-hand/weather").await?;
    wait_for(NEXT_CHECK, "another client", async || {
        let Some(secret) = credentials_secret(&ns, "weather").await? else { return Ok(None) };
        let now: Account = account(&secret)?;
        realm.token(&now).await.map(Some)
    })
    .await
    .map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_secret_of_somebody_else() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.place("client-owned").await?;
    // Nobody's workload yet: the name is known in advance.
    let probe = registration.registered(&ns, "weather").await?;
    let name = until_credentials(&ns, secs(5), "weather").await?.name().to_owned();
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    ns.gone(secs(30), kinds::SECRET, &name).await?;
    let own = objects::named(kinds::SECRET, &name)
        .annotation("kagenti.io/credentials-managed", "false")
        .with(json!({"stringData": {"client-id.txt": "mine", "client-secret.txt": "mine"}}));
    ns.create(own).await?;
    ns.create(agent("weather").replicas(0)).await?;
    registration.until_registered(&ns, secs(20), "weather", "False/UserProvided").await?;
    let kept = account(&ns.get(kinds::SECRET, &name).await?)?;
    ensure!(kept.id == "mine" && kept.secret == "mine" && kept != probe);
    Ok(())
}
