//! Secrets that somebody keeps for themselves stay when the workload goes (client-registration §8, §10).

use serde_json::json;

use crate::stage::Stage;

const KEPT: &str = "kagenti.io/credentials-managed";

/// The template is an agent's no more.
fn un_enrol(stage: &Stage) {
    let labels = json!({"kagenti.io/type": null, "app": "w"});
    stage.deployment("w", json!({"spec": {"template": {"metadata": {"labels": labels}}}}));
}

/// Where Secrets are read by name, one that never was ours is seen, too.
#[tokio::test]
async fn a_secret_that_never_was_ours_stays() {
    for annotations in [json!({}), json!({KEPT: "false"})] {
        for gone in [true, false] {
            let stage = Stage::with(&["--watch-secrets=false", "--unregister-grace=0s"]).await;
            let path = Stage::secret_path("w");
            stage.put(
                &path,
                json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": "team1", "name": Stage::unit("w").secret_name(), "uid": "s-1",
                    "annotations": annotations},
                "data": {"client-id.txt": "bWluZQ==", "client-secret.txt": "bWluZQ=="}}),
            );
            let before = stage.object(&path);
            stage.agent("w");
            un_enrol(&stage);
            if gone {
                stage.remove_deployment("w");
            }
            stage.pass("w").await;
            assert!(stage.has(&path), "{annotations}, workload gone: {gone}");
            assert_eq!(stage.object(&path), before);
        }
    }
}

/// One that was ours has label, owner and finalizer still; its client stays for whoever keeps it.
#[tokio::test]
async fn a_secret_that_was_taken_from_us_stays() {
    let stage = Stage::with(&["--unregister-grace=0s"]).await;
    let path = Stage::secret_path("w");
    stage.agent("w");
    stage.pass("w").await;
    stage.change_secret("w", json!({"metadata": {"annotations": {KEPT: "false"}}}));
    let before = stage.object(&path);
    un_enrol(&stage);
    stage.pass("w").await;
    assert!(stage.has(&path), "an un-enrolment");
    assert_eq!(stage.object(&path), before);
    stage.change_secret("w", json!({"metadata": {"ownerReferences": null}}));
    stage.remove_deployment("w");
    stage.pass("w").await;
    assert!(stage.has(&path), "a workload that goes");
    // Whoever keeps it deletes it: the finalizer must not hold it, and the client is theirs.
    stage.delete_secret("w");
    assert_eq!(stage.finish("w").await, None);
    assert!(!stage.has(&path));
    assert!(
        stage.keycloak.client("team1/w").is_some() && stage.keycloak.scope("agent-team1-w-aud").is_some()
    );
}

/// After a restart, too, the condition says whose it is.
#[tokio::test]
async fn a_secret_that_was_taken_from_us_is_user_provided_after_a_restart() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    stage.change_secret("w", json!({"metadata": {"annotations": {KEPT: "false"}}}));
    let again = stage.restarted(&[]);
    again.pass("w").await;
    assert_eq!(again.condition_of(&runtime, "ClientRegistered"), scripted_api::pair("False", "UserProvided"));
}
