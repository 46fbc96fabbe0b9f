//! Layout `split` in containers. The registration's script, its shell and the probe are real; the program that talks to
//! Keycloak is a stand-in, and without SPIRE there is no `spiffe-helper`.

use anyhow::{Context as _, Result, ensure};
use api_types::names::label;
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

use crate::installed::Turn;
use crate::traffic::gated_pod;

/// A pod label that opts in to registration by a sidecar.
const REGISTRATION: &str = "kagenti.io/client-registration-inject";
const REGISTRAR: &str = "kagenti-client-registration";

/// An enabled namespace in layout `split` whose Keycloak is Deployment `keycloak`, which nobody has made yet.
async fn team(turn: &Turn, name: &str) -> Result<Ns> {
    let ns = turn.node().namespace(name, json!({})).await?;
    let url = format!("http://keycloak.{name}.svc.cluster.local:8000");
    let keycloak =
        json!({"KEYCLOAK_URL": url, "KEYCLOAK_REALM": "kagenti", "ISSUER": "http://issuer.invalid"});
    ns.create(objects::config_map("authbridge-config", keycloak)).await?;
    let layout = json!({"config.yaml": "sidecarLayout: split\n"});
    ns.create(objects::config_map("authbridge-runtime-config", layout)).await?;
    let admin = json!({"KEYCLOAK_ADMIN_USERNAME": "nobody", "KEYCLOAK_ADMIN_PASSWORD": "made-up"});
    let secret = objects::named(kinds::SECRET, "keycloak-admin-secret").with(json!({"stringData": admin}));
    ns.create(secret).await?;
    let port = json!([{"name": "http", "port": 8000, "targetPort": 8000}]);
    ns.create(objects::service("keycloak", "keycloak", port)).await?;
    let all = Ns::cluster(ns.client().clone());
    all.set_labels(kinds::NAMESPACE, name, json!({"kagenti-enabled": "true"})).await?;
    wait_for(secs(60), "the webhook to know the layout", async || {
        let mut probe = gated_pod("probe");
        probe["metadata"]["labels"][REGISTRATION] = "true".into();
        let pod = ns.create(probe).await?;
        ns.delete(kinds::POD, "probe").await?;
        Ok(pod.container(REGISTRAR).is_some().then_some(()))
    })
    .await?;
    Ok(ns)
}

/// Whether a container of a Pod is ready.
fn ready(pod: &Value, container: &str) -> bool {
    let lists = [pod.items("/status/containerStatuses"), pod.items("/status/initContainerStatuses")];
    let mut all = lists.into_iter().flatten();
    all.any(|status| status.text("/name") == container && status["ready"] == true)
}

/// Scenario 13: Keycloak is down when the Pod starts. The Pod is not ready, its log says why, again and again; Keycloak comes up,
/// and the same Pod becomes ready.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn split_13_keycloak_down_at_start() -> Result<()> {
    let turn = Turn::take().await?;
    let ns = team(&turn, "split-13").await?;
    let agent = objects::deployment("weather")
        .template_label(label::TYPE, "agent")
        .template_label(REGISTRATION, "true");
    ns.create(agent).await?;
    let running =
        |pods: &[Value]| pods.len() == 1 && ready(&pods[0], "agent") && ready(&pods[0], "envoy-proxy");
    let pods = ns.until_list(secs(90), kinds::POD, "app=weather", "agent and proxy to run", running).await?;
    let pod = pods.into_iter().next().context("a Pod")?;
    wait_for(secs(60), "a third attempt in the log", async || {
        let log = log(&turn, &ns, pod.name()).await?;
        Ok(log.contains("registration attempt 3 failed").then_some(()))
    })
    .await?;
    let waiting = ns.get(kinds::POD, pod.name()).await?;
    ensure!(waiting.condition("Ready").status == "False", "{}", waiting.readable());
    ensure!(!ready(&waiting, REGISTRAR), "{}", waiting.readable());
    let told = log(&turn, &ns, pod.name()).await?;
    ensure!(told.contains("keycloak.split-13.svc.cluster.local"), "{told}");

    ns.create(objects::deployment("keycloak")).await?;
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, "keycloak").await?;
    // The next attempt is at most a minute away.
    let name = pod.name();
    let now =
        ns.until(secs(120), kinds::POD, name, "Ready", |pod| pod.condition("Ready").status == "True").await?;
    assert_eq!(now.uid(), pod.uid());
    assert_eq!(crate::release::restarts(&now), 0);
    ensure!(log(&turn, &ns, name).await?.contains("registered split-13/weather"), "{told}");
    ns.delete(kinds::DEPLOYMENT, "weather").await
}

async fn log(turn: &Turn, ns: &Ns, pod: &str) -> Result<String> {
    let namespace = format!("--namespace={}", ns.name());
    turn.cluster().kubectl(["logs", &namespace, pod, "--container", REGISTRAR]).await
}

/// Scenario 8: the Job of an agent ends by itself, although its sidecars never would; they were there until its end.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn split_08_a_job_ends() -> Result<()> {
    let turn = Turn::take().await?;
    let ns = team(&turn, "split-08").await?;
    let mut container = objects::container(8000);
    // The helper that the registration's image brings: it works for long enough that a slow machine sees it beside its sidecars.
    container["image"] = "ghcr.io/kagenti/kagenti-extensions/client-registration:latest".into();
    container["imagePullPolicy"] = "IfNotPresent".into();
    container["command"] = json!(["/bin/sleep", "30"]);
    let job = objects::job("report")
        .template_label(label::TYPE, "agent")
        .template_label(REGISTRATION, "true")
        .pod_spec(json!({"terminationGracePeriodSeconds": 5, "containers": [container]}));
    ns.create(job).await?;
    let selector = "batch.kubernetes.io/job-name=report";
    let sidecars = [REGISTRAR, "envoy-proxy"];
    ns.until_list(secs(90), kinds::POD, selector, "the Job at work beside its sidecars", |pods| {
        pods.iter().any(|pod| {
            let native = pod.items("/spec/initContainers");
            let always = |name: &&str| {
                native.iter().any(|c| *c.text("/name") == **name && c.text("/restartPolicy") == "Always")
            };
            sidecars.iter().all(always) && ready(pod, "agent") && ready(pod, "envoy-proxy")
        })
    })
    .await?;
    ns.until(secs(120), kinds::JOB, "report", "the Job to end", |job| {
        job.condition("Complete").status == "True"
    })
    .await?;
    Ok(())
}
