//! Every manifest in `deploy/samples`, applied as a user does, has the effect that its first lines promise.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api_types::names::{annotation, condition, label};
use e2e::suite::Shared;
use e2e::{Json as _, Ns, Suite, kinds, secs, suite, wait_for};
use serde_json::{Value, json};

use crate::signer::signs_as_the_sample_says;

/// Files that the tests below apply; the first test fails when one is missing.
const TESTED: &[&str] = &[
    "card-signed-init",
    "card-signed-sidecar",
    "identity-provider",
    "inbound-transparent",
    "layout-split",
    "mode-envoy-sidecar",
    "mode-lite",
    "mode-proxy-sidecar",
    "mode-waypoint",
    "mtls-strict",
    "namespace-defaults",
    "quickstart",
    "statefulset",
    "tls-bridge",
    "tool",
];

fn sample(name: &str) -> Result<String> {
    let path = suite::repository().join("deploy/samples").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

#[test]
fn samples_are_all_tested() -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(suite::repository().join("deploy/samples"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend(name.strip_suffix(".yaml").map(str::to_owned));
    }
    let tested: BTreeSet<String> = TESTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(found, tested, "write a test for each sample and add it here");
    Ok(())
}

/// Applies a sample to a namespace of its own and waits until its AgentRuntime is enrolled.
async fn applied(name: &str, runtime: &str) -> Result<(Shared, Ns, Value)> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace(&format!("sample-{name}"), Value::Null).await?;
    suite.cluster().apply_yaml_in(ns.name(), &sample(name)?).await?;
    let runtime = ns.until_ready(secs(5), runtime).await?;
    ensure!(runtime.text("/status/phase") == "Active", "{}", runtime.readable());
    Ok((suite, ns, runtime))
}

/// The enrolled Pods of an app once they run.
async fn enrolled_pods(ns: &Ns, app: &str, count: usize) -> Result<Vec<Value>> {
    let selector = format!("app.kubernetes.io/name={app}");
    ns.until_list(secs(60), kinds::POD, &selector, "enrolled Pods only", |pods| {
        pods.len() == count
            && pods.iter().all(|pod| {
                pod.label(label::ENROLLED) == Some("true")
                    && pod.text("/status/phase") == "Running"
                    && pod.pointer("/metadata/deletionTimestamp").is_none()
            })
    })
    .await
}

async fn enrolled_pod(ns: &Ns, app: &str) -> Result<Value> {
    enrolled_pods(ns, app, 1).await?.pop().context("a Pod")
}

/// The rendered `config.yaml` of a workload.
async fn rendered(ns: &Ns, workload: &str) -> Result<Value> {
    let map = ns.get(kinds::CONFIG_MAP, &format!("authbridge-config-{workload}")).await?;
    serde_saphyr::from_str(map.text("/data/config.yaml")).context("the rendered config.yaml")
}

fn status(pod: &Value) -> Result<Value> {
    let text = pod.annotation(annotation::AUTHBRIDGE_STATUS).context("no authbridge-status")?;
    serde_json::from_str(text).context("authbridge-status")
}

fn has_mount(container: &Value, volume: &str) -> bool {
    container.items("/volumeMounts").iter().any(|mount| mount.text("/name") == volume)
}

/// README decision 1: nothing but this file, in namespace `default` without any label.
#[tokio::test]
async fn sample_quickstart() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.global().await?.other("default");
    suite.cluster().apply_yaml(&sample("quickstart")?).await?;
    let runtime = ns.until_ready(secs(5), "weather-agent-runtime").await?;
    assert_eq!(runtime.text("/status/phase"), "Active");
    assert_eq!(runtime.condition(condition::IDENTITY_READY).short(), "False/NoIdentityProvider");
    let pod = enrolled_pod(&ns, "weather-agent").await?;
    assert!(pod.container("authbridge-proxy").is_some() && pod.container("proxy-init").is_some());
    assert_eq!(pod.container("agent").and_then(|agent| agent.env("PORT")), Some("8001"));
    assert_eq!(pod.label(label::AUTHBRIDGE), Some("true"));
    assert_eq!(
        pod.annotation(annotation::CREDENTIALS_SECRET),
        None,
        "no identity provider, nobody writes the Secret"
    );
    let config = rendered(&ns, "weather-agent").await?;
    assert_eq!(
        config.pointer("/pipeline"),
        Some(&json!({"inbound": {"plugins": []}, "outbound": {"plugins": []}}))
    );
    assert_eq!(config.text("/listener/reverse_proxy_addr"), ":8000");
    Ok(())
}

#[tokio::test]
async fn sample_card_signed_init() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("sample-card-signed-init", Value::Null).await?;
    suite.cluster().apply_yaml_in(ns.name(), &sample("card-signed-init")?).await?;
    let deployment = signs_as_the_sample_says(&suite, &ns, "weather-signed").await?;
    let signer = deployment.pointer("/spec/template/spec/initContainers/0").context("the signer")?;
    assert!(signer.get("restartPolicy").is_none(), "it ends before the agent starts");
    assert!(has_mount(signer, "spire") && has_mount(signer, "card-unsigned") && has_mount(signer, "card"));
    Ok(())
}

#[tokio::test]
async fn sample_card_signed_sidecar() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("sample-card-signed-sidecar", Value::Null).await?;
    suite.cluster().apply_yaml_in(ns.name(), &sample("card-signed-sidecar")?).await?;
    let deployment = signs_as_the_sample_says(&suite, &ns, "weather-watched").await?;
    let signer = deployment.pointer("/spec/template/spec/initContainers/0").context("the signer")?;
    assert_eq!(signer.text("/restartPolicy"), "Always");
    assert_eq!(signer.env("SIGNER_MODE"), Some("watch"));
    assert_eq!(signer.texts("/startupProbe/exec/command"), ["/agentcard-signer", "--check"]);
    Ok(())
}

#[tokio::test]
async fn sample_identity_provider() -> Result<()> {
    let (_, ns, runtime) = applied("identity-provider", "accountant").await?;
    assert_eq!(runtime.condition(condition::IDENTITY_READY).short(), "True/IdentityConfigured");
    let pod = enrolled_pod(&ns, "accountant").await?;
    let secret = pod.annotation(annotation::CREDENTIALS_SECRET).context("the credentials Secret's name")?;
    let proxy = pod.container("authbridge-proxy").context("a proxy")?;
    let volumes = pod.items("/spec/volumes");
    let volume =
        volumes.iter().find(|volume| volume.text("/secret/secretName") == secret).context("its volume")?;
    assert!(has_mount(proxy, volume.text("/name")));
    let config = rendered(&ns, "accountant").await?;
    let inbound = config.pointer("/pipeline/inbound/plugins/0").context("an inbound plugin")?;
    assert_eq!(inbound.text("/name"), "jwt-validation");
    assert_eq!(inbound.text("/config/issuer"), "https://keycloak.example.com/realms/kagenti");
    assert_eq!(inbound.texts("/config/allowed_audiences"), ["accounting"]);
    assert_eq!(config.text("/pipeline/outbound/plugins/0/name"), "token-exchange");
    Ok(())
}

#[tokio::test]
async fn sample_inbound_transparent() -> Result<()> {
    let (_, ns, _) = applied("inbound-transparent", "translator").await?;
    let pod = enrolled_pod(&ns, "translator").await?;
    let agent = pod.container("agent").context("the agent")?;
    assert_eq!(
        agent.pointer("/ports"),
        Some(&json!([{"name": "http", "containerPort": 8000, "protocol": "TCP"}]))
    );
    assert_eq!(agent.env("PORT"), None);
    let init = pod.container("proxy-init").context("proxy-init")?;
    assert_eq!(init.env("INBOUND_TRANSPARENT_PORT"), Some("8083"));
    let config = rendered(&ns, "translator").await?;
    assert_eq!(config.text("/listener/inbound_interception"), "transparent");
    assert_eq!(config.text("/listener/reverse_proxy_addr"), "");
    Ok(())
}

#[tokio::test]
async fn sample_layout_split() -> Result<()> {
    let (_, ns, _) = applied("layout-split", "archivist").await?;
    let pod = enrolled_pod(&ns, "archivist").await?;
    let names: Vec<&str> =
        pod.items("/spec/containers").iter().map(|container| container.text("/name")).collect();
    assert_eq!(names, ["agent", "envoy-proxy", "spiffe-helper"]);
    assert!(pod.container("proxy-init").is_some());
    Ok(())
}

#[tokio::test]
async fn sample_mode_envoy_sidecar() -> Result<()> {
    let (_, ns, _) = applied("mode-envoy-sidecar", "concierge").await?;
    let pod = enrolled_pod(&ns, "concierge").await?;
    assert!(pod.container("envoy-proxy").is_some() && pod.container("authbridge-proxy").is_none());
    assert_eq!(pod.container("proxy-init").and_then(|init| init.env("PROXY_PORT")), Some("15123"));
    assert_eq!(pod.container("agent").and_then(|agent| agent.env("HTTP_PROXY")), None);
    let envoy = ns.get(kinds::CONFIG_MAP, "envoy-config-concierge").await?;
    assert!(envoy.text("/data/envoy.yaml").contains("ext_proc"));
    assert_eq!(rendered(&ns, "concierge").await?.text("/mode"), "envoy-sidecar");
    Ok(())
}

#[tokio::test]
async fn sample_mode_lite() -> Result<()> {
    let (_, ns, _) = applied("mode-lite", "summarizer").await?;
    let pod = enrolled_pod(&ns, "summarizer").await?;
    let proxy = pod.container("authbridge-proxy").context("a proxy")?;
    assert_eq!(proxy.text("/image"), "ghcr.io/kagenti/kagenti-extensions/authbridge-lite:latest");
    assert_eq!(status(&pod)?.text("/mode"), "lite");
    assert_eq!(rendered(&ns, "summarizer").await?.text("/mode"), "proxy-sidecar");
    Ok(())
}

#[tokio::test]
async fn sample_mode_proxy_sidecar() -> Result<()> {
    let (_, ns, _) = applied("mode-proxy-sidecar", "planner").await?;
    let pod = enrolled_pod(&ns, "planner").await?;
    let proxy = pod.container("authbridge-proxy").context("a proxy")?;
    assert_eq!(proxy.text("/image"), "ghcr.io/kagenti/kagenti-extensions/authbridge:latest");
    let status = status(&pod)?;
    assert_eq!((status.text("/mode"), status.text("/modeSource")), ("proxy-sidecar", "agentruntime-cr"));
    let agent = pod.container("agent").context("the agent")?;
    assert_eq!(agent.env("HTTPS_PROXY"), Some("http://127.0.0.1:8081"));
    Ok(())
}

#[tokio::test]
async fn sample_mode_waypoint() -> Result<()> {
    let (_, ns, _) = applied("mode-waypoint", "librarian").await?;
    let pod = enrolled_pod(&ns, "librarian").await?;
    assert_eq!(pod.items("/spec/containers").len(), 1, "nothing is injected: {}", pod.readable());
    assert!(pod.items("/spec/initContainers").is_empty());
    assert!(ns.find(kinds::SERVICE_ACCOUNT, "librarian").await?.is_none());
    assert!(ns.find(kinds::CONFIG_MAP, "authbridge-config-librarian").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn sample_mtls_strict() -> Result<()> {
    let (_, ns, runtime) = applied("mtls-strict", "vault-agent").await?;
    assert_eq!(runtime.condition(condition::MTLS_READY).short(), "True/SPIREAvailable");
    let pod = enrolled_pod(&ns, "vault-agent").await?;
    assert_eq!(pod.annotation(annotation::MTLS_MODE), Some("strict"));
    assert_eq!(pod.text("/spec/serviceAccountName"), "vault-agent");
    let config = rendered(&ns, "vault-agent").await?;
    assert_eq!(config.text("/mtls/mode"), "strict");
    assert_eq!(config.text("/spiffe/socket"), "unix:///spiffe-workload-api/spire-agent.sock");
    Ok(())
}

#[tokio::test]
async fn sample_namespace_defaults() -> Result<()> {
    let (_, ns, _) = applied("namespace-defaults", "researcher").await?;
    let pod = enrolled_pod(&ns, "researcher").await?;
    assert!(pod.container("envoy-proxy").is_some(), "the namespace's mode: {}", pod.readable());
    let config = rendered(&ns, "researcher").await?;
    assert_eq!(config.text("/session/ttl"), "30m");
    assert!(config.get("egressEnforcement").is_none(), "that key is for the webhook only");

    // "rolls when they change"
    let before = pod.annotation(annotation::CONFIG_HASH).context("a hash")?.to_owned();
    let edit = json!({"data": {"trace.endpoint": "http://other:4317"}});
    ns.patch(kinds::CONFIG_MAP, "team-defaults", edit).await?;
    wait_for(secs(60), "the Pod to be replaced", async || {
        let now = enrolled_pod(&ns, "researcher").await?;
        Ok(now.annotation(annotation::CONFIG_HASH).filter(|hash| *hash != before).map(str::to_owned))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn sample_stateful_set() -> Result<()> {
    let (_, ns, _) = applied("statefulset", "memory").await?;
    let runtime =
        ns.until_condition(secs(60), "memory", condition::PODS_CONFIGURED, "True/RolloutComplete").await?;
    assert_eq!(runtime.number("/status/configuredPods"), Some(2));
    for pod in enrolled_pods(&ns, "memory", 2).await? {
        assert!(pod.container("authbridge-proxy").is_some(), "{}", pod.readable());
    }
    let map = ns.get(kinds::CONFIG_MAP, "authbridge-config-memory").await?;
    assert_eq!(map.text("/metadata/ownerReferences/0/kind"), "StatefulSet");
    Ok(())
}

#[tokio::test]
async fn sample_tls_bridge() -> Result<()> {
    let (_, ns, _) = applied("tls-bridge", "auditor").await?;
    ns.until(secs(5), kinds::CERTIFICATE, "auditor-tls-bridge-ca", "the CA's Certificate", |_| true).await?;
    let pod = enrolled_pod(&ns, "auditor").await?;
    let (agent, proxy) =
        (pod.container("agent").context("agent")?, pod.container("authbridge-proxy").context("proxy")?);
    assert!(
        has_mount(proxy, "tls-bridge-ca") && !has_mount(agent, "tls-bridge-ca"),
        "the key is the sidecar's alone"
    );
    assert_eq!(agent.env("SSL_CERT_FILE"), Some("/etc/authbridge/tls-bridge-ca/ca.crt"));
    assert_eq!(rendered(&ns, "auditor").await?.text("/tls_bridge/mode"), "enabled");
    Ok(())
}

#[tokio::test]
async fn sample_tool() -> Result<()> {
    let (_, ns, _) = applied("tool", "weather-tool").await?;
    let deployment = ns.get(kinds::DEPLOYMENT, "weather-tool").await?;
    assert_eq!(deployment.label(label::TYPE), Some("tool"));
    let pod = enrolled_pod(&ns, "weather-tool").await?;
    assert_eq!(pod.items("/spec/containers").len(), 1, "not without the gate: {}", pod.readable());
    Ok(())
}
