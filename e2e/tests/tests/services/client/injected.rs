//! With the webhook and runtime-ctl: how the Secret reaches the Pods. Also what other chapters left to this component:
//! webhook 16 and runtime 18 (who writes what), split 3 and 11 (registration by a sidecar).

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_types::names::annotation::CONFIG_HASH;
use e2e::json::Json as _;
use e2e::services::agents::{
    self, REVISION_ANNOTATION, SECRET_ANNOTATION, account, agent, credentials_secret, until_credentials,
};
use e2e::services::registration::{COMPONENT, NEXT_CHECK, Registration, Setup};
use e2e::services::{Account, Realm};
use e2e::{Ns, Options, kinds, objects, secs, wait_for};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Asks for registration by a sidecar (split §5).
const BY_SIDECAR: &str = "kagenti.io/client-registration-inject";
const SIDECAR: &str = "kagenti-client-registration";

static INJECTED: OnceCell<Result<Arc<Registration>, String>> = OnceCell::const_new();

/// The whole suite, without SPIRE.
fn injected() -> Setup {
    Setup::new("client-injected").suite(Options::default().without_csi_driver())
}

/// A namespace that is enabled, with Keycloak's address.
async fn enabled(registration: &Registration, name: &str) -> Result<Ns> {
    let ns = registration.namespace(name, json!({"kagenti-enabled": "true"})).await?;
    ns.apply(agents::authbridge_config(registration.url(), registration.realm().name())).await?;
    // The component fills in the rest; after that, every agent that is enrolled already is rolled out again.
    let filled = |map: &Value| {
        map.label("kagenti.io/defaults") == Some("true") && !map["data"]["CREDENTIAL_WAIT_TIMEOUT"].is_null()
    };
    ns.until(secs(20), kinds::CONFIG_MAP, "authbridge-config", "the defaults", filled).await?;
    Ok(ns)
}

/// Whether a Pod names this Secret and has it as a volume.
fn has_secret(pod: &Value, name: &str) -> bool {
    let mut volumes = pod.items("/spec/volumes").iter();
    pod.annotation(SECRET_ANNOTATION) == Some(name)
        && volumes.any(|volume| volume.text("/secret/secretName") == name)
}

fn has_sidecar(pod: &Value) -> bool {
    pod.items("/spec/containers").iter().any(|container| container.text("/name") == SIDECAR)
}

async fn until_pods(ns: &Ns, app: &str, what: &str, test: impl Fn(&Value) -> bool) -> Result<()> {
    let all = |pods: &[Value]| !pods.is_empty() && pods.iter().all(&test);
    ns.until_list(secs(60), kinds::POD, &format!("app={app}"), what, all).await.map(drop)
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_01_with_the_webhook_one_rollout() -> Result<()> {
    const SECRET: &str = "kagenti-keycloak-client-credentials-a325925866a45ebf";
    let registration = Registration::once(&INJECTED, injected).await?;
    let ns = enabled(&registration, "team1").await?;
    ns.create(objects::deployment("weather-agent")).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather-agent").await?;
    let before = ns.replica_sets("weather-agent").await?.len();
    ns.create(objects::agent_runtime("weather-agent", "weather-agent")).await?;
    until_credentials(&ns, secs(30), "weather-agent").await?;
    registration.until_registered(&ns, secs(40), "weather-agent", "True/Registered").await?;
    until_pods(&ns, "weather-agent", "annotated Pods", |pod| has_secret(pod, SECRET)).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather-agent").await?;
    let bare = |object: &Value| object.template_annotation(SECRET_ANNOTATION).is_none();
    ns.holds(secs(8), kinds::DEPLOYMENT, "weather-agent", "a template without the annotation", bare).await?;
    let after = ns.replica_sets("weather-agent").await?.len();
    ensure!(after == before + 1, "{before} ReplicaSets before, {after} after");
    registration.keeps_secrets(&[]).await
}

/// Webhook 16: the next Pod names the Secret as soon as the namespace names a Keycloak, and the Secret is written.
/// Runtime 18: `authbridge-config` of enabled namespaces has one writer, which is not runtime-ctl.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_webhook_16_and_runtime_18_one_writer() -> Result<()> {
    let registration = Registration::once(&INJECTED, injected).await?;
    let ns = registration.namespace("webhook-16", Value::Null).await?;
    ns.create(objects::deployment("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    registration.until_registered(&ns, secs(40), "weather", "False/WaitingForConfig").await?;
    let without = |pod: &Value| {
        pod.annotation("kagenti.io/authbridge-status").is_some()
            && pod.annotation(SECRET_ANNOTATION).is_none()
    };
    until_pods(&ns, "weather", "injected Pods without credentials", without).await?;
    ensure!(ns.events("weather", "WaitingForConfig").await?.is_empty(), "waiting is no failure");
    ensure!(credentials_secret(&ns, "weather").await?.is_none());

    ns.create(agents::authbridge_config(registration.url(), registration.realm().name())).await?;
    let secret = until_credentials(&ns, secs(20), "weather").await?;
    until_pods(&ns, "weather", "Pods with the Secret", |pod| has_secret(pod, secret.name())).await?;
    registration.realm().token(&account(&secret)?).await?;

    let mark = registration.cluster().audit()?.mark()?;
    let own = registration.namespace("runtime-18", json!({"kagenti-enabled": "true"})).await?;
    own.create(objects::deployment("weather")).await?;
    own.create(objects::agent_runtime("weather", "weather")).await?;
    own.until(secs(20), kinds::CONFIG_MAP, "authbridge-config", "its data", |map| {
        map["data"]["KEYCLOAK_URL"] == registration.url()
    })
    .await?;
    registration.until_registered(&own, secs(40), "weather", "True/Registered").await?;
    let writers = registration.cluster().audit()?.since(mark, |request| {
        request.is_write()
            && request.resource == "configmaps"
            && request.namespace == own.name()
            && request.name == "authbridge-config"
    })?;
    ensure!(writers.len() == 1, "{writers:?}");
    ensure!(writers.iter().all(|request| request.short_user() == COMPONENT), "{writers:?}");
    registration.keeps_secrets(&[]).await
}

/// Split 3: the condition, and no Secret; values other than `"true"` register.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_split_03_registration_is_opt_in() -> Result<()> {
    let registration = Registration::once(&INJECTED, injected).await?;
    let ns = split(&registration, "split-03").await?;
    ns.create(agent("sidecar").template_label(BY_SIDECAR, "true")).await?;
    ns.create(objects::agent_runtime("sidecar", "sidecar")).await?;
    registration.until_registered(&ns, secs(40), "sidecar", "False/LegacyRegistrar").await?;
    until_pods(&ns, "sidecar", "the third container", has_sidecar).await?;
    for value in ["false", "True", "yes"] {
        let name = format!("agent-{}", value.to_lowercase());
        ns.create(agent(&name).template_label(BY_SIDECAR, value)).await?;
        let secret = until_credentials(&ns, secs(20), &name).await?;
        until_pods(&ns, &name, "Pods with the Secret", |pod| {
            has_secret(pod, secret.name()) && !has_sidecar(pod)
        })
        .await?;
    }
    ensure!(ns.events("sidecar", "LegacyRegistrar").await?.is_empty(), "it is no failure");
    ensure!(credentials_secret(&ns, "sidecar").await?.is_none());
    ensure!(registration.realm().client("split-03/sidecar").await?.is_none());
    registration.keeps_secrets(&[]).await
}

/// An enabled namespace of layout `split`.
async fn split(registration: &Registration, name: &str) -> Result<Ns> {
    let ns = enabled(registration, name).await?;
    let layout = json!({"config.yaml": "sidecarLayout: split\n"});
    ns.create(objects::config_map("authbridge-runtime-config", layout)).await?;
    Ok(ns)
}

/// The attributes by which a client is ours.
async fn marks(realm: &Realm, id: &str) -> Result<Vec<String>> {
    let client = realm.existing(id).await?;
    let attributes = client["attributes"].as_object().cloned().unwrap_or_default();
    let ours = attributes.into_iter().filter(|(key, value)| key.starts_with("kagenti.") && value != "");
    Ok(ours.map(|(key, _)| key).collect())
}

/// Split 11: a workload goes from the operator to a sidecar and back.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_split_11_moving_between_operator_and_sidecar() -> Result<()> {
    let registration = Registration::once(&INJECTED, injected).await?;
    let (realm, ns) = (registration.realm(), split(&registration, "split-11").await?);
    let id = "split-11/weather";
    ns.create(agent("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let secret = until_credentials(&ns, secs(20), "weather").await?;
    registration.until_registered(&ns, secs(40), "weather", "True/Registered").await?;
    until_pods(&ns, "weather", "Pods with the Secret", |pod| has_secret(pod, secret.name())).await?;
    // The label is there from the start, so registration does not wait for runtime-ctl: its rollout may come later.
    let enrolled = |object: &Value| object.template_annotation(CONFIG_HASH).is_some();
    ns.until(secs(40), kinds::DEPLOYMENT, "weather", "its enrolment", enrolled).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let before = account(&secret)?;
    let uuid = realm.existing(id).await?.text("/id").to_owned();
    let sets = ns.replica_sets("weather").await?.len();

    let label = |value: Value| json!({"spec": {"template": {"metadata": {"labels": {BY_SIDECAR: value}}}}});
    ns.patch(kinds::DEPLOYMENT, "weather", label(json!("true"))).await?;
    registration.until_registered(&ns, secs(40), "weather", "False/LegacyRegistrar").await?;
    until_pods(&ns, "weather", "the third container", |pod| {
        has_sidecar(pod) && !has_secret(pod, secret.name())
    })
    .await?;
    ns.gone(secs(90), kinds::SECRET, secret.name()).await?;
    // Released, not deleted: the same client under the same id, without our marks, and with its scope.
    let client = realm.existing(id).await?;
    ensure!(client.text("/id") == uuid, "another client");
    ensure!(marks(realm, id).await?.is_empty(), "{:?}", marks(realm, id).await?);
    ensure!(realm.scope("agent-split-11-weather-aud").await?.is_some(), "its scope is gone");
    // What the sidecar's registration reads (§7.4) is good for a token that the proxy accepts.
    let read = realm.read(&format!("/clients/{uuid}/client-secret")).await?.text("/value").to_owned();
    let by_sidecar = Account { id: id.to_owned(), secret: read };
    realm.accepts(&realm.token(&by_sidecar).await?, id).await?;
    ensure!(by_sidecar == before, "the Pods that were there before lost their credentials");

    ns.patch(kinds::DEPLOYMENT, "weather", label(Value::Null)).await?;
    let again = until_credentials(&ns, secs(40), "weather").await?;
    registration.until_registered(&ns, secs(40), "weather", "True/Registered").await?;
    ensure!(account(&again)? == by_sidecar, "other credentials than the sidecar's");
    ensure!(realm.existing(id).await?.text("/id") == uuid);
    wait_for(NEXT_CHECK, "the client to be adopted", async || {
        let marks = marks(realm, id).await?;
        Ok(marks.iter().any(|mark| mark == "kagenti.adopted").then_some(()))
    })
    .await?;
    ns.until_event(secs(10), "weather", "ClientAdopted").await?;
    until_pods(&ns, "weather", "Pods with the Secret", |pod| {
        has_secret(pod, secret.name()) && !has_sidecar(pod)
    })
    .await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let bare = |object: &Value| object.template_annotation(REVISION_ANNOTATION).is_none();
    ns.holds(secs(8), kinds::DEPLOYMENT, "weather", "a template without revision", bare).await?;
    // Deployments re-use a ReplicaSet of the same template, so new ones and generations are counted both.
    let after = ns.replica_sets("weather").await?.len();
    ensure!(after <= sets + 2, "{sets} ReplicaSets before, {after} after two changes of the label");
    registration.keeps_secrets(&[before.secret]).await
}
