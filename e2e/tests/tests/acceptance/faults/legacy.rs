//! The operator that this suite replaces still runs: its Lease is renewed, so nothing of ours writes (packaging §12).

use anyhow::{Context as _, Result, ensure};
use e2e::admission::Admission;
use e2e::old_operator::{HOLDER, LEASE, OldOperator};
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, kinds, objects, secs};
use local_cluster::Component;
use serde_json::json;

use super::fixture::{bare, runtime_ctl, start_webhook, until_readyz, webhook};

#[tokio::test]
async fn fault_the_old_operator_still_runs() -> Result<()> {
    let suite = bare().await?;
    let operator = suite.operator().await?;
    let legacy = OldOperator::start(&operator, 6).await?;
    let ns = suite.namespace("fault-legacy", json!({"kagenti-enabled": "true"})).await?;
    ns.create(objects::deployment("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;

    let mark = suite.cluster().audit()?.mark()?;
    let ctl = Component::start(suite.cluster(), runtime_ctl(&suite)).await?;
    let hook = start_webhook(&suite, webhook(&suite)).await?;
    for process in [&ctl, &hook] {
        let text = until_readyz(process, 503, &[LEASE, HOLDER]).await?;
        ensure!(text.contains("uninstall it or scale it to 0"), "no remedy: {text}");
    }
    // Longer than the Lease lasts: it is the renewal that counts.
    let runtime = ns.stays(secs(8), kinds::AGENT_RUNTIME, "weather").await?;
    assert!(runtime.texts("/metadata/finalizers").is_empty(), "not even a finalizer");
    for who in [RUNTIME_CTL, WEBHOOK] {
        let writes: Vec<_> = suite
            .object_writes(mark, who)?
            .into_iter()
            // The webhook's own authority may be made and published at any time.
            .filter(|write| write.resource != "secrets" && !write.resource.ends_with("webhookconfigurations"))
            .collect();
        assert!(writes.is_empty(), "{who} wrote {writes:?}");
    }
    // Admission fails closed rather than write beside the other one.
    let admission = Admission::new(&suite.global().await?, hook.webhook_port()?).await?;
    let answer = admission.pod(ns.name(), objects::pod("agent").label("kagenti.io/type", "agent")).await?;
    assert_eq!(answer["allowed"], false, "{answer}");
    ensure!(answer.text("/status/message").contains(LEASE), "{answer}");

    legacy.stop().await?;
    for process in [&ctl, &hook] {
        process.wait_ready(secs(30)).await.context("once the Lease has run out")?;
    }
    ns.until_ready(secs(20), "weather").await?;

    // Somebody rolls back: it stops again, in the same process.
    let legacy = OldOperator::start(&operator, 6).await?;
    until_readyz(&ctl, 503, &[LEASE]).await?;
    until_readyz(&hook, 503, &[LEASE]).await?;
    let mark = suite.cluster().audit()?.mark()?;
    ns.set_spec(kinds::AGENT_RUNTIME, "weather", json!({"mtlsMode": "disabled"})).await?;
    ns.stays(secs(4), kinds::DEPLOYMENT, "weather").await?;
    assert!(suite.object_writes(mark, RUNTIME_CTL)?.is_empty());
    legacy.stop().await?;
    operator.delete(kinds::LEASE, LEASE).await?;
    ns.until(secs(30), kinds::DEPLOYMENT, "weather", "what was waiting", |object| {
        object.template_annotation("kagenti.io/mtls-mode") == Some("disabled")
    })
    .await?;
    Ok(())
}
