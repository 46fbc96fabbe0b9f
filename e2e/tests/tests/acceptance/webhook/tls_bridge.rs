//! Scenario 14: the TLS bridge's authority.

use anyhow::{Result, ensure};
use e2e::{Json as _, Suite, kinds, objects, secs};
use serde_json::json;

use super::fixture::{
    agent, agent_pod, config_of, create_pod, expect_warning, running, runtime_config, team, until_dry_run,
};

const DIRECTORY: &str = "/etc/authbridge/tls-bridge-ca";
const VARIABLES: [&str; 7] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

#[tokio::test]
async fn webhook_14_tls_bridge() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-14").await?;
    // As cert-manager would write it; what is in it does not matter here.
    let authority = json!({"tls.crt": "Y2VydA==", "tls.key": "a2V5", "ca.crt": "Y2E="});
    ns.create(objects::named(kinds::SECRET, "bridge-tls-bridge-ca").with(json!({"data": authority}))).await?;
    ns.create(objects::agent_runtime("bridge", "bridge").spec(json!({"tlsBridgeMode": "enabled"}))).await?;
    until_dry_run(&ns, agent_pod("bridge"), "the AgentRuntime to be seen", |reply| {
        reply.body.items("/spec/volumes").iter().any(|volume| volume.text("/name") == "tls-bridge-ca")
    })
    .await?;
    let helper = json!([objects::container(8000), {"name": "helper", "image": "example.com/helper:1"}]);
    ns.create(agent("bridge").containers(helper)).await?;
    ns.until(secs(60), kinds::DEPLOYMENT, "bridge", "its enrolment", |deployment| {
        deployment.template_label("agent.kagenti.dev/enrolled") == Some("true")
    })
    .await?;
    let pod = running(&ns, "bridge").await?;

    assert_eq!(
        pod.volume("tls-bridge-ca")["secret"],
        json!({"secretName": "bridge-tls-bridge-ca", "defaultMode": 0o444})
    );
    assert_eq!(
        pod.volume("tls-bridge-ca-cert")["secret"],
        json!({"secretName": "bridge-tls-bridge-ca", "defaultMode": 0o444, "items": [{"key": "ca.crt", "path": "ca.crt"}]})
    );
    for container in pod.containers().into_iter().chain(pod.init_containers()) {
        let mounts = pod.mounts(container)?;
        let has = |volume: &str| mounts.contains(&(volume, DIRECTORY));
        let (sidecar, app) = (container == "authbridge-proxy", container == "agent" || container == "helper");
        assert_eq!(
            (has("tls-bridge-ca"), has("tls-bridge-ca-cert")),
            (sidecar, app),
            "{container}: {mounts:?}"
        );
        if app {
            for variable in VARIABLES {
                pod.expect_env(container, variable, &format!("{DIRECTORY}/ca.crt"))?;
            }
        }
    }
    let config = config_of(&ns, &pod).await?;
    assert_eq!(config["tls_bridge"], json!({"mode": "enabled", "ca_dir": DIRECTORY}));
    Ok(())
}

#[tokio::test]
async fn webhook_14_without_agent_runtime_nobody_issues_an_authority() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-14-ns").await?;
    runtime_config(&ns, "tls_bridge:\n  mode: enabled\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "a warning about the TLS bridge", |reply| {
        reply.warnings.iter().any(|warning| warning.to_lowercase().contains("tls"))
    })
    .await?;
    let (pod, warnings) = create_pod(&ns, agent_pod("alone")).await?;
    expect_warning(&warnings, "AgentRuntime")?;
    ensure!(pod.is_injected(), "the rest goes on");
    assert!(pod.volume("tls-bridge-ca").is_null() && pod.volume("tls-bridge-ca-cert").is_null());
    assert!(pod.env("agent", "SSL_CERT_FILE")?.is_none());
    assert!(config_of(&ns, &pod).await?.get("tls_bridge").is_none());
    assert_eq!(pod.plan()?["tlsBridge"], "disabled");
    Ok(())
}
