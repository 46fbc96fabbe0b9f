//! Scenario 8: deletion takes away what enrolment brought, and nothing else.

use anyhow::Result;
use api_types::names::{annotation, label};
use e2e::{Json as _, Suite, kinds, objects};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, assert_clean, revision, settled};

#[tokio::test]
async fn runtime_08_delete() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-08", Value::Null).await?;
    let workload = objects::deployment("leaver")
        .label("protocol.kagenti.io/a2a", "")
        .annotation(annotation::SKILLS, r#"["forecast"]"#)
        .template_annotation("example.com/kept", "yes");
    ns.create(workload).await?;
    let original = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "leaver").await?;
    ns.create(objects::agent_runtime("leaver", "leaver")).await?;
    ns.until_ready(WITHIN, "leaver").await?;
    let before = settled(&ns, kinds::DEPLOYMENT, "leaver").await?;

    ns.delete(kinds::AGENT_RUNTIME, "leaver").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "leaver").await?;
    let after = ns.get(kinds::DEPLOYMENT, "leaver").await?;
    assert_clean(&after);
    assert_eq!(after.label(label::MANAGED_BY), None);
    assert_eq!(after.annotation(annotation::SKILLS), Some(r#"["forecast"]"#));
    assert_eq!(after.label("protocol.kagenti.io/a2a"), Some(""));
    assert_eq!(after.template_annotation("example.com/kept"), Some("yes"));
    assert_eq!(after.template(), original.template(), "the template is as it was");

    let after = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "leaver").await?;
    assert_eq!(revision(&after)?, revision(&before)? + 1, "one rollout");
    assert_eq!(ns.replica_sets("leaver").await?.len(), 2, "back to the first ReplicaSet");
    ns.until_event(WITHIN, "leaver", "Unenrolled").await?;
    let pods = ns.until_pods(ROLLOUT, "leaver", 1).await?;
    assert!(pods[0].container("authbridge-proxy").is_none(), "new Pods are not injected");
    Ok(())
}

/// §8.1 case S: the selector pins the type label, so the template keeps it and injection is switched off.
#[tokio::test]
async fn runtime_08_selector_requires_the_label() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-08s", Value::Null).await?;
    let workload = objects::deployment("pinned")
        .template_label(label::TYPE, "agent")
        .spec(json!({"selector": {"matchLabels": {label::TYPE: "agent"}}}));
    ns.create(workload).await?;
    ns.create(objects::agent_runtime("pinned", "pinned")).await?;
    ns.until_ready(WITHIN, "pinned").await?;

    ns.delete(kinds::AGENT_RUNTIME, "pinned").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "pinned").await?;
    let after = ns.get(kinds::DEPLOYMENT, "pinned").await?;
    assert_eq!(after.label(label::TYPE), None);
    assert_eq!(after.template_label(label::TYPE), Some("agent"));
    assert_eq!(after.template_label(label::INJECT), Some("disabled"));
    assert_eq!(after.template_label(label::ENROLLED), None);
    assert_eq!(after.template_annotation(annotation::CONFIG_HASH), None);
    assert_eq!(after.annotation(annotation::INJECT_DISABLED_BY), Some("unenroll"));
    ns.until_event(WITHIN, "pinned", "SelectorRequiresTypeLabel").await?;

    // Enrolled again, the label that we put there goes.
    ns.create(objects::agent_runtime("again", "pinned")).await?;
    ns.until_ready(WITHIN, "again").await?;
    let back = ns.get(kinds::DEPLOYMENT, "pinned").await?;
    assert_eq!(back.template_label(label::INJECT), None);
    assert_eq!(back.annotation(annotation::INJECT_DISABLED_BY), None);
    Ok(())
}
