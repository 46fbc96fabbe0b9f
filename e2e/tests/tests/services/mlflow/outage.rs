//! Scenarios 8, 9, 10, 12: a server that refuses, fails or wants too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::tracked;
use e2e::services::tracking::{Found, TOKEN, Tracking, calls, created, marks, refused, scripted};
use e2e::services::{Fault, Proxy};
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

/// How many of these Deployments carry an experiment.
async fn configured(ns: &Ns) -> Result<usize> {
    let all = ns.list(kinds::DEPLOYMENT, "").await?;
    Ok(all.iter().filter(|workload| !marks(workload).is_empty()).count())
}

/// 503 to everything for `outage`, with `count` agents.
async fn server_down(count: usize, outage: Duration) -> Result<()> {
    let server = scripted(|_| created("8"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    server.fault(|_| Some(Fault::html(503, "down")));
    for number in 0..count {
        ns.create(tracked(&format!("agent-{number}")).replicas(0)).await?;
    }
    tokio::time::sleep(outage / 3).await;
    let mark = server.mark();
    let settled = outage * 2 / 3;
    tokio::time::sleep(settled).await;
    let rate = server.since(mark).len() as f64 / settled.as_secs_f64();
    ensure!(rate < 1.0, "{rate} calls per second");
    ensure!(configured(&ns).await? == 0, "a workload was patched");
    for number in 0..count {
        let events = ns.events(&format!("agent-{number}"), "MLflowExperimentFailed").await?;
        ensure!(Ns::occurrences(&events) == 1, "agent-{number}: {events:?}");
    }
    let up = scripted_answers();
    server.fault(up);
    wait_for(secs(300), "every agent to be configured", async || {
        Ok((configured(&ns).await? == count).then_some(()))
    })
    .await
}

/// The answers of a server that works.
fn scripted_answers() -> impl Fn(&e2e::services::Seen) -> Option<Fault> + Send + Sync + 'static {
    |seen| {
        let info = json!({"store_type": "SqlStore", "workspaces_enabled": true});
        Some(if seen.path.ends_with("/server-info") { Fault::json(200, &info) } else { created("8") })
    }
}

/// 200 agents by a factor of 4.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_08_outage() -> Result<()> {
    server_down(50, secs(45)).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_mlflow_08_outage() -> Result<()> {
    server_down(200, secs(180)).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_09_no_retry_of_a_refusal() -> Result<()> {
    let server = scripted(|_| refused(400, "INVALID_PARAMETER_VALUE"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let failed = "False/ExperimentFailed";
    let runtime = ns.until_condition(secs(20), "weather", "MLflowConfigured", failed).await?;
    ensure!(runtime.condition("MLflowConfigured").message.contains("InvalidRequest"), "{runtime}");
    let first = calls(&server, "experiments/create").first().context("a call")?.at;
    tokio::time::sleep(secs(60).saturating_sub(first.elapsed())).await;
    let creates = calls(&server, "experiments/create").len();
    ensure!(creates == 1, "{creates} calls in the first minute");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_10_transient_then_fine() -> Result<()> {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let answer = move |_: &e2e::services::Seen| {
        if seen.fetch_add(1, Ordering::SeqCst) < 2 { Fault::html(503, "not now") } else { created("10") }
    };
    let server = scripted(answer, Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    tracking.until_configured(&ns, secs(20), "weather").await?;
    let creates = calls(&server, "experiments/create");
    ensure!(creates.len() == 3, "{} calls", creates.len());
    // Repetitions inside a pass come after at most 1.5 s; another pass would wait 4 s at least.
    let longest = creates.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).max();
    ensure!(longest.is_some_and(|pause| pause < secs(4)), "{longest:?} between two calls");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_12_token_safety() -> Result<()> {
    let elsewhere = Proxy::scripted(|_| Some(created("stolen"))).await?;
    let target = elsewhere.url();
    let login = move |_: &e2e::services::Seen| Fault::Answer {
        status: 302,
        content: "text/html",
        body: String::new(),
        headers: vec![("location", format!("{target}/login"))],
    };
    for allowed in [false, true] {
        let server = scripted(login.clone(), Value::Null).await?;
        let flag = format!("--mlflow-send-token-over-http={allowed}");
        let tracking = Tracking::start(Found::Object(server.url()), [flag]).await?;
        let ns = tracking.namespace("team1", Value::Null).await?;
        ns.create(tracked("weather")).await?;
        ns.create(objects::agent_runtime("weather", "weather")).await?;
        let failed = "False/ExperimentFailed";
        let runtime = ns.until_condition(secs(20), "weather", "MLflowConfigured", failed).await?;
        ensure!(runtime.condition("MLflowConfigured").message.contains("Unauthenticated"), "{runtime}");
        let bearer = format!("Bearer {TOKEN}");
        let sent = server.seen().iter().filter(|seen| seen.header("authorization") == Some(&bearer)).count();
        ensure!((sent > 0) == allowed, "{sent} requests with the token, allowed: {allowed}");
        ensure!(elsewhere.seen().is_empty(), "the redirect was followed: {:?}", elsewhere.seen());
        ensure!(!tracking.component().log().contains(TOKEN), "the token is in the log");
    }
    Ok(())
}
