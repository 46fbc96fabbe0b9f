//! Setting an agent up (MLflow §7, §8, scenarios 1, 2, 7, 11, 13).

use mlflow_ctl::{
    env::{Mode, Policy},
    kinds::WorkloadKind,
    settings::Settings,
};
use rest_client::BaseUrl;
use serde_json::{Value, json};

use crate::{
    mlflow::Mlflow,
    stage::{BINDINGS, DEPLOYMENTS, GRANT, NEW, ROLES, RUNTIMES, SANDBOXES, Stage, env_of, key, pair},
};

/// Scenario 1: experiment, permission, then the workload, each with one call; then there is nothing to do.
#[tokio::test]
async fn a_full_set_up() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    let deployment = format!("{DEPLOYMENTS}/weather");
    let calls = stage.calls().await;
    assert_eq!(
        calls,
        [
            format!("GET {deployment}"),
            format!("POST {ROLES}"),
            format!("POST {BINDINGS}"),
            format!("PATCH {deployment}"),
            format!("PATCH {RUNTIMES}/rt/status"),
        ]
    );
    let seen = stage.mlflow.seen();
    assert_eq!(seen.iter().map(|seen| seen.operation.as_str()).collect::<Vec<_>>(), ["create"]);
    assert_eq!(seen[0].headers["x-mlflow-workspace"], "team1");
    let want = [
        ("MLFLOW_TRACKING_URI", stage.mlflow.url.as_str()),
        ("MLFLOW_TRACKING_AUTH", "kubernetes-namespaced"),
        ("MLFLOW_EXPERIMENT_ID", "1"),
        ("MLFLOW_EXPERIMENT_NAME", "weather"),
    ]
    .map(|(name, value)| (name.to_owned(), json!(value)));
    assert_eq!(stage.env(0), want);
    assert_eq!(stage.env(1), want);
    assert_eq!(
        (stage.annotation("experiment-id"), stage.annotation("experiment-name")),
        (json!("1"), json!("weather"))
    );
    assert_eq!(stage.annotation("tracking-uri"), json!(stage.mlflow.url));
    assert_eq!(stage.annotation("tracking-auth"), json!("kubernetes-namespaced"));
    let role = stage.object(&format!("{ROLES}/{GRANT}"));
    assert_eq!(role["rules"][0]["resourceNames"], json!(["weather"]));
    assert_eq!(role["metadata"]["ownerReferences"][0]["uid"], "uid-weather");
    let binding = stage.object(&format!("{BINDINGS}/{GRANT}"));
    assert_eq!(binding["subjects"][0]["name"], "weather-sa");
    assert_eq!(binding["roleRef"]["name"], GRANT);
    assert_eq!(stage.condition(), pair("True", "Configured"));
    assert_eq!(stage.object(&format!("{RUNTIMES}/rt"))["status"]["conditions"][0]["observedGeneration"], 4);

    assert_eq!(stage.calls().await, Vec::<String>::new());
    assert_eq!(stage.mlflow.all_operations(), Vec::<String>::new());
}

/// Scenario 2: a restart writes nothing and asks MLflow for no experiment.
#[tokio::test]
async fn a_restart_does_nothing() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.runtime();
    stage.calls().await;
    stage.mlflow.seen();
    let again = stage.restarted();
    assert_eq!(again.calls().await, Vec::<String>::new());
    assert_eq!(again.mlflow.operations(), Vec::<String>::new());
    again.edit(&format!("{DEPLOYMENTS}/weather"), json!({"metadata": {"labels": {"touched": "yes"}}}));
    assert_eq!(again.calls().await, Vec::<String>::new());
}

/// Scenario 7: the user's server stays, and nothing of ours beside it.
#[tokio::test]
async fn a_users_server_wins() {
    let own =
        json!({"name": "MLFLOW_TRACKING_URI", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}});
    let containers = json!([{"name": "agent", "env": [own]}, {"name": "helper"}]);
    let stage = Stage::new().await;
    stage.agent(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    stage.calls().await;
    assert_eq!(stage.env(0), [("MLFLOW_TRACKING_URI".to_owned(), Value::Null)]);
    assert_eq!(stage.env(1).len(), 4);
    assert_eq!(stage.calls().await, Vec::<String>::new());

    let settings = Settings { mlflow_env_policy: Policy::Overwrite, ..Settings::default() };
    let stage = Stage::with(settings, true).await;
    stage.agent(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    stage.calls().await;
    let env =
        &stage.object(&format!("{DEPLOYMENTS}/weather"))["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0], json!({"name": "MLFLOW_TRACKING_URI", "value": stage.mlflow.url}));
    assert_eq!(stage.env(0).len(), 4);
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// MLflow §7.2: with nothing left to configure no experiment is made.
#[tokio::test]
async fn a_workload_of_its_users_own() {
    let own = json!([{"name": "MLFLOW_EXPERIMENT_NAME", "value": "mine"}]);
    let stage = Stage::new().await;
    stage.agent(json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": own}]}}}}));
    stage.runtime();
    assert_eq!(stage.calls().await, [format!("PATCH {RUNTIMES}/rt/status")]);
    assert_eq!(stage.condition(), pair("False", "UserManaged"));
    assert_eq!(stage.mlflow.operations(), Vec::<String>::new());
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// The user takes over a workload that was ours: everything of ours goes.
#[tokio::test]
async fn a_workload_that_its_user_takes_over() {
    let stage = Stage::new().await;
    stage.agent(json!({"spec": {"template": {"spec": {"containers": [{"name": "agent"}]}}}}));
    stage.calls().await;
    let path = format!("{DEPLOYMENTS}/weather");
    let own = json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://mine"}]);
    stage.edit(
        &path,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": own}]}}}}),
    );
    stage.calls().await;
    assert_eq!(stage.env(0), [("MLFLOW_TRACKING_URI".to_owned(), json!("http://mine"))]);
    assert!(stage.annotation("experiment-id").is_null());
    assert!(!stage.has(&format!("{ROLES}/{GRANT}")) && !stage.has(&format!("{BINDINGS}/{GRANT}")));
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// Scenario 11: a stock server gets no header, the agent no auth variable and no Role.
#[tokio::test]
async fn a_stock_server() {
    let mlflow = Mlflow::start(false).await;
    let uri = BaseUrl::parse(&mlflow.url).unwrap();
    let stage = Stage::on(mlflow, Settings { mlflow_tracking_uri: Some(uri), ..Settings::default() });
    stage.agent(json!({}));
    let deployment = format!("{DEPLOYMENTS}/weather");
    assert_eq!(stage.calls().await, [format!("PATCH {deployment}")]);
    let seen = stage.mlflow.seen();
    assert_eq!(seen[0].body["name"], "team1/weather");
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("x-mlflow-workspace")));
    let names: Vec<_> = stage.env(0).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"]);
    assert!(stage.annotation("tracking-auth").is_null());
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// MLflow §5.4: a server that turns out to have no workspaces is used without, in the same pass.
#[tokio::test]
async fn a_server_that_refuses_workspaces() {
    let mlflow = Mlflow::start(false).await;
    mlflow.script("server-info", 404, "<html>");
    let stage = Stage::on(mlflow, Settings::default());
    stage.agent(json!({}));
    stage.calls().await;
    let seen = stage.mlflow.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (seen[0].body["name"].as_str(), seen[1].body["name"].as_str()),
        (Some("weather"), Some("team1/weather"))
    );
    assert!(!seen[1].headers.contains_key("x-mlflow-workspace"));
    assert_eq!(stage.annotation("experiment-name"), "team1/weather");
    assert!(!stage.has(&format!("{ROLES}/{GRANT}")));
}

/// MLflow §7.3: in annotations mode the environment is left to the webhook.
#[tokio::test]
async fn annotations_mode() {
    let stage =
        Stage::with(Settings { mlflow_inject_mode: Mode::Annotations, ..Settings::default() }, true).await;
    stage.agent(json!({}));
    stage.calls().await;
    assert_eq!(stage.env(0), []);
    assert_eq!(stage.annotation("experiment-id"), "1");
    assert!(stage.has(&format!("{ROLES}/{GRANT}")));
    assert_eq!(stage.calls().await, Vec::<String>::new());
}

/// A workload that was configured in the template changes over in one patch.
#[tokio::test]
async fn changing_to_annotations_mode() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.calls().await;
    let path = format!("{DEPLOYMENTS}/weather");
    let annotation = json!({"mlflow.kagenti.io/inject": "annotations"});
    stage.edit(&path, json!({"metadata": {"generation": 3, "annotations": annotation}}));
    assert_eq!(stage.calls().await, [format!("PATCH {path}")]);
    assert_eq!((stage.env(0), stage.env(1)), (vec![], vec![]));
    assert_eq!(stage.annotation("experiment-id"), "1");
}

/// A Sandbox is patched by operations, and has a Role of its own.
#[tokio::test]
async fn a_sandbox() {
    let stage = Stage::new().await;
    stage.ctx.set_sandbox_version(Some("v1alpha1"));
    let path = format!("{SANDBOXES}/weather");
    stage.put(
        &path,
        json!({
            "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox",
            "metadata": {"namespace": "team1", "name": "weather", "uid": "uid-sandbox", "creationTimestamp": NEW,
                "labels": {"kagenti.io/type": "agent"}},
            "spec": {"podTemplate": {"spec": {"containers": [{"name": "agent", "env": [{"name": "X", "value": "1"}]}]}}},
        }),
    );
    let sandbox = key(WorkloadKind::Sandbox, "weather");
    let (calls, result) = stage.pass(&sandbox).await;
    result.unwrap();
    assert!(calls.iter().any(|call| call.line == format!("PATCH {path}") && call.body.is_array()));
    let template = &stage.object(&path)["spec"]["podTemplate"];
    assert_eq!(env_of(template, 0).len(), 4);
    assert_eq!(template["metadata"]["annotations"]["mlflow.kagenti.io/experiment-name"], "weather");
    assert!(stage.has(&format!("{ROLES}/kagenti-mlflow-weather:sandbox")));
    let (calls, result) = stage.pass(&sandbox).await;
    result.unwrap();
    assert_eq!(calls.len(), 0);
}

/// MLflow §6.3: the binding names the ServiceAccount that the webhook will give to the Pods.
#[tokio::test]
async fn the_effective_service_account() {
    let stage = Stage::new().await;
    stage.ctx.around.set_spire(true);
    stage.agent(json!({"spec": {"template": {"spec": {"serviceAccountName": null}}}}));
    stage.runtime();
    stage.calls().await;
    let subject = || stage.object(&format!("{BINDINGS}/{GRANT}"))["subjects"][0]["name"].clone();
    assert_eq!(subject(), "weather");
    stage.ctx.around.set_spire(false);
    assert_eq!(stage.calls().await, [format!("PATCH {BINDINGS}/{GRANT}")]);
    assert_eq!(subject(), "default");
}

/// MLflow §4 last line of §6.1: no server, no change.
#[tokio::test]
async fn without_a_server_nothing_is_touched() {
    let stage = Stage::new().await;
    stage.offer(false);
    stage.agent(json!({}));
    stage.runtime();
    assert_eq!(stage.calls().await, [format!("PATCH {RUNTIMES}/rt/status")]);
    assert_eq!(stage.condition(), pair("Unknown", "MLflowUnavailable"));
    stage.offer(true);
    stage.calls().await;
    assert_eq!(stage.condition(), pair("True", "Configured"));
    // It goes away again: the workload stays as it is.
    stage.offer(false);
    assert_eq!(stage.calls().await, [format!("PATCH {RUNTIMES}/rt/status")]);
    assert_eq!(stage.env(0).len(), 4);
}

/// Nothing is made in a namespace that goes away.
#[tokio::test]
async fn a_terminating_namespace() {
    let stage = Stage::new().await;
    stage.agent(json!({}));
    stage.ctx.around.put_namespace("team1", None, true);
    assert_eq!(stage.calls().await, Vec::<String>::new());
    assert_eq!(stage.mlflow.all_operations(), Vec::<String>::new());
}
