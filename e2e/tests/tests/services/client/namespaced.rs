//! Roles in two namespaces and nothing else: Secrets are read by name only (client-registration §16).

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{self, account, agent, credentials_secret, until_credentials};
use e2e::services::registration::{ADMIN_NAMESPACE, COMPONENT, Registration, Setup};
use e2e::{kinds, secs, wait_for};
use serde_json::json;

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_16_1_secrets_by_name_only() -> Result<()> {
    let setup = Setup::new("client-named").without_pods().resync(3).namespaced(["team1", "team2"]);
    let registration = Registration::own(setup).await?;
    let realm = registration.realm();
    let mark = registration.cluster().audit()?.mark()?;
    let ns = registration.global().await?.other("team1");
    ns.create(agents::authbridge_config(registration.url(), realm.name())).await?;
    let first = registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    realm.token(&first).await?;

    // A change in Keycloak, an order, and a Secret that somebody deleted.
    let name = until_credentials(&ns, secs(5), "weather").await?.name().to_owned();
    let second = realm.rotate(&first.id).await?;
    let has = |secret: &serde_json::Value| account(secret).is_ok_and(|account| account.secret == second);
    ns.until(secs(45), kinds::SECRET, &name, "the new secret", has).await?;
    ns.annotate(kinds::DEPLOYMENT, "weather", json!({"kagenti.io/rotate-credentials": "now"})).await?;
    let third = |secret: &serde_json::Value| {
        account(secret).is_ok_and(|account| account.secret != second && account.secret != first.secret)
    };
    ns.until(secs(20), kinds::SECRET, &name, "a third secret", third).await?;
    ns.delete(kinds::SECRET, &name).await?;
    let again = wait_for(secs(45), "a Secret that works again", async || {
        let Some(secret) = credentials_secret(&ns, "weather").await? else { return Ok(None) };
        Ok((realm.log_in(&account(&secret)?).await?.status == 200).then_some(()))
    });
    again.await?;

    // It goes with its workload, and client and scope follow.
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    ns.gone(secs(60), kinds::SECRET, &name).await?;
    let nothing = wait_for(secs(45), "client and scope gone", async || {
        Ok((realm.agents().await?.is_empty() && realm.audience_scopes().await?.is_empty()).then_some(()))
    });
    nothing.await?;

    // An un-enrolment, and what is not watched.
    let stays = registration.registered(&ns, "stays").await?;
    let elsewhere = registration.place("team3").await?;
    elsewhere.create(agent("weather").replicas(0)).await?;
    let name = until_credentials(&ns, secs(5), "stays").await?.name().to_owned();
    ns.patch(
        kinds::DEPLOYMENT,
        "stays",
        json!({"spec": {"replicas": 0, "template": {"metadata": {"labels": {agents::TYPE: null}}}}}),
    )
    .await?;
    ns.gone(secs(90), kinds::SECRET, &name).await?;
    let nothing = wait_for(secs(45), "its client gone", async || {
        Ok(realm.client(&stays.id).await?.is_none().then_some(()))
    });
    nothing.await?;
    ensure!(credentials_secret(&elsewhere, "weather").await?.is_none());

    let lists = registration.cluster().audit()?.since(mark, |request| {
        request.short_user() == COMPONENT
            && request.resource == "secrets"
            && matches!(request.verb.as_str(), "list" | "watch")
            && request.namespace != ADMIN_NAMESPACE
    })?;
    ensure!(lists.is_empty(), "{lists:?}");
    registration.keeps_secrets(&[first.secret, second]).await
}
