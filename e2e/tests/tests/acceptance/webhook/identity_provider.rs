//! Scenario 16: without identity provider, with one demanded, and as one appears.

use anyhow::{Result, ensure};
use e2e::{Json as _, Options, Suite, kinds, objects};
use serde_json::{Value, json};

use super::fixture::{CREDENTIALS, agent_pod, bare, config_of, create_pod, expect_warning, until_dry_run};

#[tokio::test]
async fn webhook_16_identity_provider() -> Result<()> {
    let options = Options::default().without_runtime_ctl().platform("identity:\n  required: false\n");
    let suite = Suite::own(options).await?;
    let ns = bare(&suite, "team1").await?;

    let (pod, warnings) = create_pod(&ns, agent_pod("alone")).await?;
    expect_warning(&warnings, "authbridge-config")?;
    let config = config_of(&ns, &pod).await?;
    assert_eq!(config["pipeline"], json!({"inbound": {"plugins": []}, "outbound": {"plugins": []}}));
    assert_eq!(pod.annotation(CREDENTIALS), "");
    assert!(!pod.json().items("/spec/volumes").iter().any(|volume| volume.get("secret").is_some()));
    let credentials = |path: &str| path == "/shared/client-id.txt" || path == "/shared/client-secret.txt";
    for container in pod.containers() {
        assert!(!pod.mounts(container)?.iter().any(|(_, path)| credentials(path)), "{container}");
    }

    suite.set_platform("identity:\n  required: true\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "Pods without identity to be refused", |reply| {
        reply.status == 403
    })
    .await?;
    let refused = ns.refused(agent_pod("refused")).await?;
    assert_eq!(refused.status, 403);
    let message = refused.message();
    ensure!(
        message.contains("authbridge-config") && message.contains("KEYCLOAK_URL"),
        "no remedy: {message}"
    );

    let data = json!({"KEYCLOAK_URL": "http://kc:8080", "KEYCLOAK_REALM": "r"});
    ns.create(objects::config_map("authbridge-config", data)).await?;
    until_dry_run(&ns, agent_pod("probe"), "the identity provider to be seen", |reply| reply.status == 201)
        .await?;
    let (pod, _) = create_pod(&ns, agent_pod("next")).await?;
    assert_eq!(issuer(&config_of(&ns, &pod).await?), "http://kc:8080/realms/r");
    ensure!(!pod.annotation(CREDENTIALS).is_empty(), "now there is somebody who writes the Secret");

    let issued = json!({"data": {"ISSUER": "https://public.example.com/realms/r"}});
    ns.patch(kinds::CONFIG_MAP, "authbridge-config", issued).await?;
    // The map reaches the webhook by its watch; "the next Pod" is the first one after that.
    let mut count = 0;
    let found = e2e::wait_for(e2e::secs(30), "the issuer of the ConfigMap", async || {
        count += 1;
        let (pod, _) = create_pod(&ns, agent_pod(&format!("later-{count}"))).await?;
        let found = issuer(&config_of(&ns, &pod).await?);
        Ok((found != "http://kc:8080/realms/r").then_some(found))
    })
    .await?;
    assert_eq!(found, "https://public.example.com/realms/r");
    Ok(())
}

fn issuer(config: &Value) -> String {
    let plugins = config.items("/pipeline/inbound/plugins");
    let plugin = plugins.iter().find(|plugin| plugin.text("/name") == "jwt-validation");
    plugin.map(|plugin| plugin.text("/config/issuer")).unwrap_or_default().to_owned()
}
