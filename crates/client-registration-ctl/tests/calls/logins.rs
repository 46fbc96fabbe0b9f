//! Logins and refusals (client-registration §5).

use std::time::Duration;

use rstest::rstest;
use scripted_api::pair;
use serde_json::json;

use crate::stage::Stage;

fn logins(stage: &Stage) -> usize {
    stage.keycloak.take().iter().filter(|seen| seen.is_login()).count()
}

/// Scenario 9: one login for all, also when it lives only a minute, and one new one after a 401.
#[tokio::test]
async fn a_hundred_registrations_share_a_login() {
    let stage = Stage::new().await;
    stage.keycloak.world().expires_in = 60;
    let names: Vec<String> = (0..100).map(|n| format!("w{n}")).collect();
    for name in &names {
        stage.agent(name);
    }
    futures::future::join_all(names.iter().map(|name| stage.pass(name))).await;
    let seen = stage.keycloak.take();
    let logins: Vec<_> = seen.iter().filter(|seen| seen.is_login()).collect();
    assert!(logins.len() <= 3, "{} logins", logins.len());
    assert!(logins.iter().all(|seen| seen.path == "/realms/master/protocol/openid-connect/token"));
    assert!(names.iter().all(|name| stage.has(&Stage::secret_path(name))));

    stage.keycloak.world().oldest_token = 99;
    stage.keycloak.world().faults.push_back(("token", 200, r#"{"access_token":"token-99","expires_in":60}"#));
    for name in &names {
        stage.full_check_is_due(name);
    }
    futures::future::join_all(names.iter().map(|name| stage.pass(name))).await;
    assert_eq!(self::logins(&stage), 1);
}

/// §5.1: a refused login is not repeated by every workload.
#[rstest]
#[case(401, r#"{"error":"invalid_grant","error_description":"Invalid user credentials"}"#)]
#[case(400, r#"{"error":"unauthorized_client"}"#)]
#[tokio::test]
async fn a_refused_login_is_not_repeated(#[case] status: u16, #[case] body: &'static str) {
    let stage = Stage::new().await;
    let runtime = stage.runtime("a", json!({}));
    stage.keycloak.world().standing.push(("openid-connect/token", status, body));
    for name in ["a", "b", "c"] {
        stage.agent(name);
        let again = stage.pass(name).await.unwrap();
        assert!(again > Duration::from_secs(40) && again < Duration::from_secs(80), "{again:?}");
    }
    assert_eq!(logins(&stage), 1);
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "KeycloakUnauthorized"));
    // Another password is another login, at once.
    stage.keycloak.world().standing.clear();
    stage.admin("2", "other");
    stage.pass("a").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
}

/// The table of §5.1.
#[rstest]
#[case::forbidden(
    "GET /admin",
    403,
    r#"{"error":"HTTP 403 Forbidden"}"#,
    "KeycloakForbidden",
    "manage-clients"
)]
#[case::no_realm("GET /admin", 404, r#"{"error":"Realm not found."}"#, "RealmNotFound", "does not exist")]
#[case::disabled(
    "/token",
    403,
    r#"{"error":"access_denied","error_description":"Realm not enabled"}"#,
    "RealmNotFound",
    "disabled"
)]
#[case::no_admin_realm(
    "/token",
    404,
    r#"{"error":"Realm does not exist"}"#,
    "RealmNotFound",
    "does not exist"
)]
#[case::stale("GET /admin", 401, r#"{"error":"HTTP 401 Unauthorized"}"#, "KeycloakUnauthorized", "401")]
#[tokio::test]
async fn refusals(
    #[case] request: &'static str,
    #[case] status: u16,
    #[case] body: &'static str,
    #[case] reason: &str,
    #[case] text: &str,
) {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.keycloak.world().standing.push((request, status, body));
    let again = stage.pass("w").await.unwrap();
    assert!(again >= Duration::from_secs(50), "{again:?}");
    let condition = stage.condition(&runtime, "ClientRegistered").unwrap();
    assert_eq!(condition["reason"], reason);
    assert!(condition["message"].as_str().unwrap().contains(text), "{condition}");
    assert!(!stage.has(&Stage::secret_path("w")));
    let admin_calls = stage.keycloak.take().iter().filter(|seen| seen.path.starts_with("/admin")).count();
    assert!(admin_calls <= 2, "{admin_calls}");
}

/// `client-credentials`: the token endpoint of the realm, credentials as HTTP Basic.
#[tokio::test]
async fn a_service_account_logs_in_at_its_realm() {
    let stage = Stage::with(&["--keycloak-admin-auth=client-credentials"]).await;
    stage.ctx.keycloak.admin().set(client_registration_ctl::keycloak::AdminCredentials::read(
        client_registration_ctl::settings::AdminAuth::ClientCredentials,
        &std::collections::BTreeMap::from([
            ("client-id".to_owned(), k8s_openapi::ByteString(b"registrar".to_vec())),
            ("client-secret".to_owned(), k8s_openapi::ByteString(b"hunter2".to_vec())),
        ]),
        "7".to_owned(),
    ));
    stage.agent("w");
    stage.pass("w").await;
    let seen = stage.keycloak.take();
    let login = seen.iter().find(|seen| seen.is_login()).unwrap();
    assert_eq!(login.path, "/realms/kagenti/protocol/openid-connect/token");
    assert_eq!(login.body, "grant_type=client_credentials");
    assert!(login.authorization.starts_with("Basic "));
    assert!(stage.has(&Stage::secret_path("w")));
}

/// §5.2: the session that a new token replaces is closed.
#[tokio::test]
async fn a_replaced_session_is_closed() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.keycloak.world().oldest_token = 2;
    stage.full_check_is_due("w");
    stage.pass("w").await;
    for _ in 0..200 {
        let seen = stage.keycloak.take();
        if let Some(logout) = seen.iter().find(|seen| seen.path.ends_with("/logout")) {
            assert_eq!(logout.body, "client_id=admin-cli&refresh_token=refresh-1");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no logout");
}

/// Scenario 23, in small: nothing that is written or said holds a secret.
#[tokio::test]
async fn conditions_events_and_metrics_hold_no_secret() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.keycloak.world().faults.push_back(("token", 401, r#"{"error":"hunter2"}"#));
    stage.pass("w").await;
    stage.admin("2", "hunter3");
    stage.pass("w").await;
    let secret = stage.credential("w", "client-secret.txt");
    let metrics = stage.ctx.watches.metrics.openmetrics().unwrap();
    let said = format!("{} {metrics} {:?}", stage.object(&runtime), stage.events().await);
    for text in [secret.as_str(), "hunter3", "token-1", "refresh-1"] {
        assert!(!said.contains(text), "{text} in {said}");
    }
}
