//! Faults: what administrators and tenants do to Secrets, clients and names.

use anyhow::{Result, ensure};
use api_types::credentials::secret_name;
use e2e::json::Json as _;
use e2e::services::Account;
use e2e::services::agents::{REVISION_ANNOTATION, account, agent, credentials_secret, until_credentials};
use e2e::services::registration::{NEXT_CHECK, Registration};
use e2e::{Ns, kinds, objects, secs};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_names_that_collide_in_a_scope() -> Result<()> {
    let registration = Registration::shared().await?;
    let realm = registration.realm();
    let (first, second) = (registration.place("col-a-b").await?, registration.place("col-a").await?);
    let one = registration.registered(&first, "c").await?;
    first.until_condition(NEXT_CHECK, "c", "AudienceScopeReady", "True/Attached").await?;
    let two = registration.registered(&second, "b-c").await?;
    // A list of scopes that others had read may be half a minute old, and then the scope comes with a later try.
    second.until_condition(secs(90), "b-c", "AudienceScopeReady", "True/Attached").await?;
    ensure!(one.id == "col-a-b/c" && two.id == "col-a/b-c");
    let scopes = realm.audience_scopes().await?;
    let ours: Vec<_> = scopes.into_iter().filter(|name| name.starts_with("agent-col-a-b-c-aud")).collect();
    ensure!(ours.len() == 2 && ours[0] == "agent-col-a-b-c-aud", "{ours:?}");
    ensure!(ours[1].len() == ours[0].len() + 1 + 8, "with a suffix of 8 hex digits: {ours:?}");
    // Over two full checks (10 s and a fifth, each) neither takes the other's.
    let ends = tokio::time::Instant::now() + secs(27);
    while tokio::time::Instant::now() < ends {
        for (own, other) in [(&one, &two), (&two, &one)] {
            let token = realm.token(own).await?;
            let audiences = token.audiences();
            ensure!(audiences.contains(&own.id.as_str()), "{} has {audiences:?}", own.id);
            ensure!(!audiences.contains(&other.id.as_str()), "{} has {audiences:?}", own.id);
        }
        tokio::time::sleep(secs(2)).await;
    }
    Ok(())
}

/// Waits for credentials that differ from `before`, and checks that they work and that the Pods get them.
async fn renewed(registration: &Registration, ns: &Ns, name: &str, before: &Account) -> Result<()> {
    let differ = |secret: &Value| {
        account(secret).is_ok_and(|now| now != *before)
            && secret.annotation("kagenti.io/credentials-revision") == Some("2")
    };
    let secret =
        ns.until(NEXT_CHECK, kinds::SECRET, &secret_name(ns.name(), name), "new credentials", differ).await?;
    let now = account(&secret)?;
    let token = registration.realm().token(&now).await?;
    registration.realm().accepts(&token, &now.id).await?;
    let told = |object: &Value| object.template_annotation(REVISION_ANNOTATION) == Some("2");
    ns.until(secs(20), kinds::DEPLOYMENT, name, "the revision in the template", told).await?;
    registration.until_registered(ns, secs(20), name, "True/Registered").await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_secret_and_client_changed_by_hand() -> Result<()> {
    let registration = Registration::shared().await?;
    let (realm, ns) = (registration.realm(), registration.place("client-by-hand").await?);
    let edited = registration.registered(&ns, "edited").await?;
    let deleted = registration.registered(&ns, "deleted").await?;
    let client = registration.registered(&ns, "client").await?;
    for name in ["edited", "deleted", "client"] {
        registration.until_registered(&ns, secs(20), name, "True/Registered").await?;
    }
    let secret = |name: &str| secret_name(ns.name(), name);

    let wrong = json!({"data": {"client-secret.txt": "d3Jvbmc=", "client-id.txt": null}});
    ns.patch(kinds::SECRET, &secret("edited"), wrong).await?;
    // Its client goes with it, as the finalizer wants it, and the agent gets another one.
    ns.delete(kinds::SECRET, &secret("deleted")).await?;
    realm.delete_client("client-by-hand/client").await?;

    let same = |secret: &Value| account(secret).is_ok_and(|now| now == edited);
    ns.until(secs(20), kinds::SECRET, &secret("edited"), "the value to be set right", same).await?;
    renewed(&registration, &ns, "deleted", &deleted).await?;
    ensure!(realm.log_in(&deleted).await?.status == 401, "the secret of a deleted Secret still works");
    renewed(&registration, &ns, "client", &client).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_secret_of_somebody_else() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.place("client-owned").await?;
    let theirs = |workload: &str| {
        let data = json!({"stringData": {"client-id.txt": "mine", "client-secret.txt": "mine-alone"}});
        objects::named(kinds::SECRET, &secret_name("client-owned", workload)).with(data)
    };
    let mine = Account { id: "mine".to_owned(), secret: "mine-alone".to_owned() };
    let held =
        async |workload: &str| account(&ns.get(kinds::SECRET, &secret_name("client-owned", workload)).await?);
    let owner = ns.create(objects::config_map("keeper", json!({}))).await?;
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": owner.uid(), "controller": true}]);
    ns.create(theirs("kept").annotation("kagenti.io/credentials-managed", "false")).await?;
    ns.create(theirs("controlled").with(json!({"metadata": {"ownerReferences": reference}}))).await?;
    ns.create(theirs("plain")).await?;
    for name in ["kept", "controlled", "plain"] {
        ns.create(objects::agent_runtime(name, name)).await?;
        ns.create(agent(name).replicas(0)).await?;
    }

    registration.until_registered(&ns, secs(20), "kept", "False/UserProvided").await?;
    let runtime = registration.until_registered(&ns, secs(20), "controlled", "False/SecretConflict").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("ConfigMap keeper"), "{message}");
    ns.until_event(secs(10), "controlled", "SecretConflict").await?;
    // Without any sign of an owner it is taken over.
    registration.until_registered(&ns, secs(20), "plain", "True/Registered").await?;
    let plain = held("plain").await?;
    ensure!(plain.id == "client-owned/plain", "{plain:?}");
    registration.realm().token(&plain).await?;
    ensure!(held("kept").await? == mine && held("controlled").await? == mine);
    for name in ["kept", "controlled"] {
        ensure!(registration.realm().client(&format!("client-owned/{name}")).await?.is_none(), "{name}");
        ensure!(credentials_secret(&ns, name).await?.is_none(), "{name}");
    }

    // The owner lets go of it: noticed at the next full check.
    let secret = secret_name("client-owned", "controlled");
    ns.patch(kinds::SECRET, &secret, json!({"metadata": {"ownerReferences": null}})).await?;
    registration.until_registered(&ns, NEXT_CHECK, "controlled", "True/Registered").await?;
    let taken = account(&until_credentials(&ns, secs(5), "controlled").await?)?;
    ensure!(taken.id == "client-owned/controlled", "{taken:?}");
    Ok(())
}
