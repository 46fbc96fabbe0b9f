//! Scenario 24: the CA of the TLS bridge.

use anyhow::Result;
use api_types::names::{annotation, condition};
use e2e::{Json as _, Suite, kinds, objects};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN};

#[tokio::test]
async fn runtime_24_tls_bridge() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-24", Value::Null).await?;
    ns.create(objects::deployment("auditor")).await?;
    let runtime = ns
        .create(objects::agent_runtime("bridge", "auditor").spec(json!({"tlsBridgeMode": "enabled"})))
        .await?;
    let issuer =
        ns.until(WITHIN, kinds::ISSUER, "authbridge-tls-bridge-selfsigned", "the Issuer", |_| true).await?;
    assert_eq!(issuer.pointer("/spec"), Some(&json!({"selfSigned": {}})));
    let certificate =
        ns.until(WITHIN, kinds::CERTIFICATE, "auditor-tls-bridge-ca", "the Certificate", |_| true).await?;
    let spec = &certificate["spec"];
    assert_eq!(spec.pointer("/isCA"), Some(&json!(true)));
    assert_eq!(spec.text("/commonName"), "authbridge-tls-bridge-ca-bridge");
    assert_eq!(spec.text("/secretName"), "auditor-tls-bridge-ca");
    assert_eq!(spec.text("/duration"), "2160h");
    assert_eq!(spec.text("/renewBefore"), "360h");
    assert_eq!(spec.text("/privateKey/algorithm"), "ECDSA");
    assert_eq!(spec.number("/privateKey/size"), Some(256));
    let mut usages = spec.texts("/usages");
    usages.sort_unstable();
    assert_eq!(usages, ["cert sign", "digital signature"]);
    assert_eq!(spec.text("/issuerRef/name"), "authbridge-tls-bridge-selfsigned");
    assert_eq!(spec.text("/issuerRef/kind"), "Issuer");
    assert_eq!(spec.text("/issuerRef/group"), "cert-manager.io");
    assert!(spec.pointer("/nameConstraints").is_none());
    let owner = &certificate["metadata"]["ownerReferences"][0];
    assert_eq!(owner.text("/uid"), runtime.uid());
    assert_eq!(owner.pointer("/controller"), Some(&json!(true)));
    ns.until_condition(WITHIN, "bridge", condition::TLS_BRIDGE_READY, "False/WaitingForCertificate").await?;

    // As cert-manager does: the Secret, then the Certificate's status.
    let cert_manager_says = |revision: i64| {
        json!({"status": {"revision": revision, "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "issued",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": certificate.generation(),
        }]}})
    };
    ns.patch_status(kinds::CERTIFICATE, "auditor-tls-bridge-ca", cert_manager_says(1)).await?;
    ns.until_condition(WITHIN, "bridge", condition::TLS_BRIDGE_READY, "True/Issued").await?;
    let deployment = ns.get(kinds::DEPLOYMENT, "auditor").await?;
    assert_eq!(
        deployment.template_annotation(annotation::TLS_BRIDGE_CA_HASH),
        None,
        "not for the first revision"
    );
    // Renewed: the workload rolls, once.
    ns.patch_status(kinds::CERTIFICATE, "auditor-tls-bridge-ca", cert_manager_says(2)).await?;
    let deployment = ns
        .until(WITHIN, kinds::DEPLOYMENT, "auditor", "the CA hash of the renewed certificate", |deployment| {
            deployment.template_annotation(annotation::TLS_BRIDGE_CA_HASH).is_some()
        })
        .await?;
    let hash = deployment.template_annotation(annotation::TLS_BRIDGE_CA_HASH).unwrap_or_default();
    assert!(hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash:?}");

    ns.set_spec(kinds::AGENT_RUNTIME, "bridge", json!({"tlsBridgeMode": "disabled"})).await?;
    ns.gone(WITHIN, kinds::CERTIFICATE, "auditor-tls-bridge-ca").await?;
    ns.until(ROLLOUT, kinds::AGENT_RUNTIME, "bridge", "no TLSBridgeReady", |runtime| {
        runtime.condition(condition::TLS_BRIDGE_READY).status.is_empty()
    })
    .await?;
    Ok(())
}
