//! Bodies of scenarios that run twice: shortened among the acceptance tests, in full in the long suite.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api_types::names::{annotation, condition};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use local_cluster::ComponentOptions;
use serde_json::Value;

use crate::json::Json as _;
use crate::space::Ns;
use crate::suite::{Options, RUNTIME_CTL, Suite};
use crate::wait::{secs, wait_for, wait_patiently};
use crate::{kinds, objects};

/// Runtime 6: the target is deleted after Ready; nothing is written or said while it stays away for `quiet`; it comes
/// back.
pub async fn target_deleted(suite: &Suite, namespace: &str, quiet: Duration) -> Result<()> {
    let ns = suite.namespace(namespace, Value::Null).await?;
    ns.create(objects::deployment("passing")).await?;
    ns.create(objects::agent_runtime("passing", "passing")).await?;
    ns.until_ready(secs(5), "passing").await?;
    ns.delete(kinds::DEPLOYMENT, "passing").await?;
    let runtime = ns.until_condition(secs(5), "passing", condition::READY, "False/TargetNotFound").await?;
    ensure!(runtime.text("/status/phase") == "Error", "phase of {}", runtime.readable());
    ensure!(runtime.number("/status/configuredPods") == Some(0), "configuredPods of {}", runtime.readable());
    // Pods that were counted go a moment later; that is a change, what follows is silence.
    ns.until_list(secs(60), kinds::POD, "app=passing", "the Pods to go", <[Value]>::is_empty).await?;
    ns.until_event(secs(5), "passing", "TargetNotFound").await?;
    ns.stays(quiet, kinds::AGENT_RUNTIME, "passing").await?;
    let events = ns.events("passing", "TargetNotFound").await?;
    ensure!(Ns::occurrences(&events) == 1, "TargetNotFound was said again: {events:?}");
    ns.create(objects::deployment("passing")).await?;
    ns.until_ready(secs(5), "passing").await?;
    Ok(())
}

/// Rollouts at once in runtime 23: small against the number of workloads, so that the rate is what limits.
const BURST: u32 = 20;

/// Size of a run of runtime 23.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Namespaces.
    pub namespaces: usize,
    /// Workloads in each of them.
    pub workloads: usize,
    /// Until all are Ready, counted from the first creation.
    pub limit_seconds: u64,
    /// Rollouts per second after a change of the platform configuration.
    pub rollout_qps: u32,
    /// Replicas of each workload; each Pod costs the fake kubelets and controllers more than it costs us.
    pub replicas: i32,
}

/// Runtime 23: enrolment of many, a restart that writes nothing, a change of the platform configuration that rolls
/// each workload once, not faster than the limiter says.
pub async fn scale(size: Scale) -> Result<()> {
    let limited = ComponentOptions::new(RUNTIME_CTL)
        .args([format!("--rollout-qps={}", size.rollout_qps), format!("--rollout-burst={BURST}")]);
    let suite = Suite::own(Options::default().without_webhook().runtime_ctl([limited])).await?;
    let global = suite.global().await?;
    let namespaces: Vec<String> = (0..size.namespaces).map(|index| format!("scale-{index:03}")).collect();
    for name in &namespaces {
        suite.namespace(name, Value::Null).await?;
    }
    let total = size.namespaces * size.workloads;
    let started = Instant::now();
    let pairs = namespaces
        .iter()
        .flat_map(|ns| (0..size.workloads).map(move |index| (ns, format!("agent-{index:03}"))));
    stream::iter(pairs)
        .map(|(ns, name)| {
            let ns = global.other(ns);
            async move {
                ns.create(objects::deployment(&name).replicas(size.replicas)).await?;
                ns.create(objects::agent_runtime(&name, &name)).await
            }
        })
        .buffer_unordered(32)
        .try_for_each(async |_| Ok(()))
        .await?;
    let limit = secs(size.limit_seconds).saturating_sub(started.elapsed());
    wait_patiently(limit, &format!("{total} AgentRuntimes to be Ready"), async || {
        let ready = ready_count(&global).await?;
        ensure!(ready == total, "{ready} of {total} are");
        Ok(Some(()))
    })
    .await?;
    println!("{total} AgentRuntimes Ready after {:.1} s", started.elapsed().as_secs_f64());
    if size.replicas > 0 {
        rolled_out(&global, total).await?;
    }

    restart_writes_nothing(&suite).await?;
    platform_change(&suite, &global, size, total).await
}

async fn ready_count(global: &Ns) -> Result<usize> {
    let all = global.list(kinds::AGENT_RUNTIME, "").await?;
    Ok(all.iter().filter(|runtime| runtime.condition(condition::READY).short() == "True/Configured").count())
}

async fn rolled_out(global: &Ns, total: usize) -> Result<()> {
    wait_patiently(secs(900), "all Pods to run the enrolled template", async || {
        let all = global.list(kinds::AGENT_RUNTIME, "").await?;
        let done = all
            .iter()
            .filter(|runtime| runtime.condition(condition::PODS_CONFIGURED).status == "True")
            .count();
        ensure!(done == total, "{done} of {total} do");
        Ok(Some(()))
    })
    .await
}

async fn restart_writes_nothing(suite: &Suite) -> Result<()> {
    let runtime_ctl = suite.runtime_ctl(0)?;
    // What is still on its way belongs to the enrolment.
    wait_for(secs(120), "the enrolment to be quiet for two seconds", async || {
        let mark = suite.cluster().audit()?.mark()?;
        tokio::time::sleep(secs(2)).await;
        let writes = suite.object_writes(mark, RUNTIME_CTL)?;
        ensure!(writes.is_empty(), "{} writes", writes.len());
        Ok(Some(()))
    })
    .await?;
    runtime_ctl.terminate().await?;
    let mark = suite.cluster().audit()?.mark()?;
    runtime_ctl.restart().await?;
    runtime_ctl.wait_ready(secs(60)).await?;
    // Ready means that everything is listed; the passes over it follow within seconds.
    tokio::time::sleep(secs(10)).await;
    let writes = suite.object_writes(mark, RUNTIME_CTL)?;
    ensure!(writes.is_empty(), "the restart wrote {} times, first {:?}", writes.len(), writes.first());
    Ok(())
}

async fn platform_change(suite: &Suite, global: &Ns, size: Scale, total: usize) -> Result<()> {
    let before = hashes(global).await?;
    ensure!(before.len() == 1, "one hash for namespaces without inputs: {before:?}");
    let old = before.into_keys().next().context("a hash")?;
    let mark = suite.cluster().audit()?.mark()?;
    suite.set_platform("proxy: {uid: 1500}\n").await?;
    let expected = secs((total as u64) / u64::from(size.rollout_qps));
    // No promise that it is as fast as it may be: every rollout costs the cluster some forty requests.
    wait_patiently(expected * 6 + secs(60), "every workload to have the new hash", async || {
        let now = hashes(global).await?;
        ensure!(!now.contains_key(&old), "{now:?}");
        Ok(Some(()))
    })
    .await?;
    let patches = suite.cluster().audit()?.since(mark, |request| {
        request.short_user() == RUNTIME_CTL && request.verb == "patch" && request.resource == "deployments"
    })?;
    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut moments: Vec<Timestamp> = Vec::with_capacity(patches.len());
    for patch in &patches {
        *times.entry((patch.namespace.clone(), patch.name.clone())).or_default() += 1;
        moments.push(patch.time.parse().with_context(|| format!("time of a patch: {}", patch.time))?);
    }
    ensure!(times.len() == total, "{} of {total} workloads were patched", times.len());
    ensure!(times.values().all(|count| *count == 1), "patched more than once: {times:?}");
    within_the_rate(moments, size.rollout_qps)
}

/// A bucket of `BURST` that starts full lets at most burst + rate · t through within t seconds. One second is for a
/// request that is on its way when the next one overtakes it.
fn within_the_rate(mut moments: Vec<Timestamp>, rate: u32) -> Result<()> {
    moments.sort_unstable();
    let first = *moments.first().context("a rollout")?;
    for (index, moment) in moments.iter().enumerate() {
        let seconds = moment.duration_since(first).as_secs_f64() + 1.0;
        let allowed = f64::from(BURST) + f64::from(rate) * seconds;
        ensure!(
            f64::from(u32::try_from(index)?) < allowed,
            "{} rollouts within {seconds:.2} s, allowed {allowed:.0}",
            index + 1
        );
    }
    Ok(())
}

/// How many workloads have which hash.
async fn hashes(global: &Ns) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for deployment in global.list(kinds::DEPLOYMENT, "").await? {
        let hash = deployment.template_annotation(annotation::CONFIG_HASH).unwrap_or_default().to_owned();
        *found.entry(hash).or_default() += 1;
    }
    Ok(found)
}
