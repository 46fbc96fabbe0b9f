//! What the scenarios of the webhook chapter have in common.

use anyhow::{Context as _, Result, ensure};
use e2e::api::{self, Reply};
use e2e::objects::{self, Object};
use e2e::pod_view::PodView;
use e2e::{Json as _, Ns, Suite, kinds, secs, wait_for};
use serde_json::{Value, json};

/// Label of the Pods that the chapter speaks of.
pub(crate) const TYPE: &str = "kagenti.io/type";
/// Label that runtime-ctl puts on the template of enrolled workloads.
pub(crate) const ENROLLED: &str = "agent.kagenti.dev/enrolled";
/// Selects what the webhook created.
pub(crate) const MANAGED: &str = "kagenti.io/managed-by=webhook";
/// Annotation that names the Secret with the Keycloak credentials.
pub(crate) const CREDENTIALS: &str = "kagenti.io/keycloak-client-credentials-secret-name";

/// `team1` of the chapter: enabled, Keycloak's address and realm, and the webhook has seen both.
pub(crate) async fn team(suite: &Suite, name: &str) -> Result<Ns> {
    let ns = suite.team(name).await?;
    until_dry_run(&ns, agent_pod("probe"), "the webhook to see authbridge-config", |reply| {
        reply.body.annotation(CREDENTIALS).is_some()
    })
    .await?;
    Ok(ns)
}

/// An enabled namespace without any configuration.
pub(crate) async fn bare(suite: &Suite, name: &str) -> Result<Ns> {
    suite.namespace(name, json!({"kagenti-enabled": "true"})).await
}

/// A Deployment labelled by hand, without AgentRuntime.
pub(crate) fn agent(name: &str) -> Object {
    objects::deployment(name).template_label(TYPE, "agent")
}

/// A bare Pod labelled by hand; its workload is the Pod itself.
pub(crate) fn agent_pod(name: &str) -> Object {
    objects::pod(name).label(TYPE, "agent")
}

/// Asks the API server what it would store, through all of admission.
pub(crate) async fn dry_run(ns: &Ns, pod: impl Into<Value>) -> Result<Reply> {
    let path = format!("{}?dryRun=All", kinds::POD.path(Some(ns.name())));
    api::call(ns.client(), "POST", &path, "application/json", Some(&pod.into())).await
}

/// Repeats a dry run until the answer is as wanted: what was configured reached the webhook.
pub(crate) async fn until_dry_run(
    ns: &Ns,
    pod: impl Into<Value>,
    what: &str,
    wanted: impl Fn(&Reply) -> bool,
) -> Result<Reply> {
    let pod = pod.into();
    let mut last = None;
    let outcome = wait_for(secs(60), what, async || {
        let reply = dry_run(ns, pod.clone()).await?;
        let found = wanted(&reply).then(|| reply.clone());
        last = Some(reply);
        Ok(found)
    })
    .await;
    outcome.with_context(|| format!("the last answer: {last:?}"))
}

/// Creates a Pod; the Pod as stored and the warnings.
pub(crate) async fn create_pod(ns: &Ns, pod: impl Into<Value>) -> Result<(PodView, Vec<String>)> {
    let reply = ns.post(pod).await?;
    let warnings = reply.warnings.clone();
    Ok((PodView::new(reply.ok()?), warnings))
}

/// The one Pod of a Deployment with one replica, once it runs.
pub(crate) async fn running(ns: &Ns, app: &str) -> Result<PodView> {
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, app).await?;
    let pod = ns.until_pods(secs(30), app, 1).await?.pop().context("one Pod")?;
    Ok(PodView::new(pod))
}

/// Writes the namespace's `authbridge-runtime-config`.
pub(crate) async fn runtime_config(ns: &Ns, yaml: &str) -> Result<()> {
    let object = objects::config_map("authbridge-runtime-config", json!({"config.yaml": yaml}));
    ns.apply(object).await.map(drop)
}

/// A YAML document in a ConfigMap.
pub(crate) async fn yaml_of(ns: &Ns, config_map: &str, key: &str) -> Result<Value> {
    let object = ns.get(kinds::CONFIG_MAP, config_map).await?;
    let text = object.pointer("/data").and_then(|data| data.get(key)).and_then(Value::as_str);
    let text = text.with_context(|| format!("ConfigMap {config_map} has no key {key}"))?;
    serde_saphyr::from_str(text).with_context(|| format!("reading {key} of {config_map}:\n{text}"))
}

/// The sidecar's configuration file that a Pod mounts.
pub(crate) async fn config_of(ns: &Ns, pod: &PodView) -> Result<Value> {
    yaml_of(ns, pod.config_map_of("authbridge-runtime-config"), "config.yaml").await
}

/// Names of the objects of a kind that the webhook created in a namespace.
pub(crate) async fn managed(ns: &Ns, kind: kinds::Kind) -> Result<Vec<String>> {
    let list = ns.list(kind, MANAGED).await?;
    Ok(list.iter().map(|object| object.name().to_owned()).collect())
}

/// Demands that the webhook created nothing in a namespace.
pub(crate) async fn nothing_created(ns: &Ns) -> Result<()> {
    let (accounts, maps) =
        (managed(ns, kinds::SERVICE_ACCOUNT).await?, managed(ns, kinds::CONFIG_MAP).await?);
    ensure!(
        accounts.is_empty() && maps.is_empty(),
        "the webhook created {accounts:?} and {maps:?} in {}",
        ns.name()
    );
    Ok(())
}

/// Demands a warning that contains a text.
pub(crate) fn expect_warning(warnings: &[String], text: &str) -> Result<()> {
    ensure!(warnings.iter().any(|warning| warning.contains(text)), "no warning says {text:?}: {warnings:?}");
    Ok(())
}
