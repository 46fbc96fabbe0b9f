//! Scenarios 11 and 16 on a real MLflow, with and without workspaces, and what only a real one can show: a run that is
//! logged with nothing but the injected environment.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{literals, tracked};
use e2e::services::runs::{Experiments, WORKSPACE, log_run};
use e2e::services::tracking::{COMPONENT, Found, ID, Tracking, marks};
use e2e::services::{Proxy, Servers, bare, mlflow, mlflow_with_workspaces};
use e2e::{kinds, objects, secs};
use local_cluster::services::{Mlflow, MlflowOptions};
use serde_json::{Value, json};

use super::{CONDITION, FAILED, VARIABLES, names};

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
    for container in ["agent", "helper"] {
        let names = names(&workload, container);
        ensure!(names == [VARIABLES[0], VARIABLES[2], VARIABLES[3]], "{container}: {names:?}");
    }
    ensure!(marks(&workload).len() == 3, "{:?}", marks(&workload));
    ensure!(ns.list(kinds::ROLE, "").await?.is_empty() && ns.list(kinds::ROLE_BINDING, "").await?.is_empty());
    ensure!(!proxy.seen().is_empty(), "it was never asked");
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
    let runtime = ns.until_condition(secs(30), "weather", CONDITION, FAILED).await?;
    let message = runtime.condition(CONDITION).message;
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
    second.until_condition(secs(20), "greedy", CONDITION, taken).await?;
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
    let found = Found::Flag(server.url().to_owned());
    let tracking = Tracking::start_on(bare(), found, ["--mlflow-resync-period=10s"]).await?;
    let ns = tracking.with_account("team1").await?;
    ns.create(tracked("weather")).await?;
    let before = tracking.until_configured(&ns, secs(20), "weather").await?;
    let old = before.template_annotation(ID).context("an id")?.to_owned();

    server.server().stop().await?;
    server.forget_everything()?;
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, "weather").await?;
    let mark = tracking.cluster().audit()?.mark()?;
    server.server().start_again().await?;
    let renewed = |object: &Value| object.template_annotation(ID).is_some_and(|now| now != old);
    let after = ns.until(secs(120), kinds::DEPLOYMENT, "weather", "another experiment", renewed).await?;
    let now = after.template_annotation(ID).context("an id")?;
    for container in ["agent", "helper"] {
        ensure!(names(&after, container) == [VARIABLES[0], VARIABLES[2], VARIABLES[3]], "{container}");
        let env = literals(&after, container);
        ensure!(env.contains(&(VARIABLES[2].to_owned(), now.to_owned())), "{container}: {env:?}");
    }
    ensure!(experiments.by_name("team1/weather").await?.context("no experiment")?["experiment_id"] == now);
    log_run(server.python(), &literals(&after, "agent")).await?;
    let writes = tracking.object_writes(mark, COMPONENT)?;
    // A 409 changed nothing: the Deployment's own controller wrote its status in between.
    let patches = writes.iter().filter(|write| write.resource == "deployments" && write.code != 409).count();
    ensure!(patches == 1, "{patches} patches: {writes:?}");
    Ok(())
}
