//! Scenarios 14 and 20: many agents.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::tracked;
use e2e::services::tracking::{COMPONENT, Found, Tracking, created, scripted, set_available};
use e2e::{kinds, secs, wait_for};
use serde_json::Value;

/// The address of the server changes under `count` running agents.
async fn moves(count: usize) -> Result<()> {
    let (old, new) =
        (scripted(|_| created("1"), Value::Null).await?, scripted(|_| created("2"), Value::Null).await?);
    let flags = ["--rollout-qps=5", "--rollout-burst=10", "--mlflow-resync-period=0s"];
    let tracking = Tracking::start(Found::Object(old.url()), flags).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let uri = "mlflow.kagenti.io/tracking-uri";
    let at = async |url: String| {
        let all = ns.list(kinds::DEPLOYMENT, "").await?;
        anyhow::Ok(all.iter().filter(|w| w.template_annotation(uri) == Some(url.as_str())).count())
    };
    for number in 0..count {
        ns.create(tracked(&format!("agent-{number}"))).await?;
    }
    wait_for(secs(300), "all agents to be set up and available", async || {
        let all = ns.list(kinds::DEPLOYMENT, "").await?;
        let ready = |w: &&Value| {
            w.template_annotation(uri).is_some()
                && w.number("/status/availableReplicas") == Some(1)
                && w.number("/status/observedGeneration") == Some(w.generation())
        };
        Ok((all.iter().filter(ready).count() == count).then_some(()))
    })
    .await?;
    let mark = tracking.cluster().audit()?.mark()?;
    let started = Instant::now();
    set_available(&tracking.global().await?, &new.url(), true).await?;
    while started.elapsed() < Duration::from_secs(count as u64) {
        let patched = at(new.url()).await?;
        let allowed = 10.0 + 5.0 * started.elapsed().as_secs_f64();
        ensure!(patched as f64 <= allowed, "{patched} after {:?}", started.elapsed());
        if patched == count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(at(new.url()).await? == count, "{} of {count} in {:?}", at(new.url()).await?, started.elapsed());
    let writes = tracking.object_writes(mark, COMPONENT)?;
    let patches = writes.iter().filter(|w| w.resource == "deployments" && w.code < 400).count();
    ensure!(patches == count, "{patches} patches for {count} workloads");
    Ok(())
}

/// 500 agents by a factor of 10.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_14_uri_change_is_throttled() -> Result<()> {
    moves(50).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_mlflow_14_uri_change_is_throttled() -> Result<()> {
    moves(500).await
}

/// `count` Deployments without Pods, a server that answers in 20 ms.
async fn scale(count: usize, limit: Duration) -> Result<()> {
    let server = scripted(|_| created("20"), Value::Null).await?;
    server.slow(Duration::from_millis(20));
    let tracking = Tracking::start(Found::Object(server.url()), ["--mlflow-resync-period=1h"]).await?;
    let started = Instant::now();
    for place in 0..count.div_ceil(100) {
        let ns = tracking.namespace(&format!("scale-{place}"), Value::Null).await?;
        for number in 0..100.min(count - place * 100) {
            ns.create(tracked(&format!("agent-{number}")).replicas(0)).await?;
        }
    }
    let global = tracking.global().await?;
    let id = "mlflow.kagenti.io/experiment-id";
    e2e::wait::wait_patiently(limit, "all agents to be configured", async || {
        let all = global.list(kinds::DEPLOYMENT, "kagenti.io/type=agent").await?;
        Ok((all.iter().filter(|w| w.template_annotation(id).is_some()).count() == count).then_some(()))
    })
    .await?;
    let took = started.elapsed();
    let peak = tracking.component().usage()?.peak_resident;
    ensure!(peak < 150 << 20, "{} MiB", peak >> 20);
    let mark = tracking.cluster().audit()?.mark()?;
    let calls = server.mark();
    tracking.component().terminate().await?;
    tracking.component().restart().await?;
    tracking.component().wait_ready(secs(120)).await?;
    tokio::time::sleep(secs(20)).await;
    let writes = tracking.object_writes(mark, COMPONENT)?;
    ensure!(writes.is_empty(), "{} writes after a restart", writes.len());
    let since = server.since(calls).len();
    ensure!(since <= 1 + count / 100, "{since} calls after a restart");
    println!("mlflow 20: {count} agents in {took:?}, peak {} MiB", peak >> 20);
    Ok(())
}

/// 10,000 agents by a factor of 50.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_20_scale_short() -> Result<()> {
    scale(200, secs(90)).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_mlflow_20_scale() -> Result<()> {
    scale(10_000, secs(900)).await
}
