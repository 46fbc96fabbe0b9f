//! `cargo demo --nodes real`: the quick start where containers run, installed with Helm, as the README says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use local_cluster::images;
use local_cluster::node::preflight;
use local_cluster::programs::{Program, Programs};
use local_cluster::terminal::{Terminal, Tone, seconds};
use local_cluster::{Cluster, ClusterOptions, Helm, http, wait_for};

use super::agent::Agent;
use super::checks::{Check, Scene};
use super::screen::Screen;
use super::story::{self, Story};
use super::{QUICK_START, interrupted};

/// What the chart installs unless told otherwise, by the names in the story.
const COMPONENTS: &[&str] = &["authbridge-webhook", "runtime-ctl", "card-ctl", "client-registration-ctl"];
const RELEASE: &str = "kagenti-operator";
const NAMESPACE: &str = "--namespace=kagenti-system";
/// Where the agent publishes its card.
const CARD: &str = "/.well-known/agent-card.json";
/// Rules of a new Service reach the node a moment after its Pods are ready.
const ROUTED_WITHIN: Duration = Duration::from_secs(15);

/// What is built before the cluster starts.
struct Built {
    images: Vec<PathBuf>,
    helm: PathBuf,
}

/// True when every check holds.
pub(crate) async fn run(once: bool, screen: &Screen) -> Result<bool> {
    let started = Instant::now();
    screen.heading("The kagenti quick start on a real node, installed with Helm");
    // Shows its own progress: the first time it takes minutes.
    let built = tokio::select! {
        built = tokio::task::spawn_blocking(build) => built.context("building the images")??,
        stop = interrupted() => return stop.map(|()| false),
    };
    let cluster = tokio::select! {
        cluster = start(screen) => cluster?,
        stop = interrupted() => return stop.map(|()| false),
    };
    let told = tokio::select! {
        told = perform(&cluster, &built, screen) => told,
        stop = interrupted() => stop.map(|()| false),
    };
    match &told {
        Ok(true) => {}
        _ => show_pods(&cluster, screen).await,
    }
    if told.is_ok() {
        screen.heading(&format!("Done in {}.", seconds(started.elapsed())));
        if !once {
            explore(&cluster, screen);
            screen.plain("Ctrl-C ends it.", Tone::Faint);
            interrupted().await?;
        }
    }
    let task = screen.task("stopping");
    let stopped = cluster.stop().await;
    task.cleared();
    stopped?;
    told
}

fn build() -> Result<Built> {
    preflight::ensure(Terminal::stderr())?;
    let images = images::for_a_node()?;
    let helm = Programs::ensure(&[Program::Helm], Terminal::stderr())?.path(Program::Helm)?.to_owned();
    Ok(Built { images, helm })
}

async fn start(screen: &Screen) -> Result<Cluster> {
    let options = ClusterOptions::on_a_real_node();
    let wanted = options.clone();
    tokio::task::spawn_blocking(move || local_cluster::ensure_programs(&wanted))
        .await
        .context("building the control plane")??;
    super::start_shown(options, "control plane; a node with kubelet, containerd, kube-proxy, CoreDNS", screen)
        .await
}

/// Installs the suite, tells the story, calls the agent and lets Helm test the release.
async fn perform(cluster: &Cluster, built: &Built, screen: &Screen) -> Result<bool> {
    let task = screen.task(&format!("{} images onto the node, no registry", built.images.len()));
    cluster.import_images(&built.images).await?;
    task.done();
    let helm = install(cluster, built, screen).await?;
    screen.plain("The agent and AuthBridge are stand-ins; they relay, and check no token.", Tone::Plain);

    let mut story = Story::new(cluster, screen, Scene::Bare, COMPONENTS, Agent::in_its_pod()).await?;
    let mut checks = Box::pin(story.tell(QUICK_START, &mut Vec::new())).await?;
    screen.heading("Calling the agent by its Service");
    let called = call(cluster, screen).await;
    checks.push(show(screen, "the agent answers behind its sidecar, where it was before", &called));
    screen.heading(&format!("helm test {RELEASE} {NAMESPACE} --logs"));
    let tested = test(&helm, screen).await;
    checks.push(show(screen, "every component says that it works", &tested));
    Ok(checks.iter().all(|check| check.holds))
}

/// A check that was made just now, with what is wrong below it.
fn show(screen: &Screen, text: &str, outcome: &Result<()>) -> Check {
    screen.check(outcome.is_ok(), text);
    if let Err(error) = outcome {
        screen.reason(error);
    }
    Check { text: text.to_owned(), holds: outcome.is_ok() }
}

async fn install(cluster: &Cluster, built: &Built, screen: &Screen) -> Result<Helm> {
    let task = screen.task("helm dependency build charts/kagenti-operator");
    let helm = Helm::new(&built.helm, cluster).await?;
    task.done();
    let task = screen.task(&format!(
        "helm install {RELEASE} charts/kagenti-operator {NAMESPACE} --create-namespace --wait"
    ));
    let chart = helm.chart();
    let chart = chart.to_str().context("the chart's directory")?;
    let args = ["install", RELEASE, chart, NAMESPACE, "--create-namespace", "--wait", "--timeout=5m"];
    match helm.run(args).await {
        Ok(_) => task.done(),
        Err(error) => {
            task.cleared();
            return Err(error);
        }
    }
    Ok(helm)
}

/// The card, by the way that other agents take: Service, sidecar, agent.
async fn call(cluster: &Cluster, screen: &Screen) -> Result<()> {
    let services = Api::<Service>::namespaced(cluster.client().await?, story::NAMESPACE);
    let service = services.get(story::WORKLOAD).await.context("the agent's Service")?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
    let url = format!("http://{address}:8000{CARD}");
    let body = wait_for(ROUTED_WITHIN, &format!("200 from {url}"), async || {
        let (status, body) = http::get(&url).await?;
        ensure!(status.is_success(), "{status}: {body}");
        Ok(Some(body))
    })
    .await?;
    let card: serde_json::Value = serde_json::from_str(&body).context("the card")?;
    screen.plain(&format!("curl {url}"), Tone::Strong);
    for key in ["name", "version", "url"] {
        screen.named(key, card.get(key).and_then(serde_json::Value::as_str).unwrap_or("-"));
    }
    Ok(())
}

/// Shows the table of every test Pod as one; an error when a check failed.
async fn test(helm: &Helm, screen: &Screen) -> Result<()> {
    let task = screen.task("a Pod for each component looks at its own");
    let output = helm.attempt(["test", RELEASE, NAMESPACE, "--timeout=2m", "--logs"]).await?;
    task.cleared();
    let said = String::from_utf8_lossy(&output.stdout);
    for (component, lines) in tables(&said) {
        screen.plain(component, Tone::Strong);
        for line in lines {
            screen.plain(&format!("  {line}"), Tone::Plain);
        }
    }
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The table of each test Pod, by component.
fn tables(said: &str) -> Vec<(&str, Vec<&str>)> {
    let mut tables: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in said.lines() {
        if let Some(pod) = line.strip_prefix("POD LOGS: ") {
            let component = pod.trim_start_matches("kagenti-").trim_end_matches("-test");
            tables.push((component, Vec::new()));
        } else if let Some((_, lines)) = tables.last_mut()
            && !line.is_empty()
        {
            lines.push(line);
        }
    }
    tables
}

async fn show_pods(cluster: &Cluster, screen: &Screen) {
    let seen = ["get", "pods,jobs", "--all-namespaces", "--output=wide"];
    if let Ok(table) = cluster.kubectl(seen).await {
        screen.heading("kubectl get pods,jobs --all-namespaces");
        for line in table.lines() {
            screen.plain(line, Tone::Plain);
        }
    }
}

fn explore(cluster: &Cluster, screen: &Screen) {
    screen.explore(cluster);
    screen.plain("  kubectl logs --namespace kagenti-system deployment/kagenti-card-ctl", Tone::Plain);
    screen.plain("  kubectl exec is of no use: the images hold one program each, and no shell", Tone::Faint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_pod_has_its_table() {
        let said = "NAME: kagenti-operator\n\nPOD LOGS: kagenti-card-ctl-test\n\
            ok      api server  Kubernetes v1.36.1\nFAILED  lease       nobody holds it\n\n\
            POD LOGS: kagenti-runtime-ctl-test\nok      rights      12 rights\n";
        let lines = ["ok      api server  Kubernetes v1.36.1", "FAILED  lease       nobody holds it"];
        let wanted = [("card-ctl", lines.to_vec()), ("runtime-ctl", vec!["ok      rights      12 rights"])];
        assert_eq!(tables(said), wanted);
    }
}
