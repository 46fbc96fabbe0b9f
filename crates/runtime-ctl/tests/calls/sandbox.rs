//! Restarting a Sandbox: runtime §8.2.

use runtime_ctl::index::Input;
use serde_json::{Value, json};

use crate::stage::{PODS, RUNTIMES, SANDBOXES, Stage, lines, pair};

const SANDBOX: &str = "/apis/agents.x-k8s.io/v1alpha1/namespaces/team1/sandboxes/box";

fn pod() -> Value {
    json!({"metadata": {"namespace": "team1", "name": "box", "ownerReferences": [{"apiVersion": "agents.x-k8s.io/v1alpha1",
        "kind": "Sandbox", "name": "box", "uid": "uid-box", "controller": true}]}})
}

fn targeting() -> Value {
    json!({"spec": {"targetRef": {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "box"}}})
}

fn stage() -> Stage {
    let stage = Stage::new();
    stage.sandbox("box", json!({"metadata": {"annotations": {"agents.x-k8s.io/pod-name": "box"}}}));
    stage.runtime("rt", targeting());
    stage
}

/// Phase 1 is part of the patch that changes the template; phase 2 waits for the Pod to go.
#[tokio::test]
async fn a_running_sandbox_is_restarted_in_two_phases() {
    let stage = stage();
    stage.put(&format!("{PODS}/box"), pod());
    let calls = stage.calls("rt").await;
    assert_eq!(
        lines(&calls),
        [
            format!("PATCH {RUNTIMES}/rt"),
            format!("GET {PODS}"),
            format!("PATCH {SANDBOX}"),
            format!("PATCH {RUNTIMES}/rt/status")
        ]
    );
    assert_eq!(calls[2].body["spec"]["replicas"], 0);
    assert_eq!(calls[2].body["metadata"]["annotations"]["kagenti.io/restart-pending"], "true");
    assert_eq!(calls[2].body["spec"]["podTemplate"]["metadata"]["labels"]["kagenti.io/type"], "agent");
    assert_eq!(stage.condition("rt", "Ready"), pair("Unknown", "SandboxRestarting"));
    assert_eq!(stage.object(&format!("{RUNTIMES}/rt"))["status"]["phase"], "Pending");

    // The Pod is still there: nothing is written.
    assert_eq!(lines(&stage.calls("rt").await), [format!("GET {PODS}")]);

    stage.remove_unseen(&format!("{PODS}/box"));
    let calls = stage.calls("rt").await;
    assert_eq!(
        lines(&calls),
        [format!("GET {PODS}"), format!("PATCH {SANDBOX}"), format!("PATCH {RUNTIMES}/rt/status")]
    );
    assert_eq!(
        calls[1].body,
        json!({"metadata": {"uid": "uid-box", "annotations": {"agents.x-k8s.io/pod-name": null,
            "kagenti.io/restart-pending": null}}, "spec": {"replicas": 1}})
    );
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// Without a Pod there is nothing to restart.
#[tokio::test]
async fn a_sandbox_without_pod_is_only_patched() {
    let stage = stage();
    let calls = stage.calls("rt").await;
    assert_eq!(calls[2].path, SANDBOX);
    assert_eq!(calls[2].body["spec"].get("replicas"), None);
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
}

/// A Sandbox that the user suspended is not woken up.
#[tokio::test]
async fn a_suspended_sandbox_stays_suspended() {
    let stage = Stage::new();
    stage.sandbox("box", json!({"spec": {"replicas": 0}}));
    stage.runtime("rt", targeting());
    stage.put(&format!("{PODS}/box"), pod());
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls)[1], format!("PATCH {SANDBOX}"));
    assert_eq!(calls[1].body["spec"].get("replicas"), None);
    assert_eq!(stage.condition("rt", "PodsConfigured"), pair("True", "NoPods"));
    stage.config(Input::Envoy, "envoy-config", "envoy.yaml", "x: 1");
    stage.calls("rt").await;
    assert_eq!(stage.object(SANDBOX)["spec"]["replicas"], 0);
}

/// After a crash between the phases the Sandbox must not stay at 0, also when the AgentRuntime is being deleted.
#[tokio::test]
async fn phase_two_comes_before_the_finalizer_goes() {
    let stage = Stage::new();
    stage.sandbox(
        "box",
        json!({
            "metadata": {"labels": {"kagenti.io/type": "agent"}, "annotations": {"kagenti.io/restart-pending": "true",
                "agent.kagenti.dev/enrolled-by": "rt"}},
            "spec": {"replicas": 0},
        }),
    );
    let mut deleted = targeting();
    deleted["metadata"] =
        json!({"finalizers": ["kagenti.io/cleanup"], "deletionTimestamp": "2026-01-03T00:00:00Z"});
    stage.runtime("rt", deleted);
    let calls = stage.calls("rt").await;
    assert_eq!(
        lines(&calls),
        [
            format!("GET {PODS}"),
            format!("PATCH {SANDBOXES}/box"),
            format!("PATCH {SANDBOXES}/box"),
            format!("PATCH {RUNTIMES}/rt")
        ]
    );
    assert_eq!(stage.object(SANDBOX)["spec"]["replicas"], 1);
    assert!(!stage.has(&format!("{RUNTIMES}/rt")));
}

/// Un-enrolment restarts a running Sandbox too, and the AgentRuntime waits for it.
#[tokio::test]
async fn un_enrolment_restarts_the_sandbox() {
    let stage = stage();
    stage.calls("rt").await;
    stage.put(&format!("{PODS}/box"), pod());
    stage.edit_runtime("rt", json!({"metadata": {"deletionTimestamp": "2026-01-03T00:00:00Z"}}));
    let calls = stage.calls("rt").await;
    assert_eq!(lines(&calls), [format!("GET {PODS}"), format!("PATCH {SANDBOX}")]);
    assert_eq!(calls[1].body["spec"]["replicas"], 0);
    assert!(stage.has(&format!("{RUNTIMES}/rt")));
    stage.remove_unseen(&format!("{PODS}/box"));
    let calls = lines(&stage.calls("rt").await);
    assert_eq!(calls, [format!("GET {PODS}"), format!("PATCH {SANDBOX}"), format!("PATCH {RUNTIMES}/rt")]);
    assert_eq!(stage.object(SANDBOX)["spec"]["replicas"], 1);
}
