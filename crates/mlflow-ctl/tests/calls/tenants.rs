//! Never two tenants in one experiment, never a half-updated container (MLflow §5.4, §7.1).

use mlflow_ctl::settings::Settings;
use rest_client::BaseUrl;
use serde_json::{Value, json};

use crate::{
    mlflow::Mlflow,
    stage::{DEPLOYMENTS, NEW, OLD, RUNTIMES, Stage, pair},
};

async fn stock() -> Stage {
    let mlflow = Mlflow::start(false).await;
    let uri = BaseUrl::parse(&mlflow.url).unwrap();
    Stage::on(mlflow, Settings { mlflow_tracking_uri: Some(uri), ..Settings::default() })
}

/// A workload that names another namespace's experiment gets nothing at all.
#[tokio::test]
async fn an_experiment_of_another_namespace_is_refused() {
    let stage = stock().await;
    stage.mlflow.put("8", None, "team2/secret", false, Some("team2"));
    stage.agent(json!({"metadata": {"annotations": {"mlflow.kagenti.io/experiment": "team2/secret"}}}));
    stage.runtime();
    assert_eq!(stage.calls().await, [format!("PATCH {RUNTIMES}/rt/status")]);
    assert_eq!(stage.condition(), pair("False", "ExperimentNameTaken"));
    assert!(stage.message().contains("team2"));
    assert_eq!(stage.env(0), []);
    // It is not asked again and again.
    stage.mlflow.seen();
    assert_eq!(stage.calls().await, Vec::<String>::new());
    assert_eq!(stage.mlflow.operations(), Vec::<String>::new());
}

/// Annotations and variables that somebody made up are not believed: neither those of a new workload ...
#[tokio::test]
async fn a_made_up_id_of_a_new_workload() {
    let stage = stock().await;
    stage.mlflow.put("8", None, "team2/secret", false, Some("team2"));
    stage.agent(made_up(&stage.mlflow.url, NEW));
    stage.calls().await;
    assert_eq!(stage.annotation("experiment-id"), "1");
    assert!(stage.env(0).contains(&("MLFLOW_EXPERIMENT_ID".to_owned(), json!("1"))));
}

/// ... nor, once the server is looked at, those of an old one ...
#[tokio::test]
async fn a_made_up_id_of_an_old_workload() {
    let mlflow = Mlflow::start(false).await;
    mlflow.put("8", None, "team2/secret", false, Some("team2"));
    let settings = Settings {
        mlflow_tracking_uri: Some(BaseUrl::parse(&mlflow.url).unwrap()),
        mlflow_resync_period: std::time::Duration::from_millis(1),
        ..Settings::default()
    };
    let stage = Stage::on(mlflow, settings);
    stage.agent(made_up(&stage.mlflow.url, OLD));
    stage.calls().await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    stage.calls().await;
    assert_eq!(stage.annotation("experiment-id"), "1");
    assert!(stage.env(0).contains(&("MLFLOW_EXPERIMENT_ID".to_owned(), json!("1"))));
}

/// ... nor what is changed later: it is put back, and the server need not be asked.
#[tokio::test]
async fn a_changed_id_is_put_back() {
    let stage = stock().await;
    stage.agent(json!({}));
    stage.calls().await;
    stage.mlflow.seen();
    let path = format!("{DEPLOYMENTS}/weather");
    let forged = made_up(&stage.mlflow.url, OLD)["spec"].clone();
    stage.edit(&path, json!({ "spec": forged }));
    stage.calls().await;
    assert_eq!(stage.annotation("experiment-id"), "1");
    for container in [0, 1] {
        let env = stage.env(container);
        assert!(env.contains(&("MLFLOW_EXPERIMENT_ID".to_owned(), json!("1"))), "{env:?}");
        assert!(env.contains(&("MLFLOW_EXPERIMENT_NAME".to_owned(), json!("team1/weather"))), "{env:?}");
    }
    assert_eq!(stage.mlflow.operations(), Vec::<String>::new());
}

/// A workload that claims experiment 8 as its own.
fn made_up(url: &str, created: &str) -> Value {
    let env = json!([
        {"name": "MLFLOW_TRACKING_URI", "value": url},
        {"name": "MLFLOW_EXPERIMENT_ID", "value": "8"},
        {"name": "MLFLOW_EXPERIMENT_NAME", "value": "team1/weather"},
    ]);
    json!({
        "metadata": {"creationTimestamp": created},
        "spec": {"template": {
            "metadata": {"annotations": {
                "mlflow.kagenti.io/tracking-uri": url,
                "mlflow.kagenti.io/experiment-id": "8",
                "mlflow.kagenti.io/experiment-name": "team1/weather",
            }},
            "spec": {"containers": [{"name": "agent", "env": env}, {"name": "helper", "env": env}]},
        }},
    })
}

/// A workload that changes between look and patch is never patched by halves: the patch carries the version.
#[tokio::test]
async fn a_patch_is_for_what_was_looked_at() {
    let stage = stock().await;
    stage.agent(json!({}));
    let path = format!("{DEPLOYMENTS}/weather");
    // Unseen by the index: a user's own server, and one more container.
    let own = json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://mine"}]);
    stage.edit_unseen(
        &path,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": own}, {"name": "third"}]}}}}),
    );
    let calls = stage.calls().await;
    assert_eq!(calls, [format!("PATCH {path}"), format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(stage.env(0).len(), 1, "the user's server has nothing of ours beside it");
    assert_eq!((stage.env(1).len(), stage.env(2).len()), (3, 3));
}
