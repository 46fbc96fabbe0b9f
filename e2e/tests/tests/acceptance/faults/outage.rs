//! The API server goes away, and what it remembers goes away.

use anyhow::{Context as _, Result, ensure};
use e2e::exposition::sum;
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, Ns, Suite, kinds, objects, secs};
use local_cluster::{Component, Signal, http};
use serde_json::{Value, json};

use super::fixture::{WHOLE, until_readyz};
use crate::webhook::fixture::runtime_config;

async fn enrol(ns: &Ns, name: &str) -> Result<()> {
    ns.create(objects::deployment(name)).await?;
    ns.create(objects::agent_runtime(name, name)).await?;
    ns.until_ready(secs(30), name).await.map(drop)
}

async fn settled(ns: &Ns, name: &str) -> Result<Value> {
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, name).await?;
    ns.until_condition(secs(30), name, "PodsConfigured", "True/RolloutComplete").await?;
    ns.get(kinds::DEPLOYMENT, name).await
}

fn processes(suite: &Suite) -> Result<[&Component; 2]> {
    Ok([suite.runtime_ctl(0)?, suite.webhook(0)?])
}

#[tokio::test]
async fn fault_the_api_server_is_away_for_twenty_seconds() -> Result<()> {
    let suite = WHOLE.alone().await?;
    let ns = suite.namespace("fault-outage", json!({})).await?;
    let names = ["one", "two", "three"];
    let mut before = Vec::new();
    for name in names {
        enrol(&ns, name).await?;
        before.push((settled(&ns, name).await?, ns.replica_sets(name).await?.len()));
    }
    let pids = processes(&suite)?.map(Component::pid);
    let mark = suite.cluster().audit()?.mark()?;
    // Kubernetes' own controllers would take up to a minute to come back; they are not what is tested.
    let cluster = suite.cluster();
    let others = [cluster.controller_manager(), cluster.scheduler(), cluster.kubelets()];
    for program in &others {
        program.stop().await?;
    }
    cluster.api_server().stop().await?;
    let away = async {
        tokio::time::sleep(secs(20)).await;
        for (process, expected) in processes(&suite)?.into_iter().zip([503, 200]) {
            // A controller that cannot work is not ready; the webhook serves from what it knows, and says so.
            let text = until_readyz(process, expected, &["cannot reach the API server"]).await?;
            ensure!(text.contains("Connection refused"), "the cause is named: {text}");
            let (status, _) = http::get(&format!("{}/healthz", process.probe_url())).await?;
            ensure!(status.is_success(), "{} is not alive", process.spec().name);
        }
        Ok(())
    }
    .await;
    cluster.api_server().start().await?;
    for program in &others {
        program.start().await?;
    }
    away?;
    for process in processes(&suite)? {
        process.wait_ready(secs(60)).await?;
    }
    // At once, not after the next resync: new work is done.
    enrol(&ns, "later").await?;
    settled(&ns, "later").await?;
    let pod = ns.pods("later").await?.pop().context("a Pod")?;
    assert!(pod.container("authbridge-proxy").is_some(), "{}", pod.readable());
    assert_eq!(processes(&suite)?.map(Component::pid), pids, "the same processes");
    for (name, (before, sets)) in names.iter().zip(before) {
        let now = ns.get(kinds::DEPLOYMENT, name).await?;
        assert_eq!(now.template(), before.template(), "{name} was rolled");
        assert_eq!(ns.replica_sets(name).await?.len(), sets, "{name}");
    }
    let writes = suite.object_writes(mark, RUNTIME_CTL)?;
    let writes: Vec<_> = writes.iter().filter(|write| names.contains(&write.name.as_str())).collect();
    assert!(writes.is_empty(), "nothing had changed for them: {writes:?}");
    Ok(())
}

/// The versions that watches would go on from are forgotten (410): everything is listed again, and what happened in
/// between is not missed.
#[tokio::test]
async fn fault_the_history_of_watches_expires() -> Result<()> {
    let suite = WHOLE.alone().await?;
    let ns = suite.namespace("fault-expired", json!({})).await?;
    for name in ["stays", "vanishes"] {
        enrol(&ns, name).await?;
        settled(&ns, name).await?;
    }
    let sets = ns.replica_sets("stays").await?.len();
    let pids = processes(&suite)?.map(Component::pid);
    // Frozen: they see nothing of what happens now.
    for process in processes(&suite)? {
        process.signal(Signal::Stop).await?;
    }
    let meanwhile = async {
        ns.delete(kinds::DEPLOYMENT, "vanishes").await?;
        runtime_config(&ns, "mode: lite\n").await?;
        suite.cluster().forget_history().await
    }
    .await;
    for process in processes(&suite)? {
        process.signal(Signal::Cont).await?;
    }
    meanwhile?;
    ns.until_condition(secs(60), "vanishes", "Ready", "False/TargetNotFound").await?;
    for process in processes(&suite)? {
        process.wait_ready(secs(60)).await?;
    }
    ns.until_list(secs(90), kinds::POD, "app=stays", "a Pod of the new mode", |pods| {
        pods.len() == 1
            && pods.iter().all(|pod| {
                pod.annotation("kagenti.io/authbridge-status").is_some_and(|plan| plan.contains("\"lite\""))
            })
    })
    .await?;
    settled(&ns, "stays").await?;
    assert_eq!(
        ns.replica_sets("stays").await?.len(),
        sets + 1,
        "the change of the configuration is one more rollout"
    );
    enrol(&ns, "new").await?;
    assert_eq!(processes(&suite)?.map(Component::pid), pids, "the same processes");
    for (process, name) in processes(&suite)?.into_iter().zip([RUNTIME_CTL, WEBHOOK]) {
        let expired =
            sum(&process.metrics_text().await?, "kagenti_watch_errors_total", &[("reason", "expired")]);
        ensure!(expired >= 1.0, "{name} met no 410, so nothing was tested");
    }
    Ok(())
}
