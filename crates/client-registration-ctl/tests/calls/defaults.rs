//! ConfigMap `authbridge-config` of enabled namespaces (client-registration §13).

use client_registration_ctl::{context::Key, sources::Source};
use controller_kit::controller::Controller;
use rest_client::BaseUrl;
use scripted_api::lines;
use serde_json::{Value, json};

use crate::stage::{NS, Stage};

const MAP: &str = "/api/v1/namespaces/team1/configmaps/authbridge-config";
const TEMPLATE: &str = "/api/v1/namespaces/kagenti-system/configmaps/authbridge-config";

async fn pass(stage: &Stage) -> Vec<String> {
    let key = Key::Namespace(NS.to_owned());
    lines(&stage.during(async { stage.ctx.pass(&key).await.expect("a pass") }).await.0)
}

/// Scenario 19.
#[tokio::test]
async fn a_namespace_is_filled_and_left_alone() {
    let stage = Stage::new().await;
    stage.put(
        TEMPLATE,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authbridge-config"},
        "data": {"TARGET_SCOPES": "x"}}),
    );
    pass(&stage).await;
    let made = stage.object(MAP);
    assert_eq!(made["data"]["TARGET_SCOPES"], "x");
    assert_eq!(made["data"]["KEYCLOAK_URL"], json!(stage.keycloak.url));
    assert_eq!(made["data"]["ISSUER"], Value::Null);
    assert_eq!(made["metadata"]["labels"]["kagenti.io/defaults"], "true");
    assert!(pass(&stage).await.iter().all(|line| line.starts_with("GET")), "an idle hour makes no write");

    stage.change_unseen(MAP, json!({"data": {"KEYCLOAK_REALM": "tx", "CLIENT_AUTH_TYPE": ""}}));
    assert!(stage.ctx.set_public_url(BaseUrl::parse("https://sso.example.com/").unwrap()));
    pass(&stage).await;
    let filled = stage.object(MAP);
    assert_eq!(filled["data"]["KEYCLOAK_REALM"], "tx");
    assert_eq!(filled["data"]["CLIENT_AUTH_TYPE"], "client-secret");
    assert_eq!(filled["data"]["ISSUER"], "https://sso.example.com/realms/tx");
    stage.remove_unseen(MAP);
    pass(&stage).await;
    assert!(stage.has(MAP), "it comes back");
}

/// README decision 13: without a known Keycloak the namespace is not told of one.
#[tokio::test]
async fn no_keycloak_is_promised_that_nobody_knows() {
    let stage = Stage::with(&["--keycloak-url="]).await;
    stage.ctx.keycloak.admin().set(Err("does not exist".to_owned()));
    pass(&stage).await;
    let data = stage.object(MAP)["data"].clone();
    assert_eq!((&data["KEYCLOAK_URL"], &data["KEYCLOAK_REALM"]), (&Value::Null, &json!("kagenti")));
    stage.admin("1", "hunter2");
    pass(&stage).await;
    assert_eq!(stage.object(MAP)["data"]["KEYCLOAK_URL"], "http://keycloak-service.keycloak.svc:8080");
}

/// A ConfigMap that others made keeps its values and gets the labels.
#[tokio::test]
async fn others_maps_get_labels() {
    let stage = Stage::new().await;
    stage.put(
        MAP,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authbridge-config",
        "labels": {"own": "1"}}}),
    );
    pass(&stage).await;
    let map = stage.object(MAP);
    assert_eq!(map["metadata"]["labels"]["own"], "1");
    assert_eq!(map["metadata"]["labels"]["app.kubernetes.io/managed-by"], "kagenti-operator");
    assert_eq!(map["data"]["SPIFFE_IDP_ALIAS"], "spire-spiffe");
}

/// What depends on the admin Secret is not written before it is known whether there is one.
#[tokio::test]
async fn nothing_is_written_before_the_admin_secret_was_looked_for() {
    let stage = Stage::new().await;
    stage.not_synced(Source::Admin);
    assert!(pass(&stage).await.is_empty());
}

/// Label removed: the ConfigMap stays as it is.
#[tokio::test]
async fn other_namespaces_are_left_alone() {
    let stage = Stage::new().await;
    stage.ctx.around.put_namespace(NS, None, false);
    assert!(pass(&stage).await.is_empty());
}
