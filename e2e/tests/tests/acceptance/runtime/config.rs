//! Configuration: scenarios 10 to 13.

use anyhow::Result;
use api_types::names::{annotation, condition, label};
use e2e::{Json as _, Options, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, config_hash, enrolled, revision};

fn runtime_config(yaml: &str) -> objects::Object {
    objects::config_map("authbridge-runtime-config", json!({"config.yaml": yaml}))
}

#[tokio::test]
async fn runtime_10_namespace_layer() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-10", Value::Null).await?;
    ns.create(runtime_config("mtls: {mode: strict}\n")).await?;
    ns.create(objects::deployment("layered")).await?;
    ns.create(objects::agent_runtime("layered", "layered")).await?;
    let mode = |wanted: &'static str| {
        let ns = ns.clone();
        async move {
            ns.until(WITHIN, kinds::DEPLOYMENT, "layered", &format!("mtls-mode {wanted}"), |deployment| {
                deployment.template_annotation(annotation::MTLS_MODE) == Some(wanted)
            })
            .await
        }
    };
    mode("strict").await?;
    ns.set_spec(kinds::AGENT_RUNTIME, "layered", json!({"mtlsMode": "disabled"})).await?;
    mode("disabled").await?;
    ns.set_spec(kinds::AGENT_RUNTIME, "layered", json!({"mtlsMode": null})).await?;
    mode("strict").await?;
    ns.patch(
        kinds::CONFIG_MAP,
        "authbridge-runtime-config",
        json!({"data": {"config.yaml": "mtls: {mode: strikt}\n"}}),
    )
    .await?;
    mode("permissive").await?;
    let runtime =
        ns.until_condition(WITHIN, "layered", condition::CONFIG_RESOLVED, "True/ConfigWarning").await?;
    assert!(
        runtime.condition(condition::CONFIG_RESOLVED).message.contains("strikt"),
        "{}",
        runtime.readable()
    );
    Ok(())
}

/// Waits until every workload's hash differs from the old one and all are equal; the new one.
async fn hash_change(ns: &e2e::Ns, names: &[&str], old: &str) -> Result<String> {
    let mut hashes = Vec::new();
    for name in names {
        let deployment = ns
            .until(WITHIN, kinds::DEPLOYMENT, name, "another config-hash", |deployment| {
                deployment.template_annotation(annotation::CONFIG_HASH).is_some_and(|hash| hash != old)
            })
            .await?;
        hashes.push(config_hash(&deployment)?);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "hashes of one namespace are equal");
    Ok(hashes.remove(0))
}

#[tokio::test]
async fn runtime_11_config_change() -> Result<()> {
    let suite = Suite::own(Options::default().without_webhook()).await?;
    let a = suite.namespace("team-a", Value::Null).await?;
    let b = suite.namespace("team-b", Value::Null).await?;
    let names = ["one", "two", "three"];
    for name in names {
        enrolled(&a, name).await?;
    }
    let first = config_hash(&enrolled(&b, "four").await?)?;
    for name in names {
        assert_eq!(
            config_hash(&a.get(kinds::DEPLOYMENT, name).await?)?,
            first,
            "no inputs but the cluster's"
        );
    }

    let defaults = objects::config_map("defaults", json!({"trace.endpoint": "http://collector:4317"}))
        .label(label::DEFAULTS, "true");
    a.create(defaults).await?;
    let with_defaults = hash_change(&a, &names, &first).await?;
    assert_eq!(config_hash(&b.get(kinds::DEPLOYMENT, "four").await?)?, first, "B is unchanged");

    suite.set_platform("proxy: {uid: 1400}\n").await?;
    let edited = hash_change(&a, &names, &with_defaults).await?;
    let edited_b = hash_change(&b, &["four"], &first).await?;

    a.delete(kinds::CONFIG_MAP, "defaults").await?;
    assert_eq!(hash_change(&a, &names, &edited).await?, edited_b, "without inputs of its own again");
    suite.operator().await?.delete(kinds::CONFIG_MAP, "kagenti-platform-config").await?;
    assert_eq!(hash_change(&a, &names, &edited_b).await?, first, "the earlier value");
    assert_eq!(hash_change(&b, &["four"], &edited_b).await?, first, "the earlier value");
    Ok(())
}

#[tokio::test]
async fn runtime_12_insignificant_edits() -> Result<()> {
    let gates = "globalEnabled: true\nskillDiscovery: false\n";
    let suite = Suite::own(Options::default().without_webhook().gates(gates)).await?;
    let ns = suite.namespace("calm", Value::Null).await?;
    ns.create(runtime_config("mode: proxy-sidecar\nsession:\n  enabled: true\n  ttl: 30m\n")).await?;
    let before = enrolled(&ns, "calm").await?;

    let unchanged = |what: &'static str| {
        let (ns, generation) = (ns.clone(), before.generation());
        async move {
            ns.holds(secs(4), kinds::DEPLOYMENT, "calm", what, |now| now.generation() == generation).await
        }
    };
    let edit = |yaml: &'static str| {
        let ns = ns.clone();
        async move {
            let patch = json!({"data": {"config.yaml": yaml}});
            ns.patch(kinds::CONFIG_MAP, "authbridge-runtime-config", patch).await
        }
    };
    edit("# a comment\nmode: proxy-sidecar\nsession:\n  enabled: true\n  ttl: 30m\n").await?;
    unchanged("the generation after a comment").await?;
    edit("session: {ttl: 30m, enabled: true}\nmode: proxy-sidecar\n").await?;
    unchanged("the generation after a new order of keys").await?;
    suite.set_gates("globalEnabled: true\nskillDiscovery: true\n").await?;
    unchanged("the generation after flipping skillDiscovery").await?;
    ns.create(objects::config_map("unrelated", json!({"key": "1"}))).await?;
    ns.patch(kinds::CONFIG_MAP, "unrelated", json!({"data": {"key": "2"}})).await?;
    unchanged("the generation after editing an unrelated ConfigMap").await?;

    edit("session: {ttl: 30m, enabled: true}\nmode: envoy-sidecar\n").await?;
    let old = config_hash(&before)?;
    hash_change(&ns, &["calm"], &old).await?;
    let after = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "calm").await?;
    assert_eq!(revision(&after)?, revision(&before)? + 1, "one rollout");
    Ok(())
}

#[tokio::test]
async fn runtime_13_two_defaults() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-13", Value::Null).await?;
    for (name, value) in [("beta", "2"), ("alpha", "1")] {
        ns.create(objects::config_map(name, json!({"key": value})).label(label::DEFAULTS, "true")).await?;
    }
    let identity = objects::config_map("authbridge-config", json!({"CREDENTIAL_WAIT_TIMEOUT": "60s"}));
    ns.create(identity.label(label::DEFAULTS, "true")).await?;
    ns.create(objects::deployment("torn")).await?;
    ns.create(objects::agent_runtime("torn", "torn")).await?;
    let runtime =
        ns.until_condition(WITHIN, "torn", condition::CONFIG_RESOLVED, "True/ConfigWarning").await?;
    assert_eq!(
        runtime.condition(condition::CONFIG_RESOLVED).message,
        "multiple namespace defaults ConfigMaps found in runtime-13 (expected at most one): [alpha beta]; using alpha"
    );
    ns.until_ready(WITHIN, "torn").await?;
    let hash = config_hash(&ns.get(kinds::DEPLOYMENT, "torn").await?)?;
    for round in 0..20 {
        let spec = json!({"identity": {"allowedAudiences": [format!("audience-{round}")]}});
        ns.set_spec(kinds::AGENT_RUNTIME, "torn", spec).await?;
        ns.until_ready(WITHIN, "torn").await?;
        assert_eq!(config_hash(&ns.get(kinds::DEPLOYMENT, "torn").await?)?, hash, "round {round}");
    }
    assert_eq!(ns.events("torn", "ConfigWarning").await?.len(), 1);

    // One left: no warning, and the same configuration as before, so the same hash.
    ns.delete(kinds::CONFIG_MAP, "beta").await?;
    ns.until_condition(WITHIN, "torn", condition::CONFIG_RESOLVED, "True/ConfigResolved").await?;
    assert_eq!(config_hash(&ns.get(kinds::DEPLOYMENT, "torn").await?)?, hash);
    Ok(())
}
