//! Processes that are killed in the middle of their work.

use anyhow::{Result, ensure};
use e2e::{Json as _, Ns, Suite, kinds, objects, secs, wait_for};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::fixture::WHOLE;

const WORKLOADS: usize = 200;
/// Every so many has a Pod; the others need none to show a rollout.
const WITH_POD: usize = 5;

#[tokio::test]
async fn fault_each_process_is_killed_in_mid_enrolment() -> Result<()> {
    let suite = WHOLE.alone().await?;
    let ns = suite.namespace("fault-crash", json!({})).await?;
    let names: Vec<String> = (0..WORKLOADS).map(|number| format!("agent-{number:03}")).collect();
    stream::iter(names.iter().enumerate())
        .map(async |(number, name)| {
            ns.create(objects::deployment(name).replicas(i32::from(number.is_multiple_of(WITH_POD)))).await
        })
        .buffer_unordered(16)
        .try_for_each(async |_| Ok(()))
        .await?;
    ns.until_list(secs(60), kinds::REPLICA_SET, "", "a ReplicaSet each", |sets| sets.len() == WORKLOADS)
        .await?;

    let create = stream::iter(&names)
        .map(async |name| {
            // While the webhook is down the API server refuses what it would validate.
            wait_for(secs(60), "the AgentRuntime to be accepted", async || {
                let reply = ns.post(objects::agent_runtime(name, name)).await?;
                ensure!(reply.status == 201 || reply.status == 409, "{} {}", reply.status, reply.message());
                Ok(Some(()))
            })
            .await
        })
        .buffer_unordered(8)
        .try_for_each(async |()| Ok(()));
    tokio::try_join!(create, kill(&suite, &ns))?;

    wait_for(secs(90), "all to be Ready", async || {
        let all = ns.list(kinds::AGENT_RUNTIME, "").await?;
        let ready =
            all.iter().filter(|runtime| runtime.condition("Ready").short() == "True/Configured").count();
        ensure!(ready == WORKLOADS, "{ready} are");
        Ok(Some(()))
    })
    .await?;
    converged(&ns, &names).await?;
    // And it is quiet: nothing is done again by the processes that were started anew.
    let mark = suite.cluster().audit()?.mark()?;
    tokio::time::sleep(secs(4)).await;
    let writes = suite.object_writes(mark, "runtime-ctl")?;
    let again: Vec<_> = writes.iter().filter(|write| write.resource == "deployments").collect();
    assert!(again.is_empty(), "{again:?}");
    Ok(())
}

/// Kills the controller, then the webhook, each when another part of the work is done.
async fn kill(suite: &Suite, ns: &Ns) -> Result<()> {
    let (ctl, hook) = (suite.runtime_ctl(0)?, suite.webhook(0)?);
    for (process, share) in [(ctl, 4), (hook, 2)] {
        let mut enrolled = 0;
        wait_for(secs(60), "part of the enrolments", async || {
            enrolled = count_enrolled(&ns.list(kinds::DEPLOYMENT, "").await?);
            Ok((enrolled >= WORKLOADS / share).then_some(()))
        })
        .await?;
        ensure!(enrolled < WORKLOADS, "all were enrolled before anything was killed");
        process.kill9().await?;
        process.restart().await?;
    }
    for process in [ctl, hook] {
        process.wait_ready(secs(60)).await?;
    }
    Ok(())
}

fn count_enrolled(deployments: &[Value]) -> usize {
    deployments.iter().filter(|object| object.template_annotation("kagenti.io/config-hash").is_some()).count()
}

/// Exactly one new ReplicaSet each, and every Pod of it has its sidecar.
async fn converged(ns: &Ns, names: &[String]) -> Result<()> {
    ns.until_list(secs(120), kinds::DEPLOYMENT, "", "the rollouts to end", |all| {
        all.iter().all(|object| {
            let count = |field: &str| object.number(&format!("/status/{field}")).unwrap_or_default();
            let wanted = object.number("/spec/replicas").unwrap_or_default();
            count("observedGeneration") == object.generation()
                && ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| count(field) == wanted)
        })
    })
    .await?;
    let sets = ns.list(kinds::REPLICA_SET, "").await?;
    let mut wrong = Vec::new();
    for name in names {
        let of = sets.iter().filter(|set| set.text("/metadata/ownerReferences/0/name") == name).count();
        if of != 2 {
            wrong.push(format!("{name}: {of}"));
        }
    }
    ensure!(wrong.is_empty(), "one rollout each means two ReplicaSets: {wrong:?}");
    for pod in ns.list(kinds::POD, "agent.kagenti.dev/enrolled=true").await? {
        ensure!(pod.container("authbridge-proxy").is_some(), "without sidecar: {}", pod.readable());
    }
    let pods = ns.list(kinds::POD, "agent.kagenti.dev/enrolled=true").await?.len();
    assert_eq!(pods, names.len().div_ceil(WITH_POD));
    Ok(())
}
