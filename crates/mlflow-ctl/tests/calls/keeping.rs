//! Keeping what was set up (MLflow §9, scenarios 6, 14, 16).

use std::time::Duration;

use mlflow_ctl::settings::Settings;
use rest_client::BaseUrl;
use serde_json::json;

use crate::{
    mlflow::Mlflow,
    stage::{BINDINGS, DEPLOYMENTS, GRANT, ROLES, Stage, pair},
};

/// Scenario 6: each is repaired with the one call it takes, and MLflow is not asked.
#[tokio::test]
async fn what_is_taken_away_comes_back() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    stage.mlflow.all_operations();
    let path = format!("{DEPLOYMENTS}/weather");

    stage.delete(&format!("{ROLES}/{GRANT}"));
    assert_eq!(stage.calls().await, [format!("GET {path}"), format!("POST {ROLES}")]);

    let removed = json!([{"name": "MLFLOW_EXPERIMENT_NAME", "$patch": "delete"}]);
    stage.edit(
        &path,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "helper", "env": removed}]}}}}),
    );
    assert_eq!(stage.env(1).len(), 3);
    assert_eq!(stage.calls().await, [format!("PATCH {path}")]);
    assert_eq!(stage.env(1).len(), 4);

    stage.edit(&path, json!({"spec": {"template": {"spec": {"serviceAccountName": "new-sa"}}}}));
    assert_eq!(stage.calls().await, [format!("PATCH {BINDINGS}/{GRANT}")]);
    assert_eq!(stage.object(&format!("{BINDINGS}/{GRANT}"))["subjects"][0]["name"], "new-sa");

    stage.edit(&format!("{ROLES}/{GRANT}"), json!({"rules": []}));
    assert_eq!(stage.calls().await, [format!("PATCH {ROLES}/{GRANT}")]);
    assert_eq!(stage.mlflow.all_operations(), Vec::<String>::new());
}

/// A label that was taken off hides the Role from the watch: it is found and labelled again.
#[tokio::test]
async fn a_role_without_our_label_is_found() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    let path = format!("{ROLES}/{GRANT}");
    let uid = stage.object(&path)["metadata"]["uid"].as_str().unwrap().to_owned();
    stage.edit_unseen(&path, json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}));
    stage.ctx.index.grants.roles.remove(&crate::stage::weather(), &uid);
    let calls = stage.calls().await;
    assert_eq!(calls[1..], [format!("POST {ROLES}"), format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(stage.object(&path)["metadata"]["labels"]["app.kubernetes.io/managed-by"], "kagenti-operator");
}

/// An older release bound a ClusterRole.
#[tokio::test]
async fn another_role_ref_is_made_anew() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    let path = format!("{BINDINGS}/{GRANT}");
    stage.edit(
        &path,
        json!({"roleRef": {"kind": "ClusterRole", "name": "mlflow-operator-mlflow-integration"}}),
    );
    assert_eq!(stage.calls().await, [format!("DELETE {path}"), format!("POST {BINDINGS}")]);
    assert_eq!(stage.object(&path)["roleRef"]["kind"], "Role");
}

/// Scenario 16: the new id goes to annotations and all containers in one patch.
#[tokio::test]
async fn a_lost_experiment_is_made_anew() {
    let settings = Settings { mlflow_resync_period: Duration::from_millis(1), ..Settings::default() };
    let stage = Stage::with(settings, true).await;
    stage.agent(json!({}));
    stage.runtime();
    stage.calls().await;
    let pause = || tokio::time::sleep(Duration::from_millis(20));
    pause().await;
    assert_eq!(stage.calls().await, Vec::<String>::new());
    assert_eq!(stage.mlflow.operations(), ["create", "get"]);
    stage.mlflow.lose_everything();
    pause().await;
    let path = format!("{DEPLOYMENTS}/weather");
    assert_eq!(stage.calls().await[0], format!("PATCH {path}"));
    assert_eq!(stage.mlflow.operations(), ["get", "create"]);
    assert_eq!(stage.annotation("experiment-id"), "2");
    for container in [0, 1] {
        assert!(stage.env(container).contains(&("MLFLOW_EXPERIMENT_ID".to_owned(), json!("2"))));
    }
}

/// A server that does not answer, or does not know the workspace for a while, is no lost experiment.
#[tokio::test]
async fn a_failing_look_changes_nothing() {
    let settings = Settings { mlflow_resync_period: Duration::from_millis(1), ..Settings::default() };
    let stage = Stage::with(settings, true).await;
    stage.agent(json!({}));
    stage.runtime();
    stage.calls().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let missing = crate::mlflow::error("RESOURCE_DOES_NOT_EXIST", "Workspace 'team1' not found");
    stage.mlflow.script("get", 404, missing);
    let path = format!("{DEPLOYMENTS}/weather");
    assert!(!stage.calls().await.contains(&format!("PATCH {path}")));
    assert_eq!(stage.condition(), pair("False", "ExperimentFailed"));
    assert!(stage.message().starts_with("WorkspaceNotFound"), "{}", stage.message());
}

/// Scenario 14: running workloads take a token each; new ones and those without Pods do not.
#[tokio::test]
async fn a_new_address_goes_through_the_limiter() {
    let settings = Settings { rollout_qps: 0.01, rollout_burst: 1, ..Settings::default() };
    let stage = Stage::with(settings, true).await;
    stage.agent(json!({"status": {"availableReplicas": 1}}));
    let busy = mlflow_ctl::workload::WorkloadKey { name: "busy".into(), ..crate::stage::weather() };
    assert_eq!(stage.ctx.limiter.try_acquire(&busy), controller_kit::limiter::Turn::Granted);
    stage.runtime();
    let path = format!("{DEPLOYMENTS}/weather");
    let (calls, result) = stage.pass(&crate::stage::weather()).await;
    assert!(result.unwrap().is_some_and(|next| next > Duration::from_secs(50)));
    assert!(calls.iter().all(|call| call.line != format!("PATCH {path}")));
    assert_eq!(stage.condition(), pair("Unknown", "Pending"));
    assert_eq!(stage.ctx.limiter.queue_length().get(), 1);
    stage.edit(&path, json!({"status": {"availableReplicas": 0}}));
    assert!(stage.calls().await.contains(&format!("PATCH {path}")));
    assert_eq!(stage.condition(), pair("True", "Configured"));
    assert_eq!(stage.ctx.limiter.queue_length().get(), 0, "a place that nobody needs");
}

/// MLflow §9: a new server is a new experiment and one patch; another spelling of the same is nothing.
#[tokio::test]
async fn another_server() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    let other = Mlflow::start(true).await;
    let mut candidate = stage.ctx.index.servers.choose(None).unwrap();
    candidate.url = BaseUrl::parse(&other.url).unwrap();
    stage.ctx.index.servers.put(
        "",
        "mlflow",
        Some(mlflow_ctl::server::Candidate {
            namespace: String::new(),
            name: "mlflow".into(),
            created: None,
            preferred: false,
            available: true,
            url: candidate.url,
        }),
    );
    other.put("1", Some("team1"), "unrelated", false, None);
    other.put("41", Some("team1"), "weather", false, None);
    assert_eq!(stage.calls().await, [format!("PATCH {DEPLOYMENTS}/weather")]);
    assert_eq!(other.operations(), ["create", "get-by-name"]);
    assert_eq!(
        (stage.annotation("tracking-uri"), stage.annotation("experiment-id")),
        (json!(other.url), json!("41"))
    );
    assert!(stage.env(1).contains(&("MLFLOW_TRACKING_URI".to_owned(), json!(other.url))));
}

/// The previous operator recorded the address with a slash: nothing rolls.
#[tokio::test]
async fn the_previous_operators_spelling_stays() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    let path = format!("{DEPLOYMENTS}/weather");
    let slash = format!("{}/", stage.mlflow.url);
    let env = json!([{"name": "MLFLOW_TRACKING_URI", "value": slash}]);
    stage.edit(
        &path,
        json!({"spec": {"template": {
            "metadata": {"annotations": {"mlflow.kagenti.io/tracking-uri": slash}},
            "spec": {"containers": [{"name": "agent", "env": env}, {"name": "helper", "env": env}]}}}}),
    );
    let again = stage.restarted();
    again.mlflow.all_operations();
    assert_eq!(again.calls().await, Vec::<String>::new());
    assert_eq!(again.mlflow.operations(), Vec::<String>::new());
}
