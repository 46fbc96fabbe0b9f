//! Enrolment: runtime §6, §5.4, §20.

use runtime_ctl::{index::Input, settings::Settings};
use serde_json::{Value, json};

use crate::stage::{DEPLOYMENTS, RUNTIMES, Stage, lines, pair};

fn patch(path: &str, name: &str) -> String {
    format!("PATCH {path}/{name}")
}

/// Three requests make an enrolment, one more reports the Pods; then there is nothing to write (design §7).
#[tokio::test]
async fn first_enrolment_takes_three_calls_and_then_none() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    let calls = stage.calls("rt").await;
    let status = format!("PATCH {RUNTIMES}/rt/status");
    assert_eq!(lines(&calls), [patch(RUNTIMES, "rt"), patch(DEPLOYMENTS, "weather"), status.clone()]);
    assert_eq!(calls[0].body["metadata"]["finalizers"], json!(["kagenti.io/cleanup"]));
    assert!(calls[0].body["metadata"]["resourceVersion"].is_string());
    assert_eq!(calls[1].body["metadata"]["uid"], "uid-weather");
    assert_eq!(calls[2].body["status"]["phase"], "Active");
    assert_eq!(calls[2].body["status"]["linkedSkills"], json!([]));
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
    assert_eq!(stage.condition("rt", "PodsConfigured"), pair("False", "RolloutInProgress"));
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());

    stage.pod("weather", json!({}));
    assert_eq!(lines(&stage.calls("rt").await), [status]);
    assert_eq!(stage.condition("rt", "PodsConfigured"), pair("True", "RolloutComplete"));
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// What was written in an earlier life of the process is in sync after a restart (runtime §6.1).
#[tokio::test]
async fn a_restart_writes_nothing() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.calls("rt").await;

    let again = Stage::new();
    again.deployment("weather", stage.object(&format!("{DEPLOYMENTS}/weather")));
    again.runtime("rt", stage.object(&format!("{RUNTIMES}/rt")));
    assert_eq!(lines(&again.calls("rt").await), Vec::<String>::new());
}

/// Runtime §6 step 10, scenario 20: a conflict is retried at once with a fresh look, and nobody's keys are lost.
#[tokio::test]
async fn a_conflict_is_retried_with_a_re_read() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    let path = format!("{DEPLOYMENTS}/weather");
    stage.change_unseen(&path, json!({"metadata": {"annotations": {"foreign": "1"}}}));
    stage.fail("PATCH", &path, 409, "changed");
    let calls = lines(&stage.calls("rt").await);
    assert_eq!(calls[1..4], [format!("PATCH {path}"), format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(stage.object(&path)["metadata"]["annotations"]["foreign"], "1");
    assert_eq!(stage.condition("rt", "Ready"), pair("True", "Configured"));
}

/// Runtime §6.1: the target has several writers, so an endless conflict ends in a condition.
#[tokio::test]
async fn five_conflicts_are_reported() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    for _ in 0..5 {
        stage.fail("PATCH", &format!("{DEPLOYMENTS}/weather"), 409, "the object has been modified");
    }
    let (calls, result) = stage.pass("rt").await;
    assert!(result.is_err());
    assert_eq!(lines(&calls).iter().filter(|call| call.contains("deployments")).count(), 9);
    assert_eq!(stage.condition("rt", "Ready"), pair("False", "ConfigApplyError"));
}

/// Runtime §5.4: first contact with a workload that carries a v1 hash of the same inputs restarts nothing.
#[tokio::test]
async fn adoption_patches_metadata_only() {
    let empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let stage = Stage::new();
    stage.deployment(
        "weather",
        json!({
            "metadata": {"labels": {"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": "kagenti-operator"}},
            "spec": {"template": {"metadata": {"labels": {"kagenti.io/type": "agent"},
                "annotations": {"kagenti.io/config-hash": empty, "kagenti.io/mtls-mode": "permissive"}}}},
        }),
    );
    stage.runtime("rt", json!({}));
    let calls = stage.calls("rt").await;
    assert_eq!(calls[1].path, format!("{DEPLOYMENTS}/weather"));
    assert_eq!(calls[1].body.get("spec"), None, "{}", calls[1].body);
    let annotations = &calls[1].body["metadata"]["annotations"];
    assert_eq!(annotations["agent.kagenti.dev/enrolled-by"], "rt");
    assert_eq!(annotations["agent.kagenti.dev/config-hash-adopted"].as_str().unwrap().len(), 64);
    assert_eq!(lines(&stage.calls("rt").await), Vec::<String>::new());
}

/// Runtime §20: a changed hash waits for its token and says so; first enrolments do not wait.
#[tokio::test]
async fn a_config_change_waits_for_the_limiter() {
    let stage = Stage::with(Settings { rollout_qps: 0.001, rollout_burst: 1, ..Settings::default() });
    for name in ["a", "b"] {
        stage.deployment(name, json!({}));
        stage.runtime(name, json!({"spec": {"targetRef": {"name": name}}}));
        assert_eq!(stage.calls(name).await.len(), 3);
    }
    stage.config(Input::Routes, "authproxy-routes", "routes.yaml", "x: 1");
    let patches =
        |calls: &[crate::stage::Call]| calls.iter().filter(|c| c.path.contains("deployments")).count();
    assert_eq!(patches(&stage.calls("a").await), 1);
    let (calls, next) = stage.pass("b").await;
    assert_eq!(patches(&calls), 0);
    assert!(next.unwrap().is_some(), "comes back for its token");
    assert_eq!(stage.condition("b", "PodsConfigured"), pair("False", "RolloutQueued"));
    assert_eq!(stage.condition("b", "Ready"), pair("True", "Configured"));
    // An edit of its own does not wait.
    stage.edit_runtime("b", json!({"metadata": {"generation": 2}, "spec": {"type": "tool"}}));
    assert_eq!(patches(&stage.calls("b").await), 1);
}

/// Runtime §6 step 8: copies count as inputs in the same pass; the mesh is labelled once per namespace.
#[tokio::test]
async fn a_new_namespace_is_prepared_once() {
    let stage = Stage::new();
    stage.namespace(json!({"team": "x"}), false);
    let template = [("config.yaml".to_owned(), "mode: lite\n".to_owned())].into();
    stage.ctx.index.configs.upsert(Input::Runtime, "kagenti-system", "authbridge-runtime-config", template);
    for name in ["a", "b"] {
        stage.deployment(name, json!({}));
        stage.runtime(name, json!({"spec": {"targetRef": {"name": name}}}));
    }
    let calls = stage.calls("a").await;
    assert_eq!(
        lines(&calls)[1..3],
        ["POST /api/v1/namespaces/team1/configmaps".to_owned(), "PATCH /api/v1/namespaces/team1".to_owned()]
    );
    assert_eq!(
        calls[1].body["metadata"]["labels"],
        json!({"app.kubernetes.io/managed-by": "kagenti-operator"})
    );
    assert_eq!(
        calls[2].body,
        json!({"metadata": {"labels": {"istio-discovery": "enabled", "istio.io/dataplane-mode": "ambient"}}})
    );
    let calls = stage.calls("b").await;
    assert_eq!(calls.len(), 3, "{:?}", lines(&calls));
    let hash = |name: &str| {
        let object = stage.object(&format!("{DEPLOYMENTS}/{name}"));
        object["spec"]["template"]["metadata"]["annotations"]["kagenti.io/config-hash"].clone()
    };
    assert_eq!(hash("a"), hash("b"));
}

/// Runtime §9.2: the younger one touches nothing but itself.
#[tokio::test]
async fn the_loser_of_a_duplicate_touches_nothing() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("old", json!({}));
    stage.runtime("young", json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}));
    let calls = lines(&stage.calls("young").await);
    assert_eq!(calls, [patch(RUNTIMES, "young"), format!("PATCH {RUNTIMES}/young/status")]);
    assert_eq!(stage.condition("young", "Ready"), pair("False", "DuplicateTarget"));
    assert!(stage.message("young", "Ready").contains("AgentRuntime old already targets Deployment weather"));
    assert_eq!(lines(&stage.calls("young").await), Vec::<String>::new());
}

/// Runtime §6 step 6: the old workload is cleaned, the new one enrolled.
#[tokio::test]
async fn a_target_switch_cleans_the_old_workload() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.deployment("other", json!({}));
    stage.runtime("rt", json!({}));
    stage.calls("rt").await;
    stage
        .edit_runtime("rt", json!({"metadata": {"generation": 2}, "spec": {"targetRef": {"name": "other"}}}));
    let calls = lines(&stage.calls("rt").await);
    assert_eq!(
        calls,
        [patch(DEPLOYMENTS, "weather"), patch(DEPLOYMENTS, "other"), format!("PATCH {RUNTIMES}/rt/status")]
    );
    let old = stage.object(&format!("{DEPLOYMENTS}/weather"));
    assert_eq!(old["spec"]["template"]["metadata"]["labels"], json!({"app": "weather"}));
    assert_eq!(old["metadata"]["labels"], json!({}));
}

/// Runtime §5.3, scenario 9: edits that reach Pods only when they are created are named, and restart nothing.
#[tokio::test]
async fn spec_changes_that_wait_are_named() {
    let stage = Stage::new();
    stage.deployment("weather", json!({}));
    stage.runtime("rt", json!({}));
    stage.calls("rt").await;
    let status = json!({"v": 1, "mode": "proxy-sidecar", "egress": "enforce-redirect", "inbound": "reverse-proxy",
        "tlsBridge": false, "identityHash": api_types::identity_hash::identity_hash(None)});
    stage.pod("weather", json!({"annotations": {"kagenti.io/authbridge-status": status.to_string()}}));
    stage.calls("rt").await;
    assert!(!stage.message("rt", "Ready").contains("wait"), "{}", stage.message("rt", "Ready"));
    stage.edit_runtime(
        "rt",
        json!({"metadata": {"generation": 2}, "spec": {"egressEnforcement": "none", "identity": {"allowedAudiences": ["x"]}}}),
    );
    assert_eq!(lines(&stage.calls("rt").await), [format!("PATCH {RUNTIMES}/rt/status")]);
    let message = stage.message("rt", "Ready");
    assert!(
        message.ends_with("; spec changes that wait for new pods: egressEnforcement, identity"),
        "{message}"
    );
    assert_eq!(stage.object(&format!("{RUNTIMES}/rt"))["status"]["observedGeneration"], Value::from(2));
}
