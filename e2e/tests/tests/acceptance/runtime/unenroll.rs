//! `runtime-ctl unenroll`, as the chart's hook runs it: beside the running controller, with rights of its own (packaging §15).

use anyhow::{Context as _, Result};
use e2e::{Json as _, Suite, kinds, objects, secs};
use local_cluster::{Component, ComponentOptions, Rights};
use serde_json::{Value, json};

use super::{WITHIN, assert_clean};

/// What packaging 21 asks for.
const AGENTS: usize = 100;

/// The hook for one namespace, with the rules of the chart's Role.
fn hook(instance: &str, namespace: &str, timeout: &str) -> Result<ComponentOptions> {
    let rule = json!({"apiGroups": ["agent.kagenti.dev"], "resources": ["agentruntimes"],
        "verbs": ["list", "watch", "delete"]});
    let rights: Rights = serde_json::from_value(json!({"scoped": [rule]})).context("rules")?;
    Ok(ComponentOptions::new("runtime-ctl")
        .instance(instance)
        .namespace(instance)
        .namespaced([namespace])
        .edit_rights(move |shipped| *shipped = rights)
        .args(["unenroll", timeout]))
}

/// Packaging 21: 100 agents go and their workloads are clean; one that somebody else holds is named; others are not touched.
#[tokio::test]
async fn packaging_21_unenroll_of_a_namespace() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("packaging-21", Value::Null).await?;
    let other = suite.namespace("packaging-21-other", Value::Null).await?;
    for index in 0..AGENTS {
        let name = format!("agent-{index:03}");
        ns.create(objects::deployment(&name).replicas(0)).await?;
        ns.create(objects::agent_runtime(&name, &name)).await?;
    }
    for ns in [&ns, &other] {
        ns.create(objects::deployment("held").replicas(0)).await?;
        ns.create(objects::agent_runtime("held", "held")).await?;
        ns.until_ready(secs(60), "held").await?;
    }
    let hold = json!({"metadata": {"finalizers": ["example.com/hold", "kagenti.io/cleanup"]}});
    ns.patch(kinds::AGENT_RUNTIME, "held", hold).await?;

    let first = Component::start(suite.cluster(), hook("unenroll-one", ns.name(), "--timeout=10s")?).await?;
    let exit = first.ended().await?;
    let log = first.log();
    assert_eq!(exit.code, Some(1), "{log}");
    let place = ns.name();
    assert!(log.contains(&format!("{place}/held: finalizer example.com/hold is not ours")), "{log}");
    assert!(log.contains(" of 101 AgentRuntimes are still there after 10s: "), "{log}");
    // Without the finalizer of the suite its workload is clean as well.
    ns.until_list(secs(60), kinds::AGENT_RUNTIME, "", "the held one only, let go by the suite", |all| {
        all.len() == 1
            && all.iter().all(|runtime| runtime.texts("/metadata/finalizers") == ["example.com/hold"])
    })
    .await?;
    for deployment in ns.list(kinds::DEPLOYMENT, "").await? {
        assert_clean(&deployment);
    }

    ns.patch(kinds::AGENT_RUNTIME, "held", json!({"metadata": {"finalizers": null}})).await?;
    let second = Component::start(suite.cluster(), hook("unenroll-two", ns.name(), "--timeout=60s")?).await?;
    assert_eq!(second.ended().await?.code, Some(0), "{}", second.log());
    assert!(ns.list(kinds::AGENT_RUNTIME, "").await?.is_empty());
    other.until_ready(WITHIN, "held").await?;
    Ok(())
}
