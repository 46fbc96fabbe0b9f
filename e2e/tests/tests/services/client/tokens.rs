//! What a token is worth at a sidecar: it is checked against what the webhook has rendered for the Pod.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::pod_view::PodView;
use e2e::services::agents::{self, agent, until_credentials};
use e2e::services::{Account, Call, Realm, Registration, Token};
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

use super::spiffe::{SPIRE, spire};

/// What a sidecar demands of a token, and the credentials that its Pod mounts.
struct Sidecar {
    issuer: String,
    keys: String,
    audience: String,
    mounted: Account,
}

impl Sidecar {
    /// Reads a Pod the way its sidecar does: `config.yaml` from the rendered ConfigMap, files from the mounted Secret.
    async fn of(ns: &Ns, app: &str) -> Result<Self> {
        let pods = ns.until_pods(secs(60), app, 1).await?;
        let pod = PodView::new(pods.first().cloned().context("a Pod")?);
        ensure!(pod.is_injected(), "{app} has no sidecar");
        let map = ns.get(kinds::CONFIG_MAP, pod.config_map_of("authbridge-runtime-config")).await?;
        let yaml = map.get("data").and_then(|data| data.get("config.yaml")).and_then(Value::as_str);
        let config: Value = serde_saphyr::from_str(yaml.context("config.yaml")?)?;
        let plugins = config.items("/pipeline/inbound/plugins");
        let plugin = plugins.iter().find(|plugin| plugin.text("/name") == "jwt-validation");
        let plugin = plugin.with_context(|| format!("nothing validates tokens: {config}"))?;
        ensure!(plugin.text("/config/audience").is_empty(), "{plugin}");
        let file = plugin.text("/config/audience_file").to_owned();
        let read = async |path: &str| {
            let proxy = pod.container("authbridge-proxy")?;
            let mounts = proxy.items("/volumeMounts");
            let mount = mounts.iter().find(|mount| mount.text("/mountPath") == path);
            let mount = mount.with_context(|| format!("nothing is mounted at {path}"))?;
            let secret = pod.volume(mount.text("/name")).text("/secret/secretName");
            let account = agents::account(&ns.get(kinds::SECRET, secret).await?)?;
            anyhow::Ok(if mount.text("/subPath") == "client-id.txt" { account.id } else { account.secret })
        };
        let audience = read(&file).await?;
        let mounted = Account { id: audience.clone(), secret: read("/shared/client-secret.txt").await? };
        let base = plugin.text("/config/keycloak_url");
        let realm = plugin.text("/config/keycloak_realm");
        let keys = format!("{base}/realms/{realm}/protocol/openid-connect/certs");
        Ok(Self { issuer: plugin.text("/config/issuer").to_owned(), keys, audience, mounted })
    }

    /// Whether it lets a token pass.
    async fn accepts(&self, token: &Token) -> Result<()> {
        token.verify(&Call::get(&self.keys).ok().await?, &self.issuer, &self.audience)
    }
}

/// A labelled agent with an audience of its own, which makes the sidecar name its client id explicitly.
async fn guarded(ns: &Ns, name: &str) -> Result<()> {
    let identity = json!({"identity": {"allowedAudiences": ["somebody-else"]}});
    ns.create(objects::agent_runtime(name, name).spec(identity)).await?;
    ns.create(agent(name)).await.map(drop)
}

/// A token that ends a second after it was given.
async fn short_lived(realm: &Realm, account: &Account) -> Result<Token> {
    let lifespan = |value: &str| json!({"attributes": {"access.token.lifespan": value}});
    realm.change_client(&account.id, lifespan("1")).await?;
    let token = realm.token(account).await?;
    realm.change_client(&account.id, lifespan("")).await?;
    Ok(token)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_token_is_what_the_sidecar_demands() -> Result<()> {
    let registration = Registration::once(&SPIRE, spire).await?;
    let realm = registration.realm();
    let ns = registration.namespace("client-sidecar", json!({"kagenti-enabled": "true"})).await?;
    ns.apply(agents::authbridge_config(registration.url(), realm.name())).await?;
    guarded(&ns, "one").await?;
    guarded(&ns, "two").await?;
    let account = agents::account(&until_credentials(&ns, secs(40), "one").await?)?;
    let other = agents::account(&until_credentials(&ns, secs(40), "two").await?)?;
    let (one, two) = (Sidecar::of(&ns, "one").await?, Sidecar::of(&ns, "two").await?);
    ensure!(one.mounted == account && two.mounted == other, "the Pods mount other credentials");
    ensure!(one.issuer == realm.issuer() && one.audience == account.id, "{} {}", one.issuer, one.audience);

    // With the credentials from the Secret: a token that the own sidecar takes, and nobody else's.
    let token = wait_for(secs(30), "a token with the own audience", async || {
        let token = realm.token(&account).await?;
        one.accepts(&token).await.map(|()| Some(token))
    });
    let token = token.await?;
    let refused = two.accepts(&token).await.expect_err("one's token at two").to_string();
    ensure!(refused.contains(&format!("not for {}", other.id)), "{refused}");

    // Another agent's token fails here, and so does its secret at the token endpoint.
    let foreign = realm.token(&other).await?;
    two.accepts(&foreign).await?;
    let refused = one.accepts(&foreign).await.expect_err("two's token at one").to_string();
    ensure!(refused.contains(&format!("not for {}", account.id)), "{refused}");
    let stolen = realm.log_in(&Account { id: account.id.clone(), secret: other.secret.clone() }).await?;
    ensure!(stolen.status == 401 && stolen.body.text("/error") == "unauthorized_client", "{stolen:?}");

    // Issuer and expiry count, too.
    let keys = realm.keys().await?;
    let refused =
        token.verify(&keys, "http://elsewhere/realms/x", &one.audience).expect_err("issuer").to_string();
    ensure!(refused.contains("issuer"), "{refused}");
    let old = short_lived(realm, &account).await?;
    wait_for(secs(10), "the token to end", async || {
        let refused = one.accepts(&old).await.err().map(|error| error.to_string());
        Ok(refused.filter(|refused| refused.starts_with("expired")))
    })
    .await
    .map(drop)
}
