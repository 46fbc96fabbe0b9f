//! What every benchmark starts with: a bare cluster, the suite as it ships, and the counting.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::suite::{Options, RUNTIME_CTL, Suite, WEBHOOK};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, ListParams};
use local_cluster::{ClusterOptions, Component, ComponentOptions, Mark, Profile, Usage};
use serde_json::Value;

use api_types::AgentRuntime;
use e2e::space::Ns;

/// Creations under way at once.
const PARALLEL: usize = 32;

/// A bare cluster (no SPIRE, no Keycloak) with the suite in its default settings, built for release.
pub(crate) async fn bare() -> Result<Suite> {
    let cluster = ClusterOptions {
        nodes: 4,
        controller_qps: Some(5_000),
        profile: Profile::Release,
        ..Default::default()
    };
    let options = Options {
        cluster,
        csi_driver: false,
        runtime_ctl: vec![ComponentOptions::new(RUNTIME_CTL)],
        webhook: vec![ComponentOptions::new(WEBHOOK)],
        ..Options::default()
    };
    eprintln!("starting a control plane and the suite (release build)");
    Suite::own(options).await
}

/// Creates `count` objects in a namespace, many at once.
pub(crate) async fn create(
    space: &Ns,
    what: &str,
    count: usize,
    object: impl Fn(usize) -> Value,
) -> Result<()> {
    eprintln!("creating {count} {what}");
    stream::iter((0..count).map(|index| space.create(object(index))))
        .buffer_unordered(PARALLEL)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// Waits until `count` AgentRuntimes of the namespace have the condition `condition=True`; how long it took since
/// `start`. Looks at resource versions of one paged list every 200 ms.
pub(crate) async fn until_all(
    space: &Ns,
    condition: &str,
    count: usize,
    start: Instant,
    limit: Duration,
) -> Result<Duration> {
    let api = Api::<AgentRuntime>::namespaced(space.client().clone(), space.name());
    let mut reached = 0;
    while start.elapsed() < limit {
        let list = api.list(&ListParams::default().match_any()).await.context("listing AgentRuntimes")?;
        reached = list.items.iter().filter(|runtime| holds(runtime, condition)).count();
        if reached >= count {
            return Ok(start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{reached} of {count} AgentRuntimes have {condition}=True after {limit:?}")
}

fn holds(runtime: &AgentRuntime, condition: &str) -> bool {
    let conditions = runtime.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == condition && c.status == "True")
}

/// Waits until the namespace has at least `count` objects of the kind.
pub(crate) async fn until_exist<K>(space: &Ns, count: usize, limit: Duration) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(space.client().clone(), space.name());
    local_cluster::wait_for(limit, "objects to exist", async || {
        let found = api.list_metadata(&ListParams::default().match_any()).await?.items.len();
        Ok((found >= count).then_some(()))
    })
    .await
}

/// Requests of one component that belong to its work: no lease, no Event, no list, no watch, no review.
pub(crate) struct Requests {
    pub(crate) total: usize,
    pub(crate) writes: usize,
    /// `verb resource code: count`, most first.
    pub(crate) kinds: Vec<(String, usize)>,
}

/// Counts the requests of a component since `mark`.
pub(crate) fn requests(suite: &Suite, component: &str, mark: Mark) -> Result<Requests> {
    let mut kinds = Vec::new();
    let (mut total, mut writes) = (0, 0);
    for ((user, verb, resource, code), count) in suite.cluster().audit()?.counts(mark)? {
        let aside =
            matches!(resource.as_str(), "leases" | "events" | "subjectaccessreviews" | "tokenreviews" | "");
        if user != component || aside || matches!(verb.as_str(), "list" | "watch") {
            continue;
        }
        total += count;
        if verb != "get" {
            writes += count;
        }
        kinds.push((format!("{verb} {resource} {code}"), count));
    }
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(Requests { total, writes, kinds })
}

/// CPU time and peak memory of both components together.
pub(crate) fn usage(suite: &Suite) -> Result<Usage> {
    let (a, b) = (suite.runtime_ctl(0)?.usage()?, suite.webhook(0)?.usage()?);
    Ok(Usage {
        cpu: a.cpu + b.cpu,
        resident: a.resident + b.resident,
        peak_resident: a.peak_resident + b.peak_resident,
    })
}

/// Ends a component, starts it again and says how long until its readiness probe answers.
pub(crate) async fn restart_until_ready(component: &Component, limit: Duration) -> Result<Duration> {
    component.terminate().await?;
    let start = Instant::now();
    component.restart().await?;
    component.wait_ready(limit).await?;
    Ok(start.elapsed())
}
