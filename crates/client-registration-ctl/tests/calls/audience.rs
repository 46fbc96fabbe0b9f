//! The audience scope (client-registration §7).

use controller_kit::controller::{Failed, Retry};
use scripted_api::pair;
use serde_json::{Value, json};

use crate::stage::Stage;

fn mappers(stage: &Stage) -> Vec<Value> {
    stage.keycloak.scope("agent-team1-w-aud").unwrap()["protocolMappers"].as_array().unwrap().clone()
}

fn set_mappers(stage: &Stage, mappers: Value) {
    let id = stage.keycloak.scope("agent-team1-w-aud").unwrap()["id"].as_str().unwrap().to_owned();
    stage.keycloak.world().scopes.get_mut(&id).unwrap()["protocolMappers"] = mappers;
}

/// Scenario 11.
#[tokio::test]
async fn mappers_are_repaired() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let right = mappers(&stage)[0].clone();
    let changed = |path: &str, value: &str| {
        let mut mapper = right.clone();
        *mapper.pointer_mut(path).unwrap() = json!(value);
        mapper
    };
    let damages = [
        json!([]),
        json!([changed("/config/included.custom.audience", "team2/w")]),
        json!([changed("/protocolMapper", "oidc-hardcoded-claim-mapper")]),
        json!([right, changed("/id", "second")]),
    ];
    for damage in damages {
        set_mappers(&stage, damage.clone());
        stage.full_check_is_due("w");
        stage.pass("w").await;
        let now = mappers(&stage);
        assert_eq!(now.len(), 1, "{damage}");
        assert_eq!(now[0]["config"], right["config"], "{damage}");
        assert_eq!(now[0]["protocolMapper"], "oidc-audience-mapper", "{damage}");
    }
}

/// Scenario 12: the Secret comes nevertheless, and the scope is tried again.
#[tokio::test]
async fn a_scope_that_fails_does_not_hold_the_secret_back() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.keycloak.world().standing.push(("client-scopes", 400, r#"{"error":"broken"}"#));
    let error = stage.try_pass("w").await.expect_err("another try");
    assert!(matches!(error.retry(), Retry::BackOff(_)));
    assert!(stage.has(&Stage::secret_path("w")));
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), pair("False", "ScopeFailed"));
    assert!(stage.template_annotation("w", "kagenti.io/keycloak-client-credentials-secret-name").is_some());
    stage.keycloak.world().standing.clear();
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), pair("True", "Attached"));
}

/// Scenario 13: the realm's defaults are left alone, or not.
#[tokio::test]
async fn the_realm_is_not_polluted_by_default() {
    let stage = Stage::new().await;
    for name in ["a", "b", "c"] {
        stage.agent(name);
        stage.pass(name).await;
    }
    assert!(stage.keycloak.world().realm_defaults.is_empty());
    let own = stage.keycloak.client("team1/c").unwrap()["defaultClientScopes"].clone();
    assert_eq!(own, json!(["agent-team1-c-aud"]));
    stage.config(&[("KEYCLOAK_AUDIENCE_SCOPE_ATTACH", "realm-default")]);
    for name in ["a", "b", "c"] {
        stage.pass(name).await;
    }
    assert_eq!(stage.keycloak.world().realm_defaults.len(), 3);
    // An agent that comes now gets them all, and loses them when they are pruned.
    stage.agent("d");
    stage.pass("d").await;
    assert_eq!(stage.keycloak.client("team1/d").unwrap()["defaultClientScopes"].as_array().unwrap().len(), 4);
    let pruning = stage.restarted(&["--audience-scope-prune-realm-defaults"]);
    for name in ["a", "b", "c", "d"] {
        pruning.pass(name).await;
    }
    assert!(stage.keycloak.world().realm_defaults.is_empty());
    assert_eq!(
        stage.keycloak.client("team1/d").unwrap()["defaultClientScopes"],
        json!(["agent-team1-d-aud"])
    );
}

/// Scenario 14.
#[tokio::test]
async fn platform_clients_get_every_audience() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("a", json!({}));
    stage.config(&[("PLATFORM_CLIENT_IDS", "kagenti,later")]);
    for name in ["a", "b"] {
        stage.agent(name);
        stage.pass(name).await;
    }
    let scopes = json!(["agent-team1-a-aud", "agent-team1-b-aud"]);
    assert_eq!(stage.keycloak.client("kagenti").unwrap()["defaultClientScopes"], scopes);
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), pair("False", "PlatformClientMissing"));
    stage.keycloak.add_client(json!({"clientId": "later"}));
    let again = stage.restarted(&[]);
    again.config(&[("PLATFORM_CLIENT_IDS", "kagenti,later")]);
    again.pass("a").await;
    again.full_check_is_due("a");
    again.pass("a").await;
    assert_eq!(stage.keycloak.client("later").unwrap()["defaultClientScopes"], json!(["agent-team1-a-aud"]));
    assert_eq!(again.condition_of(&runtime, "AudienceScopeReady"), pair("True", "Attached"));
}

/// §12: an AgentRuntime that comes after its workload is told of the scope, too.
#[tokio::test]
async fn a_later_agent_runtime_is_told_of_the_scope() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let runtime = stage.runtime("w", json!({}));
    stage.keycloak.take();
    stage.pass("w").await;
    assert!(stage.keycloak.take().is_empty(), "what is known is not asked for");
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), pair("True", "Attached"));

    // One that came while no process ran.
    stage.agent("x");
    stage.pass("x").await;
    let runtime = stage.runtime("x", json!({}));
    let again = stage.restarted(&[]);
    again.pass("x").await;
    assert_eq!(again.condition_of(&runtime, "AudienceScopeReady"), pair("True", "Attached"));
    assert!(again.calls("x").await.is_empty());
}

/// §7.1: another workload's scope bears the name.
#[tokio::test]
async fn a_name_that_is_taken_is_not_stolen() {
    let stage = Stage::new().await;
    let theirs = json!({"id": "scope-x", "name": "agent-team1-w-aud",
        "attributes": {"kagenti.workload": "team1-w/Deployment/x", "kagenti.cluster-id": "c1"},
        "protocolMappers": [{"id": "m", "name": "agent-team1-w-aud", "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": "team1-w/x"}}]});
    stage.keycloak.world().scopes.insert("scope-x".into(), theirs.clone());
    stage.agent("w");
    stage.pass("w").await;
    assert_eq!(stage.keycloak.scope("agent-team1-w-aud"), Some(theirs));
    let scopes = stage.keycloak.client("team1/w").unwrap()["defaultClientScopes"].clone();
    assert!(scopes[0].as_str().unwrap().starts_with("agent-team1-w-aud-"), "{scopes}");
}

#[tokio::test]
async fn no_scope_is_made_where_none_is_wanted() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.config(&[("KEYCLOAK_AUDIENCE_SCOPE_ENABLED", "Off")]);
    stage.agent("w");
    stage.pass("w").await;
    assert!(stage.keycloak.world().scopes.is_empty());
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), None);
}
