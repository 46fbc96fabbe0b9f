//! Enrolment: scenarios 1, 3, 4, 20, 25 and 27.

use anyhow::{Context as _, Result};
use api_types::names::{MANAGED_BY_OPERATOR, annotation, condition, label};
use e2e::{Json as _, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, assert_active, assert_clean, assert_enrolled, revision, settled};

#[tokio::test]
async fn runtime_01_enrol() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-01", Value::Null).await?;
    ns.create(objects::deployment("weather-agent")).await?;
    let before = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "weather-agent").await?;
    assert_eq!(ns.replica_sets("weather-agent").await?.len(), 1);

    ns.create(objects::agent_runtime("weather", "weather-agent")).await?;
    let runtime = ns.until_ready(WITHIN, "weather").await?;
    assert_active(&runtime);
    let deployment = ns.get(kinds::DEPLOYMENT, "weather-agent").await?;
    assert_enrolled(&deployment, "agent", "permissive", "weather")?;
    assert_eq!(deployment.label(label::MANAGED_BY), Some(MANAGED_BY_OPERATOR));
    let hash = deployment.template_annotation(annotation::CONFIG_HASH).context("a hash")?;
    assert_eq!(
        runtime.condition(condition::READY).message,
        format!("Workload weather-agent configured with config-hash {}", hash.get(..12).context("a hash")?)
    );
    assert_eq!(runtime.condition(condition::TARGET_RESOLVED).message, "Deployment weather-agent resolved");

    let after = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "weather-agent").await?;
    assert_eq!(revision(&after)?, revision(&before)? + 1, "one rollout");
    assert_eq!(ns.replica_sets("weather-agent").await?.len(), 2, "exactly one new ReplicaSet");
    let runtime =
        ns.until_condition(ROLLOUT, "weather", condition::PODS_CONFIGURED, "True/RolloutComplete").await?;
    assert_eq!(runtime.number("/status/configuredPods"), Some(1));

    let table = suite.cluster().kubectl(["get", "art", "-n", ns.name()]).await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "TYPE", "TARGET", "PHASE", "READY", "AGE"]);
    assert_eq!(rows[1][..5], ["weather", "agent", "weather-agent", "Active", "True"]);
    Ok(())
}

#[tokio::test]
async fn runtime_03_tool() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-03", Value::Null).await?;
    ns.create(objects::deployment("calculator")).await?;
    ns.create(objects::agent_runtime("calculator", "calculator").spec(json!({"type": "tool"}))).await?;
    ns.until_ready(WITHIN, "calculator").await?;
    let deployment = settled(&ns, kinds::DEPLOYMENT, "calculator").await?;
    assert_enrolled(&deployment, "tool", "permissive", "calculator")?;
    assert!(ns.list(kinds::AGENT_CARD, "").await?.is_empty(), "no AgentCard for a tool");
    Ok(())
}

#[tokio::test]
async fn runtime_04_stateful_set() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-04", Value::Null).await?;
    ns.create(objects::stateful_set("memory").replicas(2)).await?;
    ns.rolled_out(ROLLOUT, kinds::STATEFUL_SET, "memory").await?;
    let runtime =
        objects::agent_runtime("memory", "memory").spec(json!({"targetRef": {"kind": "StatefulSet"}}));
    ns.create(runtime).await?;
    let runtime = ns.until_ready(WITHIN, "memory").await?;
    assert_active(&runtime);
    assert_enrolled(&ns.get(kinds::STATEFUL_SET, "memory").await?, "agent", "permissive", "memory")?;

    let runtime =
        ns.until_condition(ROLLOUT, "memory", condition::PODS_CONFIGURED, "True/RolloutComplete").await?;
    assert_eq!(runtime.number("/status/configuredPods"), Some(2));
    Ok(())
}

/// A client that patches the Deployment's annotations 20 times a second meanwhile.
#[tokio::test]
async fn runtime_20_conflict() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-20", Value::Null).await?;
    ns.create(objects::deployment("busy")).await?;
    // Its first rollout, so that the enrolment is the second one.
    ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "busy").await?;
    let writer = {
        let ns = ns.clone();
        async move {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
            for index in 0..120 {
                tick.tick().await;
                ns.annotate(kinds::DEPLOYMENT, "busy", json!({format!("example.com/n{index}"): "here"}))
                    .await?;
            }
            anyhow::Ok(())
        }
    };
    let enrolment = async {
        tokio::time::sleep(secs(1)).await;
        ns.create(objects::agent_runtime("busy", "busy")).await?;
        ns.until_ready(WITHIN, "busy").await
    };
    let (written, runtime) = tokio::join!(writer, enrolment);
    written?;
    assert_active(&runtime?);
    let deployment = settled(&ns, kinds::DEPLOYMENT, "busy").await?;
    assert_enrolled(&deployment, "agent", "permissive", "busy")?;
    for index in 0..120 {
        assert_eq!(
            deployment.annotation(&format!("example.com/n{index}")),
            Some("here"),
            "annotation {index}"
        );
    }
    assert_eq!(revision(&deployment)?, 2, "one rollout");
    Ok(())
}

#[tokio::test]
async fn runtime_25_foreign_managed_by() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-25", Value::Null).await?;
    ns.create(objects::deployment("packaged").label(label::MANAGED_BY, "Helm")).await?;
    ns.create(objects::agent_runtime("packaged", "packaged")).await?;
    assert_active(&ns.until_ready(WITHIN, "packaged").await?);
    let deployment = settled(&ns, kinds::DEPLOYMENT, "packaged").await?;
    assert_enrolled(&deployment, "agent", "permissive", "packaged")?;
    assert_eq!(deployment.label(label::MANAGED_BY), Some("Helm"));

    ns.delete(kinds::AGENT_RUNTIME, "packaged").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "packaged").await?;
    let deployment = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "packaged").await?;
    assert_clean(&deployment);
    assert_eq!(deployment.label(label::MANAGED_BY), Some("Helm"));
    Ok(())
}

/// README decision 5: the type of an Agent-owned Deployment belongs to its Agent.
#[tokio::test]
async fn runtime_27_agent_owned() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-27", Value::Null).await?;
    let agent = ns.create(objects::named(kinds::AGENT, "owner")).await?;
    let owned = objects::deployment("owned").label(label::TYPE, "agent").template_label(label::TYPE, "agent");
    ns.create(owned.with(json!({"metadata": {"ownerReferences": [{
        "apiVersion": kinds::AGENT.api_version(),
        "kind": kinds::AGENT.kind,
        "name": "owner",
        "uid": agent.uid(),
        "controller": true,
    }]}})))
    .await?;
    ns.create(objects::agent_runtime("owned", "owned")).await?;
    ns.until_ready(WITHIN, "owned").await?;
    assert_enrolled(&settled(&ns, kinds::DEPLOYMENT, "owned").await?, "agent", "permissive", "owned")?;

    ns.delete(kinds::AGENT_RUNTIME, "owned").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "owned").await?;
    let deployment = ns.get(kinds::DEPLOYMENT, "owned").await?;
    assert_eq!(deployment.label(label::TYPE), Some("agent"));
    assert_eq!(deployment.template_label(label::TYPE), Some("agent"));
    assert_eq!(deployment.template_label(label::ENROLLED), None);
    assert_eq!(deployment.template_annotation(annotation::MTLS_MODE), None);
    assert_eq!(deployment.annotation(annotation::ENROLLED_BY), None);
    assert_eq!(deployment.label(label::MANAGED_BY), None);
    Ok(())
}
