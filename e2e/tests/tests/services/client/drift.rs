//! Scenarios 6, 7, 18: what an administrator changes in Keycloak.

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::Account;
use e2e::services::agents::{REVISION_ANNOTATION, SECRET_ANNOTATION, account, until_credentials};
use e2e::services::registration::{NEXT_CHECK, Registration, Setup};
use e2e::{kinds, secs, wait_for};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_06_drift() -> Result<()> {
    let registration = Registration::own(Setup::new("client-06").without_pods().resync(3).proxied()).await?;
    let (realm, proxy, ns) =
        (registration.realm(), registration.proxy()?, registration.place("team1").await?);
    let before = registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    let redirect = json!(["https://example.test/*"]);
    let changes = json!({"serviceAccountsEnabled": false, "name": "mine", "redirectUris": redirect});
    // Before the change: the repair may come before the answer to it.
    let mark = proxy.mark();
    realm.change_client("team1/weather", changes).await?;
    let client = wait_for(NEXT_CHECK, "the client to be repaired", async || {
        let client = realm.existing("team1/weather").await?;
        let done = client["serviceAccountsEnabled"] == true && client["name"] == "team1/weather";
        Ok(done.then_some(client))
    })
    .await?;
    ensure!(client["redirectUris"] == redirect, "the administrator's own field: {client}");
    ensure!(client.text("/secret") == before.secret, "the secret changed");
    let writes: Vec<_> =
        proxy.since(mark).into_iter().filter(|seen| seen.is_write() && !seen.is_token()).collect();
    ensure!(writes.len() == 1 && writes[0].method == "PUT", "{writes:?}");
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_07_in_sync_means_no_write() -> Result<()> {
    let registration = Registration::own(Setup::new("client-07").without_pods().resync(3).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    let version = until_credentials(&ns, secs(5), "weather").await?.version().to_owned();
    let mark = proxy.mark();
    let checks = wait_for(NEXT_CHECK * 2, "two full checks", async || {
        let finds = proxy.since(mark).iter().filter(|seen| seen.path.contains("/clients?clientId=")).count();
        Ok((finds >= 2).then_some(finds))
    });
    checks.await?;
    let since = proxy.since(mark);
    let writes: Vec<_> = since.iter().filter(|seen| seen.is_write() && !seen.is_token()).collect();
    ensure!(writes.is_empty(), "{writes:?}");
    ensure!(until_credentials(&ns, secs(5), "weather").await?.version() == version, "the Secret was written");
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_18_rotation() -> Result<()> {
    let registration = Registration::own(Setup::new("client-18").resync(3)).await?;
    let (realm, ns) = (registration.realm(), registration.place("team1").await?);
    let first = registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    // The annotation may come after the condition, and is a rollout of its own.
    let annotated = |object: &Value| object.template_annotation(SECRET_ANNOTATION).is_some();
    ns.until(secs(20), kinds::DEPLOYMENT, "weather", "the annotation", annotated).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let sets = ns.replica_sets("weather").await?.len();
    let name = until_credentials(&ns, secs(5), "weather").await?.name().to_owned();

    let second = realm.rotate(&first.id).await?;
    ensure!(second != first.secret);
    let has = |value: String, revision: &'static str| {
        move |secret: &Value| {
            account(secret).is_ok_and(|account| account.secret == value)
                && secret.annotation("kagenti.io/credentials-revision") == Some(revision)
        }
    };
    ns.until(NEXT_CHECK, kinds::SECRET, &name, "the new secret", has(second.clone(), "2")).await?;
    let rolled = |object: &Value| object.template_annotation(REVISION_ANNOTATION) == Some("2");
    ns.until(secs(20), kinds::DEPLOYMENT, "weather", "the revision", rolled).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    ns.stays(secs(6), kinds::SECRET, &name).await?;
    let after = ns.replica_sets("weather").await?.len();
    ensure!(after == sets + 1, "{sets} ReplicaSets before, {after} after");

    ns.annotate(kinds::DEPLOYMENT, "weather", json!({"kagenti.io/rotate-credentials": "monday"})).await?;
    let third = |secret: &Value| {
        secret.annotation("kagenti.io/credentials-revision") == Some("3")
            && account(secret).is_ok_and(|account| account.secret != second)
    };
    // At once: no full check is waited for.
    let secret = ns.until(secs(10), kinds::SECRET, &name, "a third secret", third).await?;
    realm.token(&account(&secret)?).await?;
    let old = Account { secret: second.clone(), ..first.clone() };
    ensure!(realm.log_in(&old).await?.status == 401, "the second secret is still good");
    let rolled = |object: &Value| object.template_annotation(REVISION_ANNOTATION) == Some("3");
    ns.until(secs(20), kinds::DEPLOYMENT, "weather", "the third revision", rolled).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    ns.stays(secs(6), kinds::SECRET, &name).await?;
    let after = ns.replica_sets("weather").await?.len();
    ensure!(after == sets + 2, "{sets} ReplicaSets before, {after} after two rotations");
    registration.keeps_secrets(&[first.secret, second, account(&secret)?.secret]).await
}
