//! `--cleanup-and-exit`: no Secret waits for a controller that is gone (client-registration §10).

use client_registration_ctl::cleanup;
use controller_kit::scope::Scope;
use scripted_api::lines;
use serde_json::json;

use crate::stage::{SECRETS, Stage};

#[tokio::test]
async fn only_our_finalizer_goes_and_everything_stays() {
    let stage = Stage::new().await;
    for name in ["a", "b"] {
        stage.agent(name);
        stage.pass(name).await;
    }
    let held = json!({"metadata": {"finalizers": ["example.com/mine", "kagenti.io/keycloak-client"]}});
    stage.change_secret("b", held);
    let label = json!({"app.kubernetes.io/managed-by": "kagenti-operator"});
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "team1", "name": "other",
        "labels": label, "finalizers": ["kagenti.io/keycloak-client"]}});
    stage.put(&format!("{SECRETS}/other"), other);
    let scope = Scope::Namespaces(vec!["team1".to_owned()]);
    let run = || cleanup::run(&stage.ctx.client, &scope, 2);
    let (calls, done) = stage.during(run()).await;
    assert_eq!(done, Ok(2), "{calls:?}");
    assert!(calls.iter().any(|call| call.path.starts_with(SECRETS) && call.method == "GET"), "{calls:?}");
    let finalizers = |path: &str| stage.object(path)["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(&Stage::secret_path("a")), json!([]));
    assert_eq!(finalizers(&Stage::secret_path("b")), json!(["example.com/mine"]));
    assert_eq!(finalizers(&format!("{SECRETS}/other")), json!(["kagenti.io/keycloak-client"]), "not ours");
    assert!(stage.keycloak.client("team1/a").is_some());
    let (calls, done) = stage.during(run()).await;
    assert_eq!(done, Ok(0));
    assert!(lines(&calls).iter().all(|line| line.starts_with("GET")), "{calls:?}");
}

/// It changed meanwhile, and is read again; a right that is missing is said.
#[tokio::test]
async fn a_conflict_is_tried_again_and_a_refusal_is_said() {
    let stage = Stage::new().await;
    stage.agent("a");
    stage.pass("a").await;
    let scope = Scope::Namespaces(vec!["team1".to_owned()]);
    let path = Stage::secret_path("a");
    stage.fail("PATCH", &path, 403, "no patch for you");
    let error = cleanup::run(&stage.ctx.client, &scope, 2).await.expect_err("refused");
    assert!(error.contains(&Stage::unit("a").secret_name()) && error.contains("no patch for you"), "{error}");
    stage.fail("PATCH", &path, 409, "changed");
    assert_eq!(cleanup::run(&stage.ctx.client, &scope, 2).await, Ok(1));
    assert_eq!(stage.object(&path)["metadata"]["finalizers"], json!([]));
}
