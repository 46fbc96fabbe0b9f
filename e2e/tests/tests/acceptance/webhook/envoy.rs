//! Scenario 3: mode envoy-sidecar.

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Suite, kinds};
use serde_json::Value;

use super::fixture::{agent, agent_pod, config_of, running, runtime_config, team, until_dry_run, yaml_of};

#[tokio::test]
async fn webhook_03_envoy_sidecar() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-03").await?;
    runtime_config(&ns, "mode: envoy-sidecar\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "the namespace's mode to be seen", |reply| {
        reply.body.container("envoy-proxy").is_some()
    })
    .await?;
    ns.create(agent("weather")).await?;
    let pod = running(&ns, "weather").await?;

    assert_eq!(pod.containers(), ["agent", "envoy-proxy"]);
    assert_eq!(pod.init_containers(), ["proxy-init"]);
    pod.expect_env("proxy-init", "PROXY_PORT", "15123")?;
    assert_eq!(
        pod.env_names("proxy-init")?,
        ["PROXY_PORT", "INBOUND_PROXY_PORT", "PROXY_UID", "OUTBOUND_PORTS_EXCLUDE", "POD_IP"],
        "and so no MODE"
    );
    pod.expect_env("proxy-init", "OUTBOUND_PORTS_EXCLUDE", "8080")?;
    // Nothing is relocated and no proxy is announced: iptables does it.
    assert!(pod.env_names("agent")?.is_empty(), "{:?}", pod.env_names("agent")?);
    assert_eq!(pod.ports("agent")?, [("http", 8000)]);
    assert_eq!(
        pod.ports("envoy-proxy")?,
        [("envoy-outbound", 15123), ("envoy-inbound", 15124), ("envoy-admin", 9901), ("ext-proc", 9090)]
    );
    assert_eq!(pod.config_map_of("envoy-config"), "envoy-config-weather");
    assert_eq!(config_of(&ns, &pod).await?["mode"], "envoy-sidecar");
    assert_eq!(
        ns.get(kinds::CONFIG_MAP, "envoy-config-weather").await?.label("kagenti.io/managed-by"),
        Some("webhook")
    );

    let envoy = yaml_of(&ns, "envoy-config-weather", "envoy.yaml").await?;
    let outbound = listener(&envoy, "outbound_listener")?;
    let inbound = listener(&envoy, "inbound_listener")?;
    let passthrough = chains(outbound).iter().any(|chain| {
        chain.text("/filter_chain_match/transport_protocol") == "tls"
            && chain
                .items("/filters")
                .iter()
                .any(|filter| filter.text("/typed_config/cluster") == "original_destination")
            && chain.to_string().contains("tcp_proxy")
    });
    assert!(passthrough, "no TLS pass-through chain: {outbound}");
    assert!(
        lua_before_ext_proc(outbound)?.iter().all(|lua| lua.contains("remove") && !lua.contains("replace"))
    );
    let inbound_scripts = lua_before_ext_proc(inbound)?;
    // Permissive by default: a TLS chain and a plaintext chain, both checked.
    assert_eq!(inbound_scripts.len(), 2, "{inbound}");
    assert!(inbound_scripts.iter().all(|lua| lua.contains("replace") && lua.contains("\"inbound\"")));
    Ok(())
}

fn listener<'a>(envoy: &'a Value, name: &str) -> Result<&'a Value> {
    let all = envoy.items("/static_resources/listeners");
    all.iter()
        .find(|listener| listener.text("/name") == name)
        .with_context(|| format!("no {name} in {envoy}"))
}

fn chains(listener: &Value) -> &[Value] {
    listener.items("/filter_chains")
}

/// The Lua scripts of all HTTP filter chains of a listener; each must come before ext_proc, and that before the
/// router, or the direction header is set too late and no token is checked.
fn lua_before_ext_proc(listener: &Value) -> Result<Vec<String>> {
    let mut scripts = Vec::new();
    for filter in chains(listener).iter().flat_map(|chain| chain.items("/filters")) {
        let http = filter.items("/typed_config/http_filters");
        if http.is_empty() {
            continue;
        }
        let kinds: Vec<&str> = http.iter().map(|filter| filter.text("/name")).map(short).collect();
        ensure!(kinds == ["lua", "ext_proc", "router"], "HTTP filters in the order {kinds:?}");
        let script = http
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
            .replace("\\\"", "\"")
            .replace('\'', "\"");
        ensure!(script.contains("x-authbridge-direction"), "the Lua filter does something else: {script}");
        scripts.push(script);
    }
    ensure!(!scripts.is_empty(), "no HTTP filter chain in {listener}");
    Ok(scripts)
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
