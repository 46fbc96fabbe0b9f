//! Scenario 22: two replicas with leader election.

use anyhow::{Context as _, Result};
use e2e::{Json as _, Ns, Options, Suite, kinds, objects, secs, suite};
use local_cluster::{ComponentOptions, Mark};
use serde_json::Value;

/// A replica with a ServiceAccount of its own, so that the audit log tells them apart.
fn replica(name: &str) -> ComponentOptions {
    let mut options = suite::runtime_ctl().instance(name).args(["--leader-elect"]);
    name.clone_into(&mut options.service_account);
    options
}

async fn enrol(ns: &Ns, name: &str, limit: std::time::Duration) -> Result<()> {
    ns.create(objects::deployment(name)).await?;
    ns.create(objects::agent_runtime(name, name)).await?;
    ns.until_ready(limit, name).await.map(drop)
}

/// First and last write of a replica since the mark.
fn writes(suite: &Suite, mark: Mark, name: &str) -> Result<Option<(String, String)>> {
    let all = suite.object_writes(mark, name)?;
    let times = || all.iter().map(|request| request.time.clone());
    Ok(times().min().zip(times().max()))
}

#[tokio::test]
async fn runtime_22_failover() -> Result<()> {
    let options = Options::default().without_webhook().runtime_ctl([replica("ctl-a"), replica("ctl-b")]);
    let suite = Suite::own(options).await?;
    let operator = suite.operator().await?;
    let ns = suite.namespace("failover", Value::Null).await?;
    let mark = suite.cluster().audit()?.mark()?;
    enrol(&ns, "one", secs(10)).await?;
    let lease = operator.get(kinds::LEASE, "runtime-ctl.kagenti.dev").await?;
    let holder = lease.text("/spec/holderIdentity").to_owned();
    let (leader, other) = if holder.contains("ctl-a") { (0, 1) } else { (1, 0) };
    let names = ["ctl-a", "ctl-b"];
    assert!(holder.contains(names[leader]), "the holder {holder:?} names the Pod");

    // Killed: the other one reconciles within 20 s.
    suite.runtime_ctl(leader)?.kill9().await?;
    enrol(&ns, "two", secs(20)).await?;
    let (_, last) = writes(&suite, mark, names[leader])?.context("the leader wrote")?;
    let (first, _) = writes(&suite, mark, names[other])?.context("the other one wrote")?;
    assert!(last < first, "two writers: {last} by the first, {first} by the second");

    // Ended gracefully: within 5 s.
    suite.runtime_ctl(leader)?.restart().await?;
    suite.runtime_ctl(leader)?.wait_ready(secs(30)).await?;
    let mark = suite.cluster().audit()?.mark()?;
    let exit = suite.runtime_ctl(other)?.terminate().await?;
    assert_eq!(exit.code, Some(0), "a graceful end");
    enrol(&ns, "three", secs(5)).await?;
    assert!(writes(&suite, mark, names[leader])?.is_some());
    Ok(())
}
