//! Registration, repair and delivery (client-registration §4-§9, §11, §12).

use std::time::Duration;

use rstest::rstest;
use scripted_api::{lines, pair};
use serde_json::{Value, json};

use crate::stage::{DEPLOYMENTS, SECRETS, Stage};

const REVISION: &str = "kagenti.io/keycloak-client-credentials-revision";

/// §12: without the webhook a replaced manifest must not leave new Pods without credentials until the next full check.
#[tokio::test]
async fn an_annotation_that_somebody_takes_off_comes_back() {
    let stage = Stage::with(&["--template-annotation=auto"]).await;
    stage.deployment("w", json!({"spec": {"replicas": 0}}));
    stage.pass("w").await;
    let name = "kagenti.io/keycloak-client-credentials-secret-name";
    assert!(stage.template_annotation("w", name).is_some());
    stage.pass("w").await;
    let replace = || {
        let replaced = json!({"replicas": 1, "template": {"metadata": {"annotations": {name: null}}}});
        stage.deployment("w", json!({"spec": replaced}));
    };
    replace();
    stage.keycloak.take();
    stage.pass("w").await;
    assert!(stage.template_annotation("w", name).is_some());
    assert!(stage.keycloak.take().is_empty());
    // Who takes it off again at once is not answered with one rollout after the other.
    stage.pass("w").await;
    replace();
    stage.pass("w").await;
    assert_eq!(stage.template_annotation("w", name), None);
}

/// Scenario 1, and §17: six calls for a new workload, the Secret before the annotation.
#[tokio::test]
async fn a_new_agent_costs_six_calls() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("weather-agent", json!({}));
    // The platform client is known from another agent.
    stage.agent("other");
    stage.pass("other").await;
    stage.keycloak.take();
    stage.agent("weather-agent");
    let calls = stage.calls("weather-agent").await;
    let seen = stage.keycloak.take();
    let asked: Vec<String> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert_eq!(asked.len(), 6, "{asked:#?}");
    let secret = Stage::secret_path("weather-agent");
    assert!(secret.ends_with("kagenti-keycloak-client-credentials-a325925866a45ebf"));
    // Four to Kubernetes: no read but the one that says whether the workload is still there.
    assert_eq!(
        lines(&calls),
        [
            format!("GET {DEPLOYMENTS}/weather-agent"),
            format!("POST {SECRETS}"),
            format!("PATCH {DEPLOYMENTS}/weather-agent"),
            format!("PATCH {runtime}/status"),
        ]
    );
    assert_eq!(stage.credential("weather-agent", "client-id.txt"), "team1/weather-agent");
    let client = stage.keycloak.client("team1/weather-agent").unwrap();
    assert_eq!(json!(stage.credential("weather-agent", "client-secret.txt")), client["secret"]);
    assert_eq!(client["defaultClientScopes"], json!(["agent-team1-weather-agent-aud"]));
    let name =
        stage.template_annotation("weather-agent", "kagenti.io/keycloak-client-credentials-secret-name");
    assert_eq!(name.as_deref(), Some("kagenti-keycloak-client-credentials-a325925866a45ebf"));
    assert_eq!(stage.template_annotation("weather-agent", REVISION), None, "no rollout of its own");
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), pair("True", "Attached"));
    assert!(stage.events().await.contains(&"ClientRegistered weather-agent".to_owned()));
}

/// §9: with the webhook in place a new agent costs one look at its own Pods instead of the template, and no more
/// requests.
#[tokio::test]
async fn only_the_own_pods_are_looked_at() {
    let stage = Stage::with(&["--template-annotation=auto"]).await;
    let runtime = stage.runtime("w", json!({}));
    stage.deployment("w", json!({"spec": {"selector": {"matchLabels": {"app": "w", "a/b": "c"}}}}));
    let secret = Stage::unit("w").secret_name();
    stage.put(
        "/api/v1/namespaces/team1/pods/w-abc-1",
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "w-abc-1", "namespace": "team1",
                "labels": {"pod-template-hash": "abc", "kagenti.io/type": "agent"},
                "annotations": {"kagenti.io/keycloak-client-credentials-secret-name": secret},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w-abc", "uid": "u",
                    "controller": true}]}}),
    );
    let calls = stage.calls("w").await;
    assert_eq!(
        lines(&calls),
        [
            format!("GET {DEPLOYMENTS}/w"),
            format!("POST {SECRETS}"),
            "GET /api/v1/namespaces/team1/pods".to_owned(),
            format!("PATCH {runtime}/status"),
        ]
    );
    let query = calls[2].query.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    assert!(query.contains("labelSelector=kagenti.io/type,a/b=c,app=w"), "{query}");
}

/// §6.3: an id that Keycloak calls taken and does not find, such as one that differs in case only.
#[tokio::test]
async fn a_client_that_exists_and_is_not_found_is_asked_for_a_few_times() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    let taken = r#"{"errorMessage":"Client team1/w already exists"}"#;
    stage.keycloak.world().standing.push(("POST /admin/realms/kagenti/clients", 409, taken));
    stage.try_pass("w").await.expect_err("transient");
    let seen = stage.keycloak.take();
    let asked = |method: &str| {
        let of = |path: &str| path.contains("/kagenti/clients");
        seen.iter().filter(|seen| seen.method == method && of(&seen.path)).count()
    };
    assert_eq!((asked("POST"), asked("GET")), (4, 5), "{seen:?}");
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "KeycloakUnavailable"));
    assert!(!stage.has(&Stage::secret_path("w")));
}

/// Scenario 7: nothing differs, nothing is written, neither in Keycloak nor in Kubernetes.
#[tokio::test]
async fn in_sync_means_no_write() {
    let stage = Stage::new().await;
    stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    stage.keycloak.take();
    assert_eq!(lines(&stage.calls("w").await), Vec::<String>::new(), "and no read either");
    assert!(stage.keycloak.take().is_empty(), "Keycloak is not asked before the period is over");
    stage.full_check_is_due("w");
    let calls = stage.calls("w").await;
    assert!(calls.iter().all(|call| call.method == "GET"), "{calls:?}");
    let seen = stage.keycloak.take();
    assert!(!seen.is_empty() && !seen.iter().any(crate::keycloak::Seen::is_write), "{seen:?}");
}

/// §17: a restart asks Keycloak nothing but what the spread looks ask.
#[tokio::test]
async fn a_restart_asks_and_writes_nothing() {
    let stage = Stage::new().await;
    stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    stage.keycloak.take();
    let again = stage.restarted(&[]);
    assert_eq!(lines(&again.calls("w").await), Vec::<String>::new());
    assert!(stage.keycloak.take().is_empty());
}

/// Scenario 6.
#[tokio::test]
async fn drift_is_repaired_by_one_put() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let id = stage.keycloak.client("team1/w").unwrap()["id"].as_str().unwrap().to_owned();
    {
        let mut world = stage.keycloak.world();
        let client = world.clients.get_mut(&id).unwrap();
        client["serviceAccountsEnabled"] = json!(false);
        client["name"] = json!("renamed");
        client["redirectUris"] = json!(["https://x"]);
    }
    stage.keycloak.take();
    stage.full_check_is_due("w");
    let version = stage.object(&Stage::secret_path("w"));
    stage.pass("w").await;
    let seen = stage.keycloak.take();
    assert_eq!(seen.iter().filter(|seen| seen.is_write()).count(), 1, "{seen:?}");
    let client = stage.keycloak.client("team1/w").unwrap();
    assert_eq!((&client["serviceAccountsEnabled"], &client["name"]), (&json!(true), &json!("team1/w")));
    assert_eq!(client["redirectUris"], json!(["https://x"]));
    assert_eq!(stage.object(&Stage::secret_path("w")), version);
}

/// Scenario 18: regenerated in Keycloak, and asked for by annotation.
#[tokio::test]
async fn a_new_secret_reaches_the_pods() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let id = stage.keycloak.client("team1/w").unwrap()["id"].as_str().unwrap().to_owned();
    stage.keycloak.world().clients.get_mut(&id).unwrap()["secret"] = json!("regenerated");
    stage.full_check_is_due("w");
    stage.pass("w").await;
    assert_eq!(stage.credential("w", "client-secret.txt"), "regenerated");
    assert_eq!(stage.secret_annotation("w", "kagenti.io/credentials-revision").as_deref(), Some("2"));
    assert_eq!(stage.template_annotation("w", REVISION).as_deref(), Some("2"));

    stage.deployment("w", json!({"metadata": {"annotations": {"kagenti.io/rotate-credentials": "today"}}}));
    stage.pass("w").await;
    let rotated = stage.credential("w", "client-secret.txt");
    assert!(rotated.starts_with("fresh-secret"), "{rotated}");
    assert_eq!(stage.template_annotation("w", REVISION).as_deref(), Some("3"));
    stage.keycloak.take();
    assert_eq!(lines(&stage.calls("w").await), Vec::<String>::new(), "the request was obeyed once");
    assert!(stage.keycloak.take().is_empty());
    assert!(stage.events().await.contains(&"CredentialsRotated w".to_owned()));
}

/// Scenario 20: what the operator this product replaces has left.
#[tokio::test]
async fn an_inherited_registration_is_adopted_without_restart() {
    let stage = Stage::new().await;
    let id = stage.keycloak.add_client(json!({"clientId": "team1/w", "name": "team1/w", "attributes": {}}));
    let secret_name = Stage::unit("w").secret_name();
    stage.deployment(
        "w",
        json!({"spec": {"template": {"metadata": {"annotations": {
        "kagenti.io/keycloak-client-credentials-secret-name": secret_name}}}}}),
    );
    let path = Stage::secret_path("w");
    let old = format!("secret-of-{id}");
    stage.put(&path, json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": secret_name, "labels": {"app.kubernetes.io/managed-by": "kagenti-operator"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": "uid-of-w",
                "controller": true, "blockOwnerDeletion": true}]},
        "data": {"client-id.txt": base64("team1/w"), "client-secret.txt": base64(&old)},
    }));
    stage.see_secret(&path);
    let calls = stage.calls("w").await;
    assert!(!lines(&calls).contains(&format!("PATCH {DEPLOYMENTS}/w")), "{calls:?}");
    assert_eq!(stage.credential("w", "client-secret.txt"), old);
    let secret = stage.object(&path);
    assert_eq!(secret["metadata"]["ownerReferences"][0]["controller"], json!(false));
    assert_eq!(secret["metadata"]["finalizers"], json!(["kagenti.io/keycloak-client"]));
    assert_eq!(stage.secret_annotation("w", "kagenti.io/credentials-revision").as_deref(), Some("1"));
    let client = stage.keycloak.client("team1/w").unwrap();
    assert_eq!(client["attributes"]["kagenti.cluster-id"], "c1");
    assert_eq!(client["attributes"]["kagenti.adopted"], Value::Null, "it goes with its workload");
}

fn base64(text: &str) -> String {
    let secret = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(secret).unwrap().as_str().unwrap().to_owned()
}

/// §6.4: a client of another cluster is neither read nor changed.
#[tokio::test]
async fn another_clusters_client_is_a_conflict() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.keycloak.add_client(json!({"clientId": "team1/w", "attributes": {"kagenti.cluster-id": "c2"}}));
    let before = stage.keycloak.client("team1/w");
    stage.agent("w");
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "ClientConflict"));
    assert!(!stage.has(&Stage::secret_path("w")));
    assert_eq!(stage.keycloak.client("team1/w"), before);
    assert!(!stage.keycloak.take().iter().any(|seen| seen.path.contains("client-secret")));

    let shared = stage.restarted(&["--client-conflict-policy=Share"]);
    shared.pass("w").await;
    assert!(shared.has(&Stage::secret_path("w")));
    assert_eq!(stage.keycloak.client("team1/w").unwrap()["attributes"]["kagenti.cluster-id"], "c2");
}

/// §6.3: another replica, or the other workload of the same identity, was faster.
#[tokio::test]
async fn a_create_that_lost_the_race_finds() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.keycloak.add_client(json!({"clientId": "team1/w", "attributes": {"kagenti.cluster-id": "c1"}}));
    stage.keycloak.world().faults.push_back(("GET /admin/realms/kagenti/clients", 200, "[]"));
    stage.pass("w").await;
    assert!(stage.has(&Stage::secret_path("w")));
    assert_eq!(stage.keycloak.world().clients.len(), 2);
}

/// §15: the workload went while it was being registered.
#[tokio::test]
async fn a_workload_that_went_meanwhile_leaves_nothing_behind() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.remove_unseen(&format!("{DEPLOYMENTS}/w"));
    stage.pass("w").await;
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert_eq!(stage.keycloak.scope("agent-team1-w-aud"), None);
    assert!(!stage.has(&Stage::secret_path("w")));
}

/// Scenario 5, and README decision 1c: a namespace without identity provider is no trouble.
#[tokio::test]
async fn without_configuration_nothing_happens() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.no_config();
    assert_eq!(stage.pass("w").await, None);
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "WaitingForConfig"));
    assert!(stage.events().await.is_empty() && stage.keycloak.take().is_empty());
    stage.config(&[]);
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
}

/// Scenario 4: gates and user-provided Secrets.
#[rstest]
#[case::globally_off("globalEnabled: false", json!({}), "GateDisabled")]
#[case::registration_off("clientRegistration: false", json!({}), "GateDisabled")]
#[case::legacy("", json!({"labels": {"kagenti.io/client-registration-inject": "true"}}), "LegacyRegistrar")]
#[case::own_secret("", json!({"annotations": {"kagenti.io/keycloak-client-credentials-secret-name": "mine"}}), "UserProvided")]
#[tokio::test]
async fn who_is_left_alone(#[case] gates: &str, #[case] template: Value, #[case] reason: &str) {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.gates(gates);
    stage.deployment("w", json!({"spec": {"template": {"metadata": template}}}));
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", reason));
    assert!(stage.keycloak.take().is_empty() && !stage.has(&Stage::secret_path("w")));
    assert!(stage.events().await.is_empty(), "that is as somebody wants it");
}

/// Scenarios 2 and 3: the id is that of the ServiceAccount; workloads that share one share a client.
#[tokio::test]
async fn workloads_with_one_service_account_share_a_client() {
    let stage = Stage::with(&["--spire-trust-domain=example.org"]).await;
    stage.ctx.set_domain(client_registration_ctl::identity::PlatformDomain::Known("example.org".into()));
    let account = json!({"spec": {"template": {"spec": {"serviceAccountName": "mysa"}}}});
    stage.deployment("a", account.clone());
    stage.deployment("b", account);
    stage.pass("a").await;
    let id = "spiffe://example.org/ns/team1/sa/mysa";
    assert_eq!(stage.credential("a", "client-id.txt"), id);
    assert_eq!(stage.keycloak.client(id).unwrap()["name"], "team1/a");
    stage.pass("b").await;
    assert_eq!(stage.keycloak.client(id).unwrap()["name"], "team1/a", "the oldest one names it");
    assert_eq!(stage.credential("a", "client-secret.txt"), stage.credential("b", "client-secret.txt"));
    stage.keycloak.take();
    for name in ["a", "b"] {
        stage.full_check_is_due(name);
        stage.pass(name).await;
    }
    assert!(!stage.keycloak.take().iter().any(crate::keycloak::Seen::is_write), "they do not fight");
}

/// Scenario 3: with a trust domain the account `default` is nobody.
#[tokio::test]
async fn the_default_account_is_no_identity() {
    let stage = Stage::new().await;
    stage.ctx.set_domain(client_registration_ctl::identity::PlatformDomain::Known("example.org".into()));
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "IdentityUnresolved"));
    assert!(stage.keycloak.take().is_empty());
    stage.pass("w").await;
    let told = stage.events().await.iter().filter(|event| event.contains("IdentityUnresolved")).count();
    assert_eq!(told, 1);
}

/// Before the first look for a trust domain is over, an id could change a minute later.
#[tokio::test]
async fn nobody_is_registered_while_the_trust_domain_is_looked_for() {
    let stage = Stage::new().await;
    stage.ctx.set_domain(client_registration_ctl::identity::PlatformDomain::Looking);
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    assert!(stage.pass("w").await.is_some());
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("Unknown", "Pending"));
    assert!(stage.keycloak.take().is_empty());
}

/// Scenario 21.
#[tokio::test]
async fn federated_clients_come_and_go() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.config(&[("CLIENT_AUTH_TYPE", "federated-jwt")]);
    stage.pass("w").await;
    let client = stage.keycloak.client("team1/w").unwrap();
    assert_eq!(client["clientAuthenticatorType"], "federated-jwt");
    assert_eq!(client["attributes"]["jwt.credential.sub"], "team1/w");
    assert!(!stage.credential("w", "client-secret.txt").is_empty());
    assert!(
        stage.events().await.contains(&"FederationUnavailable w".to_owned()),
        "the server has the features off"
    );
    stage.config(&[]);
    stage.pass("w").await;
    let client = stage.keycloak.client("team1/w").unwrap();
    assert_eq!(client["attributes"]["jwt.credential.sub"], "");
    assert_eq!(client["attributes"]["jwt.credential.issuer"], "");
}

/// §8: an immutable Secret with other data is made anew; the client stays.
#[tokio::test]
async fn an_immutable_secret_is_replaced_and_the_client_kept() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let client = stage.keycloak.client("team1/w").unwrap();
    stage.change_secret("w", json!({"immutable": true, "data": {"client-secret.txt": base64("old")}}));
    stage.pass("w").await;
    assert_eq!(stage.keycloak.client("team1/w").unwrap()["id"], client["id"]);
    assert_eq!(json!(stage.credential("w", "client-secret.txt")), client["secret"]);
    assert_eq!(stage.object(&Stage::secret_path("w"))["immutable"], Value::Null);
    assert_eq!(stage.secret_annotation("w", "kagenti.io/credentials-revision").as_deref(), Some("2"));
}

/// §10: a new identity gets its own client; the old one goes when no Pod uses it any more.
#[tokio::test]
async fn a_changed_identity_leaves_no_client_behind() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.ctx.set_domain(client_registration_ctl::identity::PlatformDomain::Known("example.org".into()));
    stage.deployment(
        "w",
        json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}},
        "status": {"updatedReplicas": 0}}),
    );
    let again = stage.pass("w").await.unwrap();
    assert!(again <= Duration::from_secs(30));
    let id = "spiffe://example.org/ns/team1/sa/sa";
    assert_eq!(stage.credential("w", "client-id.txt"), id);
    assert_eq!(stage.template_annotation("w", REVISION).as_deref(), Some("2"));
    let scope = stage.keycloak.scope("agent-team1-w-aud").unwrap();
    assert_eq!(scope["protocolMappers"][0]["config"]["included.custom.audience"], id);
    assert!(stage.keycloak.client("team1/w").is_some(), "both exist during the rollout");
    stage.deployment("w", json!({"status": {"updatedReplicas": 1}}));
    stage.pass("w").await;
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert!(stage.keycloak.client(id).is_some());
    assert_eq!(stage.secret_annotation("w", "kagenti.io/keycloak-previous-clients"), None);
}
