//! Split 14: many split Pods, and the same ones again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use local_cluster::Mark;
use serde_json::json;

use crate::exposition::sum;
use crate::json::Json as _;
use crate::scale::Load;
use crate::suite::WEBHOOK;
use crate::{Ns, Suite, api, kinds, objects, wait_for};

/// Requests of the test that are under way at once.
const AT_ONCE: usize = 16;
const DURATIONS: &str = "kagenti_authbridge_admission_duration_seconds";

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Pods that exist.
    pub pods: usize,
    /// Admissions per second the control plane offered, first time and repetition.
    pub per_second: [f64; 2],
    /// Share of the first admissions within 300 ms, and of the repeated ones within 20 ms.
    pub in_time: [f64; 2],
    /// Writes of the webhook per workload.
    pub writes_per_workload: f64,
    /// Requests of the webhook about these namespaces while the same Pods were admitted again.
    pub repeated_requests: usize,
    /// The most memory it ever had, in bytes.
    pub peak_resident: u64,
}

impl Figures {
    /// All limits (split 14, webhook §18), for a run that has the machine for itself.
    pub fn check(&self) -> Result<()> {
        ensure!(self.in_time[0] >= 0.99, "p99 is above 300 ms: {self:?}");
        self.check_work()
    }

    /// The limits that do not depend on what else the machine does.
    pub fn check_work(&self) -> Result<()> {
        ensure!(self.writes_per_workload <= 3.0, "more than three writes per workload: {self:?}");
        ensure!(self.repeated_requests == 0, "requests for known workloads: {self:?}");
        ensure!(self.peak_resident <= 150 << 20, "more than 150 MiB: {self:?}");
        Ok(())
    }
}

/// Creates the load, deletes its Pods once they are there, waits until they are back, and measures.
pub async fn admit_twice(suite: &Suite, load: Load) -> Result<Figures> {
    let names: Vec<String> = (0..load.namespaces).map(|number| format!("split-scale-{number}")).collect();
    let spaces: Vec<Ns> = stream::iter(&names)
        .map(async |name| {
            let ns = suite.namespace(name, json!({"kagenti-enabled": "true"})).await?;
            ns.create(objects::config_map("authbridge-config", crate::suite::keycloak())).await?;
            anyhow::Ok(ns)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let total = load.namespaces * load.deployments * load.replicas;
    let component = suite.webhook(0)?;
    let before = component.metrics_text().await?;
    let mark = suite.cluster().audit()?.mark()?;
    let replicas = i32::try_from(load.replicas).context("the number of replicas")?;
    let workloads = spaces.iter().flat_map(|ns| (0..load.deployments).map(move |number| (ns, number)));
    let started = Instant::now();
    stream::iter(workloads)
        .map(async |(ns, number)| {
            let deployment = objects::deployment(&format!("agent-{number}"));
            ns.create(deployment.template_label("kagenti.io/type", "agent").replicas(replicas)).await
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    let middle = admitted(suite, &before, total, load.limit).await?;
    let first = started.elapsed();
    split_everywhere(&spaces, load).await?;
    let writes = writes(suite, mark)?;

    let mark = suite.cluster().audit()?.mark()?;
    let started = Instant::now();
    stream::iter(&spaces)
        .map(async |ns| {
            let path = format!("{}?gracePeriodSeconds=0", kinds::POD.path(Some(ns.name())));
            api::call(ns.client(), "DELETE", &path, "application/json", None).await?.ok()
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    let after = admitted(suite, &middle, total, load.limit).await?;
    let second = started.elapsed();
    split_everywhere(&spaces, load).await?;
    Ok(Figures {
        pods: total,
        per_second: [total as f64 / first.as_secs_f64(), total as f64 / second.as_secs_f64()],
        in_time: [share(&before, &middle, "0.3"), share(&middle, &after, "0.02")],
        writes_per_workload: writes as f64 / (load.namespaces * load.deployments) as f64,
        repeated_requests: requests(suite, mark)?,
        peak_resident: component.usage()?.peak_resident,
    })
}

/// Waits until the webhook has injected this many Pods more than on an earlier page; the page that shows it.
async fn admitted(suite: &Suite, earlier: &str, pods: usize, limit: Duration) -> Result<String> {
    let injected = |page: &str| sum(page, "kagenti_authbridge_admissions_total", &[("result", "injected")]);
    let wanted = injected(earlier) + pods as f64;
    wait_for(limit, &format!("{pods} more Pods"), async || {
        let page = suite.webhook(0)?.metrics_text().await?;
        let now = injected(&page);
        ensure!(now >= wanted, "{} are missing", wanted - now);
        Ok(Some(page))
    })
    .await
}

/// Share of the admissions between two pages that took at most so long.
fn share(earlier: &str, later: &str, seconds: &str) -> f64 {
    let of =
        |page: &str, name: &str, labels: &[(&str, &str)]| sum(page, &format!("{DURATIONS}_{name}"), labels);
    let fast = of(later, "bucket", &[("le", seconds)]) - of(earlier, "bucket", &[("le", seconds)]);
    fast / (of(later, "count", &[]) - of(earlier, "count", &[]))
}

/// All Pods are there, and every one is split.
async fn split_everywhere(spaces: &[Ns], load: Load) -> Result<()> {
    for ns in spaces {
        let wanted = load.deployments * load.replicas;
        let pods = ns
            .until_list(load.limit, kinds::POD, "kagenti.io/type=agent", "all Pods", |pods| {
                pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).count()
                    == wanted
            })
            .await?;
        for pod in pods {
            let whole = ["envoy-proxy", "spiffe-helper"].iter().all(|name| pod.container(name).is_some());
            ensure!(whole, "not split: {}", pod.readable());
        }
    }
    Ok(())
}

fn writes(suite: &Suite, mark: Mark) -> Result<usize> {
    let all = suite.object_writes(mark, WEBHOOK)?;
    Ok(all.iter().filter(|write| write.namespace.starts_with("split-scale-")).count())
}

/// Every request for one of the namespaces, reads too.
fn requests(suite: &Suite, mark: Mark) -> Result<usize> {
    let all = suite.cluster().audit()?.since(mark, |request| {
        request.short_user() == WEBHOOK && request.namespace.starts_with("split-scale-")
    })?;
    Ok(all.len())
}
