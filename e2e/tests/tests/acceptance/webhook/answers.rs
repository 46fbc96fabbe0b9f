//! Scenarios 9, 10, 11, 13 and 23: dry runs, denials, warnings, and fields from the future.

use anyhow::{Context as _, Result, ensure};
use e2e::admission::{patch_of, patched};
use e2e::exposition::sum;
use e2e::{Json as _, Options, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::fixture::{
    agent, agent_pod, bare, create_pod, dry_run, expect_warning, nothing_created, running, runtime_config,
    team, until_dry_run,
};

#[tokio::test]
async fn webhook_09_dry_run_writes_nothing() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-09").await?;
    let file = tempfile::NamedTempFile::new().context("a file for the Pod")?;
    std::fs::write(file.path(), agent_pod("weather").build().to_string()).context("writing the Pod")?;
    let path = file.path().display().to_string();
    let output = suite
        .cluster()
        .kubectl([
            "create",
            "--namespace",
            ns.name(),
            "--filename",
            &path,
            "--dry-run=server",
            "--output=json",
        ])
        .await?;
    let pod: Value = serde_json::from_str(&output).context("reading what kubectl printed")?;
    assert!(pod.container("authbridge-proxy").is_some() && pod.container("proxy-init").is_some(), "{output}");
    // The API server would refuse a ServiceAccount that is not there.
    assert_eq!(pod.text("/spec/serviceAccountName"), "default");
    let warnings = dry_run(&ns, agent_pod("weather")).await?.warnings;
    expect_warning(&warnings, "ServiceAccount")?;
    assert!(ns.find(kinds::POD, "weather").await?.is_none());
    assert!(ns.find(kinds::SERVICE_ACCOUNT, "weather").await?.is_none());
    nothing_created(&ns).await
}

#[tokio::test]
async fn webhook_10_broken_namespace_configuration() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-10").await?;
    runtime_config(&ns, "mode: [\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "the broken configuration to be seen", |reply| {
        reply.status == 403
    })
    .await?;
    let refused = ns.refused(agent_pod("bare")).await?;
    assert_eq!(refused.status, 403);
    let message = refused.message();
    ensure!(message.contains("authbridge-runtime-config") && message.contains("line"), "{message}");

    ns.create(agent("weather")).await?;
    let set = ns
        .until_list(secs(30), kinds::REPLICA_SET, "app=weather", "the ReplicaSet to say why", |sets| {
            sets.iter().any(|set| set.condition("ReplicaFailure").short() == "True/FailedCreate")
        })
        .await?;
    let set = set.first().context("one ReplicaSet")?;
    let said = set.condition("ReplicaFailure").message;
    ensure!(said.contains("authbridge-runtime-config"), "{said}");
    let event = ns.until_event(secs(30), set.name(), "FailedCreate").await?;
    ensure!(event.text("/note").contains("authbridge-runtime-config"), "{}", event.readable());
    assert!(ns.pods("weather").await?.is_empty());

    runtime_config(&ns, "mode: lite\n").await?;
    // Nobody touches the Deployment: its controller tries again.
    let pod = running(&ns, "weather").await?;
    assert_eq!(pod.plan()?["mode"], "lite");
    Ok(())
}

#[tokio::test]
async fn webhook_11_the_platform_overrides_egress() -> Result<()> {
    let platform = "proxy:\n  allowedEgressEnforcement: [enforce-redirect]\n";
    let suite = Suite::own(Options::default().without_runtime_ctl().platform(platform)).await?;
    let ns = bare(&suite, "team1").await?;
    ns.create(objects::agent_runtime("guarded", "guarded").spec(json!({"egressEnforcement": "none"})))
        .await?;
    until_dry_run(&ns, agent_pod("guarded"), "the AgentRuntime to be seen", |reply| {
        reply.warnings.iter().any(|warning| warning.contains("egress"))
    })
    .await?;
    let fallbacks = async || {
        let page = suite.webhook(0)?.metrics_text().await?;
        let labels = [("field", "egressEnforcement"), ("source", "platform-policy-override")];
        anyhow::Ok(sum(&page, "kagenti_authbridge_config_fallbacks_total", &labels))
    };
    let before = fallbacks().await?;
    let (pod, warnings) =
        create_pod(&ns, agent_pod("guarded").spec(json!({"automountServiceAccountToken": false}))).await?;
    expect_warning(&warnings, "egress")?;
    pod.expect_env("proxy-init", "MODE", "enforce-redirect")?;
    let plan = pod.plan()?;
    assert_eq!(
        (&plan["egress"], &plan["egressSource"]),
        (&json!("enforce-redirect"), &json!("platform-policy-override"))
    );
    let after = fallbacks().await?;
    assert!((after - before - 1.0).abs() < f64::EPSILON, "{before} before, {after} after");
    Ok(())
}

#[tokio::test]
async fn webhook_13_host_network_is_refused() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-13").await?;
    let refused = ns.refused(agent_pod("node").spec(json!({"hostNetwork": true}))).await?;
    assert_eq!(refused.status, 403);
    let message = refused.message();
    ensure!(
        message.contains("hostNetwork") && message.contains("kagenti.io/inject: disabled"),
        "no advice: {message}"
    );
    nothing_created(&ns).await?;
    // The advice works.
    let heeded = agent_pod("node").spec(json!({"hostNetwork": true})).label("kagenti.io/inject", "disabled");
    assert!(!create_pod(&ns, heeded).await?.0.is_injected());
    Ok(())
}

#[tokio::test]
async fn webhook_23_fields_from_the_future_survive() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-23").await?;
    let mut pod = agent_pod("future").build();
    pod["spec"]["containers"][0]["futureField"] = json!(1);
    pod["spec"]["futureObject"] = json!({"nested": [{"name": null}]});
    pod["metadata"]["futureMeta"] = json!("x");
    let admission = suite.admission(0).await?;
    let answer = admission.pod(ns.name(), pod.clone()).await?;
    assert_eq!(answer["allowed"], true, "{answer}");
    let operations = serde_json::to_value(patch_of(&answer)?)?;
    ensure!(operations.as_array().is_some_and(|operations| !operations.is_empty()), "not injected: {answer}");
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation.text("/path");
        assert!(!path.contains("future"), "{operation}");
        let whole = ["", "/metadata", "/spec", "/spec/containers", "/spec/containers/0"];
        assert!(!whole.contains(&path), "replaces what it does not know: {operation}");
        let removable = ["name", "hostPort", "hostIP"];
        let last = path.rsplit('/').next().unwrap_or_default();
        let removes = operation.text("/op") == "remove";
        assert!(!removes || (path.contains("/ports/") && removable.contains(&last)), "removes {path}");
    }
    let patched = patched(&pod, &answer)?;
    assert_eq!(patched["spec"]["containers"][0]["futureField"], 1);
    assert_eq!(patched["spec"]["futureObject"], pod["spec"]["futureObject"]);
    assert_eq!(patched["metadata"]["futureMeta"], "x");
    assert!(patched.container("authbridge-proxy").is_some());
    // The same question gets the same bytes.
    assert_eq!(admission.pod(ns.name(), pod).await?["patch"], answer["patch"]);
    Ok(())
}
