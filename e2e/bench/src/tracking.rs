//! Give many agents their experiment in a real MLflow: all of them from nothing, their cost while nothing changes, a
//! restart (mlflow §15).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::exposition::sum;
use e2e::services::runs::Experiments;
use e2e::services::tracking::{COMPONENT, create_mlflow};
use e2e::services::{Proxy, agents};
use e2e::suite::{Options, Suite};
use e2e::{objects, secs};
use local_cluster::services::{Mlflow, MlflowOptions, preflight};
use local_cluster::{ClusterOptions, Component, ComponentOptions, Profile};
use serde_json::Value;

use crate::calls::Calls;
use crate::report::{Report, Unit, megabytes};
use crate::scene;

const NAMESPACE: &str = "bench";
/// How long is looked whether anything happens.
const WINDOW: Duration = Duration::from_secs(30);
/// Until every agent has its experiment; not a promise of the product, only an end to waiting.
const LIMIT: Duration = Duration::from_secs(600);
/// A restart spreads the looks at MLflow over `--mlflow-resync-period`. They are not what is measured.
const NO_RESYNC: &str = "--mlflow-resync-period=0s";

/// Runs with `count` agents on a stock server, then on one with workspaces; true when every figure that must hold did.
pub async fn run(count: usize) -> Result<bool> {
    let stock = on_server(count, false).await?;
    Ok(on_server(count, true).await? & stock)
}

async fn on_server(count: usize, workspaces: bool) -> Result<bool> {
    preflight::require().await?;
    let cluster = ClusterOptions {
        nodes: 0,
        pod_addresses: false,
        controller_manager: false,
        scheduler: false,
        profile: Profile::Release,
        ..ClusterOptions::default()
    };
    let options = Options { cluster, ..e2e::services::bare() };
    // Before the clock starts.
    let profile = options.cluster.profile;
    tokio::task::spawn_blocking(move || local_cluster::components::build(&[COMPONENT], profile))
        .await
        .context("building the component")??;
    let kind = if workspaces { "with workspaces" } else { "without workspaces" };
    eprintln!("starting a control plane, mlflow-ctl (release build) and an MLflow {kind}");
    let suite = Suite::own(options).await?;
    let mlflow = Mlflow::start(suite.cluster(), MlflowOptions { workspaces, ..Default::default() }).await?;
    let proxy = Proxy::before(mlflow.url()).await?;
    let mut experiments = Experiments::at(mlflow.url());
    let mut component = ComponentOptions::new(COMPONENT);
    if workspaces {
        experiments.create_workspace(NAMESPACE).await?;
        experiments = experiments.workspace(NAMESPACE);
        create_mlflow(&suite.global().await?, &proxy.url()).await?;
    } else {
        component = component.args([format!("--mlflow-tracking-uri={}", proxy.url())]);
    }
    let process = Component::start(suite.cluster(), component).await?;
    process.terminate().await?;

    let space = suite.namespace(NAMESPACE, Value::Null).await?;
    let name = |index: usize| format!("agent-{index:05}");
    scene::create(&space, "Deployments", count, |index| agents::tracked(&name(index)).build()).await?;
    scene::create(&space, "AgentRuntimes", count, |index| {
        objects::agent_runtime(&name(index), &name(index)).build()
    })
    .await?;

    let calls = |mark: usize| Calls::count(&proxy.since(mark), "/api/");
    let (mark, seen) = (suite.cluster().audit()?.mark()?, proxy.mark());
    let start = Instant::now();
    process.restart().await?;
    let reached = scene::until_all(&space, ["MLflowConfigured"], count, start, LIMIT).await;
    let [took] = reached.with_context(|| process.log_tail())?;
    tokio::time::sleep(secs(2)).await;
    let first = calls(seen);
    let page = process.metrics_text().await?;
    first.agree_with(sum(&page, "mlflow_ctl_api_requests_total", &[]))?;
    let requests = scene::requests_in(&suite, COMPONENT, &space, mark)?;
    let usage = process.usage()?;
    let mut names = experiments.names().await?;
    names.dedup();

    eprintln!("watching {count} agents for {WINDOW:?}");
    let (mark, seen) = (suite.cluster().audit()?.mark()?, proxy.mark());
    tokio::time::sleep(WINDOW).await;
    let idle = (calls(seen), scene::requests(&suite, COMPONENT, mark)?.writes);

    eprintln!("restarting mlflow-ctl");
    let before = process.usage()?.peak_resident;
    process.terminate().await?;
    let (mark, seen) = (suite.cluster().audit()?.mark()?, proxy.mark());
    process.restart_with(&[NO_RESYNC.to_owned()]).await?;
    process.wait_ready(secs(60)).await?;
    tokio::time::sleep(WINDOW).await;
    let restart = (calls(seen), scene::requests(&suite, COMPONENT, mark)?.writes);
    let peak = before.max(process.usage()?.peak_resident);

    let mut report = Report::new(format!("{count} experiments, MLflow {kind}"));
    report.note("until all are configured, from nothing", format!("{:.1} s", took.as_secs_f64()));
    let each = |number: usize| number as f64 / count as f64;
    report.bound("MLflow requests per experiment", each(first.total()), &Unit::HUNDREDTHS, 2.0, 1.0, "-");
    for (kind, count) in &first.kinds {
        report.note(&format!("  {kind}"), count);
    }
    report.note("Kubernetes requests per agent", format!("{:.2}", each(requests.total)));
    for (kind, sum) in &requests.kinds {
        report.note(&format!("  {kind}"), sum.count);
    }
    report.note("CPU time for it", format!("{:.1} s", usage.cpu.as_secs_f64()));
    report.bound("peak memory", megabytes(peak), &Unit::MEGABYTES, 150.0, 40.0, "-");
    report.note("memory at the end", format!("{:.0} MB", megabytes(process.usage()?.resident)));
    report.bound("MLflow requests in 30 s after it", idle.0.total() as f64, &Unit::WHOLE, 0.0, 0.0, "-");
    report.bound("Kubernetes writes in 30 s after it", idle.1 as f64, &Unit::WHOLE, 0.0, 0.0, "-");
    // The server says once what it can.
    report.bound("MLflow requests by a restart", restart.0.total() as f64, &Unit::WHOLE, 1.0, 0.0, "-");
    report.bound("Kubernetes writes by a restart", restart.1 as f64, &Unit::WHOLE, 0.0, 0.0, "-");
    let lacking = count.abs_diff(names.len());
    report.bound("experiments too few or too many", lacking as f64, &Unit::WHOLE, 0.0, 0.0, "-");
    Ok(report.print())
}
