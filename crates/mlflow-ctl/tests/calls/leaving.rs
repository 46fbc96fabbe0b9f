//! Un-enrolment (MLflow §9, scenario 15).

use std::time::Duration;

use mlflow_ctl::{kinds::WorkloadKind, leftovers, settings::Settings};
use serde_json::{Value, json};

use crate::stage::{BINDINGS, DEPLOYMENTS, GRANT, ROLES, Stage, pair};

/// A configured agent with a variable that its user added.
async fn configured() -> Stage {
    let stage = Stage::new().await;
    let own = json!([{"name": "MLFLOW_RUN_TAGS", "value": "mine"}]);
    stage.agent(json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": own}, {"name": "helper"}]}}}}));
    stage.runtime();
    stage.calls().await;
    stage
}

fn bare(stage: &Stage) {
    let own = [("MLFLOW_RUN_TAGS".to_owned(), json!("mine"))];
    assert_eq!((stage.env(0), stage.env(1)), (own.to_vec(), vec![]));
    for name in ["experiment-id", "experiment-name", "tracking-uri", "tracking-auth"] {
        assert_eq!(stage.annotation(name), Value::Null);
    }
}

/// Scenario 15: permission goes at once, marks and variables after half a minute, in one patch.
async fn leaves(label: Value) {
    let stage = configured().await;
    let path = format!("{DEPLOYMENTS}/weather");
    stage.edit_unseen(&path, json!({"metadata": {"labels": {"kagenti.io/type": label}}}));
    // The watch tells of a deletion.
    stage.ctx.index.workloads.remove(&crate::stage::weather());
    tokio::time::pause();
    let (calls, result) = stage.pass(&crate::stage::weather()).await;
    let lines: Vec<_> = calls.into_iter().map(|call| call.line).collect();
    assert_eq!(
        lines[..3],
        [format!("GET {path}"), format!("DELETE {BINDINGS}/{GRANT}"), format!("DELETE {ROLES}/{GRANT}")]
    );
    let wait = result.unwrap().unwrap();
    assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");
    assert_eq!(stage.env(1).len(), 4);
    assert_eq!(stage.condition(), None, "an agent no more");

    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(stage.calls().await, [format!("GET {path}"), format!("PATCH {path}")]);
    bare(&stage);
    assert_eq!(stage.calls().await, [format!("GET {path}")]);
}

#[tokio::test]
async fn an_agent_without_its_label() {
    leaves(Value::Null).await;
}

#[tokio::test]
async fn an_agent_that_becomes_a_tool() {
    leaves(json!("tool")).await;
}

/// MLflow §6.1: opting out is the same, and says so.
#[tokio::test]
async fn opting_out() {
    let stage = configured().await;
    let path = format!("{DEPLOYMENTS}/weather");
    stage.edit(&path, json!({"metadata": {"annotations": {"mlflow.kagenti.io/inject": "disabled"}}}));
    tokio::time::pause();
    assert!(stage.next().await.is_some());
    assert!(!stage.has(&format!("{ROLES}/{GRANT}")) && !stage.has(&format!("{BINDINGS}/{GRANT}")));
    assert_eq!(stage.condition(), pair("False", "OptedOut"));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(stage.calls().await, [format!("PATCH {path}")]);
    bare(&stage);
    assert_eq!(stage.next().await, None);
}

/// A process that ends between the two steps leaves nothing behind that names the workload but its marks: the next one
/// finds them.
#[tokio::test]
async fn an_end_between_the_two_steps() {
    let stage = configured().await;
    let path = format!("{DEPLOYMENTS}/weather");
    let former = async |stage: &Stage| {
        leftovers::list(&stage.ctx, WorkloadKind::Deployment, None).await.expect("a list")
    };
    assert_eq!(former(&stage).await, [], "an agent");
    stage.edit_unseen(&path, json!({"metadata": {"labels": {"kagenti.io/type": null}}}));
    stage.ctx.index.workloads.remove(&crate::stage::weather());
    stage.calls().await;
    assert!(!stage.has(&format!("{ROLES}/{GRANT}")) && stage.annotation("experiment-id") == "1");

    let next = stage.restarted();
    next.ctx.index.workloads.remove(&crate::stage::weather());
    assert_eq!(former(&next).await, [crate::stage::weather()]);
    tokio::time::pause();
    assert!(next.next().await.is_some());
    tokio::time::advance(Duration::from_secs(30)).await;
    next.calls().await;
    bare(&next);
    assert_eq!(former(&next).await, [], "nothing is left");
}

/// The label is back before the half minute is over: nothing rolls.
#[tokio::test]
async fn an_agent_that_comes_back() {
    let stage = configured().await;
    let path = format!("{DEPLOYMENTS}/weather");
    stage.edit_unseen(&path, json!({"metadata": {"labels": {"kagenti.io/type": null}}}));
    stage.ctx.index.workloads.remove(&crate::stage::weather());
    assert!(stage.next().await.is_some());
    stage.edit(&path, json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}}));
    let calls = stage.calls().await;
    assert!(!calls.contains(&format!("PATCH {path}")), "{calls:?}");
    assert!(stage.has(&format!("{ROLES}/{GRANT}")) && stage.has(&format!("{BINDINGS}/{GRANT}")));
    assert_eq!(stage.condition(), pair("True", "Configured"));
}

/// A deleted workload is let go without a write; its Role goes with it.
#[tokio::test]
async fn a_deleted_workload() {
    let stage = configured().await;
    stage.delete(&format!("{DEPLOYMENTS}/weather"));
    assert_eq!(stage.calls().await, [format!("GET {DEPLOYMENTS}/weather")]);
    assert_eq!(stage.next().await, None);
}

/// MLflow §13: a workload of the same name that was made anew corrects the owner.
#[tokio::test]
async fn a_workload_made_anew() {
    let stage = configured().await;
    stage.delete(&format!("{DEPLOYMENTS}/weather"));
    stage.agent(json!({"metadata": {"uid": "uid-again"}}));
    let calls = stage.calls().await;
    assert_eq!(calls[..2], [format!("PATCH {ROLES}/{GRANT}"), format!("PATCH {BINDINGS}/{GRANT}")]);
    for path in [ROLES, BINDINGS] {
        let owners = stage.object(&format!("{path}/{GRANT}"))["metadata"]["ownerReferences"].clone();
        assert_eq!(owners.as_array().unwrap().len(), 1);
        assert_eq!(owners[0]["uid"], "uid-again");
    }
    // The experiment of the former one is found by its name.
    assert_eq!(stage.annotation("experiment-id"), "1");
}

/// A workload that goes away while its experiment is made gets no Role.
#[tokio::test]
async fn a_workload_that_goes_away_meanwhile() {
    let stage = Stage::with(Settings::default(), true).await;
    stage.agent(json!({}));
    stage.delete_unseen(&format!("{DEPLOYMENTS}/weather"));
    assert_eq!(stage.calls().await, [format!("GET {DEPLOYMENTS}/weather")]);
    assert_eq!(stage.mlflow.operations(), ["create"]);
    assert!(!stage.has(&format!("{ROLES}/{GRANT}")));
}
