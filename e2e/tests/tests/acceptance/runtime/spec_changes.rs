//! Scenario 9: what a change of the AgentRuntime alone does to Pods.

use anyhow::Result;
use api_types::names::{annotation, condition};
use e2e::{Json as _, Suite, kinds};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, enrolled, revision, settled};

#[tokio::test]
async fn runtime_09_spec_changes() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-09", Value::Null).await?;
    let before = enrolled(&ns, "steady").await?;
    let pods = ns.until_pods(ROLLOUT, "steady", 1).await?;
    assert!(
        pods[0].annotation(annotation::AUTHBRIDGE_STATUS).is_some(),
        "an injected Pod: {}",
        pods[0].readable()
    );

    let steps = [
        (json!({"identity": {"spiffe": {"trustDomain": "example.org"}}}), "identity"),
        (json!({"identity": {"allowedAudiences": ["partner"]}}), "identity"),
        (json!({"inboundInterception": "transparent"}), "identity, inboundInterception"),
        (json!({"inboundInterception": null, "egressEnforcement": "none"}), "egressEnforcement, identity"),
    ];
    for (change, waiting) in steps {
        let ending = format!("; spec changes that wait for new pods: {waiting}");
        ns.set_spec(kinds::AGENT_RUNTIME, "steady", change.clone()).await?;
        ns.until(
            WITHIN,
            kinds::AGENT_RUNTIME,
            "steady",
            &format!("Ready after {change} to end {ending:?}"),
            |runtime| {
                let ready = runtime.condition(condition::READY);
                ready.short() == "True/Configured"
                    && runtime.number("/status/observedGeneration") == Some(runtime.generation())
                    && ready.message.ends_with(&ending)
            },
        )
        .await?;
        let now = ns.get(kinds::DEPLOYMENT, "steady").await?;
        assert_eq!(now.generation(), before.generation(), "{change} touched the Deployment");
    }

    ns.set_spec(kinds::AGENT_RUNTIME, "steady", json!({"mtlsMode": "strict"})).await?;
    ns.until(WITHIN, kinds::DEPLOYMENT, "steady", "mtls-mode strict", |deployment| {
        deployment.template_annotation(annotation::MTLS_MODE) == Some("strict")
    })
    .await?;
    let after = settled(&ns, kinds::DEPLOYMENT, "steady").await?;
    assert_eq!(revision(&after)?, revision(&before)? + 1, "one rollout");
    let mut template = after.template().clone();
    template["metadata"]["annotations"][annotation::MTLS_MODE] = json!("permissive");
    assert_eq!(&template, before.template(), "only that annotation changed");
    ns.until(ROLLOUT, kinds::AGENT_RUNTIME, "steady", "nothing to wait any more", |runtime| {
        !runtime.condition(condition::READY).message.contains("wait for new pods")
    })
    .await?;
    Ok(())
}
