//! Packaging 13 and 19: Pods of the suite are evicted and ended, and nobody misses them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, Stopwatch, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

use crate::chart::NAMESPACE;
use crate::installed::Turn;
use crate::release::{self, COMPONENTS};
use crate::traffic::{self, Traffic, evict, impatient};

/// Keeps the Pod's object until its last state was read.
const FINALIZER: &str = "test.kagenti.io/look";
const NODE: &str = local_cluster::node::NAME;
/// How often a drain tries in vain, twice a second.
const REFUSALS: usize = 20;

/// Packaging 13: a node is drained, with twenty Pods per second created meanwhile. One replica of the webhook may go; the
/// other only once its successor is ready. Controllers of one replica are in nobody's way.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_13_drain_safety() -> Result<()> {
    let turn = Turn::take().await?;
    let operator = impatient(turn.cluster(), NAMESPACE).await?;
    let global = Ns::cluster(turn.operator.client().clone());
    let budgets = operator.list(kinds::POD_DISRUPTION_BUDGET, "").await?;
    let budgets: Vec<&str> = budgets.iter().map(e2e::Json::name).collect();
    assert_eq!(budgets, ["kagenti-authbridge-webhook", "kagenti-runtime-ctl"], "those of two replicas");
    turn.node().namespace("drain", json!({"kagenti-enabled": "true"})).await?;
    let traffic = Traffic::start(turn.cluster(), "drain").await?;

    let webhooks = release::pods(&operator, "authbridge-webhook").await?;
    ensure!(webhooks.len() == 2, "{} replicas", webhooks.len());
    // Cordoned, so that a successor waits until the node is given back.
    global.set_spec(kinds::NODE, NODE, json!({"unschedulable": true})).await?;
    let outcome = cordoned(&operator, &webhooks, &traffic).await;
    // Also for the tests after this one.
    global.set_spec(kinds::NODE, NODE, json!({"unschedulable": false})).await?;
    outcome?;
    wait_for(secs(90), "the second eviction once the successor is ready", async || {
        Ok((evict(&operator, webhooks[1].name()).await?.status == 201).then_some(()))
    })
    .await?;
    release::until_ready(&operator, secs(90)).await?;
    traffic.goes_on(20).await?;
    let sum = traffic.finish().await?;
    eprintln!("{sum}");
    Ok(())
}

/// One replica of the webhook goes, the other one may not, and a controller of one replica goes, too.
async fn cordoned(operator: &Ns, webhooks: &[Value], traffic: &Traffic) -> Result<()> {
    let reply = evict(operator, webhooks[0].name()).await?;
    ensure!(reply.status == 201, "{} {}", reply.status, reply.message());
    for _ in 0..REFUSALS {
        let reply = evict(operator, webhooks[1].name()).await?;
        ensure!(reply.status == 429, "{} {}", reply.status, reply.message());
        ensure!(reply.message().contains("disruption budget"), "{}", reply.message());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let card = release::pod(operator, "card-ctl").await?;
    let reply = evict(operator, card.name()).await?;
    ensure!(reply.status == 201, "one replica, no budget: {} {}", reply.status, reply.message());
    traffic.goes_on(20).await
}

/// Ends a Pod as a drain does, and says how its container ended.
async fn end(operator: &Ns, pod: &Value) -> Result<Value> {
    let name = pod.name();
    operator.patch(kinds::POD, name, json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
    operator.delete(kinds::POD, name).await?;
    let over = |pod: &Value| !pod.text("/status/containerStatuses/0/state/terminated/finishedAt").is_empty();
    let last = operator.until(secs(60), kinds::POD, name, "its end", over).await;
    operator.patch(kinds::POD, name, json!({"metadata": {"finalizers": null}})).await?;
    last
}

/// Packaging 19: the leader of runtime-ctl, a replica of the webhook and every other controller are ended
/// while fifty workloads are enrolled, fifty Pods are created at once and twenty more come every second. Everything is
/// answered, every process ends with 0 within its time, and the Leases are given away.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_19_shutdown_under_load() -> Result<()> {
    const COUNT: usize = 50;
    let turn = Turn::take().await?;
    let operator = &turn.operator;
    let work = turn.node().namespace("shutdown-work", json!({})).await?;
    turn.node().namespace("shutdown-load", json!({"kagenti-enabled": "true"})).await?;
    let traffic = Traffic::start(turn.cluster(), "shutdown-load").await?;
    let burst = impatient(turn.cluster(), "shutdown-load").await?;

    let lease = "runtime-ctl.kagenti.dev";
    let leader = operator.get(kinds::LEASE, lease).await?.text("/spec/holderIdentity").to_owned();
    let mut ending = vec![operator.get(kinds::POD, &leader).await?];
    for component in COMPONENTS.into_iter().filter(|component| *component != "runtime-ctl") {
        let pods = release::pods(operator, component).await?;
        ending.push(pods.into_iter().next().with_context(|| format!("no Pod of {component}"))?);
    }
    let mark = turn.cluster().audit()?.mark()?;
    let names: Vec<String> = (0..COUNT).map(|number| format!("agent-{number:02}")).collect();
    let enrol = names.iter().map(|name| async {
        work.create(objects::deployment(name).replicas(0)).await?;
        work.create(objects::agent_runtime(name, name)).await.map(drop)
    });
    let end_all = async {
        // In the middle of the work: some of it is done.
        wait_for(secs(60), "the first enrolments", async || {
            let done = turn.cluster().audit()?.since(mark, |request| {
                request.pod == leader && request.resource == "deployments" && request.is_write()
            })?;
            Ok((done.len() >= 5).then_some(()))
        })
        .await?;
        futures::future::try_join_all(ending.iter().map(|pod| end(operator, pod))).await
    };
    let bursts = async {
        for _ in 0..4 {
            traffic::burst(&burst, COUNT).await?;
        }
        anyhow::Ok(())
    };
    let took_over = async {
        let deleted = operator.until(secs(60), kinds::POD, &leader, "its deletion", |pod| {
            pod.pointer("/metadata/deletionTimestamp").is_some()
        });
        deleted.await?;
        let watch = Stopwatch::start();
        let other = |lease: &Value| ![leader.as_str(), ""].contains(&lease.text("/spec/holderIdentity"));
        operator.until(secs(30), kinds::LEASE, lease, "another leader", other).await?;
        anyhow::Ok(watch.spent())
    };
    let (_, ended, (), took) =
        tokio::try_join!(futures::future::try_join_all(enrol), end_all, bursts, took_over)?;

    for pod in &ended {
        let last = pod.pointer("/status/containerStatuses/0/state/terminated").context("its end")?;
        assert_eq!(last.number("/exitCode"), Some(0), "{}: {}", pod.name(), last.readable());
        // What the API server calls the deletion's time is when the grace period is over.
        let (finished, limit) = (last.text("/finishedAt"), pod.text("/metadata/deletionTimestamp"));
        assert!(finished <= limit, "{}: {finished} is after {limit}", pod.name());
    }
    for name in &names {
        work.until_ready(secs(60), name).await?;
    }
    release::until_ready(operator, secs(120)).await?;
    // The old leader may have done everything before it went: this is its successor's.
    for number in 0..5 {
        let name = format!("late-{number}");
        work.create(objects::deployment(&name).replicas(0)).await?;
        work.create(objects::agent_runtime(&name, &name)).await?;
        work.until_ready(secs(60), &name).await?;
    }
    traffic.goes_on(20).await?;
    let sum = traffic.finish().await?;
    eprintln!("the Lease moved within {:.1} s; {sum}", took.as_secs_f64());
    // One that is not given away is taken after 15 s at the earliest.
    ensure!(took <= secs(10), "a Lease that was given away was taken after {took:?}");
    let spans = crate::failover::spans(&turn, mark, &work)?;
    ensure!(spans.len() >= 2, "only one of them wrote: {spans:?}");
    crate::failover::one_after_the_other(&spans)
}
