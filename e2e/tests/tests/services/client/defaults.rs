//! Scenario 19: `authbridge-config` in enabled namespaces.

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::registration::{Login, Registration, Setup};
use e2e::services::without_pods;
use e2e::suite::OPERATOR_NAMESPACE;
use e2e::{Ns, kinds, objects, secs};
use serde_json::{Value, json};

const NAME: &str = "authbridge-config";

async fn until_data(ns: &Ns, limit: u64, key: &str, value: &str) -> Result<Value> {
    let wanted =
        |object: &Value| object.pointer("/data").and_then(|data| data.get(key)) == Some(&json!(value));
    ns.until(secs(limit), kinds::CONFIG_MAP, NAME, &format!("{key}={value}"), wanted).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_19_namespace_defaults() -> Result<()> {
    let template = objects::config_map(NAME, json!({"TARGET_SCOPES": "x"}));
    let suite =
        without_pods().object("", objects::open_crd(kinds::ROUTE)).object(OPERATOR_NAMESPACE, template);
    let mut setup = Setup::new("client-19").suite(suite).login(Login::Later);
    setup.without_url = true;
    let registration = Registration::own(setup).await?;
    let enabled = json!({"kagenti-enabled": "true"});

    let ns = registration.namespace("team1", Value::Null).await?;
    let own = json!({"KEYCLOAK_REALM": "tx", "CLIENT_AUTH_TYPE": ""});
    ns.create(objects::config_map(NAME, own)).await?;
    registration.global().await?.set_labels(kinds::NAMESPACE, "team1", enabled.clone()).await?;
    let map = until_data(&ns, 10, "CLIENT_AUTH_TYPE", "client-secret").await?;
    let data = &map["data"];
    ensure!(data["KEYCLOAK_REALM"] == "tx", "{data}");
    ensure!(data["KEYCLOAK_NAMESPACE"] == "keycloak", "{data}");
    ensure!(
        data["SPIFFE_IDP_ALIAS"] == "spire-spiffe" && data["CREDENTIAL_WAIT_TIMEOUT"] == "120s",
        "{data}"
    );
    for absent in ["KEYCLOAK_URL", "ISSUER", "EXPECTED_AUDIENCE", "JWT_AUDIENCE", "SPIRE_ENABLED"] {
        ensure!(data.get(absent).is_none(), "{absent}: {data}");
    }
    ensure!(map.label("kagenti.io/defaults") == Some("true"), "{map}");
    ensure!(map.label("app.kubernetes.io/managed-by") == Some("kagenti-operator"), "{map}");

    let fresh = registration.namespace("team2", enabled).await?;
    let map = until_data(&fresh, 10, "TARGET_SCOPES", "x").await?;
    ensure!(map["data"]["KEYCLOAK_REALM"] == "client-19", "{map}");
    ensure!(map["data"].get("KEYCLOAK_URL").is_none(), "{map}");

    registration.give_login().await?;
    until_data(&fresh, 5, "KEYCLOAK_URL", "http://keycloak-service.keycloak.svc:8080").await?;
    until_data(&ns, 5, "KEYCLOAK_URL", "http://keycloak-service.keycloak.svc:8080").await?;

    let keycloak = registration.global().await?.other("keycloak");
    keycloak
        .create(objects::named(kinds::ROUTE, "keycloak").spec(json!({"host": "sso.example.test"})))
        .await?;
    let map = until_data(&ns, 90, "ISSUER", "https://sso.example.test/realms/tx").await?;
    for key in ["EXPECTED_AUDIENCE", "JWT_AUDIENCE"] {
        ensure!(map["data"][key] == "https://sso.example.test/realms/tx", "{key}: {map}");
    }
    until_data(&fresh, 30, "ISSUER", "https://sso.example.test/realms/client-19").await?;

    fresh.delete(kinds::CONFIG_MAP, NAME).await?;
    until_data(&fresh, 10, "ISSUER", "https://sso.example.test/realms/client-19").await?;
    // A namespace that is no longer enabled keeps its ConfigMap as it is.
    registration
        .global()
        .await?
        .set_labels(kinds::NAMESPACE, "team1", json!({"kagenti-enabled": null}))
        .await?;
    // An hour without a write, by a factor of 120.
    let mark = registration.cluster().audit()?.mark()?;
    fresh.stays(secs(30), kinds::CONFIG_MAP, NAME).await?;
    let writes = registration.object_writes(mark, "client-registration-ctl")?;
    ensure!(writes.is_empty(), "{writes:?}");
    until_data(&ns, 5, "ISSUER", "https://sso.example.test/realms/tx").await?;
    registration.keeps_secrets(&[]).await
}
