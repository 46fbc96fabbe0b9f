//! Scenario 19: the webhook is away.

use anyhow::Result;
use e2e::{Json as _, Options, Suite, kinds, objects};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN};

#[tokio::test]
async fn runtime_19_webhook_down() -> Result<()> {
    let suite = Suite::own(Options::default()).await?;
    let ns = suite.namespace("orphans", Value::Null).await?;
    for name in ["stays", "goes"] {
        ns.create(objects::deployment(name)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        ns.until_ready(WITHIN, name).await?;
        ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, name).await?;
    }
    suite.webhook(0)?.kill9().await?;

    ns.set_labels(kinds::AGENT_RUNTIME, "stays", json!({"example.com/a": "b"})).await?;
    ns.delete(kinds::AGENT_RUNTIME, "goes").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "goes").await?;
    let reply = ns.try_patch(kinds::AGENT_RUNTIME, "stays", json!({"spec": {"mtlsMode": "strict"}})).await?;
    assert_eq!(reply.status, 500, "{}", reply.message());
    assert!(reply.message().contains("vagentruntime.kb.io"), "{}", reply.message());
    let reply = ns.refused(objects::agent_runtime("new", "new")).await?;
    assert!(reply.message().contains("vagentruntime.kb.io"), "{}", reply.message());
    let runtime = ns.get(kinds::AGENT_RUNTIME, "stays").await?;
    assert_eq!(runtime.label("example.com/a"), Some("b"));
    Ok(())
}
