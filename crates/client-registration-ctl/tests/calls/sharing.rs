//! Workloads with one ServiceAccount share a client (client-registration §4).

use std::time::Duration;

use client_registration_ctl::{context::Key, identity::PlatformDomain, secret::SecretMeta};
use controller_kit::controller::{Controller, Failed, Retry};
use rstest::rstest;
use serde_json::{Value, json};

use crate::stage::{DEPLOYMENTS, Stage};

const ID: &str = "spiffe://d/ns/team1/sa/sa";
const REVISION: &str = "kagenti.io/keycloak-client-credentials-revision";

fn in_domain(stage: Stage) -> Stage {
    stage.ctx.set_domain(PlatformDomain::Known("d".into()));
    stage
}

/// Agents `a` and `b`, registered.
async fn two() -> Stage {
    let stage = in_domain(Stage::new().await);
    for name in ["a", "b"] {
        stage.deployment(name, json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}));
        stage.pass(name).await;
    }
    stage.keycloak.take();
    stage
}

fn rotate(stage: &Stage, name: &str, value: &str) {
    stage.deployment(name, json!({"metadata": {"annotations": {"kagenti.io/rotate-credentials": value}}}));
}

fn holds_the_secret(stage: &Stage, name: &str) -> bool {
    let client: Value = stage.keycloak.client(ID).unwrap();
    json!(stage.credential(name, "client-secret.txt")) == client["secret"]
}

fn new_secrets(stage: &Stage) -> usize {
    let seen = stage.keycloak.take();
    seen.iter().filter(|seen| seen.method == "POST" && seen.path.ends_with("/client-secret")).count()
}

/// §5.3: the old secret is refused at once, so nobody may be left with it until the next full check.
#[rstest]
#[case::at_once(false)]
#[case::after_a_restart(true)]
#[tokio::test]
async fn a_new_secret_reaches_all_that_share_the_client(#[case] restart: bool) {
    let mut stage = two().await;
    rotate(&stage, "a", "today");
    stage.pass("a").await;
    assert!(holds_the_secret(&stage, "a") && !holds_the_secret(&stage, "b"));
    if restart {
        stage = in_domain(stage.restarted(&[]));
    } else {
        let next = tokio::time::timeout(Duration::from_secs(30), stage.ctx.queue.next()).await;
        assert_eq!(next.unwrap(), Key::Unit(Stage::unit("b")));
    }
    stage.pass("b").await;
    assert!(holds_the_secret(&stage, "a") && holds_the_secret(&stage, "b"));
    assert_eq!(stage.template_annotation("b", REVISION).as_deref(), Some("2"));
    assert_eq!(new_secrets(&stage), 1);
}

/// `kubectl annotate deployment --all`: one new secret for all of them, also over a restart.
#[rstest]
#[case(false)]
#[case(true)]
#[tokio::test]
async fn one_request_of_all_is_obeyed_once(#[case] restart: bool) {
    let mut stage = two().await;
    for name in ["a", "b"] {
        rotate(&stage, name, "today");
    }
    stage.pass("a").await;
    if restart {
        stage = in_domain(stage.restarted(&[]));
    }
    for name in ["b", "a", "b"] {
        stage.pass(name).await;
    }
    assert_eq!(new_secrets(&stage), 1);
    assert!(holds_the_secret(&stage, "a") && holds_the_secret(&stage, "b"));
    for name in ["a", "b"] {
        assert_eq!(stage.template_annotation(name, REVISION).as_deref(), Some("2"));
    }
    // The next value is a new request, whoever makes it.
    rotate(&stage, "b", "tomorrow");
    for name in ["b", "a"] {
        stage.pass(name).await;
    }
    assert_eq!(new_secrets(&stage), 1);
    assert!(holds_the_secret(&stage, "a") && holds_the_secret(&stage, "b"));
}

/// Two passes at once could write what the other has just made invalid.
#[tokio::test]
async fn one_pass_at_a_time_is_at_work_on_a_client() {
    let stage = two().await;
    rotate(&stage, "a", "today");
    let turn = stage.ctx.turns.take(ID).unwrap();
    assert!(stage.pass("a").await.is_some_and(|wait| wait < Duration::from_secs(1)));
    assert!(stage.keycloak.take().is_empty());
    drop(turn);
    stage.pass("a").await;
    assert_eq!(new_secrets(&stage), 1);
    assert!(stage.ctx.turns.take(ID).is_some(), "given back");
}

/// A client that went before its new secret could be asked for is no client without a secret.
#[tokio::test]
async fn a_client_that_went_while_it_was_rotated_is_made_anew() {
    let stage = two().await;
    rotate(&stage, "a", "today");
    let gone = r#"{"error":"Could not find client"}"#;
    stage.keycloak.world().faults.push_back(("/client-secret", 404, gone));
    stage.try_pass("a").await.expect_err("another try");
    assert_ne!(stage.credential("a", "client-secret.txt"), "unused");
}

/// A pass that has found the client has not written its Secret yet: a clean-up at that moment would leave it with the
/// credentials of a client that is gone.
#[tokio::test]
async fn a_client_is_not_deleted_while_another_pass_is_at_work_on_it() {
    let stage = in_domain(Stage::new().await);
    for name in ["a", "b"] {
        stage.deployment(name, json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}));
    }
    stage.pass("a").await;
    let id = stage.keycloak.client(ID).unwrap()["id"].clone();
    stage.remove_deployment("a");
    stage.delete_secret("a");
    let turn = stage.ctx.turns.take(ID).unwrap();
    let key = Key::Secret("team1".to_owned(), Stage::unit("a").secret_name());
    let busy = stage.ctx.pass(&key).await.expect_err("another try");
    assert_eq!(busy.retry(), Retry::SOON);
    assert!(stage.keycloak.client(ID).is_some() && stage.has(&Stage::secret_path("a")));
    drop(turn);
    stage.pass("b").await;
    stage.finish("a").await;
    assert!(!stage.has(&Stage::secret_path("a")));
    assert_eq!(stage.keycloak.client(ID).unwrap()["id"], id, "it is the other's now");
    assert!(holds_the_secret(&stage, "b"));
}

/// What a pass has made is not taken back when somebody has it by then.
#[tokio::test]
async fn a_client_that_others_use_is_not_taken_back() {
    let stage = in_domain(Stage::new().await);
    stage.deployment("a", json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}));
    stage.remove_unseen(&format!("{DEPLOYMENTS}/a"));
    // The id that comes after that of client `kagenti`.
    let meta = json!({"namespace": "team1", "name": Stage::unit("b").secret_name(), "uid": "s-b", "resourceVersion": "1",
        "annotations": {"kagenti.io/keycloak-client-uuid": "client-2"}});
    let other = SecretMeta::of(serde_json::from_value(meta).unwrap()).unwrap();
    let _ = stage.ctx.index.secrets.upsert(other);
    stage.pass("a").await;
    assert_eq!(stage.keycloak.client(ID).unwrap()["id"], "client-2");
}
