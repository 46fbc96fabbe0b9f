//! Client-registration §2.4: the administrator's credentials never leave for a server or realm that is not trusted.

use rstest::rstest;
use scripted_api::pair;
use serde_json::json;

use crate::{keycloak::FakeKeycloak, stage::Stage};

/// Scenario 8: one edit of a ConfigMap, and the tenant's listener hears nothing.
#[rstest]
#[case::other_port("")]
#[case::other_path("/auth")]
#[case::trusted_as_user("@")]
#[tokio::test]
async fn a_tenants_listener_receives_nothing(#[case] trick: &str) {
    let stage = Stage::new().await;
    let listener = FakeKeycloak::start().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    let before = stage.object(&Stage::secret_path("w"));
    stage.keycloak.take();
    let url = match trick {
        "@" => format!("{}@{}", stage.keycloak.url, listener.url.trim_start_matches("http://")),
        path => format!("{}{path}", listener.url),
    };
    stage.config(&[("KEYCLOAK_URL", &url)]);
    stage.full_check_is_due("w");
    assert_eq!(stage.pass("w").await, None);
    assert!(listener.take().is_empty() && stage.keycloak.take().is_empty());
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "UntrustedKeycloakURL"));
    assert_eq!(stage.object(&Stage::secret_path("w")), before, "the existing Secret stays");
    assert_eq!(stage.events().await.iter().filter(|event| event.contains("UntrustedKeycloakURL")).count(), 1);
}

/// Scenario 8.
#[rstest]
#[case("master")]
#[case("Master")]
#[case("master;x=1")]
#[case("..")]
#[case("a/../master")]
#[tokio::test]
async fn a_realm_that_is_not_allowed_is_not_called(#[case] realm: &str) {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.config(&[("KEYCLOAK_REALM", realm)]);
    stage.pass("w").await;
    assert!(stage.keycloak.take().is_empty());
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "RealmNotAllowed"));
}

/// The annotations of a Secret are a tenant's to write: what they name is checked again.
#[tokio::test]
async fn a_deletion_does_not_go_where_an_annotation_points() {
    let stage = Stage::new().await;
    let listener = FakeKeycloak::start().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.keycloak.take();
    stage.remove_deployment("w");
    stage.change_secret("w", json!({"metadata": {"annotations": {"kagenti.io/keycloak-url": listener.url}}}));
    stage.delete_secret("w");
    assert_eq!(stage.finish("w").await, None);
    assert!(listener.take().is_empty() && stage.keycloak.take().is_empty());
    assert!(!stage.has(&Stage::secret_path("w")), "the namespace does not hang for it");
}

/// A tenant who writes the UUID of another client into the Secret deletes nothing but their own.
#[rstest]
#[case::platform(json!({"clientId": "kagenti-ui", "attributes": {}}))]
#[case::other_tenant(json!({"clientId": "team2/agent", "attributes": {"kagenti.cluster-id": "c1",
    "kagenti.workload": "team1/Deployment/w"}}))]
#[case::other_tenant_with_spire(json!({"clientId": "spiffe://d/ns/team2/sa/agent",
    "attributes": {"kagenti.cluster-id": "c1"}}))]
#[tokio::test]
async fn a_foreign_client_is_not_deleted(#[case] victim: serde_json::Value) {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let uuid = stage.keycloak.add_client(victim);
    let place = json!([{"url": stage.keycloak.url, "realm": "kagenti", "uuid": uuid}]).to_string();
    stage.change_secret(
        "w",
        json!({"metadata": {"annotations": {
        "kagenti.io/keycloak-client-uuid": uuid, "kagenti.io/keycloak-previous-clients": place}}}),
    );
    stage.remove_deployment("w");
    stage.delete_secret("w");
    stage.finish("w").await;
    assert!(stage.keycloak.world().clients.contains_key(&uuid));
    assert!(!stage.has(&Stage::secret_path("w")));
}

/// The same for the scope: another tenant's audience is not touched.
#[tokio::test]
async fn a_foreign_scope_is_neither_changed_nor_deleted() {
    let stage = Stage::new().await;
    stage.agent("victim");
    stage.pass("victim").await;
    let scope = stage.keycloak.scope("agent-team1-victim-aud").unwrap();
    stage.agent("w");
    stage.pass("w").await;
    stage.change_secret(
        "w",
        json!({"metadata": {"annotations": {"kagenti.io/keycloak-scope-id": scope["id"]}}}),
    );
    stage.pass("w").await;
    assert_eq!(stage.keycloak.scope("agent-team1-victim-aud").unwrap(), scope, "not re-pointed");
    stage.change_secret(
        "w",
        json!({"metadata": {"annotations": {"kagenti.io/keycloak-scope-id": scope["id"]}}}),
    );
    stage.remove_deployment("w");
    stage.delete_secret("w");
    stage.finish("w").await;
    assert_eq!(stage.keycloak.scope("agent-team1-victim-aud"), Some(scope), "not deleted");
}

/// Keycloak's own clients never get an agent's scope.
#[tokio::test]
async fn built_in_clients_are_no_platform_clients() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.config(&[("PLATFORM_CLIENT_IDS", "kagenti,security-admin-console")]);
    stage.pass("w").await;
    assert!(stage.keycloak.take().is_empty());
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "InvalidConfig"));
}
