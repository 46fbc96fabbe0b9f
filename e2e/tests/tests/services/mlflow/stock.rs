//! Scenarios 11 and 16 on a real MLflow, and what only a real one can show: a run that is logged with nothing but the
//! injected environment.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{literals, tracked};
use e2e::services::runs::{Experiments, WORKSPACE, log_run};
use e2e::services::tracking::{Found, Tracking, marks};
use e2e::services::{Proxy, Servers, mlflow, mlflow_with_workspaces};
use e2e::{kinds, objects, secs};
use local_cluster::services::{Mlflow, MlflowOptions};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_11_stock_server() -> Result<()> {
    let server = mlflow().await?;
    let proxy = Proxy::before(server.url()).await?;
    let tracking = Tracking::start(Found::Flag(proxy.url()), [""; 0]).await?;
    let ns = tracking.namespace("stock", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(20), "weather").await?;
    let experiments = Experiments::at(server.url());
    let found = experiments.by_name("stock/weather").await?.context("no experiment stock/weather")?;
    let env = literals(&workload, "agent");
    let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == ["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"], "{names:?}");
    ensure!(marks(&workload).len() == 3, "{:?}", marks(&workload));
    ensure!(ns.list(kinds::ROLE, "").await?.is_empty() && ns.list(kinds::ROLE_BINDING, "").await?.is_empty());
    ensure!(proxy.seen().iter().all(|seen| seen.header(WORKSPACE).is_none()), "a workspace was named");
    ensure!(proxy.seen().iter().all(|seen| seen.header("authorization").is_none()), "a token was sent");

    let (experiment, run) = log_run(server.python(), &env).await?;
    ensure!(experiment == found.text("/experiment_id"), "{experiment}: {found}");
    let runs = experiments.runs(&experiment).await?;
    ensure!(runs.iter().any(|found| found.text("/info/run_id") == run), "{runs:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_11_with_workspaces() -> Result<()> {
    let server = mlflow_with_workspaces().await?;
    let all = Experiments::at(server.url());
    let tracking = Tracking::start(Found::Object(server.url().to_owned()), [""; 0]).await?;
    let ns = tracking.namespace("spaced", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let failed = "False/ExperimentFailed";
    let runtime = ns.until_condition(secs(30), "weather", "MLflowConfigured", failed).await?;
    let message = runtime.condition("MLflowConfigured").message;
    ensure!(message.contains("WorkspaceNotFound"), "{message}");

    all.create_workspace("spaced").await?;
    // It is looked for again every 5 min, or when the workload changes.
    ns.annotate(kinds::DEPLOYMENT, "weather", json!({"mlflow.kagenti.io/experiment": "my weather"})).await?;
    let workload = tracking.until_configured(&ns, secs(30), "weather").await?;
    let found = all.clone().workspace("spaced").by_name("my weather").await?.context("no experiment")?;
    ensure!(all.workspace("default").by_name("my weather").await?.is_none(), "in the wrong workspace");
    let env = literals(&workload, "agent");
    ensure!(
        env.contains(&("MLFLOW_TRACKING_AUTH".to_owned(), "kubernetes-namespaced".to_owned())),
        "{env:?}"
    );

    // The client takes namespace and token from the Pod; a kubeconfig stands for the mounted files.
    let dir = tempfile::tempdir().context("a directory")?;
    let kubeconfig = dir.path().join("config");
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "a-token-of-the-agent"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "spaced"}}],
        "current-context": "x",
    });
    std::fs::write(&kubeconfig, text.to_string()).context("a kubeconfig")?;
    let mut env = env;
    env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
    let (experiment, _) = log_run(server.python(), &env).await?;
    ensure!(experiment == found.text("/experiment_id"), "{experiment}: {found}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_11_another_tenants_experiment() -> Result<()> {
    let server = mlflow().await?;
    let tracking = Tracking::start(Found::Flag(server.url().to_owned()), [""; 0]).await?;
    let first = tracking.namespace("tenant-one", Value::Null).await?;
    first.create(tracked("weather")).await?;
    tracking.until_configured(&first, secs(20), "weather").await?;
    let second = tracking.namespace("tenant-two", Value::Null).await?;
    let greedy = tracked("greedy").annotation("mlflow.kagenti.io/experiment", "tenant-one/weather");
    second.create(greedy).await?;
    second.create(objects::agent_runtime("greedy", "greedy")).await?;
    let taken = "False/ExperimentNameTaken";
    second.until_condition(secs(20), "greedy", "MLflowConfigured", taken).await?;
    ensure!(marks(&second.get(kinds::DEPLOYMENT, "greedy").await?).is_empty());
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_16_lost_experiment() -> Result<()> {
    let host = Servers::suite().await?;
    let options = MlflowOptions { name: "mlflow-lost".to_owned(), ..MlflowOptions::default() };
    let server = Mlflow::start(host.cluster(), options).await?;
    let experiments = Experiments::at(server.url());
    // Others come first in the first database, so that the ids differ.
    experiments.create("somebody/else").await?;
    let tracking = Tracking::start(Found::Flag(server.url().to_owned()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let before = tracking.until_configured(&ns, secs(20), "weather").await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let sets = ns.replica_sets("weather").await?.len();
    let id = "mlflow.kagenti.io/experiment-id";
    let old = before.template_annotation(id).context("an id")?.to_owned();

    server.server().stop().await?;
    server.forget_everything()?;
    server.server().start_again().await?;
    let renewed = |object: &Value| object.template_annotation(id).is_some_and(|now| now != old);
    let after = ns.until(secs(120), kinds::DEPLOYMENT, "weather", "another experiment", renewed).await?;
    let now = after.template_annotation(id).context("an id")?;
    for container in ["agent", "helper"] {
        let env = literals(&after, container);
        ensure!(env.contains(&("MLFLOW_EXPERIMENT_ID".to_owned(), now.to_owned())), "{container}: {env:?}");
    }
    ensure!(experiments.by_name("team1/weather").await?.context("no experiment")?["experiment_id"] == now);
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    ensure!(ns.replica_sets("weather").await?.len() == sets + 1, "more than one patch");
    log_run(server.python(), &literals(&after, "agent")).await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_deleted_and_renamed_on_the_server() -> Result<()> {
    let server = mlflow().await?;
    let experiments = Experiments::at(server.url());
    let tracking = Tracking::start(Found::Flag(server.url().to_owned()), [""; 0]).await?;
    let ns = tracking.namespace("by-hand", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(20), "weather").await?;
    let id = workload.template_annotation("mlflow.kagenti.io/experiment-id").context("an id")?.to_owned();
    experiments.delete(&id).await?;
    e2e::wait_for(secs(45), "the experiment to be restored", async || {
        let found = experiments.by_name("by-hand/weather").await?.unwrap_or_default();
        Ok((found.text("/lifecycle_stage") == "active").then_some(()))
    })
    .await?;
    experiments.rename(&id, "by-hand/renamed").await?;
    let renewed = |object: &Value| {
        object.template_annotation("mlflow.kagenti.io/experiment-id").is_some_and(|now| now != id)
    };
    let after = ns.until(secs(45), kinds::DEPLOYMENT, "weather", "another experiment", renewed).await?;
    log_run(server.python(), &literals(&after, "agent")).await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_refusals_of_a_real_server() -> Result<()> {
    let host = Servers::suite().await?;
    let guarded = MlflowOptions { name: "mlflow-refuses".to_owned(), basic_auth: true, ..Default::default() };
    let guarded = Mlflow::start(host.cluster(), guarded).await?;
    let hosts = vec!["mlflow.mlflow.svc:*".to_owned()];
    let picky = MlflowOptions { name: "mlflow-picky".to_owned(), allowed_hosts: hosts, ..Default::default() };
    let picky = Mlflow::start(host.cluster(), picky).await?;
    for (server, code) in [(&guarded, "Unauthenticated"), (&picky, "HostRejected")] {
        let tracking = Tracking::start(Found::Flag(server.url().to_owned()), [""; 0]).await?;
        let ns = tracking.namespace("team1", Value::Null).await?;
        let made = ns.create(tracked("weather")).await?;
        ns.create(objects::agent_runtime("weather", "weather")).await?;
        let failed = "False/ExperimentFailed";
        let runtime = ns.until_condition(secs(30), "weather", "MLflowConfigured", failed).await?;
        let message = runtime.condition("MLflowConfigured").message;
        ensure!(message.contains(code), "{code}: {message}");
        if code == "HostRejected" {
            let host = server.url().trim_start_matches("http://");
            ensure!(message.contains("--allowed-hosts") && message.contains(host), "{message}");
        }
        ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == made.template());
    }
    Ok(())
}
