//! Scenario 10: pods of both layouts side by side while a workload moves between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, Ns, Suite, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

use super::fixture::{data_of, split, until_vector};
use crate::webhook::fixture::{agent_pod, dry_run, runtime_config};

const REPLICAS: usize = 5;
/// The mode is pinned: its default differs between the layouts.
const SPLIT: &str = "mode: envoy-sidecar\n";
const COMBINED: &str = "mode: envoy-sidecar\nsidecarLayout: combined\n";

#[tokio::test]
async fn split_10_switching_rolls_once() -> Result<()> {
    let (suite, ns) = split("split-10").await?;
    runtime_config(&ns, SPLIT).await?;
    let rolling =
        json!({"minReadySeconds": 1, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    ns.create(objects::deployment("weather").replicas(5).spec(rolling)).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_ready(secs(20), "weather").await?;
    settled(&ns).await?;
    for pod in ns.pods("weather").await? {
        assert!(pod.container("spiffe-helper").is_some() && pod.container("envoy-proxy").is_some());
    }
    let files = files(&ns).await?;

    let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (ns, stop, admitted) = (ns.clone(), stop.clone(), admitted.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let reply = dry_run(&ns, agent_pod("load")).await?;
                ensure!(reply.status == 201, "{} {}", reply.status, reply.message());
                ensure!(reply.body.container("envoy-proxy").is_some(), "admitted without sidecar");
                admitted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
    };
    let outcome = async {
        for (yaml, helper) in [(COMBINED, false), (SPLIT, true)] {
            switch(&suite, &ns, yaml, helper).await.with_context(|| yaml.to_owned())?;
            ensure!(self::files(&ns).await? == files, "the files of both layouts differ");
        }
        Ok(())
    }
    .await;
    stop.store(true, Ordering::SeqCst);
    load.await?.context("an admission failed during the switch")?;
    outcome?;
    ensure!(admitted.load(Ordering::SeqCst) > 50, "hardly any load");
    Ok(())
}

async fn switch(suite: &Suite, ns: &Ns, yaml: &str, helper: bool) -> Result<()> {
    let before = revision(ns).await?;
    let mark = suite.cluster().audit()?.mark()?;
    runtime_config(ns, yaml).await?;
    let (mut both_ready, mut seen) = (false, Vec::new());
    wait_for(secs(120), "every Pod to have the new layout", async || {
        let pods = ns.pods("weather").await?;
        let ready: Vec<bool> = pods.iter().filter(|pod| is_ready(pod)).map(has_helper).collect();
        both_ready |= ready.contains(&true) && ready.contains(&false);
        seen = pods.iter().map(|pod| (pod.name().to_owned(), has_helper(pod))).collect();
        ensure!(pods.len() == REPLICAS && pods.iter().all(|pod| has_helper(pod) == helper), "{seen:?}");
        Ok(Some(()))
    })
    .await?;
    ensure!(both_ready, "Pods of both layouts were never ready together");
    settled(ns).await?;
    // A second rollout would follow within the debounce of the configuration.
    ns.holds(secs(4), kinds::DEPLOYMENT, "weather", "one rollout", |deployment| {
        deployment.annotation("deployment.kubernetes.io/revision").and_then(|text| text.parse().ok())
            == Some(before + 1)
    })
    .await?;
    let of = |who: &str| -> Result<Vec<String>> {
        let all = suite.object_writes(mark, who)?.into_iter().filter(|write| write.namespace == ns.name());
        Ok(all.map(|write| format!("{} {} {}", write.verb, write.resource, write.name)).collect())
    };
    let webhook = of(WEBHOOK)?;
    ensure!(webhook.len() <= 3, "the webhook wrote {webhook:?}");
    let patches = of(RUNTIME_CTL)?.into_iter().filter(|write| write.contains("deployments")).count();
    ensure!(patches == 1, "runtime-ctl patched the Deployment {patches} times");
    Ok(())
}

async fn settled(ns: &Ns) -> Result<()> {
    ns.rolled_out(secs(120), kinds::DEPLOYMENT, "weather").await?;
    ns.until_condition(secs(30), "weather", "PodsConfigured", "True/RolloutComplete").await.map(drop)
}

async fn revision(ns: &Ns) -> Result<i64> {
    let deployment = ns.get(kinds::DEPLOYMENT, "weather").await?;
    let text = deployment.annotation("deployment.kubernetes.io/revision").context("no revision")?;
    text.parse().context("a revision")
}

/// The files that pods of both layouts read.
async fn files(ns: &Ns) -> Result<[Option<String>; 2]> {
    Ok([
        data_of(ns, "authbridge-config-weather", "config.yaml").await?,
        data_of(ns, "envoy-config-weather", "envoy.yaml").await?,
    ])
}

fn has_helper(pod: &Value) -> bool {
    pod.container("spiffe-helper").is_some()
}

fn is_ready(pod: &Value) -> bool {
    pod.condition("Ready").status == "True"
}

/// A namespace moves alone: the other ones stay with the platform's layout.
#[tokio::test]
async fn split_10_a_namespace_moves_alone() -> Result<()> {
    let (suite, moved) = split("split-10-moved").await?;
    let stays = super::fixture::team(&suite, "split-10-stays").await?;
    runtime_config(&moved, COMBINED).await?;
    until_vector(&moved, agent_pod("probe"), "the namespace's layout", "1100").await?;
    until_vector(&stays, agent_pod("probe"), "the platform's layout", "1110").await?;
    Ok(())
}
