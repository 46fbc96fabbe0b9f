//! Two replicas of each component: the leader dies, the other one takes over, and never do two write.

use anyhow::{Context as _, Result, ensure};
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, Suite, kinds, objects, secs, wait_for};
use local_cluster::{Component, Mark, Relay, Signal};
use serde_json::json;

use super::fixture::{bare, holder, named, options};

async fn pair(suite: &Suite, component: &str) -> Result<[Component; 2]> {
    let replica = async |letter: char| {
        let name = format!("{component}-{letter}");
        let options = named(options(suite, component), &name).args([
            "--leader-elect",
            "--leader-elect-lease-duration=6s",
            "--leader-elect-renew-deadline=4s",
            "--leader-elect-retry-period=1s",
        ]);
        Component::start(suite.cluster(), options).await
    };
    Ok([replica('a').await?, replica('b').await?])
}

/// Index of the leader.
async fn leader(suite: &Suite, component: &str) -> Result<usize> {
    wait_for(secs(20), "a leader", async || {
        let holder = holder(suite, &format!("{component}.kagenti.dev")).await?;
        Ok(["a", "b"].iter().position(|letter| holder == format!("{component}-{letter}")))
    })
    .await
}

/// Writes of a replica that only a leader may do, as times.
fn writes(suite: &Suite, mark: Mark, name: &str) -> Result<Vec<String>> {
    Ok(suite.object_writes(mark, name)?.into_iter().map(|write| write.time).collect())
}

#[tokio::test]
async fn fault_the_leader_of_two_is_killed() -> Result<()> {
    let suite = bare().await?;
    let (ctl, hook) = (pair(&suite, RUNTIME_CTL).await?, pair(&suite, WEBHOOK).await?);
    let relay = Relay::start(&[hook[0].webhook_port()?, hook[1].webhook_port()?])?;
    suite.cluster().register_webhook(&relay.url(), None).await?;
    for process in ctl.iter().chain(&hook) {
        process.wait_ready(secs(60)).await?;
    }
    let ns = suite.namespace("fault-leaders", json!({})).await?;
    let mark = suite.cluster().audit()?.mark()?;
    for name in ["one", "two", "three"] {
        ns.create(objects::deployment(name)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        ns.until_ready(secs(20), name).await?;
    }
    let ctl_leader = leader(&suite, RUNTIME_CTL).await?;
    ctl[ctl_leader].kill9().await?;
    ns.create(objects::deployment("four")).await?;
    ns.create(objects::agent_runtime("four", "four")).await?;
    ns.until_ready(secs(20), "four").await.context("the other replica takes over")?;
    let by_first = writes(&suite, mark, &ctl[ctl_leader].spec().name)?;
    let by_second = writes(&suite, mark, &ctl[1 - ctl_leader].spec().name)?;
    ensure!(by_first.iter().max() < by_second.iter().min(), "two writers: {by_first:?} and {by_second:?}");

    // The webhook's leader keeps the certificates; admission does not depend on it.
    let hook_leader = leader(&suite, WEBHOOK).await?;
    let mark = suite.cluster().audit()?.mark()?;
    hook[hook_leader].kill9().await?;
    ns.create(objects::agent_runtime("five", "five")).await.context("validated by the other replica")?;
    let global = suite.global().await?;
    let broken = json!({"webhooks": []});
    let name = "kagenti-operator-validating-webhook-configuration";
    let before = global.get(kinds::VALIDATING_WEBHOOK, name).await?;
    let bundle = before.text("/webhooks/0/clientConfig/caBundle").to_owned();
    ensure!(!bundle.is_empty(), "no bundle was published: {}", before.readable());
    global.patch(kinds::VALIDATING_WEBHOOK, name, broken).await?;
    let mut without = before.clone();
    for webhook in without["webhooks"].as_array_mut().context("webhooks")? {
        webhook["clientConfig"]["caBundle"] = json!(null);
    }
    global.patch(kinds::VALIDATING_WEBHOOK, name, json!({"webhooks": without["webhooks"]})).await?;
    global
        .until(secs(30), kinds::VALIDATING_WEBHOOK, name, "the new leader to repair the bundle", |object| {
            object.text("/webhooks/0/clientConfig/caBundle") == bundle
        })
        .await?;
    assert_eq!(leader(&suite, WEBHOOK).await?, 1 - hook_leader);
    let killed = writes(&suite, mark, &hook[hook_leader].spec().name)?;
    assert!(killed.is_empty(), "{killed:?}");
    Ok(())
}

/// A leader that is frozen past its Lease must not write when it goes on: it ends.
#[tokio::test]
async fn fault_a_frozen_leader_ends() -> Result<()> {
    let suite = bare().await?;
    let ctl = pair(&suite, RUNTIME_CTL).await?;
    for process in &ctl {
        process.wait_ready(secs(60)).await?;
    }
    let ns = suite.namespace("fault-frozen", json!({})).await?;
    ns.create(objects::deployment("one")).await?;
    ns.create(objects::agent_runtime("one", "one")).await?;
    ns.until_ready(secs(20), "one").await?;
    let old = leader(&suite, RUNTIME_CTL).await?;
    ctl[old].signal(Signal::Stop).await?;
    wait_for(secs(30), "the other one to lead", async || {
        Ok((leader(&suite, RUNTIME_CTL).await? != old).then_some(()))
    })
    .await?;
    let mark = suite.cluster().audit()?.mark()?;
    // Something to do for a leader that believes it still is one.
    ns.set_spec(kinds::AGENT_RUNTIME, "one", json!({"mtlsMode": "disabled"})).await?;
    ns.until_ready(secs(20), "one").await?;
    ns.create(objects::deployment("two")).await?;
    ns.create(objects::agent_runtime("two", "two")).await?;
    ctl[old].signal(Signal::Cont).await?;
    let exit = ctl[old].ended().await?;
    assert_eq!(exit.code, Some(1), "a lost Lease ends the process: {exit:?}");
    ns.until_ready(secs(20), "two").await?;
    let writes = writes(&suite, mark, &ctl[old].spec().name)?;
    assert!(writes.is_empty(), "it wrote at {writes:?}");
    Ok(())
}
