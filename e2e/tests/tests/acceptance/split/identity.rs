//! Scenarios 6 and 7: identity without a proxy, and the helper's configuration file.

use anyhow::{Context as _, Result};
use e2e::{Json as _, kinds, objects, secs};
use serde_json::json;

use super::fixture::{ENVOY, ISSUER, SPLIT, data_of, helper_conf, split, vector, without_helper_conf};
use super::helper_conf as strict;
use crate::webhook::fixture::{
    agent, agent_pod, create_pod, expect_warning, managed, running, until_dry_run,
};

#[tokio::test]
async fn split_06_identity_without_proxy() -> Result<()> {
    let (_suite, ns) = split("split-06").await?;
    let (pod, warnings) = create_pod(&ns, agent_pod("solo").label(ENVOY, "false")).await?;
    assert_eq!(pod.containers(), ["agent", "spiffe-helper"]);
    assert!(pod.init_containers().is_empty(), "{:?}", pod.init_containers());
    assert_eq!(pod.label("kagenti.dev/authbridge"), "");
    assert_eq!(pod.service_account(), "solo");
    assert_eq!(managed(&ns, kinds::SERVICE_ACCOUNT).await?, ["solo"]);
    assert!(managed(&ns, kinds::CONFIG_MAP).await?.is_empty());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    expect_warning(&warnings, "traffic is not authenticated")?;
    assert!(pod.env_names("agent")?.is_empty(), "no proxy, no proxy variables");
    assert_eq!(pod.ports("agent")?, [("http", 8000)], "and no port is moved");
    for volume in ["authproxy-routes", "authbridge-runtime-config", "envoy-config", "authbridge-svid"] {
        assert!(pod.volume(volume).is_null(), "{volume}");
    }
    let plan = pod.plan()?;
    assert_eq!(
        (plan["mtlsMode"].as_str(), plan["mtlsSource"].as_str()),
        (Some("disabled"), Some("no-proxy"))
    );
    // Another container reading the credentials would need a mount of `shared-data`.
    let agent = pod.mounts("agent")?;
    assert!(agent.iter().all(|(_, path)| !path.starts_with("/shared")), "{agent:?}");

    // Strict mTLS cannot be had without a proxy.
    ns.create(objects::agent_runtime("strict", "strict").spec(json!({"mtlsMode": "strict"}))).await?;
    let reply = until_dry_run(&ns, agent_pod("strict").label(ENVOY, "false"), "a denial", |reply| {
        reply.status == 403
    })
    .await?;
    assert!(
        reply.message().contains("strict") && reply.message().contains("mtlsMode"),
        "{}",
        reply.message()
    );
    assert_eq!(ns.post(agent_pod("strict").label(ENVOY, "false")).await?.status, 403);
    Ok(())
}

#[tokio::test]
async fn split_07_helper_conf() -> Result<()> {
    let suite = SPLIT.share().await?;
    let ns = without_helper_conf(&suite, "split-07").await?;
    ns.create(agent("weather")).await?;
    let pod = running(&ns, "weather").await?;
    assert_eq!(
        pod.volume("spiffe-helper-config")["configMap"],
        json!({
            "name": "authbridge-config-weather", "optional": false, "defaultMode": 420,
            "items": [{"key": "helper.conf", "path": "helper.conf"}],
        })
    );
    let text = data_of(&ns, "authbridge-config-weather", "helper.conf").await?.context("no helper.conf")?;
    strict::accept(&text, ISSUER).with_context(|| text.clone())?;
    assert!(data_of(&ns, "authbridge-config-weather", "config.yaml").await?.is_some());

    // A pod without proxy mounts the same file, and its write keeps what a proxy of the workload reads.
    let (solo, _) = create_pod(&ns, agent_pod("solo").label(ENVOY, "false")).await?;
    assert_eq!(vector(solo.json()), "0010");
    assert_eq!(solo.config_map_of("spiffe-helper-config"), "authbridge-config-solo");
    assert!(data_of(&ns, "authbridge-config-solo", "config.yaml").await?.is_none());
    let text = data_of(&ns, "authbridge-config-solo", "helper.conf").await?.context("no helper.conf")?;
    strict::accept(&text, ISSUER)?;

    ns.create(helper_conf()).await?;
    until_dry_run(&ns, agent_pod("probe"), "the webhook to see helper.conf", |reply| {
        let volumes = reply.body.items("/spec/volumes");
        volumes.iter().any(|volume| volume.text("/configMap/name") == "spiffe-helper-config")
    })
    .await?;
    ns.delete(kinds::POD, pod.name()).await?;
    ns.until_list(secs(60), kinds::POD, "app=weather", "another Pod", |pods| {
        pods.len() == 1 && pods.iter().all(|now| now.name() != pod.name())
    })
    .await?;
    let next = running(&ns, "weather").await?;
    assert_eq!(
        next.volume("spiffe-helper-config")["configMap"],
        json!({"name": "spiffe-helper-config", "optional": false, "defaultMode": 420})
    );
    assert_eq!(data_of(&ns, "authbridge-config-weather", "helper.conf").await?, None, "gone with the write");
    assert!(data_of(&ns, "authbridge-config-weather", "config.yaml").await?.is_some());
    Ok(())
}
