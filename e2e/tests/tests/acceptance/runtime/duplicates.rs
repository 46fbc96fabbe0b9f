//! Scenario 16: one AgentRuntime per workload, and no contradiction in its modes.

use anyhow::Result;
use e2e::admission::AGENT_RUNTIMES;
use e2e::{Json as _, Suite, kinds, objects};
use serde_json::{Value, json};

#[tokio::test]
async fn runtime_16_duplicate_denied() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-16", Value::Null).await?;
    ns.create(objects::agent_runtime("first", "weather")).await?;
    let reply = ns.refused(objects::agent_runtime("second", "weather")).await?;
    assert_eq!(reply.status, 403, "{}", reply.message());
    let message = "an AgentRuntime already targets Deployment weather in namespace runtime-16: first";
    assert!(reply.message().ends_with(message), "{}", reply.message());

    // The API version of the target makes no difference; kind and namespace do.
    let old =
        objects::agent_runtime("old", "weather").spec(json!({"targetRef": {"apiVersion": "apps/v1beta2"}}));
    assert!(ns.refused(old).await?.message().ends_with(message));
    let set = objects::agent_runtime("set", "weather").spec(json!({"targetRef": {"kind": "StatefulSet"}}));
    ns.create(set).await?;
    let elsewhere = suite.namespace("runtime-16b", Value::Null).await?;
    elsewhere.create(objects::agent_runtime("second", "weather")).await?;

    ns.set_spec(kinds::AGENT_RUNTIME, "first", json!({"mtlsMode": "permissive"})).await?;
    ns.set_labels(kinds::AGENT_RUNTIME, "first", json!({"example.com/a": "b"})).await?;
    let reply = ns
        .try_patch(
            kinds::AGENT_RUNTIME,
            "set",
            json!({"spec": {"targetRef": {"kind": "Deployment", "apiVersion": "apps/v1"}}}),
        )
        .await?;
    assert_eq!(reply.status, 403, "an update into a duplicate: {}", reply.message());

    // The name is free again once the first one goes.
    ns.delete(kinds::AGENT_RUNTIME, "first").await?;
    ns.create(objects::agent_runtime("second", "weather")).await?;
    Ok(())
}

#[tokio::test]
async fn runtime_16_tls_bridge_modes() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-16c", Value::Null).await?;
    let bridge = |name: &str, mode: Value| {
        objects::agent_runtime(name, name).spec(json!({"tlsBridgeMode": "enabled", "authBridgeMode": mode}))
    };
    let text = "tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite";
    for mode in ["envoy-sidecar", "waypoint"] {
        let reply = ns.refused(bridge(mode, json!(mode))).await?;
        assert!(reply.message().contains(text), "{}", reply.message());
        // The schema refuses it first; the validator says the same to API servers that skip the rule.
        let response = suite
            .admission(0)
            .await?
            .ask(
                AGENT_RUNTIMES,
                json!({
                    "uid": "1",
                    "kind": {"group": "agent.kagenti.dev", "version": "v1alpha1", "kind": "AgentRuntime"},
                    "resource": {"group": "agent.kagenti.dev", "version": "v1alpha1", "resource": "agentruntimes"},
                    "namespace": ns.name(),
                    "name": mode,
                    "operation": "CREATE",
                    "userInfo": {},
                    "object": bridge(mode, json!(mode)).with(json!({"metadata": {"namespace": ns.name()}})).build(),
                }),
            )
            .await?;
        assert_eq!(response.pointer("/allowed"), Some(&json!(false)), "{response}");
        assert!(response.text("/status/message").starts_with(text), "{response}");
    }
    ns.create(bridge("lite", json!("lite"))).await?;
    ns.create(bridge("unset", Value::Null)).await?;
    ns.create(bridge("proxy", json!("proxy-sidecar"))).await?;
    // Every combination of mtlsMode with authBridgeMode is allowed (§9.1).
    for mode in ["proxy-sidecar", "envoy-sidecar", "lite", "waypoint"] {
        for mtls in ["disabled", "permissive", "strict"] {
            let name = format!("{mode}-{mtls}");
            let spec = json!({"authBridgeMode": mode, "mtlsMode": mtls});
            ns.create(objects::agent_runtime(&name, &name).spec(spec)).await?;
        }
    }
    Ok(())
}
