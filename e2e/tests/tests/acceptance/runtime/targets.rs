//! Targets that are missing, lost, of the wrong kind or changed: scenarios 5, 6, 7 and 17.

use anyhow::Result;
use api_types::names::condition;
use e2e::{Json as _, Ns, Suite, kinds, objects, scenarios, secs};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, assert_active, assert_clean, assert_enrolled, enrolled};

#[tokio::test]
async fn runtime_05_target_created_later() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-05", Value::Null).await?;
    ns.create(objects::agent_runtime("early", "late")).await?;
    let runtime =
        ns.until_condition(WITHIN, "early", condition::TARGET_RESOLVED, "False/TargetNotFound").await?;
    assert_eq!(
        runtime.condition(condition::TARGET_RESOLVED).message,
        "apps/v1/Deployment late not found in namespace runtime-05"
    );
    assert_eq!(runtime.condition(condition::READY).short(), "False/TargetNotFound");
    assert_eq!(runtime.text("/status/phase"), "Error");
    assert_eq!(runtime.number("/status/configuredPods"), Some(0));
    assert_eq!(runtime.number("/status/observedGeneration"), Some(runtime.generation()));
    let event = ns.until_event(WITHIN, "early", "TargetNotFound").await?;
    assert_eq!(event.text("/type"), "Warning");
    assert_eq!(event.text("/note"), runtime.condition(condition::TARGET_RESOLVED).message);

    ns.create(objects::deployment("late")).await?;
    assert_active(&ns.until_ready(WITHIN, "early").await?);
    assert_eq!(Ns::occurrences(&ns.events("early", "TargetNotFound").await?), 1);
    Ok(())
}

/// The long suite waits the three minutes of the scenario.
#[tokio::test]
async fn runtime_06_target_deleted() -> Result<()> {
    let suite = Suite::shared().await?;
    scenarios::target_deleted(&suite, "runtime-06", secs(40)).await
}

#[tokio::test]
async fn runtime_07_unsupported_kind() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-07", Value::Null).await?;
    ns.create(objects::daemon_set("everywhere")).await?;
    let runtime =
        objects::agent_runtime("wrong", "everywhere").spec(json!({"targetRef": {"kind": "DaemonSet"}}));
    let reply = ns.post(runtime).await?;
    assert_eq!(reply.status, 201, "{}", reply.message());
    assert_eq!(reply.warnings.len(), 1, "an admission warning: {:?}", reply.warnings);
    assert!(reply.warnings[0].contains("DaemonSet"), "{:?}", reply.warnings);

    let runtime = ns
        .until_condition(WITHIN, "wrong", condition::TARGET_RESOLVED, "False/UnsupportedTargetKind")
        .await?;
    assert_eq!(runtime.condition(condition::READY).short(), "False/UnsupportedTargetKind");
    assert_eq!(runtime.text("/status/phase"), "Error");
    let daemon_set = ns.get(kinds::DAEMON_SET, "everywhere").await?;
    assert_clean(&daemon_set);
    ns.delete(kinds::AGENT_RUNTIME, "wrong").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "wrong").await?;
    Ok(())
}

/// §6 step 5: an apiVersion that is none.
#[tokio::test]
async fn runtime_07_invalid_api_version() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-07b", Value::Null).await?;
    let runtime = objects::agent_runtime("odd", "any").spec(json!({"targetRef": {"apiVersion": "a/b/c"}}));
    ns.create(runtime).await?;
    let runtime =
        ns.until_condition(WITHIN, "odd", condition::TARGET_RESOLVED, "False/InvalidAPIVersion").await?;
    assert_eq!(runtime.condition(condition::READY).short(), "False/InvalidAPIVersion");
    ns.delete(kinds::AGENT_RUNTIME, "odd").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "odd").await
}

#[tokio::test]
async fn runtime_17_target_switch() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-17", Value::Null).await?;
    let a = enrolled(&ns, "a").await?;
    assert_enrolled(&a, "agent", "permissive", "a")?;
    ns.create(objects::deployment("b")).await?;
    ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "b").await?;

    ns.set_spec(kinds::AGENT_RUNTIME, "a", json!({"targetRef": {"name": "b"}})).await?;
    ns.until(secs(10), kinds::DEPLOYMENT, "b", "b to be enrolled", |b| {
        b.label("kagenti.io/type") == Some("agent")
    })
    .await?;
    ns.until(secs(10), kinds::DEPLOYMENT, "a", "a to be cleaned", |a| a.label("kagenti.io/type").is_none())
        .await?;
    assert_clean(&ns.get(kinds::DEPLOYMENT, "a").await?);
    assert_enrolled(&ns.get(kinds::DEPLOYMENT, "b").await?, "agent", "permissive", "a")?;
    let runtime = ns.until_ready(WITHIN, "a").await?;
    assert!(runtime.condition(condition::READY).message.starts_with("Workload b configured"));
    Ok(())
}
