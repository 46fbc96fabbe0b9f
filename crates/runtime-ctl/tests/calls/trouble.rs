//! Targets that cannot be enrolled, refusals, and objects that cannot be read: runtime §6, §7, §2.7.

use controller_kit::watch::Undecodable;
use runtime_ctl::{
    error::Error,
    index::{Input, Unreadable},
    kinds::WorkloadKind,
    sources::Source,
};
use serde_json::json;

use crate::stage::{DEPLOYMENTS, RUNTIMES, Stage, lines, pair};

fn status() -> String {
    format!("PATCH {RUNTIMES}/rt/status")
}

/// "Not found" is confirmed by one live read, said once, and costs nothing afterwards.
#[tokio::test]
async fn a_missing_target_is_said_once() {
    let stage = Stage::new();
    stage.runtime("rt", json!({}));
    let (calls, next) = stage.pass("rt").await;
    assert_eq!(lines(&calls)[1..], [format!("GET {DEPLOYMENTS}/weather"), status()]);
    let next = next.unwrap().unwrap().as_secs_f64();
    assert!((27.0..=33.0).contains(&next), "30 s, give or take a tenth: {next}");
    assert_eq!(stage.condition("rt", "TargetResolved"), pair("False", "TargetNotFound"));
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "TargetNotFound"));
    assert_eq!(stage.message("rt", "Ready"), "apps/v1/Deployment weather not found in namespace team1");
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// Workload and AgentRuntime made in one breath: the watch of the workload may be the slower one.
#[tokio::test]
async fn a_target_the_watch_has_not_brought_yet_is_found() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.forget_workload(WorkloadKind::Deployment, "weather");
    let calls = lines(&stage.calls("rt").await);
    assert_eq!(
        calls[1..],
        [format!("GET {DEPLOYMENTS}/weather"), format!("PATCH {DEPLOYMENTS}/weather"), status()]
    );
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
}

/// A target that goes between read and patch.
#[tokio::test]
async fn a_target_that_goes_meanwhile_is_not_found() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.remove_unseen(&format!("{DEPLOYMENTS}/weather"));
    stage.calls("rt").await;
    assert_eq!(stage.condition("rt", "TargetResolved"), pair("False", "TargetNotFound"));
    assert!(!stage.has(&format!("{DEPLOYMENTS}/weather")), "a patch must not create a stump");
}

#[tokio::test]
async fn a_kind_that_cannot_be_read_is_no_missing_target() {
    let stage = Stage::new();
    stage.runtime("rt", json!({}));
    stage.ctx.sources.troubled(
        Source::Workloads(WorkloadKind::Deployment),
        None,
        "not allowed to list deployments",
    );
    stage.calls("rt").await;
    assert_eq!(stage.condition("rt", "TargetResolved"), pair("False", "TargetLookupError"));
    assert!(stage.message("rt", "Ready").contains("not allowed to list deployments"));
}

#[tokio::test]
async fn kinds_and_versions() {
    for (reference, reason) in [
        (json!({"kind": "DaemonSet"}), "UnsupportedTargetKind"),
        (json!({"apiVersion": "a/b/c"}), "InvalidAPIVersion"),
        (json!({"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox"}), "TargetNotFound"),
    ] {
        let stage = Stage::new();
        stage.runtime("rt", json!({"spec": {"targetRef": reference}}));
        assert_eq!(lines(&stage.calls("rt").await)[1..], [status()]);
        assert_eq!(stage.condition("rt", "TargetResolved"), pair("False", reason));
        assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
    }
}

/// Runtime §6 step 10: the message of the API server verbatim; a refusal is retried slowly.
#[tokio::test]
async fn a_refused_patch_is_reported_verbatim() {
    for (code, refused) in [(403, true), (422, true), (500, false)] {
        let stage = Stage::new();
        stage.deployment("weather", json!({}));
        stage.runtime("rt", json!({}));
        stage.fail("PATCH", &format!("{DEPLOYMENTS}/weather"), code, "admission says no");
        let (calls, result) = stage.pass("rt").await;
        assert!(matches!(result, Err(Error::Apply { refused: r, .. }) if r == refused), "{code}");
        assert_eq!(lines(&calls).last(), Some(&status()));
        assert_eq!(stage.condition("rt", "Ready"), pair("False", "ConfigApplyError"));
        assert_eq!(stage.message("rt", "Ready"), "admission says no");
        // What was found out before stays visible.
        assert_eq!(stage.condition("rt", "TargetResolved"), pair("True", "TargetFound"));
    }
}

/// Runtime §5.3: an input that could never be read stops the enrolment; the workload is untouched.
#[tokio::test]
async fn unreadable_configuration_leaves_the_workload_alone() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.ctx.index.configs.set_unreadable(
        Input::Authbridge,
        None,
        Some(Unreadable::Failing("timeout".into())),
    );
    let (calls, result) = stage.pass("rt").await;
    assert!(matches!(result, Err(Error::Config(_))));
    assert!(!lines(&calls).iter().any(|call| call.contains("deployments")));
    assert_eq!(stage.condition("rt", "ConfigResolved"), pair("False", "ConfigReadError"));
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "ConfigReadError"));
}

#[tokio::test]
async fn nothing_is_made_in_a_terminating_namespace() {
    let stage = Stage::new();
    stage.namespace(json!({}), true);
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// Runtime §2.7: an object that cannot be read gets an untyped status, once.
#[tokio::test]
async fn an_undecodable_object_is_reported_once() {
    let stage = Stage::new();
    stage.put(
        &format!("{RUNTIMES}/rt"),
        json!({"apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": "team1", "name": "rt", "generation": 2}, "spec": {"type": 7}}),
    );
    let bad = Undecodable {
        namespace: "team1".into(),
        name: "rt".into(),
        uid: "u".into(),
        generation: Some(2),
        error: "spec.type: expected a string".into(),
    };
    stage.ctx.undecodable.insert(Stage::key("rt"), bad);
    assert_eq!(lines(&stage.calls("rt").await), [format!("GET {RUNTIMES}/rt"), status()]);
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "InvalidSpec"));
    assert_eq!(lines(&stage.calls("rt").await), [format!("GET {RUNTIMES}/rt")]);
}

/// An unknown value of an open enum is a condition, not an error.
#[tokio::test]
async fn an_unknown_type_is_invalid() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({"spec": {"type": "robot"}}));
    let calls = lines(&stage.calls("rt").await);
    assert_eq!(calls[1..], [status()]);
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "InvalidSpec"));
}

/// Runtime §10: a refused label is Unknown/Forbidden, is not tried in a loop and never stops the enrolment.
#[tokio::test]
async fn a_forbidden_mesh_label_is_not_fatal() {
    let stage = Stage::new();
    stage.namespace(json!({}), false);
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.fail("PATCH", "/api/v1/namespaces/team1", 403, "no");
    stage.calls("rt").await;
    assert_eq!(stage.condition("rt", "IstioMeshEnrolled"), pair("Unknown", "Forbidden"));
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}
