//! Scenarios 2, 3 and 4: what a Pod gets in mode envoy-sidecar, with registration, and in mode proxy-sidecar.

use anyhow::{Result, ensure};
use e2e::exposition::sum;
use e2e::{Json as _, kinds};
use serde_json::json;

use super::fixture::{REGISTRATION, split};
use crate::webhook::fixture::{
    CREDENTIALS, agent, agent_pod, create_pod, managed, running, runtime_config, until_dry_run,
};

#[tokio::test]
async fn split_02_defaults() -> Result<()> {
    let (suite, ns) = split("split-02").await?;
    ns.create(agent("weather")).await?;
    let pod = running(&ns, "weather").await?;
    assert_eq!(pod.containers(), ["agent", "envoy-proxy", "spiffe-helper"]);
    assert_eq!(pod.init_containers(), ["proxy-init"]);
    pod.expect_env("proxy-init", "PROXY_PORT", "15123")?;
    assert!(pod.env_entry("proxy-init", "MODE")?.is_null());
    assert_eq!(pod.service_account(), "weather");
    assert_eq!(managed(&ns, kinds::SERVICE_ACCOUNT).await?, ["weather"]);

    // The proxy's SVIDs and the helper's are two volumes: two processes never write the same file.
    for volume in ["authbridge-svid", "svid-output", "shared-data"] {
        assert_eq!(pod.volume(volume)["emptyDir"], json!({}), "{volume}");
    }
    assert!(pod.mounts("envoy-proxy")?.contains(&("authbridge-svid", "/opt")));
    assert_eq!(
        pod.mounts("spiffe-helper")?,
        [
            ("spiffe-helper-config", "/etc/spiffe-helper"),
            ("spire-agent-socket", "/spiffe-workload-api"),
            ("svid-output", "/opt"),
            ("shared-data", "/shared"),
        ],
        "and no credentials"
    );
    assert_eq!(
        pod.volume("spiffe-helper-config")["configMap"]["name"],
        "spiffe-helper-config",
        "the namespace's own file"
    );
    let secret = pod.annotation(CREDENTIALS);
    assert!(secret.starts_with("kagenti-keycloak-client-credentials-"), "{secret:?}");
    assert_eq!(pod.volume(secret).text("/secret/secretName"), secret);
    let mounts = pod.mounts("envoy-proxy")?;
    assert!(
        mounts.contains(&(secret, "/shared/client-secret.txt"))
            && mounts.contains(&(secret, "/shared/client-id.txt")),
        "{mounts:?}"
    );

    let helper = pod.container("spiffe-helper")?;
    assert_eq!(helper["command"], json!(["/spiffe-helper", "-config=/etc/spiffe-helper/helper.conf", "run"]));
    assert_eq!(
        helper["securityContext"],
        json!({
            "runAsUser": 1337, "runAsGroup": 1337, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        }),
        "one UID for all sidecars"
    );
    assert!(helper.get("env").is_none() && helper.get("ports").is_none());
    let plan = pod.plan()?;
    assert_eq!(plan["layout"], "split");
    assert_eq!(plan["sidecars"], json!(["envoy-proxy", "spiffe-helper"]));
    assert_eq!(plan["registration"], "operator");
    assert_eq!(
        (plan["mode"].as_str(), plan["modeSource"].as_str()),
        (Some("envoy-sidecar"), Some("cluster-default"))
    );

    let page = suite.webhook(0)?.metrics_text().await?;
    let counted = sum(&page, "kagenti_authbridge_split_containers_total", &[("container", "spiffe-helper")]);
    ensure!(counted >= 1.0, "no helper was counted");
    Ok(())
}

#[tokio::test]
async fn split_03_registration_is_opt_in() -> Result<()> {
    let (_suite, ns) = split("split-03").await?;
    ns.create(agent("weather").template_label(REGISTRATION, "true")).await?;
    let pod = running(&ns, "weather").await?;
    assert_eq!(pod.containers(), ["agent", "envoy-proxy", "spiffe-helper", "kagenti-client-registration"]);
    assert_eq!(pod.annotation(CREDENTIALS), "", "no credentials annotation");
    let secrets = pod.json().items("/spec/volumes").iter().filter(|volume| volume.get("secret").is_some());
    assert_eq!(secrets.count(), 0, "no volume of a Secret");
    for container in pod.containers() {
        let mounts = pod.mounts(container)?;
        assert!(mounts.iter().all(|(_, path)| !path.starts_with("/shared/")), "{container}: {mounts:?}");
    }
    // The administrator's password is never a literal.
    let admin = ["KEYCLOAK_ADMIN_USERNAME", "KEYCLOAK_ADMIN_PASSWORD"];
    for name in admin {
        assert_eq!(
            *pod.env_entry("kagenti-client-registration", name)?,
            json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "keycloak-admin-secret", "key": name}}})
        );
        for container in ["agent", "envoy-proxy", "spiffe-helper"] {
            assert!(pod.env_entry(container, name)?.is_null(), "{name} in {container}");
        }
    }
    pod.expect_env("kagenti-client-registration", "SPIRE_ENABLED", "true")?;
    pod.expect_env("kagenti-client-registration", "CLIENT_NAME", "split-03/weather")?;
    assert_eq!(
        pod.mounts("kagenti-client-registration")?,
        [("svid-output", "/opt"), ("shared-data", "/shared")]
    );
    let probe = pod.container("kagenti-client-registration")?.pointer("/readinessProbe/exec/command");
    assert!(probe.is_some_and(|command| command.to_string().contains("test -s /shared/client-secret.txt")));
    assert_eq!(pod.plan()?["registration"], "sidecar");

    for value in ["false", "True", "yes"] {
        let name = format!("pod-{}", value.to_lowercase());
        let (pod, _) = create_pod(&ns, agent_pod(&name).label(REGISTRATION, value)).await?;
        assert_eq!(pod.containers(), ["agent", "envoy-proxy", "spiffe-helper"], "{value}");
        assert!(!pod.annotation(CREDENTIALS).is_empty(), "{value}");
        assert_eq!(pod.plan()?["registration"], "operator", "{value}");
    }
    Ok(())
}

#[tokio::test]
async fn split_04_proxy_sidecar() -> Result<()> {
    let (_suite, ns) = split("split-04").await?;
    runtime_config(&ns, "mode: proxy-sidecar\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "the namespace's mode to be seen", |reply| {
        reply.body.container("authbridge-proxy").is_some()
    })
    .await?;
    ns.create(agent("weather").template_label(REGISTRATION, "true")).await?;
    let pod = running(&ns, "weather").await?;
    assert_eq!(
        pod.containers(),
        ["agent", "authbridge-proxy", "spiffe-helper", "kagenti-client-registration"]
    );
    assert_eq!(pod.init_containers(), ["proxy-init"]);
    pod.expect_env("proxy-init", "MODE", "enforce-redirect")?;
    pod.expect_env("proxy-init", "TRANSPARENT_PORT", "8082")?;
    assert_eq!(pod.ports("agent")?, [("", 8001)]);
    pod.expect_env("agent", "PORT", "8001")?;
    assert_eq!(pod.ports("authbridge-proxy")?, [("http", 8000), ("forward-proxy", 8081)]);
    pod.expect_env("agent", "HTTP_PROXY", "http://127.0.0.1:8081")?;
    for container in ["authbridge-proxy", "spiffe-helper", "kagenti-client-registration"] {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy", "PORT"]
        {
            assert!(pod.env_entry(container, name)?.is_null(), "{name} in {container}");
        }
    }
    assert!(pod.volume("envoy-config").is_null());
    Ok(())
}
