//! Scenarios 8, 14, 20: many agents.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::tracked;
use e2e::services::tracking::{
    self, COMPONENT, Found, ID, Tracking, calls, created, marks, numbering, scripted, set_available,
};
use e2e::services::{Fault, bare};
use e2e::{Ns, Options, kinds, objects, secs, wait_for};
use futures::future::try_join_all;
use local_cluster::{ClusterOptions, Profile};
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
        // Until the server is left alone the agents ask one after the other, so the last is told late.
        ns.until_event(secs(60), &format!("agent-{number}"), "MLflowExperimentFailed").await?;
        let events = ns.events(&format!("agent-{number}"), "MLflowExperimentFailed").await?;
        ensure!(Ns::occurrences(&events) == 1, "agent-{number}: {events:?}");
        ensure!(events[0].text("/type") == "Warning", "{events:?}");
    }
    server.fault(|seen| Some(tracking::answer(seen, || created("8"), &Value::Null)));
    wait_for(secs(300), "every agent to be configured", async || {
        Ok((configured(&ns).await? == count).then_some(()))
    })
    .await
}

/// 200 agents by a factor of 5.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_08_outage() -> Result<()> {
    server_down(40, secs(30)).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_mlflow_08_outage() -> Result<()> {
    server_down(200, secs(180)).await
}

/// The address of the server changes under `count` running agents.
async fn moves(count: usize) -> Result<()> {
    let (old, new) =
        (scripted(|_| created("1"), Value::Null).await?, scripted(|_| created("2"), Value::Null).await?);
    let flags = ["--rollout-qps=5", "--rollout-burst=10"];
    let tracking = Tracking::start_on(bare(), Found::Object(old.url()), flags).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(objects::named(kinds::SERVICE_ACCOUNT, "agents")).await?;
    let uri = "mlflow.kagenti.io/tracking-uri";
    for number in 0..count {
        let agent = tracked(&format!("agent-{number}"));
        ns.create(agent.pod_spec(json!({"serviceAccountName": "agents"}))).await?;
    }
    wait_for(secs(300), "all agents to be set up and available", async || {
        let all = ns.list(kinds::DEPLOYMENT, "").await?;
        // All Pods new: while the old one ends there is a moment without any, and then nothing is limited.
        let ready = |w: &&Value| {
            w.template_annotation(uri).is_some()
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .iter()
                    .all(|field| w.number(&format!("/status/{field}")) == Some(1))
                && w.number("/status/observedGeneration") == Some(w.generation())
        };
        Ok((all.iter().filter(ready).count() == count).then_some(()))
    })
    .await?;
    let mark = tracking.cluster().audit()?.mark()?;
    let started = Instant::now();
    set_available(&tracking.global().await?, &new.url(), true).await?;
    let moved = async || {
        let all = ns.list(kinds::DEPLOYMENT, "").await?;
        let there = |w: &&Value| w.template_annotation(uri) == Some(new.url().as_str());
        anyhow::Ok(all.iter().filter(there).count())
    };
    loop {
        let patched = moved().await?;
        let elapsed = started.elapsed();
        let allowed = 10.0 + 5.0 * elapsed.as_secs_f64();
        ensure!(patched as f64 <= allowed, "{patched} after {elapsed:?}");
        if patched == count {
            break;
        }
        ensure!(elapsed < secs(30) + Duration::from_secs(count as u64), "{patched} after {elapsed:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Another pass over a workload that is done would come at once.
    tokio::time::sleep(secs(2)).await;
    let writes = tracking.object_writes(mark, COMPONENT)?;
    let patches = writes.iter().filter(|w| w.resource == "deployments" && w.code < 400).count();
    ensure!(patches == count, "{patches} patches for {count} workloads");
    for workload in ns.list(kinds::DEPLOYMENT, "").await? {
        ensure!(workload.template_annotation(ID) == Some("2"), "{:?}", marks(&workload));
    }
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
async fn scale(count: usize, limit: Duration, profile: Profile) -> Result<()> {
    let server = numbering().await?;
    server.slow(Duration::from_millis(20));
    let cluster = ClusterOptions {
        nodes: 0,
        controller_manager: false,
        scheduler: false,
        profile,
        ..ClusterOptions::default()
    };
    let options = Options { cluster, ..bare() };
    let tracking = Tracking::start_on(options, Found::Object(server.url()), [""; 0]).await?;
    let started = Instant::now();
    for place in 0..count.div_ceil(100) {
        let ns = tracking.namespace(&format!("scale-{place}"), Value::Null).await?;
        let agents = (0..100.min(count - place * 100)).map(|number| format!("agent-{number}"));
        try_join_all(agents.map(|name| ns.create(tracked(&name).replicas(0)))).await?;
    }
    // Its own count: to list thousands of Deployments again and again would be most of the load.
    e2e::wait::wait_patiently(limit, "all agents to be configured", async || {
        let now = tracking.count("configured").await?;
        ensure!(now >= count as f64, "{now} are");
        Ok(Some(()))
    })
    .await?;
    let took = started.elapsed();
    let all = tracking.global().await?.list(kinds::DEPLOYMENT, "kagenti.io/type=agent").await?;
    let named = all.iter().filter(|workload| workload.template_annotation(ID).is_some()).count();
    ensure!(named == count, "{named} of {count} Deployments carry an experiment");
    let creates = calls(&server, "experiments/create").len();
    ensure!(creates == count, "{creates} creates for {count} agents");
    let peak = tracking.component().usage()?.peak_resident;
    ensure!(peak < 150 << 20, "{} MiB", peak >> 20);
    let mark = tracking.cluster().audit()?.mark()?;
    tracking.restart_with(&[]).await?;
    wait_for(limit, "a look at every agent", async || {
        Ok((tracking.count("configured").await? >= count as f64).then_some(()))
    })
    .await?;
    tokio::time::sleep(secs(5)).await;
    let writes = tracking.object_writes(mark, COMPONENT)?;
    ensure!(writes.is_empty(), "{} writes after a restart", writes.len());
    let again = calls(&server, "experiments/create").len() - creates;
    ensure!(again == 0, "{again} creates after a restart");
    println!("mlflow 20: {count} agents in {took:?}, peak {} MiB", peak >> 20);
    Ok(())
}

/// 10,000 agents by a factor of 50.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_20_scale_short() -> Result<()> {
    scale(200, secs(90), Profile::Same).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_mlflow_20_scale() -> Result<()> {
    // Measured as shipped: unoptimised code would say little about a limit of the product.
    scale(10_000, secs(900), Profile::Release).await
}
