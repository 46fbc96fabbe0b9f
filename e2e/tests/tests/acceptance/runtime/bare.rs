//! Scenario 26: nothing but Kubernetes.

use anyhow::Result;
use api_types::names::{annotation, condition};
use e2e::{Json as _, Options, Suite, kinds, objects, suite};
use local_cluster::ComponentOptions;
use serde_json::json;

use super::{ROLLOUT, WITHIN, assert_active, assert_enrolled, config_hash, revision, settled};

#[tokio::test]
async fn runtime_26_bare_cluster() -> Result<()> {
    // The limiter is on here: it must let one rollout pass.
    let limited = ComponentOptions::new(suite::RUNTIME_CTL);
    let suite = Suite::own(Options::default().without_csi_driver().runtime_ctl([limited])).await?;
    let global = suite.global().await?;
    let ns = global.other("default");
    ns.create(objects::deployment("weather")).await?;
    ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "weather").await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let runtime = ns.until_ready(WITHIN, "weather").await?;
    assert_active(&runtime);
    assert_eq!(runtime.condition(condition::MTLS_READY).short(), "True/MTLSDisabled");
    let identity = runtime.condition(condition::IDENTITY_READY);
    assert_eq!(identity.short(), "False/NoIdentityProvider");
    assert!(identity.message.contains("authbridge-config"), "{}", identity.message);
    let deployment = settled(&ns, kinds::DEPLOYMENT, "weather").await?;
    assert_enrolled(&deployment, "agent", "disabled", "weather")?;
    assert_eq!(revision(&deployment)?, 2, "one rollout");

    ns.set_spec(kinds::AGENT_RUNTIME, "weather", json!({"mtlsMode": "permissive"})).await?;
    let runtime =
        ns.until_condition(WITHIN, "weather", condition::MTLS_READY, "False/SPIREUnavailable").await?;
    assert_eq!(runtime.condition(condition::READY).status, "True", "informational");
    ns.until_event(WITHIN, "weather", "SPIREUnavailable").await?;
    let same = ns.get(kinds::DEPLOYMENT, "weather").await?;
    assert_eq!(same.template_annotation(annotation::MTLS_MODE), Some("disabled"));

    global.create(objects::spiffe_csi_driver()).await?;
    ns.until(WITHIN, kinds::DEPLOYMENT, "weather", "mtls-mode permissive", |deployment| {
        deployment.template_annotation(annotation::MTLS_MODE) == Some("permissive")
    })
    .await?;
    ns.until_condition(WITHIN, "weather", condition::MTLS_READY, "True/SPIREAvailable").await?;
    let deployment = settled(&ns, kinds::DEPLOYMENT, "weather").await?;
    assert_eq!(revision(&deployment)?, 3, "one rollout");
    let metrics = suite.runtime_ctl(0)?.metrics_text().await?;
    let rollouts = metrics
        .lines()
        .find(|line| line.starts_with("kagenti_rollouts_total{") && line.contains(r#"trigger="mtls""#));
    assert!(rollouts.is_some_and(|line| line.ends_with(" 1")), "rollouts by mTLS: {rollouts:?}");

    let before = config_hash(&deployment)?;
    let identity = objects::config_map("authbridge-config", json!({"KEYCLOAK_URL": "http://keycloak:8080"}));
    ns.create(identity).await?;
    ns.until_condition(WITHIN, "weather", condition::IDENTITY_READY, "True/IdentityConfigured").await?;
    ns.until(WITHIN, kinds::DEPLOYMENT, "weather", "another config-hash", |deployment| {
        deployment.template_annotation(annotation::CONFIG_HASH).is_some_and(|hash| hash != before)
    })
    .await?;
    let deployment = settled(&ns, kinds::DEPLOYMENT, "weather").await?;
    assert_eq!(revision(&deployment)?, 4, "one rollout");
    Ok(())
}
