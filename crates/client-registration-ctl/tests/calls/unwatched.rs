//! `--watch-secrets=false`: Secrets are read by name, and nobody tells when one goes (client-registration §10, §16).

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::stage::Stage;

const BY_NAME: [&str; 2] = ["--watch-secrets=false", "--unregister-grace=0s"];

async fn registered() -> Stage {
    let stage = Stage::with(&BY_NAME).await;
    stage.agent("w");
    let again = stage.pass("w").await.expect("a look");
    assert!(again <= Duration::from_secs(360), "a Secret that somebody deletes is missed for {again:?}");
    stage
}

fn nothing_is_left(stage: &Stage) {
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert_eq!(stage.keycloak.scope("agent-team1-w-aud"), None);
    assert!(!stage.has(&Stage::secret_path("w")));
}

/// A process that starts anew has no name to read it by, so nothing must hold it.
#[tokio::test]
async fn a_secret_has_no_finalizer() {
    let stage = registered().await;
    assert_eq!(stage.object(&Stage::secret_path("w"))["metadata"]["finalizers"], json!([]));
    // One from a time when Secrets were watched loses it.
    let watched = Stage::new().await;
    watched.agent("w");
    watched.pass("w").await;
    let again = watched.restarted(&BY_NAME);
    again.pass("w").await;
    assert_eq!(again.object(&Stage::secret_path("w"))["metadata"]["finalizers"], json!([]));
}

#[tokio::test]
async fn a_deleted_workload_takes_client_and_scope_along() {
    let stage = registered().await;
    stage.remove_deployment("w");
    let again = stage.pass("w").await.expect("another look: the garbage collector has not begun");
    assert!(again <= Duration::from_secs(10), "{again:?}");
    assert!(stage.keycloak.client("team1/w").is_some());
    stage.remove_unseen(&Stage::secret_path("w"));
    assert_eq!(stage.pass("w").await, None);
    nothing_is_left(&stage);
}

#[tokio::test]
async fn an_un_enrolment_takes_client_and_scope_along() {
    let stage = registered().await;
    let labels = json!({"kagenti.io/type": null, "app": "w"});
    stage.deployment("w", json!({"spec": {"template": {"metadata": {"labels": labels}}}}));
    assert!(stage.pass("w").await.is_some_and(|again| again < Duration::from_secs(1)));
    assert_eq!(stage.pass("w").await, None);
    nothing_is_left(&stage);
}

/// Scenario 16: tried for a while, then counted.
#[tokio::test]
async fn an_outage_is_waited_for_a_while_only() {
    let stage = registered().await;
    stage.remove_deployment("w");
    stage.remove_unseen(&Stage::secret_path("w"));
    stage.keycloak.world().standing.push(("/admin", 403, "{}"));
    assert!(stage.pass("w").await.is_some_and(|wait| wait <= Duration::from_secs(10)));
    let mut left = stage.ctx.left.get(&Stage::unit("w")).expect("remembered");
    left.since = Timestamp::from_second(-3600).unwrap();
    stage.ctx.left.insert(Stage::unit("w"), left);
    assert_eq!(stage.pass("w").await, None);
    assert_eq!(stage.pass("w").await, None);
    let metrics = stage.ctx.watches.metrics.openmetrics().unwrap();
    assert!(metrics.contains("client_registration_orphans_total 1"), "{metrics}");
}

/// Pods have the old files still, so client and secret stay what they are.
#[tokio::test]
async fn a_secret_deleted_below_a_living_agent_is_made_again() {
    let stage = registered().await;
    let before = stage.credential("w", "client-secret.txt");
    stage.remove_unseen(&Stage::secret_path("w"));
    stage.pass("w").await;
    assert_eq!(stage.credential("w", "client-secret.txt"), before);
    assert!(stage.ctx.left.get(&Stage::unit("w")).is_none());
}

/// §15: a workload of the same name gets a client of its own.
#[tokio::test]
async fn a_workload_made_anew_gets_a_new_client() {
    let stage = registered().await;
    let before = stage.credential("w", "client-secret.txt");
    stage.remove_deployment("w");
    stage.remove_unseen(&Stage::secret_path("w"));
    stage.deployment("w", json!({"metadata": {"uid": "uid-2"}}));
    stage.pass("w").await;
    assert_ne!(stage.credential("w", "client-secret.txt"), before);
}

/// One that has a finalizer still, in deletion below a living agent or one made anew.
#[tokio::test]
async fn a_deletion_that_waits_for_us_is_finished() {
    let watched = Stage::new().await;
    watched.agent("w");
    watched.pass("w").await;
    let before = watched.credential("w", "client-secret.txt");
    watched.delete_secret("w");
    let stage = watched.restarted(&BY_NAME);
    stage.keycloak.world().standing.push(("/admin", 403, "{}"));
    assert!(stage.pass("w").await.is_some_and(|wait| wait <= Duration::from_secs(10)));
    stage.keycloak.world().standing.clear();
    stage.pass("w").await;
    assert_ne!(stage.credential("w", "client-secret.txt"), before);
    // Somebody else holds it, too.
    stage.change_secret("w", json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    stage.delete_secret("w");
    assert!(stage.pass("w").await.is_some_and(|wait| wait <= Duration::from_secs(10)));
}
