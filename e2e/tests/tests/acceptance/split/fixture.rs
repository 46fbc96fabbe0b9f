//! What the scenarios of layout `split` have in common.

use anyhow::{Context as _, Result};
use e2e::group::Shared;
use e2e::objects::{self, Object};
use e2e::{Group, Json as _, Ns, Options, Suite};
use serde_json::{Value, json};

use crate::webhook::fixture::{CREDENTIALS, agent_pod, until_dry_run};

/// The platform file of the chapter's scenarios.
pub(super) const PLATFORM: &str = "sidecars: {layout: split}\n";
/// A pod label that opts in to registration by a sidecar.
pub(super) const REGISTRATION: &str = "kagenti.io/client-registration-inject";
/// Pod label that opts out of Envoy.
pub(super) const ENVOY: &str = "kagenti.io/envoy-proxy-inject";
/// Pod label that opts out of SPIFFE.
pub(super) const SPIFFE: &str = "kagenti.io/spiffe-helper-inject";
/// The issuer of the namespaces.
pub(super) const ISSUER: &str = "https://login.example.com/realms/kagenti";
/// Names of what split adds, in the order of the vectors: envoy, init, helper, registration.
pub(super) const PARTS: [&str; 4] =
    ["envoy-proxy", "proxy-init", "spiffe-helper", "kagenti-client-registration"];

/// A cluster whose platform file says `split`.
pub(super) static SPLIT: Group = Group::new(|| Options::default().platform(PLATFORM));

/// The cluster and `team1` of the chapter with this name.
pub(super) async fn split(name: &str) -> Result<(Shared, Ns)> {
    let suite = SPLIT.share().await?;
    let ns = team(&suite, name).await?;
    Ok((suite, ns))
}

/// `team1` of the chapter: enabled, identity provider with issuer, a `helper.conf`; the webhook has seen all of it.
pub(super) async fn team(suite: &Suite, name: &str) -> Result<Ns> {
    let ns = without_helper_conf(suite, name).await?;
    ns.create(helper_conf()).await?;
    until_dry_run(&ns, agent_pod("probe"), "the webhook to see helper.conf", |reply| {
        let volumes = reply.body.items("/spec/volumes");
        let helper = volumes.iter().find(|volume| volume.text("/name") == "spiffe-helper-config");
        helper.is_some_and(|volume| volume.text("/configMap/name") == "spiffe-helper-config")
    })
    .await?;
    Ok(ns)
}

/// `team1` without `spiffe-helper-config`.
pub(super) async fn without_helper_conf(suite: &Suite, name: &str) -> Result<Ns> {
    let ns = suite.namespace(name, json!({"kagenti-enabled": "true"})).await?;
    let mut data = e2e::suite::keycloak();
    e2e::json::merge(&mut data, json!({"ISSUER": ISSUER}));
    ns.create(objects::config_map("authbridge-config", data)).await?;
    until_dry_run(&ns, agent_pod("probe"), "the webhook to see authbridge-config", |reply| {
        reply.body.annotation(CREDENTIALS).is_some()
    })
    .await?;
    Ok(ns)
}

/// `spiffe-helper-config` of a namespace, as published examples write it.
pub(super) fn helper_conf() -> Object {
    let text = "agent_address = \"/spiffe-workload-api/spire-agent.sock\"\ncert_dir = \"/opt\"\n";
    objects::config_map("spiffe-helper-config", json!({"helper.conf": text}))
}

/// Which of [`PARTS`] a Pod has, one digit each.
pub(super) fn vector(pod: &Value) -> String {
    PARTS.iter().map(|name| if pod.container(name).is_some() { '1' } else { '0' }).collect()
}

/// Waits until a Pod like this one gets these parts.
pub(super) async fn until_vector(ns: &Ns, pod: Object, what: &str, wanted: &str) -> Result<Value> {
    let reply = until_dry_run(ns, pod, what, |reply| reply.status == 201 && vector(&reply.body) == wanted);
    Ok(reply.await?.body)
}

/// Text of a data key of a ConfigMap.
pub(super) async fn data_of(ns: &Ns, config_map: &str, key: &str) -> Result<Option<String>> {
    let object = ns.find(e2e::kinds::CONFIG_MAP, config_map).await?.with_context(|| config_map.to_owned())?;
    Ok(object.pointer("/data").and_then(|data| data.get(key)).and_then(Value::as_str).map(str::to_owned))
}
