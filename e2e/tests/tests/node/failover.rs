//! Packaging 18: the leader of two replicas is gone without a word.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, Stopwatch, api, kinds, objects, secs};
use local_cluster::Mark;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::installed::Turn;
use crate::release;

const LEASE: &str = "runtime-ctl.kagenti.dev";

/// First and last write of each Pod of runtime-ctl in a namespace, by the audit log: the API server knows which Pod a token
/// belongs to.
pub(crate) fn spans(turn: &Turn, mark: Mark, ns: &Ns) -> Result<BTreeMap<String, (String, String)>> {
    let writes = turn.cluster().audit()?.since(mark, |request| {
        request.short_user() == "kagenti-runtime-ctl"
            && request.is_write()
            && request.namespace == ns.name()
            && request.resource != "events"
    })?;
    let mut spans = BTreeMap::<String, (String, String)>::new();
    for write in writes {
        ensure!(!write.pod.is_empty(), "the API server does not say whose token it was: {write:?}");
        let time = write.time;
        let span = spans.entry(write.pod).or_insert_with(|| (time.clone(), time.clone()));
        span.0 = span.0.clone().min(time.clone());
        span.1 = span.1.clone().max(time);
    }
    Ok(spans)
}

/// Never two writers: the first write of one comes after the last one of the other.
pub(crate) fn one_after_the_other(spans: &BTreeMap<String, (String, String)>) -> Result<()> {
    let mut in_time: Vec<_> = spans.iter().collect();
    in_time.sort_by_key(|(_, (first, _))| first.clone());
    for pair in in_time.windows(2) {
        ensure!(pair[0].1.1 < pair[1].1.0, "two writers: {in_time:#?}");
    }
    Ok(())
}

/// Enrols workloads without Pods.
async fn enrol(ns: &Ns, names: &[String]) -> Result<()> {
    for name in names {
        ns.create(objects::deployment(name).replicas(0)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
    }
    Ok(())
}

/// Process ids, as this machine counts them, of the processes in a container.
fn processes_of(container: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("listing /proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is not one of them.
        let cgroups = std::fs::read_to_string(Path::new("/proc").join(entry.file_name()).join("cgroup"));
        if cgroups.is_ok_and(|cgroups| cgroups.contains(container)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Sends a signal to every process in the first container of a Pod; how many there were. One that has ended meanwhile takes none.
pub(crate) fn signal(pod: &Value, signal: &str) -> Result<usize> {
    let id = pod.text("/status/containerStatuses/0/containerID");
    let container = id.strip_prefix("containerd://").with_context(|| format!("the container {id:?}"))?;
    let processes = processes_of(container)?;
    for pid in &processes {
        Command::new("kill").args([signal, &pid.to_string()]).output().context("kill")?;
    }
    Ok(processes.len())
}

/// Ends a Pod's process without a word, and its Pod with it. It is stopped first, which is as dead for the Lease: killed first, the
/// kubelet might start the same Pod's container again, which may go on as the leader that it was.
async fn kill9(operator: &Ns, pod: &Value) -> Result<()> {
    ensure!(signal(pod, "-STOP")? > 0, "no process in {}", pod.name());
    let path = format!("{}/{}", kinds::POD.path(Some(operator.name())), pod.name());
    let at_once = json!({"gracePeriodSeconds": 0});
    let reply = api::call(operator.client(), "DELETE", &path, "application/json", Some(&at_once)).await?;
    reply.ok().context("deleting the Pod by force")?;
    // The kubelet may have done it already.
    signal(pod, "-KILL").map(drop)
}

/// Follows the log of a Pod until its container ends; each line begins with its time.
fn follow(operator: &Ns, pod: &str) -> Result<JoinHandle<Result<String>>> {
    let path = format!("{}/{pod}/log?follow=true&timestamps=true", kinds::POD.path(Some(operator.name())));
    let request = http::Request::get(path).body(Vec::new()).context("a request")?;
    let client = operator.client().clone();
    Ok(tokio::spawn(async move { client.request_text(request).await.context("following a log") }))
}

/// When a process says that it got SIGTERM.
fn told_to_end(log: &str) -> Result<jiff::Timestamp> {
    let line =
        log.lines().find(|line| line.contains("SIGTERM")).with_context(|| format!("no SIGTERM in {log}"))?;
    let time = line.split_whitespace().next().unwrap_or_default();
    time.parse().with_context(|| format!("the time {time:?}"))
}

/// Packaging 18: the leader's process is killed and its Pod is gone with it. The other replica has the Lease within 17 s,
/// work that came meanwhile is done, and the two never wrote at the same time. Then the new leader's Pod is deleted: the next
/// one has the Lease within 3 s of SIGTERM.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_18_leader_failover() -> Result<()> {
    let turn = Turn::take().await?;
    let operator = &turn.operator;
    let ns = turn.node().namespace("failover", json!({})).await?;
    let mark = turn.cluster().audit()?.mark()?;
    let names: Vec<String> = (0..10).map(|number| format!("agent-{number}")).collect();
    let (before, meanwhile) = names.split_at(5);
    enrol(&ns, before).await?;
    for name in before {
        ns.until_ready(secs(60), name).await?;
    }
    let leader = operator.get(kinds::LEASE, LEASE).await?.text("/spec/holderIdentity").to_owned();
    let pod = operator.get(kinds::POD, &leader).await?;

    let watch = Stopwatch::start();
    kill9(operator, &pod).await?;
    enrol(&ns, meanwhile).await?;
    let other = |lease: &Value| lease.text("/spec/holderIdentity") != leader;
    let lease = operator.until(secs(60), kinds::LEASE, LEASE, "another leader", other).await?;
    let took = watch.spent();
    ensure!(!lease.text("/spec/holderIdentity").is_empty(), "it was given away, so it was not killed");
    for name in meanwhile {
        ns.until_ready(secs(30), name).await?;
    }
    eprintln!("the Lease moved after {:.1} s", took.as_secs_f64());
    ensure!(took <= secs(17), "the Lease moved after {took:?}");

    let spans = spans(&turn, mark, &ns)?;
    assert_eq!(spans.len(), 2, "{spans:#?}");
    one_after_the_other(&spans)?;
    release::until_ready(operator, secs(90)).await?;

    let leader = lease.text("/spec/holderIdentity").to_owned();
    let log = follow(operator, &leader)?;
    let watch = Stopwatch::start();
    operator.delete(kinds::POD, &leader).await?;
    let other = |lease: &Value| ![leader.as_str(), ""].contains(&lease.text("/spec/holderIdentity"));
    operator.until(secs(30), kinds::LEASE, LEASE, "the next leader", other).await?;
    let moved = jiff::Timestamp::now();
    let log =
        tokio::time::timeout(secs(60), log).await.context("a log that goes on")?.context("its log")??;
    // How long the kubelet took until it sent the signal is not the product's matter.
    let took = moved.duration_since(told_to_end(&log)?);
    let took = watch.less_stalls(took.try_into().context("a leader before the signal")?);
    eprintln!("a Lease that was given away moved after {:.1} s", took.as_secs_f64());
    ensure!(took <= secs(3), "a Lease that was given away moved after {took:?}");
    release::until_ready(operator, secs(90)).await
}
