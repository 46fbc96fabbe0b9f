//! Isolate many agents: the policies of a cluster from nothing, then the way from a verdict to its policy (card §15.5).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e::space::Ns;
use e2e::suite::{Options, Suite};
use e2e::{kinds, objects};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use local_cluster::{ClusterOptions, Component, ComponentOptions, Profile};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::report::{Report, Unit, megabytes};
use crate::scene;

const NETPOL_CTL: &str = "netpol-ctl";
/// Verdicts that change one after the other.
const CHANGES: usize = 300;
/// Pause between two of them, so that each reaction is measured alone.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs with `count` workloads; true when every figure that must hold did.
pub async fn run(count: usize) -> Result<bool> {
    let cluster = ClusterOptions {
        nodes: 0,
        pod_addresses: false,
        scheduler: false,
        controller_qps: Some(5_000),
        profile: Profile::Release,
        ..Default::default()
    };
    let options = Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() };
    // Before the clock starts.
    let profile = options.cluster.profile;
    tokio::task::spawn_blocking(move || local_cluster::components::build(&[NETPOL_CTL], profile))
        .await
        .context("building the component")??;
    eprintln!("starting a control plane and netpol-ctl (release build)");
    let suite = Suite::own(options).await?;
    let space = suite.namespace("bench", Value::Null).await?;
    let name = |index: usize| format!("agent-{index:05}");
    scene::create(&space, "Deployments", count, |index| {
        objects::deployment(&name(index)).replicas(0).label("kagenti.io/type", "agent").build()
    })
    .await?;
    scene::create(&space, "AgentCards", count, |index| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name(index)});
        objects::named(kinds::AGENT_CARD, &name(index)).spec(json!({"targetRef": target})).build()
    })
    .await?;
    scene::until_exist::<Deployment>(&space, count, Duration::from_secs(60)).await?;
    // Half of them is verified, half is not.
    verdicts(&space, (0..count).map(|index| (name(index), index % 2 == 0))).await?;

    let mark = suite.cluster().audit()?.mark()?;
    let component =
        ComponentOptions::new(NETPOL_CTL).args(["--enforce-network-policies", "--apiserver-cidrs=192.0.2.1"]);
    let start = Instant::now();
    let netpol = Component::start(suite.cluster(), component).await?;
    let api = Api::<NetworkPolicy>::namespaced(space.client().clone(), space.name());
    let filled = loop {
        let found = api.list_metadata(&ListParams::default().match_any()).await?.items.len();
        if found >= count {
            break start.elapsed();
        }
        if start.elapsed() > Duration::from_secs(300) {
            bail!("{found} of {count} policies after {:?}; the log: {}", start.elapsed(), netpol.log());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let requests = scene::requests(&suite, NETPOL_CTL, mark)?;
    let usage = netpol.usage()?;

    let mut reactions = reactions(&space, count, &name).await?;
    reactions.sort_unstable();
    let percentile = |p: usize| reactions.get(reactions.len() * p / 100).copied().unwrap_or_default();
    let all = all_at_once(&space, count, &name).await?;

    let idle = suite.cluster().audit()?.mark()?;
    netpol.terminate().await?;
    let restart = Instant::now();
    netpol.restart().await?;
    netpol.wait_ready(Duration::from_secs(60)).await?;
    let restart = restart.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = scene::requests(&suite, NETPOL_CTL, idle)?.writes;

    let mut report = Report::new(format!("Isolate {count} agents"));
    // The promise is one for 2,000; more take as much longer.
    let (must, aim) = (20.0_f64.max(count as f64 / 100.0), 10.0_f64.max(count as f64 / 200.0));
    report.bound(
        "until all have a policy, from nothing",
        filled.as_secs_f64(),
        &Unit::SECONDS,
        must,
        aim,
        "-",
    );
    let each = requests.total as f64 / count as f64;
    report.bound("API requests per policy", each, &Unit::COUNT, 2.0, 1.0, "-");
    report.note("CPU time for it", format!("{:.1} s", usage.cpu.as_secs_f64()));
    report.note("peak memory", format!("{:.0} MB", megabytes(usage.peak_resident)));
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    report.note("verdict to policy, median", format!("{:.0} ms", millis(percentile(50))));
    report.bound("verdict to policy, p99", millis(percentile(99)), &Unit::MILLISECONDS, 2_000.0, 100.0, "-");
    report.note("all verdicts turn at once", format!("{:.1} s", all.as_secs_f64()));
    report.note("restart to ready", format!("{:.1} s", restart.as_secs_f64()));
    report.bound("writes after a restart", idle as f64, &Unit::COUNT, 0.0, 0.0, "-");
    for (kind, sum) in &requests.kinds {
        report.note(&format!("  {kind}"), sum.count);
    }
    Ok(report.print())
}

fn status(verified: bool) -> Value {
    let (status, reason) =
        if verified { ("True", "SignatureVerified") } else { ("False", "SignatureInvalid") };
    let condition = json!({"type": "Verified", "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"status": {"conditions": [condition]}})
}

/// Writes verdicts, many at once.
async fn verdicts(space: &Ns, cards: impl Iterator<Item = (String, bool)>) -> Result<()> {
    let write = |(name, verified): (String, bool)| async move {
        space.patch_status(kinds::AGENT_CARD, &name, status(verified)).await.map(drop)
    };
    stream::iter(cards.map(write)).buffer_unordered(32).try_collect().await
}

/// Which policies turned, and when it was seen.
async fn turns(space: &Ns) -> Result<mpsc::UnboundedReceiver<(String, bool, Instant)>> {
    let api = Api::<NetworkPolicy>::namespaced(space.client().clone(), space.name());
    let version = api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let version = version.context("a list has a version")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut events = api.watch(&WatchParams::default().timeout(290), &version).await?.boxed();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let WatchEvent::Modified(policy) = event else { continue };
            let rule = policy.spec.and_then(|spec| spec.egress).and_then(|egress| egress.into_iter().next());
            let open = rule.is_some_and(|rule| rule.to.is_none());
            if sender.send((policy.metadata.name.unwrap_or_default(), open, Instant::now())).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// How long each of a few hundred single changes of a verdict took to reach its policy, as a watcher sees both.
async fn reactions(space: &Ns, count: usize, name: &impl Fn(usize) -> String) -> Result<Vec<Duration>> {
    eprintln!("changing {} verdicts one by one", CHANGES.min(count));
    let mut turned = turns(space).await?;
    let mut sent = HashMap::new();
    for index in 0..CHANGES.min(count) {
        // A few of every part of the list.
        let card = name(index * (count / CHANGES.min(count)));
        let index = card.trim_start_matches("agent-").parse::<usize>().context("a number")?;
        sent.insert(format!("{card}-signature-policy"), Instant::now());
        space.patch_status(kinds::AGENT_CARD, &card, status(index % 2 != 0)).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let mut reactions = Vec::new();
    while reactions.len() < sent.len() {
        let next = tokio::time::timeout(Duration::from_secs(30), turned.recv()).await;
        let (policy, _, at) =
            next.context("a policy did not turn within 30 s")?.context("the watch ended")?;
        if let Some(since) = sent.get(&policy) {
            reactions.push(at.saturating_duration_since(*since));
        }
    }
    Ok(reactions)
}

/// How long it takes until all policies are permissive, from the first verdict written.
async fn all_at_once(space: &Ns, count: usize, name: &impl Fn(usize) -> String) -> Result<Duration> {
    eprintln!("changing all verdicts at once");
    let start = Instant::now();
    verdicts(space, (0..count).map(|index| (name(index), true))).await?;
    let api = Api::<NetworkPolicy>::namespaced(space.client().clone(), space.name());
    loop {
        let closed = |policy: &NetworkPolicy| {
            policy.spec.iter().flat_map(|spec| spec.egress.iter().flatten()).any(|rule| rule.to.is_some())
        };
        let left =
            api.list(&ListParams::default().match_any()).await?.items.iter().filter(|p| closed(p)).count();
        if left == 0 {
            return Ok(start.elapsed());
        }
        if start.elapsed() > Duration::from_secs(120) {
            bail!("{left} policies of verified agents still isolate after {:?}", start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
