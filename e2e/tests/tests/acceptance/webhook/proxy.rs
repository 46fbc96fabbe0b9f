//! Scenarios 1, 2, 4, 5 and 24: what a Pod gets in the modes without Envoy.

use anyhow::{Result, ensure};
use e2e::{Json as _, Suite, kinds, objects, secs};
use serde_json::json;

use super::fixture::{
    TYPE, agent, agent_pod, config_of, create_pod, managed, nothing_created, running, runtime_config, team,
    until_dry_run,
};

#[tokio::test]
async fn webhook_01_default_injection() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-01").await?;
    let deployment = ns.create(agent("weather")).await?;
    let pod = running(&ns, "weather").await?;

    assert_eq!(pod.containers(), ["agent", "authbridge-proxy"]);
    assert_eq!(pod.init_containers(), ["proxy-init"]);
    pod.expect_env("proxy-init", "MODE", "enforce-redirect")?;
    pod.expect_env("proxy-init", "TRANSPARENT_PORT", "8082")?;
    assert_eq!(pod.env_names("proxy-init")?, ["MODE", "PROXY_UID", "TRANSPARENT_PORT"]);

    assert_eq!(pod.service_account(), "weather");
    let account = ns.get(kinds::SERVICE_ACCOUNT, "weather").await?;
    assert_eq!(account.label("kagenti.io/managed-by"), Some("webhook"));
    assert!(account.pointer("/metadata/ownerReferences").is_none(), "users attach rights to it");

    let map = ns.get(kinds::CONFIG_MAP, "authbridge-config-weather").await?;
    assert_eq!(pod.config_map_of("authbridge-runtime-config"), "authbridge-config-weather");
    assert_eq!(
        map.pointer("/metadata/ownerReferences"),
        Some(
            &json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather", "uid": deployment.uid(),
                      "controller": true, "blockOwnerDeletion": false}])
        )
    );
    let config = config_of(&ns, &pod).await?;
    assert_eq!(
        config["listener"],
        json!({"forward_proxy_addr": ":8081", "reverse_proxy_addr": ":8000",
               "reverse_proxy_backend": "http://127.0.0.1:8001", "transparent_proxy_addr": ":8082"})
    );
    assert_eq!(config["mode"], "proxy-sidecar");
    assert_eq!(config["mtls"], json!({"mode": "permissive"}), "SPIRE is there, nobody said anything");

    // The named port moved to the sidecar, so that a Service cannot go round it.
    assert_eq!(pod.ports("agent")?, [("", 8001)]);
    pod.expect_env("agent", "PORT", "8001")?;
    assert_eq!(pod.ports("authbridge-proxy")?, [("http", 8000), ("forward-proxy", 8081)]);
    assert_eq!(
        pod.env_names("agent")?,
        ["PORT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
    );
    pod.expect_env("agent", "HTTP_PROXY", "http://127.0.0.1:8081")?;
    pod.expect_env("agent", "no_proxy", "127.0.0.1,localhost")?;
    assert_eq!(pod.label("kagenti.dev/authbridge"), "true");
    let plan = pod.plan()?;
    assert_eq!(
        (&plan["v"], &plan["mode"], &plan["modeSource"]),
        (&json!(1), &json!("proxy-sidecar"), &json!("cluster-default"))
    );
    Ok(())
}

#[tokio::test]
async fn webhook_02_services_reach_the_sidecar() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-02").await?;
    ns.create(agent("weather")).await?;
    ns.create(objects::service("weather", "weather", json!([{"port": 80, "targetPort": "http"}]))).await?;
    let pod = running(&ns, "weather").await?;
    let slices = ns
        .until_list(
            secs(30),
            kinds::ENDPOINT_SLICE,
            "kubernetes.io/service-name=weather",
            "an endpoint",
            |slices| slices.iter().any(|slice| !slice.items("/endpoints").is_empty()),
        )
        .await?;
    let ports: Vec<_> =
        slices.iter().flat_map(|slice| slice.items("/ports")).map(|port| port["port"].as_u64()).collect();
    assert_eq!(ports, [Some(8000)]);
    assert_eq!(pod.ports("authbridge-proxy")?.first(), Some(&("http", 8000)), "and that is the sidecar's");
    Ok(())
}

#[tokio::test]
async fn webhook_04_the_agent_runtime_beats_the_namespace() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-04").await?;
    runtime_config(&ns, "mode: envoy-sidecar\n").await?;
    ns.create(objects::agent_runtime("lite", "lite").spec(json!({"authBridgeMode": "lite"}))).await?;
    until_dry_run(&ns, agent_pod("other"), "the namespace's mode to be seen", |reply| {
        reply.body.container("envoy-proxy").is_some()
    })
    .await?;
    until_dry_run(&ns, agent_pod("lite"), "the AgentRuntime to be seen", |reply| {
        reply.body.container("authbridge-proxy").is_some()
    })
    .await?;
    ns.create(agent("lite")).await?;
    ns.until_ready(secs(60), "lite").await?;
    let pod = running(&ns, "lite").await?;
    let image = pod.container("authbridge-proxy")?["image"].as_str();
    assert_eq!(image, Some("ghcr.io/kagenti/kagenti-extensions/authbridge-lite:latest"));
    assert!(!pod.containers().contains(&"envoy-proxy"));
    assert_eq!(config_of(&ns, &pod).await?["mode"], "proxy-sidecar", "the name that the lite binary knows");
    let plan = pod.plan()?;
    assert_eq!((&plan["mode"], &plan["modeSource"]), (&json!("lite"), &json!("agentruntime-cr")));
    Ok(())
}

#[tokio::test]
async fn webhook_05_waypoint_leaves_the_pod_alone() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-05").await?;
    ns.create(objects::agent_runtime("calm", "calm").spec(json!({"authBridgeMode": "waypoint"}))).await?;
    let pod = until_dry_run(&ns, agent_pod("calm"), "the AgentRuntime to be seen", |reply| {
        reply.status == 201 && reply.body.items("/spec/containers").len() == 1
    })
    .await?;
    ensure!(pod.warnings.is_empty(), "nothing to warn about: {:?}", pod.warnings);
    ns.create(agent("calm")).await?;
    ns.until_ready(secs(60), "calm").await?;
    let pod = running(&ns, "calm").await?;
    // The whole Pod as its owner wrote it, but for what Kubernetes adds.
    assert_eq!(pod.label(TYPE), "agent");
    assert_eq!((pod.containers(), pod.init_containers()), (vec!["agent"], vec![]));
    assert!(pod.volumes().is_empty(), "{:?}", pod.volumes());
    assert!(pod.env_names("agent")?.is_empty());
    assert_eq!(pod.ports("agent")?, [("http", 8000)]);
    assert_eq!(pod.service_account(), "default");
    assert_eq!(pod.label("kagenti.dev/authbridge"), "");
    assert!(!pod.is_injected());
    nothing_created(&ns).await
}

#[tokio::test]
async fn webhook_24_opting_out_of_spiffe() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-24").await?;
    let (pod, _) =
        create_pod(&ns, agent_pod("plain").label("kagenti.io/spiffe-helper-inject", "false")).await?;
    pod.expect_env("authbridge-proxy", "SPIRE_ENABLED", "false")?;
    pod.expect_env("authbridge-proxy", "MTLS_MODE", "disabled")?;
    assert_eq!(pod.env_names("authbridge-proxy")?, ["SPIRE_ENABLED", "MTLS_MODE"]);
    let volumes = pod.volumes();
    for volume in ["spire-agent-socket", "svid-output", "spiffe-helper-config"] {
        assert!(!volumes.contains(volume), "{volumes:?}");
    }
    assert!(!pod.json().items("/spec/volumes").iter().any(|volume| volume.get("csi").is_some()));
    assert_eq!(pod.service_account(), "default");
    assert!(managed(&ns, kinds::SERVICE_ACCOUNT).await?.is_empty());
    assert_eq!(pod.plan()?["mtlsSource"], "spire-opt-out");
    let config = config_of(&ns, &pod).await?;
    assert!(config.get("mtls").is_none() && config.get("spiffe").is_none(), "{config}");
    Ok(())
}
