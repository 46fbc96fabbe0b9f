//! Things that happen at the same instant.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::names::condition;
use e2e::{Json as _, Suite, kinds, objects, secs};
use futures::future::try_join_all;
use local_cluster::Component;
use serde_json::{Value, json};

use super::fixture::{bare, runtime_ctl};

/// Without the webhook nothing stops two AgentRuntimes for one workload: one of them wins, and it stays so (§9.2).
#[tokio::test]
async fn fault_two_agent_runtimes_at_the_same_instant() -> Result<()> {
    let suite = bare().await?;
    let ctl = Component::start(suite.cluster(), runtime_ctl(&suite)).await?;
    ctl.wait_ready(secs(30)).await?;
    let ns = suite.namespace("fault-twins", json!({})).await?;
    let pairs: Vec<String> = (0..10).map(|number| format!("twin-{number}")).collect();
    for name in &pairs {
        ns.create(objects::deployment(name)).await?;
    }
    // Different types: two writers would roll the workload back and forth for ever.
    let twins = pairs.iter().flat_map(|name| {
        ["agent", "tool"]
            .map(|kind| objects::agent_runtime(&format!("{name}-{kind}"), name).spec(json!({"type": kind})))
    });
    try_join_all(twins.map(|twin| ns.create(twin))).await?;
    for name in &pairs {
        let (mut all, mut stamps) = (Vec::new(), Vec::new());
        for kind in ["agent", "tool"] {
            let twin = ns.get(kinds::AGENT_RUNTIME, &format!("{name}-{kind}")).await?;
            stamps.push((twin.text("/metadata/creationTimestamp").to_owned(), kind));
            all.push(twin);
        }
        stamps.sort_unstable();
        let (winner, loser) = (stamps[0].1, stamps[1].1);
        ns.until_ready(secs(20), &format!("{name}-{winner}")).await?;
        let loser = format!("{name}-{loser}");
        let lost = ns.until_condition(secs(20), &loser, condition::READY, "False/DuplicateTarget").await?;
        ensure!(
            lost.condition(condition::READY).message.contains(&format!("{name}-{winner}")),
            "the message names the winner: {}",
            lost.readable()
        );
        let deployment = ns.get(kinds::DEPLOYMENT, name).await?;
        assert_eq!(deployment.template_label("kagenti.io/type"), Some(winner), "{name}");
    }
    // No ping-pong: every workload was changed once per winner, and stays.
    try_join_all(pairs.iter().map(|name| ns.stays(secs(5), kinds::DEPLOYMENT, name))).await?;
    handover(&suite, &ns).await
}

/// The winner goes: the other one takes over in place, without a moment without labels.
async fn handover(suite: &Suite, ns: &e2e::Ns) -> Result<()> {
    ns.create(objects::deployment("heir")).await?;
    let first = objects::agent_runtime("first", "heir");
    ns.create(first).await?;
    ns.until_ready(secs(20), "first").await?;
    // Older by a second, so that it is the winner whatever the names are.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ns.create(objects::agent_runtime("another", "heir")).await?;
    ns.until_condition(secs(20), "another", condition::READY, "False/DuplicateTarget").await?;
    let template = |object: &Value| object.template().clone();
    let before = template(&ns.get(kinds::DEPLOYMENT, "heir").await?);
    let mark = suite.cluster().audit()?.mark()?;
    ns.delete(kinds::AGENT_RUNTIME, "first").await?;
    ns.until_ready(secs(20), "another").await?;
    ns.gone(secs(20), kinds::AGENT_RUNTIME, "first").await?;
    let after = ns.get(kinds::DEPLOYMENT, "heir").await?;
    assert_eq!(template(&after), before, "no rollout");
    assert_eq!(after.annotation("agent.kagenti.dev/enrolled-by"), Some("another"));
    // The one who goes and the one who comes may both write the name.
    let patches = suite.object_writes(mark, "runtime-ctl")?;
    let patches = patches.iter().filter(|write| write.resource == "deployments").count();
    ensure!((1..=2).contains(&patches), "{patches} patches for a change of hands");
    Ok(())
}

/// The target is deleted while it is being enrolled: no stump is left behind, and the user is told.
#[tokio::test]
async fn fault_the_target_goes_in_mid_reconcile() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("fault-vanishing", Value::Null).await?;
    let rounds = 0..24_u64;
    let names: Vec<String> = rounds.clone().map(|number| format!("gone-{number}")).collect();
    try_join_all(names.iter().zip(rounds).map(async |(name, number)| {
        ns.create(objects::deployment(name).replicas(0)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        // From "not looked at yet" to "just patched".
        tokio::time::sleep(Duration::from_millis(number * 8)).await;
        ns.delete(kinds::DEPLOYMENT, name).await
    }))
    .await?;
    for name in &names {
        ns.until_condition(secs(20), name, condition::READY, "False/TargetNotFound").await?;
        assert!(ns.find(kinds::DEPLOYMENT, name).await?.is_none(), "{name}: a stump was created");
    }
    // Back again, each works; a StatefulSet in its place is another thing.
    for name in names.iter().take(4) {
        ns.create(objects::deployment(name).replicas(0)).await?;
        ns.until_ready(secs(20), name).await.with_context(|| name.clone())?;
    }
    // And the AgentRuntimes themselves can go while their targets do.
    try_join_all(names.iter().take(4).map(async |name| {
        tokio::try_join!(ns.delete(kinds::DEPLOYMENT, name), ns.delete(kinds::AGENT_RUNTIME, name))
    }))
    .await?;
    for name in names.iter().take(4) {
        ns.gone(secs(20), kinds::AGENT_RUNTIME, name).await?;
        assert!(ns.find(kinds::DEPLOYMENT, name).await?.is_none(), "{name}: a stump was created");
    }
    Ok(())
}
