//! Clients that a workload had before its identity changed (client-registration §10): they go when no Pod uses them.

use std::time::Duration;

use api_types::enrolment::TargetKind;
use client_registration_ctl::{
    identity::PlatformDomain,
    workload::{Workload, WorkloadView},
};
use controller_kit::workload::resource;
use rstest::rstest;
use scripted_api::pair;
use serde_json::{Value, json};

use crate::stage::{DEPLOYMENTS, Stage};

const REVISION: &str = "kagenti.io/keycloak-client-credentials-revision";
const PREVIOUS: &str = "kagenti.io/keycloak-previous-clients";
const SANDBOX: &str = "/apis/agents.x-k8s.io/v1alpha1/namespaces/team1/sandboxes/w";
const POD: &str = "/api/v1/namespaces/team1/pods/w";

/// A template that waits to be annotated has begun no rollout: the Deployment looks complete, and its Pods still
/// use the old client.
#[rstest]
#[case::limiter(&["--rollout-qps=0.001", "--rollout-burst=1"], false)]
#[case::conflict(&[], true)]
#[tokio::test]
async fn a_client_in_use_stays_while_the_template_waits(#[case] flags: &[&str], #[case] conflict: bool) {
    let stage = Stage::with(flags).await;
    stage.agent("w");
    stage.pass("w").await;
    stage.ctx.set_domain(PlatformDomain::Known("example.org".into()));
    stage.deployment("w", json!({"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}));
    if conflict {
        stage.fail("PATCH", &format!("{DEPLOYMENTS}/w"), 409, "the object has been modified");
    }
    assert!(stage.pass("w").await.is_some());
    let id = "spiffe://example.org/ns/team1/sa/sa";
    assert_eq!(stage.credential("w", "client-id.txt"), id);
    assert_eq!(stage.template_annotation("w", REVISION), None, "not yet");
    assert!(stage.keycloak.client("team1/w").is_some(), "the Pods still use it");
    assert!(stage.secret_annotation("w", PREVIOUS).is_some());

    // A restart, or the next look at a registration that is settled.
    let again = stage.restarted(flags);
    again.ctx.set_domain(PlatformDomain::Known("example.org".into()));
    again.pass("w").await;
    assert_eq!(again.template_annotation("w", REVISION).as_deref(), Some("2"));
    again.pass("w").await;
    assert_eq!(stage.keycloak.client("team1/w"), None);
    assert!(stage.keycloak.client(id).is_some());
    assert_eq!(again.secret_annotation("w", PREVIOUS), None);
}

/// The status of a Sandbox does not say which template its Pod was made of: the Pod does.
#[tokio::test]
async fn a_client_stays_while_the_pod_of_a_sandbox_uses_it() {
    let stage = Stage::new().await;
    stage.ctx.set_sandbox_version(Some("v1alpha1"));
    let see = |account: &str| {
        let object = json!({
            "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox",
            "metadata": {"namespace": "team1", "name": "w", "uid": "uid-of-w", "generation": 1,
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"podTemplate": {"metadata": {"labels": {"kagenti.io/type": "agent"}},
                "spec": {"serviceAccountName": account}}},
        });
        stage.put(SANDBOX, object);
        let view: WorkloadView = serde_json::from_value(stage.object(SANDBOX)).unwrap();
        let kind = TargetKind::Sandbox;
        let workload = Workload::from_view(kind, &resource(kind, "v1alpha1"), view).unwrap();
        let _ = stage.ctx.index.workloads.upsert(workload);
    };
    let secret = Stage::unit("w").secret_name();
    let pod = |annotations: Value| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "w", "namespace": "team1", "labels": {"kagenti.io/type": "agent"},
                "annotations": annotations,
                "ownerReferences": [{"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "w",
                    "uid": "uid-of-w", "controller": true}]},
            "spec": {"volumes": [{"name": secret, "secret": {"secretName": secret}}]},
            "status": {"phase": "Running"}})
    };
    stage.ctx.set_domain(PlatformDomain::Known("d".into()));
    see("one");
    stage.pass("w").await;
    stage.put(POD, pod(json!({})));
    see("two");
    stage.pass("w").await;
    let old = "spiffe://d/ns/team1/sa/one";
    assert_eq!(stage.credential("w", "client-id.txt"), "spiffe://d/ns/team1/sa/two");
    assert!(stage.pass("w").await.is_some_and(|wait| wait <= Duration::from_secs(300)));
    assert!(stage.keycloak.client(old).is_some(), "the Pod still uses it");
    // Somebody deletes the Pod, and it is made anew.
    stage.put(POD, pod(json!({REVISION: "2"})));
    stage.pass("w").await;
    assert_eq!(stage.keycloak.client(old), None);
    assert!(stage.keycloak.client("spiffe://d/ns/team1/sa/two").is_some());
}

/// Another URL of the same Keycloak leads to the same client, which is no earlier one.
#[tokio::test]
async fn another_url_of_the_same_client_deletes_nothing() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    let url = stage.keycloak.url.replace("127.0.0.1", "localhost");
    let again = stage.restarted(&[&format!("--keycloak-allowed-urls={url}")]);
    again.config(&[("KEYCLOAK_URL", &url)]);
    for _ in 0..2 {
        again.pass("w").await;
    }
    assert_eq!(again.secret_annotation("w", "kagenti.io/keycloak-url"), Some(url));
    assert!(stage.keycloak.client("team1/w").is_some(), "it is the client in use");
    assert_eq!(again.secret_annotation("w", PREVIOUS), None);
}

/// The Secret names this client as an earlier one.
fn left(stage: &Stage, realm: &str) {
    let place = json!([{"url": stage.keycloak.url, "realm": realm, "uuid": "u-old"}]).to_string();
    stage.change_secret("w", json!({"metadata": {"annotations": {PREVIOUS: place}}}));
}

fn orphans(stage: &Stage) -> String {
    let metrics = stage.ctx.watches.metrics.openmetrics().unwrap();
    metrics.lines().find(|line| line.starts_with("client_registration_orphans_total")).unwrap().to_owned()
}

/// §10, 404 = done: what was in a realm is gone with it.
#[tokio::test]
async fn a_realm_that_is_gone_holds_nothing_up() {
    let stage = Stage::new().await;
    let runtime = stage.runtime("w", json!({}));
    stage.agent("w");
    stage.pass("w").await;
    left(&stage, "gone");
    stage.pass("w").await;
    assert_eq!(stage.secret_annotation("w", PREVIOUS), None);
    assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));

    left(&stage, "gone");
    let gone = ("/admin/realms/kagenti", 404, r#"{"error":"Realm not found."}"#);
    stage.keycloak.world().standing.push(gone);
    stage.remove_deployment("w");
    stage.delete_secret("w");
    assert_eq!(stage.finish("w").await, None);
    assert!(!stage.has(&Stage::secret_path("w")));
    assert_eq!(orphans(&stage), "client_registration_orphans_total 0");
}

/// A Keycloak that a workload has left is waited for a while only, and what is said of the workload is true meanwhile.
#[tokio::test]
async fn an_earlier_keycloak_that_refuses_is_given_up() {
    let stage = Stage::new().await;
    stage.agent("w");
    stage.pass("w").await;
    left(&stage, "kagenti");
    stage.keycloak.world().standing.push(("/clients/u-old", 403, "{}"));
    let runtime = stage.runtime("w", json!({}));
    // The full check, and then a look at a registration that is settled.
    for _ in 0..2 {
        let wait = stage.pass("w").await.unwrap();
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(stage.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    }
    assert!(stage.secret_annotation("w", PREVIOUS).is_some());
    assert!(stage.events().await.contains(&"CleanupPending w".to_owned()));
    assert_eq!(orphans(&stage), "client_registration_orphans_total 0");

    let later = stage.restarted(&["--cleanup-timeout=1ms"]);
    later.pass("w").await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    later.pass("w").await;
    assert_eq!(later.secret_annotation("w", PREVIOUS), None);
    assert_eq!(orphans(&later), "client_registration_orphans_total 1");
    assert_eq!(later.condition_of(&runtime, "ClientRegistered"), pair("True", "Registered"));
    stage.keycloak.take();
    later.pass("w").await;
    assert!(stage.keycloak.take().is_empty(), "not tried again");
}
