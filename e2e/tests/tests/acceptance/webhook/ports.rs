//! Scenario 12: the port plan.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::pod_view::PodView;
use e2e::{Json as _, Ns, Suite};
use serde_json::{Value, json};

use super::fixture::{agent_pod, config_of, create_pod, team};

#[tokio::test]
async fn webhook_12_port_plan() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-12").await?;
    let plan = plan_for(&ns, 8080).await?;
    assert_eq!((plan.forward, plan.agent, plan.transparent), (8081, 8084, 8082));

    for port in [8080, 8081, 8082, 9090, 9093, 9094, 65535] {
        let plan = plan_for(&ns, port).await?;
        let all = [port, plan.agent, plan.forward, plan.transparent, plan.stats, plan.session, 9091];
        let distinct: BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len(), "agent port {port}: {plan:?}");
        ensure!(all.iter().all(|port| (1024..=65535).contains(port)), "agent port {port}: {plan:?}");
    }

    let refused = ns.refused(with_port(9091)).await?;
    assert_eq!(refused.status, 403);
    ensure!(refused.message().contains("9091"), "{}", refused.message());
    Ok(())
}

#[derive(Debug)]
struct Plan {
    agent: u64,
    forward: u64,
    transparent: u64,
    stats: u64,
    session: u64,
}

fn with_port(port: u64) -> Value {
    let name = format!("port-{port}");
    let container =
        json!({"name": "agent", "image": "example.com/agent:1", "ports": [{"containerPort": port}]});
    agent_pod(&name).spec(json!({"containers": [container]})).build()
}

/// What the containers and the configuration file of a new Pod say; the status annotation must agree.
async fn plan_for(ns: &Ns, port: u64) -> Result<Plan> {
    let pod = with_port(port);
    let name = pod.name().to_owned();
    let pod = match ns.find(e2e::kinds::POD, &name).await? {
        Some(pod) => PodView::new(pod),
        None => create_pod(ns, pod).await?.0,
    };
    let config = config_of(ns, &pod).await?;
    let listener = |key: &str| port_of(config.text(&format!("/listener/{key}")));
    let ports = pod.ports("authbridge-proxy")?;
    let of = |name: &str| ports.iter().find(|(found, _)| *found == name).map(|(_, port)| *port);
    let transparent = pod.env("proxy-init", "TRANSPARENT_PORT")?.and_then(|port| port.parse().ok());
    let agent = pod.ports("agent")?.first().map(|(_, port)| *port);
    let plan = Plan {
        agent: agent.context("the agent declares its port")?,
        forward: of("forward-proxy").context("a port forward-proxy")?,
        transparent: transparent.context("TRANSPARENT_PORT")?,
        stats: port_of(config.text("/stats/address")).unwrap_or(9093),
        session: listener("session_api_addr").unwrap_or(9094),
    };
    assert_eq!(of("reverse-proxy"), Some(port));
    assert_eq!(listener("reverse_proxy_addr"), Some(port));
    assert_eq!(listener("reverse_proxy_backend"), Some(plan.agent));
    assert_eq!(listener("forward_proxy_addr"), Some(plan.forward));
    assert_eq!(listener("transparent_proxy_addr"), Some(plan.transparent));
    pod.expect_env("agent", "PORT", &plan.agent.to_string())?;
    pod.expect_env("agent", "HTTPS_PROXY", &format!("http://127.0.0.1:{}", plan.forward))?;
    let status = pod.plan()?;
    let said =
        ["agentPort", "relocatedPort", "forwardPort", "transparentPort"].map(|key| status.get(key).cloned());
    let meant = [port, plan.agent, plan.forward, plan.transparent].map(|port| Some(json!(port)));
    assert_eq!(said, meant, "{status}");
    Ok(plan)
}

fn port_of(address: &str) -> Option<u64> {
    address.rsplit(':').next()?.parse().ok()
}
