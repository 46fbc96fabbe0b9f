//! Scenarios 9, 10, 12: a server that refuses, fails or wants too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::tracked;
use e2e::services::tracking::{Found, TOKEN, Tracking, calls, created, refused, scripted};
use e2e::services::{Fault, Proxy};
use e2e::{objects, secs};
use serde_json::Value;

use super::{CONDITION, FAILED};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_09_no_retry_of_a_refusal() -> Result<()> {
    let server = scripted(|_| refused(400, "INVALID_PARAMETER_VALUE"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let runtime = ns.until_condition(secs(20), "weather", CONDITION, FAILED).await?;
    ensure!(runtime.condition(CONDITION).message.contains("InvalidRequest"), "{runtime}");
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
    // A pass that ended without an experiment would have said so, before the next one told of success.
    ns.until_event(secs(10), "weather", CONDITION).await?;
    let failed = ns.events("weather", "MLflowExperimentFailed").await?;
    ensure!(failed.is_empty(), "more than one pass: {failed:?}");
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
    let server = scripted(login, Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let bearer = format!("Bearer {TOKEN}");
    for (name, allowed) in [("weather", false), ("news", true)] {
        if allowed {
            tracking.restart_with(&["--mlflow-send-token-over-http=true"]).await?;
        }
        let mark = server.mark();
        ns.create(tracked(name)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        let runtime = ns.until_condition(secs(20), name, CONDITION, FAILED).await?;
        ensure!(runtime.condition(CONDITION).message.contains("Unauthenticated"), "{runtime}");
        let all = server.since(mark);
        let sent = all.iter().filter(|seen| seen.header("authorization") == Some(&bearer)).count();
        let wanted = if allowed { all.len() } else { 0 };
        ensure!(!all.is_empty() && sent == wanted, "{sent} of {} with the token", all.len());
        let any = all.iter().filter(|seen| seen.header("authorization").is_some()).count();
        ensure!(any == sent, "another Authorization was sent");
        ensure!(elsewhere.seen().is_empty(), "the redirect was followed: {:?}", elsewhere.seen());
    }
    Ok(())
}
