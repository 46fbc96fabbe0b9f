//! Scenario 2: nothing is written when nothing changes.

use anyhow::Result;
use e2e::{Json as _, Ns, Suite, kinds, objects, secs};
use serde_json::Value;

use super::{ROLLOUT, at_rest, enrolled, settled};

#[tokio::test]
async fn runtime_02_idle() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-02", Value::Null).await?;
    let deployment = enrolled(&ns, "quiet").await?;

    let mark = suite.cluster().audit()?.mark()?;
    // The old Pod may still be going, which the Deployment's status tells.
    at_rest(&ns, secs(2), kinds::DEPLOYMENT, "quiet").await?;
    let (workload, runtime) = tokio::join!(
        ns.stays(secs(30), kinds::DEPLOYMENT, "quiet"),
        ns.stays(secs(30), kinds::AGENT_RUNTIME, "quiet"),
    );
    assert_eq!(workload?.generation(), deployment.generation());
    runtime?;
    let writes = suite.object_writes(mark, "runtime-ctl")?;
    let writes: Vec<_> = writes.iter().filter(|write| write.namespace == ns.name()).collect();
    assert!(writes.is_empty(), "steady state writes: {writes:?}");

    // A Pod that goes and comes back changes the numbers in the status, never the workload.
    let pods = ns.pods("quiet").await?;
    ns.delete(kinds::POD, pods[0].name()).await?;
    ns.until_list(ROLLOUT, kinds::POD, "app=quiet", "another Pod", |now| {
        now.len() == 1 && now[0].name() != pods[0].name() && now[0].text("/status/phase") == "Running"
    })
    .await?;
    settled(&ns, kinds::DEPLOYMENT, "quiet").await?;
    // The status may still be that of the Pod before.
    at_rest(&ns, secs(2), kinds::DEPLOYMENT, "quiet").await?;
    let workload = ns.stays(secs(30), kinds::DEPLOYMENT, "quiet").await?;
    assert_eq!(workload.generation(), deployment.generation());
    let mut writes = suite.object_writes(mark, "runtime-ctl")?;
    writes.retain(|write| write.namespace == ns.name() && write.resource.starts_with("deployments"));
    assert!(writes.is_empty(), "the workload was written: {writes:?}");
    let events = ns.events("quiet", "Configured").await?;
    assert_eq!(Ns::occurrences(&events), 1, "{events:?}");
    assert_eq!(events[0].text("/note"), "Applied config to Deployment quiet");
    assert_eq!(events[0].text("/reportingController"), "agentruntime-controller");
    assert_eq!(events[0].text("/action"), "ApplyConfig");
    Ok(())
}

/// §6.1: the start of another process writes nothing either.
#[tokio::test]
async fn runtime_02_restart_writes_nothing() -> Result<()> {
    let suite = Suite::own(e2e::Options::default().without_webhook()).await?;
    let ns = suite.namespace("idle", Value::Null).await?;
    for name in ["one", "two"] {
        enrolled(&ns, name).await?;
    }
    ns.create(objects::agent_runtime("lost", "missing")).await?;
    ns.until_condition(super::WITHIN, "lost", "Ready", "False/TargetNotFound").await?;
    let runtime_ctl = suite.runtime_ctl(0)?;
    runtime_ctl.terminate().await?;
    let mark = suite.cluster().audit()?.mark()?;
    runtime_ctl.restart().await?;
    runtime_ctl.wait_ready(secs(30)).await?;
    for name in ["one", "two", "lost"] {
        ns.stays(secs(4), kinds::AGENT_RUNTIME, name).await?;
    }
    let writes = suite.object_writes(mark, "runtime-ctl")?;
    assert!(writes.is_empty(), "a restart wrote {writes:?}");
    Ok(())
}
