//! Workloads that go or are agents no more (client-registration §10).

use std::time::Duration;

use scripted_api::pair;
use serde_json::json;

use crate::stage::Stage;

const POD: &str = "/api/v1/namespaces/team1/pods/w-1";

/// Scenario 15.
#[tokio::test]
async fn a_deleted_workload_takes_client_and_scope_along() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.remove_deployment("w");
    stage.pass("w").await;
    assert!(stage.keycloak.client("team1/w").is_some(), "the garbage collector comes first");
    stage.delete_secret("w");
    stage.finish("w").await;
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert_eq!(stage.keycloak.scope("agent-team1-w-aud"), None);
    assert!(!stage.has(&Stage::secret_path("w")));
    assert!(stage.keycloak.client("kagenti").is_some());
}

/// Scenario 15: a client that was there before stays, and so does every client with `Retain`.
#[tokio::test]
async fn what_was_there_before_stays() {
    let stage = Stage::new().await;
    stage.keycloak.add_client(json!({"clientId": "team1/w", "attributes": {}}));
    stage.agent("w");
    stage.pass("w").await;
    assert!(stage.events().await.contains(&"ClientAdopted w".to_owned()));
    // Also when somebody puts the finalizer on.
    stage.change_secret("w", json!({"metadata": {"finalizers": ["kagenti.io/keycloak-client"]}}));
    stage.remove_deployment("w");
    stage.delete_secret("w");
    stage.finish("w").await;
    assert!(stage.keycloak.client("team1/w").is_some());

    let stage = Stage::with(&["--client-deletion-policy=Retain"]).await;
    stage.agent("w");
    stage.pass("w").await;
    assert_eq!(stage.object(&Stage::secret_path("w"))["metadata"]["finalizers"], json!([]));
}

/// Two workloads with one ServiceAccount: the client stays for the other one.
#[tokio::test]
async fn a_shared_client_stays_for_the_other() {
    let stage = Stage::new().await;
    stage.ctx.set_domain(client_registration_ctl::identity::PlatformDomain::Known("d".into()));
    let account = json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}});
    for name in ["a", "b"] {
        stage.deployment(name, account.clone());
        stage.pass(name).await;
    }
    stage.remove_deployment("a");
    stage.delete_secret("a");
    stage.finish("a").await;
    assert!(stage.keycloak.client("spiffe://d/ns/team1/sa/sa").is_some());
    assert!(!stage.has(&Stage::secret_path("a")));
    stage.pass("b").await;
    stage.remove_deployment("b");
    stage.ctx.index.secrets.remove(&controller_kit::watch::Key::new("team1", Stage::unit("a").secret_name()));
    stage.delete_secret("b");
    stage.finish("b").await;
    assert_eq!(stage.keycloak.client("spiffe://d/ns/team1/sa/sa"), None);
}

/// Scenario 16: a namespace never hangs for a Keycloak that is down.
#[tokio::test]
async fn an_outage_holds_a_deletion_up_for_a_while_only() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.remove_deployment("w");
    // The stage's clock stands at the epoch.
    stage.delete_secret("w");
    stage.keycloak.world().standing.push(("/admin", 403, "{}"));
    assert!(stage.finish("w").await.is_some_and(|wait| wait <= Duration::from_secs(10)));
    assert!(stage.has(&Stage::secret_path("w")));
    stage.change_secret("w", json!({"metadata": {"deletionTimestamp": "1969-12-31T23:00:00Z"}}));
    assert_eq!(stage.finish("w").await, None);
    assert!(!stage.has(&Stage::secret_path("w")));
    let metrics = stage.ctx.watches.metrics.openmetrics().unwrap();
    assert!(metrics.contains("client_registration_orphans_total 1"), "{metrics}");
}

/// §10, §12: the AgentRuntime says what a deletion waits for, and nothing once the workload is gone.
#[tokio::test]
async fn a_deletion_that_waits_is_said() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    let said = || stage.condition_of(&runtime, "ClientRegistered");
    assert_eq!(said(), pair("True", "Registered"));
    stage.remove_deployment("w");
    stage.delete_secret("w");
    stage.keycloak.world().standing.push(("/admin", 403, "{}"));
    stage.finish("w").await;
    stage.pass("w").await;
    assert_eq!(said(), pair("False", "CleanupPending"));
    let (calls, _) = stage.during(stage.finish("w")).await;
    assert!(calls.is_empty(), "said once: {calls:?}");
    stage.keycloak.world().standing.clear();
    assert_eq!(stage.finish("w").await, None);
    stage.ctx.index.secrets.remove(&controller_kit::watch::Key::new("team1", Stage::unit("w").secret_name()));
    stage.pass("w").await;
    assert_eq!(said(), None);
    assert_eq!(stage.condition_of(&runtime, "AudienceScopeReady"), None);
}

/// No client is made that would outlive its workload.
#[tokio::test]
async fn nothing_is_registered_in_a_namespace_that_goes() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.ctx.around.put_namespace("team1", None, true);
    stage.pass("w").await;
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("Unknown", "Pending"));
}

/// Scenario 17: after the grace, and not while a Pod still mounts the Secret.
#[tokio::test]
async fn an_agent_no_more_loses_its_client_when_no_pod_uses_it() {
    let stage = Stage::with(&["--unregister-grace=0s"]).await;
    stage.agent("w");
    stage.pass("w").await;
    let secret = Stage::unit("w").secret_name();
    stage.put(POD, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w-1"},
        "spec": {"volumes": [{"name": secret, "secret": {"secretName": secret}}]}, "status": {"phase": "Running"}}));
    stage.deployment(
        "w",
        json!({"spec": {"template": {"metadata": {"labels": {"kagenti.io/type": null, "app": "w"}}}}}),
    );
    assert!(stage.pass("w").await.is_some());
    assert!(stage.has(&Stage::secret_path("w")));
    stage.remove_unseen(POD);
    stage.pass("w").await;
    assert!(!stage.has(&Stage::secret_path("w")), "deleted; a real server keeps it for the finalizer");
    assert!(stage.events().await.contains(&"ClientDeregistered w".to_owned()));
}

/// Scenario 17: back within the grace, nothing has happened.
#[tokio::test]
async fn the_grace_keeps_everything() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let secret = stage.object(&Stage::secret_path("w"));
    stage.deployment(
        "w",
        json!({"spec": {"template": {"metadata": {"labels": {"kagenti.io/type": "other"}}}}}),
    );
    let left = stage.pass("w").await.unwrap();
    assert!(left > Duration::from_secs(200) && left <= Duration::from_secs(300), "{left:?}");
    stage.deployment(
        "w",
        json!({"spec": {"template": {"metadata": {"labels": {"kagenti.io/type": "agent"}}}}}),
    );
    stage.pass("w").await;
    assert_eq!(stage.object(&Stage::secret_path("w")), secret);
    assert_eq!(stage.ctx.leaving.get(&Stage::unit("w")), None);
}

/// §10: a gate never removes anything.
#[tokio::test]
async fn a_gate_removes_nothing() {
    let stage = Stage::with(&["--unregister-grace=0s"]).await;
    stage.gates("injectTools: true");
    stage.deployment(
        "w",
        json!({"spec": {"template": {"metadata": {"labels": {"kagenti.io/type": "tool"}}}}}),
    );
    stage.pass("w").await;
    assert!(stage.has(&Stage::secret_path("w")));
    for gates in ["injectTools: false", "globalEnabled: false", "clientRegistration: false"] {
        stage.gates(gates);
        stage.pass("w").await;
        assert!(stage.has(&Stage::secret_path("w")), "{gates}");
        assert!(stage.keycloak.client("team1/w").is_some(), "{gates}");
    }
}

/// §10: opting in to registration inside the Pod is a release: the client stays, without our marks.
#[tokio::test]
async fn a_released_client_stays_without_marks() {
    let stage = Stage::with(&["--unregister-grace=0s"]).await;
    stage.agent("w");
    stage.pass("w").await;
    let legacy = json!({"kagenti.io/client-registration-inject": "true"});
    stage.deployment("w", json!({"spec": {"template": {"metadata": {"labels": legacy}}}}));
    stage.pass("w").await;
    let client = stage.keycloak.client("team1/w").unwrap();
    assert_eq!(client["attributes"]["kagenti.cluster-id"], "");
    assert_eq!(client["attributes"]["kagenti.workload"], "");
    assert!(!stage.has(&Stage::secret_path("w")));

    // Split 11: on the way back the Pods roll for the label, and not once more for credentials that they never had.
    stage.ctx.index.secrets.remove(&controller_kit::watch::Key::new("team1", Stage::unit("w").secret_name()));
    let back = json!({"kagenti.io/client-registration-inject": null});
    stage.deployment("w", json!({"spec": {"template": {"metadata": {"labels": back}}}}));
    stage.pass("w").await;
    assert_eq!(stage.secret_annotation("w", "kagenti.io/credentials-revision").as_deref(), Some("1"));
    assert_eq!(stage.template_annotation("w", "kagenti.io/keycloak-client-credentials-revision"), None);
    assert_eq!(stage.keycloak.client("team1/w").unwrap()["attributes"]["kagenti.adopted"], "true");
}

/// §15: deleted and made again quickly: the old Secret goes first.
#[tokio::test]
async fn a_workload_made_anew_waits_for_the_old_secret() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let old = stage.credential("w", "client-secret.txt");
    stage.remove_deployment("w");
    stage.delete_secret("w");
    stage.deployment("w", json!({"metadata": {"uid": "uid-2"}}));
    stage.keycloak.take();
    stage.pass("w").await;
    assert!(stage.keycloak.take().is_empty(), "not before the old one is gone");
    // The answer to the change that took the finalizer is the last that is heard of it here.
    stage.finish("w").await;
    stage.pass("w").await;
    assert_ne!(stage.credential("w", "client-secret.txt"), old);
}

/// What is not known yet at the start of the process is waited for as an outage is, and counted in the end.
#[tokio::test]
async fn a_client_is_not_left_behind_for_what_is_not_known_yet() {
    for flag in ["--cluster-id=", "--keycloak-url=http://keycloak-service.other.svc:8080"] {
        let stage = Stage::new().await;
        stage.agent("w");
        stage.pass("w").await;
        stage.remove_deployment("w");
        stage.delete_secret("w");
        let again = stage.restarted(&[flag]);
        assert!(again.finish("w").await.is_some_and(|wait| wait <= Duration::from_secs(10)), "{flag}");
        assert!(again.has(&Stage::secret_path("w")), "{flag}");
        again.change_secret("w", json!({"metadata": {"deletionTimestamp": "1969-12-31T23:00:00Z"}}));
        assert_eq!(again.finish("w").await, None, "{flag}");
        assert!(!again.has(&Stage::secret_path("w")), "{flag}");
        let metrics = again.ctx.watches.metrics.openmetrics().unwrap();
        assert!(metrics.contains("client_registration_orphans_total 1"), "{flag}: {metrics}");
    }
}

/// README decision 9: a restart says nothing, also before Keycloak's public URL was looked for.
#[tokio::test]
async fn no_url_is_called_untrusted_before_the_public_one_was_looked_for() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    let again = stage.restarted(&["--keycloak-url=http://keycloak-service.other.svc:8080"]);
    again.config(&[("KEYCLOAK_URL", &again.keycloak.url)]);
    again.try_pass("w").await.expect_err("another try");
    assert_eq!(again.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    assert!(again.events().await.is_empty());
    again.ctx.note_public_url_look();
    again.pass("w").await;
    assert_eq!(again.condition_of(&runtime, "ClientRegistered"), pair("False", "UntrustedKeycloakURL"));
}

/// The answer to an own write may tell of a deletion before the watch does, whose event is no news then.
#[tokio::test]
async fn a_deletion_that_an_own_write_tells_of_is_finished() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    stage.change_unseen(
        &Stage::secret_path("w"),
        json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z", "ownerReferences": null}}),
    );
    let asked = stage.ctx.queue.adds();
    let name = Stage::unit("w").secret_name();
    let write = client_registration_ctl::write::change_secret(&stage.ctx, "team1", &name, |_| {
        Some(json!({"metadata": {"annotations": {"kagenti.io/x": "1"}}}))
    });
    assert!(write.await.unwrap());
    assert_eq!(stage.ctx.queue.adds(), asked + 1);
    let key = tokio::time::timeout(Duration::from_secs(1), stage.ctx.queue.next()).await.unwrap();
    assert_eq!(key.to_string(), format!("Secret team1/{name}"));
    // What takes the finalizer off asks for nothing more.
    assert_eq!(stage.finish("w").await, None);
    assert_eq!(stage.ctx.queue.adds(), asked + 1);
}
