//! Scenario 1: the platform file chooses the layout, and is read again while the process runs.

use anyhow::{Result, ensure};
use e2e::exposition::sum;
use e2e::{Json as _, Ns, Suite, secs, wait_for};
use serde_json::json;

use super::fixture::{PLATFORM, REGISTRATION, SPLIT, team, until_vector, vector};
use crate::webhook::fixture::{
    agent_pod, create_pod, dry_run, expect_warning, runtime_config, until_dry_run,
};

#[tokio::test]
async fn split_01_the_platform_file_chooses() -> Result<()> {
    let suite = SPLIT.alone().await?;
    let ns = team(&suite, "split-01").await?;
    let pid = suite.webhook(0)?.pid();
    let outcome = check(&suite, &ns).await;
    suite.set_platform(PLATFORM).await?;
    outcome?;
    assert_eq!((suite.webhook(0)?.pid(), suite.webhook(0)?.is_running()), (pid, true), "without restart");
    until_vector(&ns, agent_pod("back"), "split again", "1110").await?;
    Ok(())
}

async fn check(suite: &Suite, ns: &Ns) -> Result<()> {
    suite.set_platform("{}\n").await?;
    until_dry_run(ns, agent_pod("probe"), "the combined layout", |reply| {
        reply.body.container("authbridge-proxy").is_some()
    })
    .await?;
    // Without the key every Pod is as in the chapter of the webhook, whatever the labels ask for.
    for mode in ["proxy-sidecar", "lite", "envoy-sidecar"] {
        runtime_config(ns, &format!("mode: {mode}\n")).await?;
        let proxy = if mode == "envoy-sidecar" { "envoy-proxy" } else { "authbridge-proxy" };
        let pod = agent_pod("labelled").label(REGISTRATION, "true");
        let reply = until_dry_run(ns, pod, mode, |reply| {
            reply.body.container(proxy).is_some()
                && reply.body.annotation("kagenti.io/authbridge-status").unwrap_or_default().contains(mode)
        })
        .await?;
        let containers: Vec<&str> = reply.body.items("/spec/containers").iter().map(container_name).collect();
        let init: Vec<&str> = reply.body.items("/spec/initContainers").iter().map(container_name).collect();
        assert_eq!((containers, init), (vec!["agent", proxy], vec!["proxy-init"]), "{mode}");
    }
    let (pod, _) = create_pod(ns, agent_pod("before").label(REGISTRATION, "true")).await?;
    assert_eq!(pod.containers(), ["agent", "envoy-proxy"]);
    let plan = pod.plan()?;
    for key in ["layout", "layoutSource", "sidecars", "registration"] {
        assert!(plan.get(key).is_none(), "{key} is of split only: {plan}");
    }
    ns.delete(e2e::kinds::CONFIG_MAP, "authbridge-runtime-config").await?;

    suite.set_platform(PLATFORM).await?;
    // `until_dry_run` gives it the minute of the scenario.
    let pod = until_vector(ns, agent_pod("probe"), "new Pods to be split", "1110").await?;
    let plan = e2e::pod_view::PodView::new(pod).plan()?;
    assert_eq!(
        (plan["layout"].as_str(), plan["layoutSource"].as_str()),
        (Some("split"), Some("platform-config"))
    );

    let failed = async || {
        let page = suite.webhook(0)?.metrics_text().await?;
        let labels = [("file", "platform"), ("outcome", "error")];
        anyhow::Ok(sum(&page, "kagenti_authbridge_config_reloads_total", &labels))
    };
    let before = failed().await?;
    suite.set_platform("sidecars: {layout: both}\n").await?;
    wait_for(secs(60), "the failed reload to be counted", async || {
        let now = failed().await?;
        ensure!(now > before, "{now} failed so far");
        Ok(Some(()))
    })
    .await?;
    let reply = dry_run(ns, agent_pod("probe")).await?;
    assert_eq!(vector(&reply.body), "1110", "the last good one is kept: {}", reply.message());
    let (status, body) =
        local_cluster::http::get(&format!("{}/readyz", suite.webhook(0)?.probe_url())).await?;
    assert_eq!(status.as_u16(), 200, "and it stays ready: {body}");
    // The namespace may differ from the platform (order 1), and a typo there does not count.
    runtime_config(ns, "sidecarLayout: combined\n").await?;
    until_vector(ns, agent_pod("probe"), "the namespace's layout", "0100").await?;
    runtime_config(ns, "sidecarLayout: both\n").await?;
    until_vector(ns, agent_pod("probe"), "the fallback", "1110").await?;
    let (pod, warnings) = create_pod(ns, agent_pod("fallback")).await?;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    expect_warning(&warnings, "sidecarLayout")?;
    assert_eq!(pod.plan()?["layoutSource"], json!("platform-config-invalid-fallback"));
    Ok(())
}

fn container_name(container: &serde_json::Value) -> &str {
    container.text("/name")
}
