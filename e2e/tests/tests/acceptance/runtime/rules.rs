//! Rules of the chapter that no numbered scenario covers: adoption (§5.4), propagation to hand-labelled workloads
//! (§13), what PodsConfigured says (§7.1), fields of others (§6.1). Duplicates that slipped through (§9.2) and the guard
//! against the predecessor (§21) are among the faults.

use anyhow::Result;
use api_types::names::{annotation, condition, label};
use e2e::{Json as _, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, assert_enrolled, config_hash, enrolled, revision};

/// v1 hash of a namespace and an operator namespace without any input (§5.1, first vector).
const V1_OF_NOTHING: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn defaults() -> objects::Object {
    objects::config_map("defaults", json!({"trace.endpoint": "http://collector:4317"}))
        .label(label::DEFAULTS, "true")
}

/// An upgrade restarts nothing; the next change of configuration does, once, and ends the adoption.
#[tokio::test]
async fn runtime_rule_adoption() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("rule-adoption", Value::Null).await?;
    let left_behind = objects::deployment("veteran")
        .label(label::TYPE, "agent")
        .label(label::MANAGED_BY, "kagenti-operator")
        .template_label(label::TYPE, "agent")
        .template_annotation(annotation::CONFIG_HASH, V1_OF_NOTHING)
        .template_annotation(annotation::MTLS_MODE, "permissive");
    ns.create(left_behind).await?;
    let before = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "veteran").await?;
    ns.create(objects::agent_runtime("veteran", "veteran")).await?;
    ns.until_ready(WITHIN, "veteran").await?;
    let adopted = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "veteran").await?;
    assert_eq!(adopted.template(), before.template(), "no restart");
    assert_eq!(revision(&adopted)?, 1);
    assert_eq!(adopted.annotation(annotation::ENROLLED_BY), Some("veteran"));
    let v2 = adopted.annotation(annotation::CONFIG_HASH_ADOPTED).unwrap_or_default().to_owned();
    assert!(v2.len() == 64 && v2 != V1_OF_NOTHING, "the v2 hash is remembered: {v2:?}");

    ns.create(defaults()).await?;
    let rolled = ns
        .until(WITHIN, kinds::DEPLOYMENT, "veteran", "the new hash on the template", |deployment| {
            deployment.template_annotation(annotation::CONFIG_HASH) != Some(V1_OF_NOTHING)
        })
        .await?;
    assert_enrolled(&rolled, "agent", "permissive", "veteran")?;
    assert_ne!(config_hash(&rolled)?, v2);
    assert_eq!(rolled.annotation(annotation::CONFIG_HASH_ADOPTED), None, "gone in the same patch");
    let rolled = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "veteran").await?;
    assert_eq!(revision(&rolled)?, 2, "one rollout");
    Ok(())
}

/// Hand-labelled workloads follow the configuration of enabled namespaces, and of no other (README decision 16).
#[tokio::test]
async fn runtime_rule_propagation() -> Result<()> {
    let suite = Suite::shared().await?;
    let enabled = suite.namespace("rule-enabled", json!({"kagenti-enabled": "true"})).await?;
    let plain = suite.namespace("rule-plain", Value::Null).await?;
    for ns in [&enabled, &plain] {
        let by_hand =
            objects::deployment("by-hand").label(label::TYPE, "agent").template_label(label::TYPE, "agent");
        ns.create(by_hand).await?;
        ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "by-hand").await?;
    }
    let baseline = enabled
        .until(WITHIN, kinds::DEPLOYMENT, "by-hand", "the baseline", |deployment| {
            deployment.annotation(annotation::CONFIG_HASH_ADOPTED).is_some()
        })
        .await?;
    assert_eq!(baseline.template_annotation(annotation::CONFIG_HASH), None, "on first sight no rollout");
    for ns in [&enabled, &plain] {
        ns.create(defaults()).await?;
    }
    enabled
        .until(WITHIN, kinds::DEPLOYMENT, "by-hand", "the hash on the template", |deployment| {
            deployment.template_annotation(annotation::CONFIG_HASH).is_some()
                && deployment.annotation(annotation::CONFIG_HASH_ADOPTED).is_none()
        })
        .await?;
    let rolled = enabled.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "by-hand").await?;
    assert_eq!(revision(&rolled)?, 2, "one rollout");
    assert_eq!(rolled.template_label(label::ENROLLED), None, "following is not enrolling");

    let untouched = plain.get(kinds::DEPLOYMENT, "by-hand").await?;
    assert_eq!(untouched.annotation(annotation::CONFIG_HASH_ADOPTED), None);
    assert_eq!(untouched.template_annotation(annotation::CONFIG_HASH), None);

    // It ends when the label goes: a further change rolls nothing.
    enabled.set_labels(kinds::DEPLOYMENT, "by-hand", json!({label::TYPE: null})).await?;
    let hash = config_hash(&rolled)?;
    enabled.delete(kinds::CONFIG_MAP, "defaults").await?;
    enabled
        .holds(secs(4), kinds::DEPLOYMENT, "by-hand", "the hash", |deployment| {
            deployment.template_annotation(annotation::CONFIG_HASH) == Some(&hash)
        })
        .await
}

#[tokio::test]
async fn runtime_rule_pods_configured() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("rule-pods", Value::Null).await?;
    ns.create(objects::deployment("paused").spec(json!({"paused": true}))).await?;
    ns.create(objects::agent_runtime("paused", "paused")).await?;
    ns.until_condition(WITHIN, "paused", condition::PODS_CONFIGURED, "False/RolloutPaused").await?;
    ns.until_ready(WITHIN, "paused").await?;
    ns.set_spec(kinds::DEPLOYMENT, "paused", json!({"paused": false})).await?;
    ns.until_condition(ROLLOUT, "paused", condition::PODS_CONFIGURED, "True/RolloutComplete").await?;

    ns.set_spec(kinds::DEPLOYMENT, "paused", json!({"replicas": 0})).await?;
    let runtime = ns.until_condition(ROLLOUT, "paused", condition::PODS_CONFIGURED, "True/NoPods").await?;
    assert_eq!(runtime.condition(condition::READY).status, "True");
    ns.until(ROLLOUT, kinds::AGENT_RUNTIME, "paused", "no configured Pods", |runtime| {
        runtime.number("/status/configuredPods") == Some(0)
    })
    .await?;

    // OnDelete: the Pods change when their user deletes them.
    let patient = objects::stateful_set("patient")
        .spec(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    ns.create(patient).await?;
    ns.until_pods(ROLLOUT, "patient", 1).await?;
    let target = json!({"targetRef": {"kind": "StatefulSet"}});
    ns.create(objects::agent_runtime("patient", "patient").spec(target)).await?;
    ns.until_condition(WITHIN, "patient", condition::PODS_CONFIGURED, "False/RolloutInProgress").await?;
    ns.delete(kinds::POD, "patient-0").await?;
    ns.until_condition(ROLLOUT, "patient", condition::PODS_CONFIGURED, "True/RolloutComplete").await?;
    Ok(())
}

/// §6.1: what others put on the workload and into the status stays.
#[tokio::test]
async fn runtime_rule_others_fields_stay() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("rule-others", Value::Null).await?;
    enrolled(&ns, "shared").await?;
    let card = json!({"status": {"card": {"name": "Weather", "cardHash": "0".repeat(64)}}});
    ns.patch_status(kinds::AGENT_RUNTIME, "shared", card).await?;
    ns.annotate(kinds::DEPLOYMENT, "shared", json!({"mlflow.kagenti.io/experiment-id": "7"})).await?;
    ns.set_spec(kinds::AGENT_RUNTIME, "shared", json!({"mtlsMode": "disabled"})).await?;
    ns.until_ready(WITHIN, "shared").await?;
    let deployment = ns.get(kinds::DEPLOYMENT, "shared").await?;
    assert_eq!(deployment.template_annotation(annotation::MTLS_MODE), Some("disabled"));
    assert_eq!(deployment.annotation("mlflow.kagenti.io/experiment-id"), Some("7"));
    let runtime = ns.get(kinds::AGENT_RUNTIME, "shared").await?;
    assert_eq!(runtime.text("/status/card/name"), "Weather", "card-ctl's part of the status");
    // An edit by hand of what is ours is put right.
    ns.set_labels(kinds::DEPLOYMENT, "shared", json!({label::TYPE: null})).await?;
    ns.until(WITHIN, kinds::DEPLOYMENT, "shared", "the label again", |deployment| {
        deployment.label(label::TYPE) == Some("agent")
    })
    .await?;
    Ok(())
}
