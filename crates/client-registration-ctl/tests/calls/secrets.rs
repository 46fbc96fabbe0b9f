//! Secrets that others keep, and writes that the API server refuses (client-registration §8, §12).

use scripted_api::{lines, pair};
use serde_json::{Value, json};

use crate::stage::{DEPLOYMENTS, SECRETS, Stage};

/// A Secret of the credentials' name that something else controls.
fn controlled(owner: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "team1", "name": Stage::unit("w").secret_name(), "uid": "s-1",
            "ownerReferences": [owner]},
        "data": {"client-id.txt": "bWluZQ==", "client-secret.txt": "bWluZQ=="},
    })
}

/// §12 `SecretConflict`: two writers would undo each other for ever.
#[tokio::test]
async fn a_secret_that_something_else_controls_is_left_alone() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    let path = Stage::secret_path("w");
    let owner = json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": "w", "uid": "x",
        "controller": true});
    stage.put(&path, controlled(&owner));
    let before = stage.object(&path);
    stage.pass("w").await;
    assert_eq!(stage.object(&path), before);
    assert_eq!(stage.keycloak.client("team1/w"), None, "no client that nobody gets to know");
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "SecretConflict"));
    let message = stage.condition(&runtime, "ClientRegistered").unwrap()["message"].to_string();
    assert!(message.contains("ExternalSecret w") && message.contains("credentials-managed"), "{message}");
    assert!(stage.events().await.contains(&"SecretConflict w".to_owned()));
    stage.keycloak.take();
    let calls = lines(&stage.calls("w").await);
    assert!(calls.iter().all(|line| line.starts_with("GET")), "said once: {calls:?}");
    assert!(stage.keycloak.take().is_empty(), "it is known now");
    stage.remove_unseen(&path);
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
}

/// §8: who keeps Secret and client for themselves finds both as they were.
#[tokio::test]
async fn a_client_whose_secret_is_kept_is_not_touched() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.keycloak.add_client(json!({"clientId": "team1/w", "name": "mine", "attributes": {}}));
    let before = stage.keycloak.client("team1/w");
    let mut kept = controlled(&json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}));
    kept["metadata"]["annotations"] = json!({"kagenti.io/credentials-managed": "false"});
    stage.put(&Stage::secret_path("w"), kept);
    let secret = stage.object(&Stage::secret_path("w"));
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "UserProvided"));
    assert_eq!(stage.keycloak.client("team1/w"), before);
    assert_eq!(stage.object(&Stage::secret_path("w")), secret);
}

/// §8: an apply takes away only what was applied, so what the Secret was created with becomes that first.
#[tokio::test]
async fn a_created_secret_is_taken_over_before_it_is_applied() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let created = json!([{"manager": "client-registration-ctl", "operation": "Update", "apiVersion": "v1"}]);
    stage.change_secret("w", json!({"metadata": {"managedFields": created}}));
    let id = stage.keycloak.client("team1/w").unwrap()["id"].as_str().unwrap().to_owned();
    for (secret, writes) in [("second", 2), ("third", 1)] {
        stage.keycloak.world().clients.get_mut(&id).unwrap()["secret"] = json!(secret);
        stage.full_check_is_due("w");
        let calls = lines(&stage.calls("w").await);
        let path = format!("PATCH {}", Stage::secret_path("w"));
        assert_eq!(calls.iter().filter(|line| **line == path).count(), writes, "{calls:?}");
        assert_eq!(stage.credential("w", "client-secret.txt"), secret);
        let fields = &stage.object(&Stage::secret_path("w"))["metadata"]["managedFields"];
        assert_eq!(fields[0]["operation"], "Apply");
    }
}

/// The predecessor made the workload the controller, also an earlier one of the name.
#[tokio::test]
async fn a_workload_of_the_name_is_nobody_else() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": "uid-of-w", "controller": true});
    stage.put(&Stage::secret_path("w"), controlled(&owner));
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    assert_eq!(stage.credential("w", "client-id.txt"), "team1/w");
}

/// §12 `PatchFailed`, and no client stays behind that nothing remembers.
#[tokio::test]
async fn a_refused_secret_is_said_and_leaves_no_client() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.fail("POST", SECRETS, 403, "exceeded quota: secrets");
    stage.try_pass("w").await.expect_err("refused");
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "PatchFailed"));
    let message = stage.condition(&runtime, "ClientRegistered").unwrap()["message"].to_string();
    assert!(message.contains("exceeded quota"), "{message}");
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert_eq!(stage.keycloak.scope("agent-team1-w-aud"), None);
    assert!(stage.events().await.contains(&"PatchFailed w".to_owned()));
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
}

/// A policy that refuses the annotation: the credentials are there, and the condition says why the Pods lack them.
#[tokio::test]
async fn a_refused_template_is_said() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.fail("PATCH", &format!("{DEPLOYMENTS}/w"), 422, "denied by a policy");
    stage.try_pass("w").await.expect_err("refused");
    assert!(stage.has(&Stage::secret_path("w")) && stage.keycloak.client("team1/w").is_some());
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("False", "PatchFailed"));
    stage.pass("w").await;
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
}
