//! The end of an enrolment: runtime §8.1.

use runtime_ctl::error::Error;
use serde_json::json;

use crate::stage::{DEPLOYMENTS, RUNTIMES, Stage, lines, pair};

fn deleted() -> serde_json::Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-03T00:00:00Z"}})
}

async fn enrolled(stage: &Stage) {
    stage.deployment("weather", json!({"metadata": {"annotations": {"kagenti.io/skills": "[]"}}}));
    stage.runtime("rt", json!({}));
    stage.calls("rt").await;
}

/// One patch cleans the workload, one lets the AgentRuntime go.
#[tokio::test]
async fn deletion_takes_two_calls() {
    let stage = Stage::new();
    enrolled(&stage).await;
    stage.edit_runtime("rt", deleted());
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls), [format!("PATCH {DEPLOYMENTS}/weather"), format!("PATCH {RUNTIMES}/rt")]);
    assert_eq!(calls[1].body["metadata"]["finalizers"], json!([]));
    assert!(!stage.has(&format!("{RUNTIMES}/rt")));
    let workload = stage.object(&format!("{DEPLOYMENTS}/weather"));
    assert_eq!(workload["metadata"]["annotations"], json!({"kagenti.io/skills": "[]"}));
    assert_eq!(
        workload["spec"]["template"]["metadata"],
        json!({"labels": {"app": "weather"}, "annotations": {}})
    );
}

/// Runtime §6 step 2: also in a namespace that goes away, and without the workload.
#[tokio::test]
async fn deletion_without_target_only_drops_the_finalizer() {
    let stage = Stage::new();
    stage.namespace(json!({}), true);
    stage.runtime("rt", json!({"metadata": {"finalizers": ["kagenti.io/cleanup", "other"]}}));
    stage.edit_runtime("rt", deleted());
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls), [format!("PATCH {RUNTIMES}/rt")]);
    assert_eq!(calls[0].body["metadata"]["finalizers"], json!(["other"]), "finalizers of others stay");
}

#[tokio::test]
async fn without_our_finalizer_nothing_is_done() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime(
        "rt",
        json!({"metadata": {"finalizers": ["other"], "deletionTimestamp": "2026-01-03T00:00:00Z"}}),
    );
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// A workload that cannot be cleaned keeps the finalizer, and the condition says why.
#[tokio::test]
async fn a_refused_clean_up_is_reported_and_retried() {
    let stage = Stage::new();
    enrolled(&stage).await;
    stage.edit_runtime("rt", deleted());
    stage.fail("PATCH", &format!("{DEPLOYMENTS}/weather"), 403, "patch is forbidden");
    let (calls, result) = stage.pass("rt").await;
    assert!(matches!(result, Err(Error::Cleanup { .. })));
    assert_eq!(
        lines(&calls),
        [format!("PATCH {DEPLOYMENTS}/weather"), format!("PATCH {RUNTIMES}/rt/status")]
    );
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "CleanupFailed"));
    assert_eq!(stage.message("rt", "Ready"), "patch is forbidden");
    assert_eq!(stage.condition("rt", "TargetResolved"), pair("True", "TargetFound"));
    // The next try works.
    stage.calls("rt").await;
    assert!(!stage.has(&format!("{RUNTIMES}/rt")));
}

/// Runtime §9.2: the heir takes over in place; the workload keeps its labels and is not restarted.
#[tokio::test]
async fn the_next_one_takes_over_without_a_restart() {
    let stage = Stage::new();
    enrolled(&stage).await;
    stage.runtime("young", json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}));
    stage.calls("young").await;
    let template = stage.object(&format!("{DEPLOYMENTS}/weather"))["spec"]["template"].clone();
    stage.edit_runtime("rt", deleted());
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls), [format!("PATCH {DEPLOYMENTS}/weather"), format!("PATCH {RUNTIMES}/rt")]);
    assert_eq!(calls[0].body["metadata"]["annotations"], json!({"agent.kagenti.dev/enrolled-by": "young"}));
    let calls = lines(&stage.calls("young").await);
    assert_eq!(calls, [format!("PATCH {RUNTIMES}/young/status")]);
    assert_eq!(stage.condition("young", "Ready"), pair("True", "Configured"));
    assert_eq!(stage.object(&format!("{DEPLOYMENTS}/weather"))["spec"]["template"], template);
}

/// A loser that is deleted leaves the workload of the winner alone.
#[tokio::test]
async fn a_deleted_loser_touches_nothing() {
    let stage = Stage::new();
    enrolled(&stage).await;
    stage.runtime("young", json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}));
    stage.calls("young").await;
    stage.edit_runtime("young", deleted());
    assert_eq!(lines(&stage.calls("young").await), [format!("PATCH {RUNTIMES}/young")]);
}

/// The finalizer list is replaced as a whole, so a change in between is a conflict that is read anew.
#[tokio::test]
async fn a_finalizer_that_somebody_adds_meanwhile_is_kept() {
    let stage = Stage::new();
    stage.runtime("rt", json!({"metadata": {"finalizers": ["kagenti.io/cleanup"], "deletionTimestamp": "2026-01-03T00:00:00Z"}}));
    let path = format!("{RUNTIMES}/rt");
    stage.change_unseen(&path, json!({"metadata": {"finalizers": ["kagenti.io/cleanup", "other"]}}));
    stage.fail("PATCH", &path, 409, "changed");
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls), [format!("PATCH {path}"), format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(calls[2].body["metadata"]["finalizers"], json!(["other"]));
}
