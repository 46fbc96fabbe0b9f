//! Conflicts, refusals and watches that have not delivered.

use api_types::enrolment::TargetKind::Deployment;
use netpol_ctl::{context::Key, sources::Source};
use serde_json::json;

use crate::stage::{FALSE, NONE, POLICIES, Stage, TRUE, lines, waits_long};

const W: (&str, &str) = ("Deployment", "w");
const NAME: &str = "w-signature-policy";

fn path() -> String {
    format!("{POLICIES}/{NAME}")
}

/// A conflict is answered by a fresh look, and nobody's change is lost.
#[tokio::test]
async fn a_conflict_is_retried_with_a_re_read() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.change_unseen(&path(), json!({"metadata": {"annotations": {"foreign": "1"}}}));
    stage.card("c", W, TRUE);
    let calls = stage.calls("w").await;
    assert_eq!(calls, [format!("PATCH {}", path()), format!("GET {}", path()), format!("PATCH {}", path())]);
    let policy = stage.object(&path());
    assert_eq!(policy["metadata"]["annotations"]["foreign"], "1");
    assert_eq!(policy["spec"]["egress"], json!([{}]));
}

/// 404 after it was seen: it is made anew in the same pass.
#[tokio::test]
async fn a_policy_deleted_meanwhile_is_made_anew() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.remove_unseen(&path());
    stage.card("c", W, TRUE);
    let calls = stage.calls("w").await;
    assert_eq!(calls, [format!("PATCH {}", path()), format!("GET {}", path()), format!("POST {POLICIES}")]);
    assert_eq!(stage.policies(), [NAME]);
}

/// A policy that changed since it was seen is not deleted blindly.
#[tokio::test]
async fn a_deletion_is_bound_to_what_was_seen() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    // Somebody made it their own.
    stage.change_unseen(&path(), json!({"metadata": {"labels": null, "ownerReferences": null}}));
    stage.card("c", W, Some(("False", "SignatureInvalidAudit")));
    let calls = stage.calls("w").await;
    assert_eq!(calls, [format!("DELETE {}", path()), format!("GET {}", path())]);
    assert_eq!(stage.policies(), [NAME]);
}

/// A namespace that ends takes the workload with it: nothing to retry.
#[tokio::test]
async fn a_terminating_namespace_is_no_error() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    let message = "unable to create new content in namespace team1 because it is being terminated";
    stage.fail("POST", POLICIES, 403, message);
    assert_eq!(stage.calls("w").await, [format!("POST {POLICIES}")]);
}

#[tokio::test]
async fn a_missing_right_is_an_error_that_waits() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.fail("POST", POLICIES, 403, "networkpolicies is forbidden");
    let error = stage.pass(Key::Slot(Stage::slot("w"))).await.1.unwrap_err();
    assert!(waits_long(&error));
    assert!(error.to_string().contains("NetworkPolicy team1/w-signature-policy"), "{error}");
}

/// Before the first lists are complete, "not there" means nothing: no write, another look soon.
#[tokio::test]
async fn nothing_is_written_before_the_watches_have_delivered() {
    for source in [Source::Cards, Source::Policies, Source::Workloads(Deployment), Source::ApiServer] {
        let stage = Stage::new();
        stage.pending(source);
        stage.card("c", W, FALSE);
        stage.workload(Deployment, "w");
        let (calls, result) = stage.pass(Key::Slot(Stage::slot("w"))).await;
        assert_eq!(lines(&calls), NONE);
        assert!(result.unwrap().is_some(), "{source:?}");
    }
}

/// Workloads that cannot be read are not taken for gone; the API server's address may stay unknown.
#[tokio::test]
async fn a_refused_watch_opens_nothing() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.remove_workload(Deployment, "w");
    stage.pending(Source::Workloads(Deployment));
    stage.ctx.sources.troubled(Source::Workloads(Deployment), None, "forbidden");
    let (calls, result) = stage.pass(Key::Slot(Stage::slot("w"))).await;
    assert_eq!(lines(&calls), NONE);
    assert!(result.unwrap().is_some());

    let stage = Stage::new();
    stage.pending(Source::ApiServer);
    stage.ctx.sources.troubled(Source::ApiServer, None, "forbidden");
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    assert_eq!(stage.calls("w").await, [format!("POST {POLICIES}")]);
}
