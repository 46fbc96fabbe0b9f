//! What goes wrong, and what is said about it (MLflow §5.3, §7.4, §8, §10).

use std::time::Duration;

use mlflow_ctl::settings::Settings;
use rstest::rstest;
use serde_json::json;

use crate::{
    mlflow::error,
    stage::{BINDINGS, DEPLOYMENTS, GRANT, ROLES, RUNTIMES, Stage, pair},
};

/// Scenario 9: one call, a condition with the code, and no second call at the next pass.
#[tokio::test]
async fn a_refusal_is_said_and_not_repeated() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.mlflow.script("create", 400, error("INVALID_PARAMETER_VALUE", "bad name"));
    let (calls, next) = stage.pass(&crate::stage::weather()).await;
    assert_eq!(calls.len(), 1);
    assert!(next.unwrap().unwrap() >= Duration::from_secs(1440));
    assert_eq!(stage.condition(), pair("False", "ExperimentFailed"));
    assert!(stage.message().starts_with("InvalidRequest: "), "{}", stage.message());
    for _ in 0..3 {
        assert_eq!(stage.calls().await, Vec::<String>::new());
    }
    assert_eq!(stage.mlflow.operations(), ["create"]);
    // A change of the workload asks again.
    stage.edit(&format!("{DEPLOYMENTS}/weather"), json!({"metadata": {"generation": 2}}));
    stage.calls().await;
    assert_eq!(stage.condition(), pair("True", "Configured"));
}

/// Scenario 8: an outage changes no workload.
#[tokio::test]
async fn an_outage_touches_nothing() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.mlflow.always(Some((503, "")));
    assert_eq!(stage.calls().await, [format!("PATCH {RUNTIMES}/rt/status")]);
    assert_eq!(stage.condition(), pair("Unknown", "Pending"));
    stage.mlflow.seen();
    assert_eq!(stage.calls().await, Vec::<String>::new());
    assert_eq!(stage.mlflow.all_operations(), Vec::<String>::new());
    // It is back: whoever waited is asked for at once.
    stage.mlflow.always(None);
    stage.ctx.server_recovered();
    stage.calls().await;
    assert_eq!(stage.condition(), pair("True", "Configured"));
}

/// A configured agent is not called unconfigured because its server is away.
#[tokio::test]
async fn an_outage_leaves_the_condition() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.calls().await;
    let again = stage.restarted();
    again.mlflow.always(Some((503, "")));
    assert_eq!(again.calls().await, Vec::<String>::new());
    assert_eq!(again.condition(), pair("True", "Configured"));
}

/// MLflow §8: somebody else's object is not touched, and the workload gets no variables it may not use.
#[tokio::test]
async fn a_foreign_role() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    let foreign = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"namespace": "team1", "name": GRANT}, "rules": []});
    stage.put_unseen(&format!("{ROLES}/{GRANT}"), foreign);
    let calls = stage.calls().await;
    assert!(
        calls.iter().all(|call| !call.starts_with("PATCH") || call.contains("agentruntimes")),
        "{calls:?}"
    );
    assert_eq!(stage.condition(), pair("False", "RBACConflict"));
    assert!(
        !stage.has(&format!("{BINDINGS}/{GRANT}")),
        "it would give the agent what somebody else's Role allows"
    );
    assert_eq!(stage.env(0), []);
}

/// A controller without the right on experiments cannot grant it: neither write the Role nor bind it.
#[rstest]
#[case(ROLES)]
#[case(BINDINGS)]
#[tokio::test]
async fn a_missing_right(#[case] path: &str) {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.fail(format!("POST {path}"), 403, "attempting to grant RBAC permissions not currently held");
    stage.calls().await;
    assert_eq!(stage.condition(), pair("False", "RBACForbidden"));
    assert!(stage.message().contains("not currently held"));
    assert!(!stage.has(&format!("{BINDINGS}/{GRANT}")), "a binding to nothing");
    assert_eq!(stage.env(0), []);
}

/// A write that is answered "not found" or "changed" again and again is tried with back-off, not without end.
#[tokio::test]
async fn a_write_that_never_succeeds() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    for _ in 0..9 {
        stage.fail(format!("POST {BINDINGS}"), 404, "role not found");
    }
    let (calls, result) = stage.pass(&crate::stage::weather()).await;
    assert_eq!(calls.iter().filter(|call| call.line == format!("POST {BINDINGS}")).count(), 3);
    assert!(result.unwrap_err().to_string().contains(GRANT));
    assert_eq!(stage.env(0), []);
}

/// MLflow §7.3: a conflict is answered with a fresh look, and nobody's change is lost.
#[tokio::test]
async fn a_conflict_is_retried() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    let path = format!("{DEPLOYMENTS}/weather");
    for _ in 0..4 {
        stage.fail(format!("PATCH {path}"), 409, "modified");
    }
    let calls = stage.calls().await;
    assert_eq!(calls.iter().filter(|call| **call == format!("PATCH {path}")).count(), 5);
    assert_eq!(stage.env(0).len(), 4);
    let stage = Stage::new().await;
    stage.agent(json!({}));
    for _ in 0..5 {
        stage.fail(format!("PATCH {path}"), 409, "modified");
    }
    assert_eq!(stage.next().await, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_refused_patch() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.fail(format!("PATCH {DEPLOYMENTS}/weather"), 422, "denied by a policy");
    stage.calls().await;
    assert_eq!(stage.condition(), pair("False", "PatchFailed"));
    assert!(stage.message().contains("denied by a policy"));
}

/// MLflow §7.4: after three times in vain somebody else has the last word for half an hour, and is named.
#[tokio::test]
async fn a_patch_that_is_undone() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.revert(10);
    let path = format!("{DEPLOYMENTS}/weather");
    for _ in 0..3 {
        assert!(stage.calls().await.contains(&format!("PATCH {path}")));
        stage.see(&path);
    }
    let (calls, next) = stage.pass(&crate::stage::weather()).await;
    assert!(calls.iter().all(|call| call.line != format!("PATCH {path}")));
    assert!(next.unwrap().unwrap() > Duration::from_secs(1700));
    assert_eq!(stage.condition(), pair("False", "PatchReverted"));
    assert!(stage.message().contains("argocd"), "{}", stage.message());
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// A name that MLflow would refuse is not sent.
#[tokio::test]
async fn a_name_that_is_too_long() {
    let stage = Stage::with(Settings::default(), true).await;
    stage.agent(json!({"metadata": {"annotations": {"mlflow.kagenti.io/experiment": "x".repeat(501)}}}));
    stage.runtime();
    stage.calls().await;
    assert_eq!(stage.condition(), pair("False", "ExperimentFailed"));
    assert!(stage.message().starts_with("InvalidRequest: "));
    assert_eq!(stage.mlflow.operations(), Vec::<String>::new());
}
