//! Many workloads at once, and what their admission cost (webhook §18).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::exposition::sum;
use crate::json::Json as _;
use crate::suite::WEBHOOK;
use crate::{Suite, kinds, objects, wait_for};

/// Requests of the test that are under way at once.
const AT_ONCE: usize = 16;

/// How much is created.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Enabled namespaces.
    pub namespaces: usize,
    /// Deployments in each of them.
    pub deployments: usize,
    /// Pods of each Deployment.
    pub replicas: usize,
    /// How long all Pods may take to appear; not a promise of the product, only an end to waiting.
    pub limit: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Pods that exist.
    pub pods: usize,
    /// From the first creation to the last Pod.
    pub took: Duration,
    /// Share of the admissions that took at most 300 ms, measured by the webhook.
    pub within_300_ms: f64,
    /// Writes of the webhook per workload; Events and Leases counted apart.
    pub writes_per_workload: f64,
    /// The most memory it ever had, in bytes.
    pub peak_resident: u64,
}

impl Figures {
    /// The limits of the chapter: p99 300 ms, 3 writes, 150 MiB.
    pub fn check(&self) -> Result<()> {
        ensure!(self.within_300_ms >= 0.99, "p99 is above 300 ms: {self:?}");
        ensure!(self.writes_per_workload <= 3.0, "more than three writes per workload: {self:?}");
        ensure!(self.peak_resident <= 150 << 20, "more than 150 MiB: {self:?}");
        Ok(())
    }
}

/// Creates the load, waits until every Pod is there with its sidecar, and measures.
pub async fn admit(suite: &Suite, load: Load) -> Result<Figures> {
    let names: Vec<String> = (0..load.namespaces).map(|number| format!("scale-{number}")).collect();
    let spaces: Vec<_> = stream::iter(&names)
        .map(|name| suite.namespace(name, json!({"kagenti-enabled": "true"})))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mark = suite.cluster().audit()?.mark()?;
    let started = Instant::now();
    let replicas = i32::try_from(load.replicas).context("the number of replicas")?;
    let workloads = spaces.iter().flat_map(|ns| (0..load.deployments).map(move |number| (ns, number)));
    stream::iter(workloads)
        .map(|(ns, number)| {
            let name = format!("agent-{number}");
            let deployment =
                objects::deployment(&name).template_label("kagenti.io/type", "agent").replicas(replicas);
            ns.create(deployment)
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;

    let pods = load.namespaces * load.deployments * load.replicas;
    let global = suite.global().await?;
    wait_for(load.limit, &format!("{pods} Pods"), async || {
        let sets = global.list(kinds::REPLICA_SET, "").await?;
        let made: i64 = sets.iter().map(|set| set.number("/status/replicas").unwrap_or_default()).sum();
        Ok((usize::try_from(made)? >= pods).then_some(()))
    })
    .await?;
    let took = started.elapsed();
    for ns in &spaces {
        for pod in ns.list(kinds::POD, "kagenti.io/type=agent").await? {
            ensure!(pod.container("authbridge-proxy").is_some(), "without sidecar: {}", pod.readable());
        }
    }

    let component = suite.webhook(0)?;
    let page = component.metrics_text().await?;
    let name = "kagenti_authbridge_admission_duration_seconds";
    let fast = sum(&page, &format!("{name}_bucket"), &[("le", "0.3")]);
    let all = sum(&page, &format!("{name}_count"), &[]);
    ensure!(all >= pods as f64, "{all} admissions for {pods} Pods");
    let writes = suite.object_writes(mark, WEBHOOK)?.len();
    Ok(Figures {
        pods,
        took,
        within_300_ms: fast / all,
        writes_per_workload: writes as f64 / (load.namespaces * load.deployments) as f64,
        peak_resident: component.usage()?.peak_resident,
    })
}
