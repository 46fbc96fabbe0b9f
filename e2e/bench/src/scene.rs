//! What every benchmark starts with: a bare cluster, the suite as it ships, and the counting.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use e2e::suite::{Options, RUNTIME_CTL, Suite, WEBHOOK};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use local_cluster::{ApiRequest, ClusterOptions, Component, ComponentOptions, Mark, Profile, Sum, Usage};
use serde_json::Value;

use api_types::AgentRuntime;
use e2e::space::Ns;

/// Creations under way at once: more than any client sends, and few enough that the benchmark does not queue up at the
/// API server in front of what it measures.
const PARALLEL: usize = 8;

/// A bare cluster (no SPIRE, no Keycloak) with the suite in its default settings, built for release.
/// `controller_qps`: requests per second that kube-controller-manager and the scheduler may make; `None` is their
/// own limit, 20.
pub(crate) async fn bare(controller_qps: Option<u32>) -> Result<Suite> {
    let cluster =
        ClusterOptions { nodes: 4, controller_qps, profile: Profile::Release, ..Default::default() };
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

/// Creates `count` objects in a namespace, many at once, and says so.
pub(crate) async fn create(
    space: &Ns,
    what: &str,
    count: usize,
    object: impl Fn(usize) -> Value,
) -> Result<()> {
    eprintln!("creating {count} {what}");
    fill(space, count, object).await
}

/// The same without a word.
pub(crate) async fn fill(space: &Ns, count: usize, object: impl Fn(usize) -> Value) -> Result<()> {
    stream::iter((0..count).map(|index| space.create(object(index))))
        .buffer_unordered(PARALLEL)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// Follows the AgentRuntimes of the namespace until `count` of them have each of the conditions `True`; when each
/// condition was reached, counted from `start`. A watch: lists of a thousand objects would be the load they measure.
pub(crate) async fn until_all<const N: usize>(
    space: &Ns,
    conditions: [&str; N],
    count: usize,
    start: Instant,
    limit: Duration,
) -> Result<[Duration; N]> {
    let api = Api::<AgentRuntime>::namespaced(space.client().clone(), space.name());
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut holding: [BTreeSet<String>; N] = std::array::from_fn(|_| BTreeSet::new());
    let mut reached = [None; N];
    let deadline = tokio::time::Instant::from_std(start) + limit;
    while reached.iter().any(Option::is_none) {
        let event = tokio::time::timeout_at(deadline, events.next()).await.map_err(|_| {
            let counts = holding.iter().map(BTreeSet::len);
            let counts: Vec<String> =
                conditions.iter().zip(counts).map(|(c, n)| format!("{c} {n}")).collect();
            anyhow!("not all of {count} AgentRuntimes after {limit:?}: {}", counts.join(", "))
        })?;
        let (Event::Apply(runtime) | Event::InitApply(runtime)) = event.context("the watch ended")?? else {
            continue;
        };
        for ((condition, names), at) in conditions.iter().zip(&mut holding).zip(&mut reached) {
            if holds(&runtime, condition) {
                names.insert(runtime.name_any());
            } else {
                names.remove(&runtime.name_any());
            }
            if names.len() >= count {
                at.get_or_insert_with(|| start.elapsed());
            }
        }
    }
    Ok(reached.map(Option::unwrap_or_default))
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
    /// `verb resource code` and how many, most first.
    pub(crate) kinds: Vec<(String, Sum)>,
}

/// Counts the requests of a component since `mark`.
pub(crate) fn requests(suite: &Suite, component: &str, mark: Mark) -> Result<Requests> {
    let mut kinds = Vec::new();
    let (mut total, mut writes) = (0, 0);
    for ((user, verb, resource, code), sum) in suite.cluster().audit()?.counts(mark)? {
        let aside =
            matches!(resource.as_str(), "leases" | "events" | "subjectaccessreviews" | "tokenreviews" | "");
        if user != component || aside || matches!(verb.as_str(), "list" | "watch") {
            continue;
        }
        total += sum.count;
        if verb != "get" {
            writes += sum.count;
        }
        kinds.push((format!("{verb} {resource} {code}"), sum));
    }
    kinds.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.count));
    Ok(Requests { total, writes, kinds })
}

/// Counts the requests of a component in one namespace since `mark`, the lists that it makes there included. Events and
/// watches are not counted.
pub(crate) fn requests_in(suite: &Suite, component: &str, space: &Ns, mark: Mark) -> Result<Requests> {
    let of = |request: &ApiRequest| {
        request.short_user() == component
            && request.namespace == space.name()
            && request.resource != "events"
            && request.verb != "watch"
    };
    let mut kinds: BTreeMap<String, Sum> = BTreeMap::new();
    let (mut total, mut writes) = (0, 0);
    for request in suite.cluster().audit()?.since(mark, of)? {
        total += 1;
        writes += usize::from(request.is_write());
        let kind = format!("{} {} {}", request.verb, request.resource, request.code);
        let sum = kinds.entry(kind).or_default();
        sum.count += 1;
        sum.took += request.took;
    }
    let mut kinds: Vec<(String, Sum)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.count));
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
