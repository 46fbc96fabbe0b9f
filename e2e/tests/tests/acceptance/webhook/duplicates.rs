//! Scenario 17: two AgentRuntimes for one workload.

use anyhow::{Context as _, Result, ensure};
use e2e::api::{self, Reply};
use e2e::json::merge;
use e2e::{Json as _, Ns, Options, Suite, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

#[tokio::test]
async fn webhook_17_duplicate_targets() -> Result<()> {
    let suite = Suite::own(Options::default()).await?;
    let ns = suite.namespace("team1", Value::Null).await?;
    ns.create(objects::agent_runtime("first", "weather")).await?;
    // Immediately, while the store of the webhook may not know the first one yet.
    let refused = ns.refused(objects::agent_runtime("second", "weather")).await?;
    let message = refused.message();
    ensure!(message.contains("already targets") && message.contains("first"), "{message}");
    // The version of the API is no part of the target, its group is.
    let other_version =
        objects::agent_runtime("second", "weather").spec(json!({"targetRef": {"apiVersion": "apps/v2"}}));
    ensure!(ns.refused(other_version).await?.message().contains("already targets"));
    ns.create(objects::agent_runtime("tool", "other")).await?;

    // Both there from before the webhook was.
    let global = suite.global().await?;
    let mut configuration = validating(&global).await?;
    let name = configuration.name().to_owned();
    global.delete(kinds::VALIDATING_WEBHOOK, &name).await?;
    for (runtime, target) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")] {
        let runtime = objects::agent_runtime(runtime, target);
        wait_for(secs(20), "the validator to be gone", async || Ok(ns.create(runtime.clone()).await.ok()))
            .await?;
    }
    for runtime in ["a1", "a2", "b1", "b2"] {
        ns.until(secs(30), kinds::AGENT_RUNTIME, runtime, "its finalizer", |runtime| {
            runtime.texts("/metadata/finalizers").contains(&"kagenti.io/cleanup")
        })
        .await?;
    }
    let metadata = configuration["metadata"].as_object_mut().context("metadata")?;
    metadata.retain(|key, _| key == "name" || key == "labels");
    global.create(configuration).await?;
    wait_for(secs(20), "the validator to be back", async || {
        let reply = dry_run(&ns, objects::agent_runtime("a3", "a").into()).await?;
        Ok(reply.message().contains("already targets").then_some(()))
    })
    .await?;

    for runtime in ["a1", "a2", "b1", "b2"] {
        let labels = json!({"labels": {"team": "one"}, "annotations": {"note": "x"}});
        let reply = ns.try_patch(kinds::AGENT_RUNTIME, runtime, json!({"metadata": labels})).await?;
        assert_eq!(reply.status, 200, "{runtime}: {}", reply.message());
    }
    for runtime in ["a1", "b2"] {
        ns.delete(kinds::AGENT_RUNTIME, runtime).await?;
        ns.gone(secs(30), kinds::AGENT_RUNTIME, runtime).await?;
    }
    // The others are alone now, and may be edited.
    for runtime in ["a2", "b1"] {
        let reply = wait_for(secs(20), "an edit to be accepted", async || {
            let reply = ns
                .try_patch(kinds::AGENT_RUNTIME, runtime, json!({"spec": {"mtlsMode": "disabled"}}))
                .await?;
            Ok((reply.status == 200).then_some(reply))
        });
        reply.await?;
    }
    Ok(())
}

async fn validating(global: &Ns) -> Result<Value> {
    let all = global.list(kinds::VALIDATING_WEBHOOK, "").await?;
    let ours = all.into_iter().find(|configuration| {
        configuration.items("/webhooks").iter().any(|webhook| webhook.text("/name") == "vagentruntime.kb.io")
    });
    let mut ours = ours.context("no configuration has vagentruntime.kb.io")?;
    // Items of a list come without these.
    let kind = kinds::VALIDATING_WEBHOOK;
    merge(&mut ours, json!({"apiVersion": kind.api_version(), "kind": kind.kind}));
    Ok(ours)
}

async fn dry_run(ns: &Ns, runtime: Value) -> Result<Reply> {
    let path = format!("{}?dryRun=All", kinds::AGENT_RUNTIME.path(Some(ns.name())));
    api::call(ns.client(), "POST", &path, "application/json", Some(&runtime)).await
}
