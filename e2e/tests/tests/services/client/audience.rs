//! Scenarios 11 to 14: audience scopes.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{self, SECRET_ANNOTATION, account, agent, until_credentials};
use e2e::services::registration::{NEXT_CHECK, Registration, Setup};
use e2e::services::{Account, Fault, Realm, Seen, Token};
use e2e::{Ns, kinds, objects, secs, wait_for};
use hyper::Method;
use serde_json::{Value, json};

/// The mappers of a scope.
async fn mappers(realm: &Realm, scope: &str) -> Result<(String, Vec<Value>)> {
    let scope = realm.scope(scope).await?.context("there is no such scope")?;
    let path = format!("/client-scopes/{}/protocol-mappers/models", scope.text("/id"));
    let mappers = realm.read(&path).await?.as_array().cloned().unwrap_or_default();
    Ok((path, mappers))
}

/// The one mapper is as it should be, and a token says so.
async fn repaired(realm: &Realm, scope: &str, agent: &Account) -> Result<Option<()>> {
    let (_, mappers) = mappers(realm, scope).await?;
    let config = [
        ("included.custom.audience", agent.id.as_str()),
        ("id.token.claim", "false"),
        ("access.token.claim", "true"),
        ("userinfo.token.claim", "false"),
    ];
    let right = |mapper: &Value| {
        mapper.text("/name") == scope
            && mapper.text("/protocolMapper") == "oidc-audience-mapper"
            && config.iter().all(|(key, value)| mapper["config"][*key] == *value)
    };
    if mappers.len() != 1 || !mappers.iter().all(right) {
        return Ok(None);
    }
    realm.accepts(&realm.token(agent).await?, &agent.id).await?;
    Ok(Some(()))
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_11_audience_repair() -> Result<()> {
    let registration = Registration::shared().await?;
    let (realm, ns) = (registration.realm(), registration.place("client-11").await?);
    let agent = registration.registered(&ns, "weather").await?;
    let scope = "agent-client-11-weather-aud";
    let limit = NEXT_CHECK;
    wait_for(limit, "the scope", async || repaired(realm, scope, &agent).await).await?;

    let (path, found) = mappers(realm, scope).await?;
    let mapper = found.first().cloned().unwrap_or_default();
    let one = format!("{path}/{}", mapper.text("/id"));
    realm.admin(Method::DELETE, &one, None).await?.ok_or("deleting the mapper")?;
    wait_for(limit, "a deleted mapper to be made again", async || repaired(realm, scope, &agent).await)
        .await?;

    let (_, found) = mappers(realm, scope).await?;
    let mut changed = found.first().cloned().unwrap_or_default();
    changed["config"]["included.custom.audience"] = json!("somebody/else");
    realm.write(Method::PUT, &format!("{path}/{}", changed.text("/id")), &changed).await?;
    wait_for(limit, "a changed audience to be set right", async || repaired(realm, scope, &agent).await)
        .await?;

    other_type(realm, scope, &path).await?;
    wait_for(limit, "a mapper of another type to be replaced", async || repaired(realm, scope, &agent).await)
        .await?;

    two_mappers(realm, scope, &path, &agent).await?;
    wait_for(limit, "a second mapper to go", async || repaired(realm, scope, &agent).await).await?;
    registration.keeps_secrets(&[]).await
}

/// Puts a mapper of another type in the place of the right one.
async fn other_type(realm: &Realm, scope: &str, path: &str) -> Result<()> {
    let other = json!({
        "name": scope,
        "protocol": "openid-connect",
        "protocolMapper": "oidc-hardcoded-claim-mapper",
        "config": {"claim.name": "x", "claim.value": "y", "jsonType.label": "String"},
    });
    // The component may be quicker with its own: then this one is refused.
    for _ in 0..10 {
        for mapper in &mappers(realm, scope).await?.1 {
            realm.admin(Method::DELETE, &format!("{path}/{}", mapper.text("/id")), None).await?;
        }
        if realm.admin(Method::POST, path, Some(&other)).await?.status == 201 {
            return Ok(());
        }
    }
    anyhow::bail!("the component was always quicker")
}

/// Parallel creators can make several mappers of one name, and so can this test.
async fn two_mappers(realm: &Realm, scope: &str, path: &str, agent: &Account) -> Result<()> {
    let body = json!({
        "name": scope,
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "consentRequired": false,
        "config": {
            "included.custom.audience": agent.id,
            "id.token.claim": "false",
            "access.token.claim": "true",
            "userinfo.token.claim": "false",
        },
    });
    for _ in 0..30 {
        let (_, found) = mappers(realm, scope).await?;
        for mapper in &found {
            realm.admin(Method::DELETE, &format!("{path}/{}", mapper.text("/id")), None).await?;
        }
        let post = || realm.admin(Method::POST, path, Some(&body));
        let _ = tokio::join!(post(), post(), post(), post());
        if mappers(realm, scope).await?.1.len() > 1 {
            return Ok(());
        }
    }
    anyhow::bail!("this Keycloak never made two mappers of one name")
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_12_audience_failure() -> Result<()> {
    let registration = Registration::own(Setup::new("client-12").without_pods().proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    let of_scopes = |path: &str| path.contains("client-scopes");
    proxy.fault(move |seen| {
        of_scopes(&seen.path).then(|| Fault::json(500, &json!({"error": "unknown_error"})))
    });
    ns.create(agent("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    until_credentials(&ns, secs(30), "weather").await?;
    let annotated = |object: &Value| object.template_annotation(SECRET_ANNOTATION).is_some();
    ns.until(secs(30), kinds::DEPLOYMENT, "weather", "the annotation", annotated).await?;
    registration.until_registered(&ns, secs(30), "weather", "True/Registered").await?;
    ns.until_condition(secs(30), "weather", "AudienceScopeReady", "False/ScopeFailed").await?;
    // Two more rounds of three tries each, with growing pauses between the rounds.
    let mark = proxy.mark();
    let tries = async || Ok(proxy.since(mark).into_iter().filter(|seen| of_scopes(&seen.path)).collect());
    let enough = |tries: Vec<Seen>| (tries.len() >= 6).then_some(tries);
    let tries = wait_for(secs(90), "further tries", async || tries().await.map(enough)).await?;
    let pause = |index: usize| tries[index].at.duration_since(tries[index - 1].at);
    let between = (1..6).map(pause).max().unwrap_or_default();
    ensure!(between >= secs(3), "scope calls without back-off: {between:?} at most between two");
    proxy.heal();
    ns.until_condition(secs(120), "weather", "AudienceScopeReady", "True/Attached").await?;
    let agent = account(&until_credentials(&ns, secs(5), "weather").await?)?;
    registration.realm().accepts(&registration.realm().token(&agent).await?, &agent.id).await?;
    registration.keeps_secrets(&[]).await
}

/// Makes agents without Pods and waits for their credentials.
async fn many(registration: &Registration, ns: &Ns, count: usize) -> Result<Vec<Account>> {
    for number in 1..=count {
        ns.create(agent(&format!("agent-{number}")).replicas(0)).await?;
    }
    let mut accounts = Vec::new();
    for number in 1..=count {
        accounts.push(account(&until_credentials(ns, secs(120), &format!("agent-{number}")).await?)?);
    }
    let attached = wait_for(secs(60), "the last scope", async || {
        let last = accounts.last().context("no agent")?;
        let token = registration.realm().token(last).await?;
        Ok(token.audiences().contains(&last.id.as_str()).then_some(()))
    });
    attached.await?;
    Ok(accounts)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_13_no_realm_pollution() -> Result<()> {
    let registration = Registration::own(Setup::new("client-13").without_pods().resync(60)).await?;
    let realm = registration.realm();
    let before = realm.default_scopes().await?;
    let ns = registration.place("team1").await?;
    let accounts = many(&registration, &ns, 50).await?;
    ensure!(realm.default_scopes().await? == before, "{:?}", realm.default_scopes().await?);
    let last = accounts.last().context("agent 50")?;
    ensure!(own_audiences(&realm.token(last).await?) == [last.id.as_str()]);

    // A namespace may ask for the older behaviour.
    let ns = registration.namespace("team2", Value::Null).await?;
    let config = agents::authbridge_config(registration.url(), realm.name());
    let attach = |how: &str| json!({"data": {"KEYCLOAK_AUDIENCE_SCOPE_ATTACH": how}});
    ns.create(config.with(attach("realm-default"))).await?;
    many(&registration, &ns, 50).await?;
    wait_for(secs(30), "50 more realm defaults", async || {
        Ok((realm.default_scopes().await?.len() == before.len() + 50).then_some(()))
    })
    .await?;
    // Switching back leaves the links alone, unless a flag says otherwise.
    let grown = realm.default_scopes().await?;
    let hash = async || {
        let secret = until_credentials(&ns, secs(5), "agent-50").await?;
        anyhow::Ok(secret.annotation("kagenti.io/registration-hash").map(str::to_owned))
    };
    let old = hash().await?;
    ns.patch(kinds::CONFIG_MAP, "authbridge-config", attach("clients")).await?;
    wait_for(secs(60), "the switch to be seen", async || Ok((hash().await? != old).then_some(()))).await?;
    ensure!(realm.default_scopes().await? == grown);
    registration.keeps_secrets(&[]).await
}

/// The audiences of a token without those that Keycloak itself adds.
fn own_audiences(token: &Token) -> Vec<&str> {
    token.audiences().into_iter().filter(|audience| *audience != "account").collect()
}

/// `--audience-scope-prune-realm-defaults` (client-registration §7.3).
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_13_realm_defaults_are_pruned() -> Result<()> {
    let setup = Setup::new("client-13-prune").without_pods().args(["--audience-scope-prune-realm-defaults"]);
    let registration = Registration::own(setup).await?;
    let realm = registration.realm();
    let before = realm.default_scopes().await?;
    let ns = registration.namespace("team1", Value::Null).await?;
    let config = agents::authbridge_config(registration.url(), realm.name());
    let attach = |how: &str| json!({"data": {"KEYCLOAK_AUDIENCE_SCOPE_ATTACH": how}});
    ns.create(config.with(attach("realm-default"))).await?;
    let scope = |name: &str| format!("agent-team1-{name}-aud");
    let first = registration.registered(&ns, "first").await?;
    let listed = async || Ok(realm.default_scopes().await?.contains(&scope("first")).then_some(()));
    wait_for(secs(20), "the first scope among the realm's defaults", listed).await?;
    // Whatever is made later carries the first agent's audience.
    let second = registration.registered(&ns, "second").await?;
    ensure!(own_audiences(&realm.token(&second).await?).contains(&first.id.as_str()));
    let stranger = Account { id: "stranger".to_owned(), secret: "the-secret-of-stranger".to_owned() };
    realm
        .create_client(&json!({
            "clientId": stranger.id,
            "secret": stranger.secret,
            "publicClient": false,
            "serviceAccountsEnabled": true,
        }))
        .await?;

    ns.patch(kinds::CONFIG_MAP, "authbridge-config", attach("clients")).await?;
    wait_for(NEXT_CHECK, "the realm's defaults as they were", async || {
        Ok((realm.default_scopes().await? == before).then_some(()))
    })
    .await?;
    for agent in [&first, &second] {
        wait_for(NEXT_CHECK, "tokens with one audience", async || {
            Ok((own_audiences(&realm.token(agent).await?) == [agent.id.as_str()]).then_some(()))
        })
        .await?;
    }
    // Clients of others keep what they have, and the platform's carry every audience.
    ensure!(own_audiences(&realm.token(&stranger).await?).contains(&first.id.as_str()));
    let user = realm.user_token(realm.platform()).await?;
    ensure!([&first, &second].iter().all(|agent| user.audiences().contains(&agent.id.as_str())), "{user:?}");
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_14_platform_client() -> Result<()> {
    let registration = Registration::own(Setup::new("client-14").without_pods()).await?;
    let realm = registration.realm();
    let ns = registration.namespace("team1", Value::Null).await?;
    let config = agents::authbridge_config(registration.url(), realm.name());
    ns.create(config.with(json!({"data": {"PLATFORM_CLIENT_IDS": "kagenti, late"}}))).await?;
    let accounts = many(&registration, &ns, 50).await?;
    let has_all = async |client: &Account| {
        let token = realm.user_token(client).await?;
        let missing: Vec<&Account> =
            accounts.iter().filter(|agent| !token.audiences().contains(&agent.id.as_str())).collect();
        ensure!(missing.is_empty(), "{} audiences are missing", missing.len());
        Ok(Some(()))
    };
    wait_for(secs(60), "every audience in a user's token", async || has_all(realm.platform()).await).await?;
    ns.create(objects::agent_runtime("agent-1", "agent-1")).await?;
    let runtime = ns
        .until_condition(NEXT_CHECK, "agent-1", "AudienceScopeReady", "False/PlatformClientMissing")
        .await?;
    let message = runtime.condition("AudienceScopeReady").message;
    ensure!(message.contains("late") && !message.contains("kagenti,"), "{message}");

    let late = Account { id: "late".to_owned(), secret: "the-secret-of-late".to_owned() };
    realm
        .create_client(&json!({
            "clientId": late.id,
            "secret": late.secret,
            "publicClient": false,
            "directAccessGrantsEnabled": true,
        }))
        .await?;
    wait_for(NEXT_CHECK * 2, "the audiences at the late client", async || has_all(&late).await).await?;
    ns.until_condition(NEXT_CHECK, "agent-1", "AudienceScopeReady", "True/Attached").await?;
    registration.keeps_secrets(&[]).await
}
