//! The chart on a bare cluster, as the README's Helm path goes.

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, Stopwatch, kinds, secs, wait_for};
use local_cluster::{Profile, components, http};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::serving::published_within_a_minute;

/// What a reader of the README applies.
const QUICK_START: &str = include_str!("../../../../deploy/samples/quickstart.yaml");

/// Installs the umbrella without values and waits until Helm says that everything is ready.
async fn install(node: &RealNode) -> Result<Helm> {
    let helm = Helm::new(&node.built().helm, node.cluster()).await?;
    let chart = helm.chart();
    let chart = chart.to_str().context("a path")?;
    let namespace = format!("--namespace={NAMESPACE}");
    let args = ["install", RELEASE, chart, &namespace, "--create-namespace", "--wait", "--timeout=5m"];
    if let Err(error) = helm.run(args).await {
        let seen = ["get", "pods,jobs,events", "--all-namespaces", "--output=wide"];
        return Err(error.context(node.cluster().kubectl(seen).await.unwrap_or_default()));
    }
    Ok(helm)
}

/// Packaging 25: bare cluster, `helm install` without values, the README's objects in `default`; an active agent behind its
/// sidecar, reached through its Service, with a card. Packaging 10, 22 and 21 on the same release.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_25_quick_start() -> Result<()> {
    let node = RealNode::own().await?;
    let watch = Stopwatch::start();
    let helm = install(&node).await?;
    eprintln!("helm install --wait: {:.1} s", watch.spent().as_secs_f64());
    published_within_a_minute(&Ns::cluster(node.cluster().client().await?)).await?;
    apply(&node).await?;
    let ns = Ns::new(node.cluster().client().await?, "default");
    let pod = injected_pod(&ns).await?;
    eprintln!("helm install to a running injected Pod: {:.1} s", watch.spent().as_secs_f64());
    let runtime = "weather-agent-runtime";
    ns.until(secs(60), kinds::AGENT_RUNTIME, runtime, "Active", |found| {
        found.text("/status/phase") == "Active"
            && found.condition("IdentityReady").short() == "False/NoIdentityProvider"
    })
    .await?;
    // Where nobody listens yet, or kube-proxy does not have the Service yet, it is fetched again after 5 s and 15 s.
    ns.until_list(secs(60), kinds::AGENT_CARD, "", "a synced card", |cards| {
        cards.iter().any(|card| card.condition("Synced").status == "True")
    })
    .await?;
    port_plan(&ns, &pod).await?;
    checked(&node).await?;
    helm_test(&helm, &node).await?;
    uninstall(&helm, &node, &ns).await?;
    node.cluster().stop().await
}

/// `kubectl kagenti check` finds nothing wrong: leaders, the webhook's Service, its certificate and bundle, admission on trial.
async fn checked(node: &RealNode) -> Result<()> {
    const PLUGIN: &str = "kubectl-kagenti";
    let built = tokio::task::spawn_blocking(|| components::build(&[PLUGIN], Profile::Same)).await??;
    let mut plugin = tokio::process::Command::new(built.path(PLUGIN)?);
    plugin.args(["check", "--namespace=default"]).env("KUBECONFIG", node.cluster().kubeconfig());
    let output = plugin.kill_on_drop(true).output().await.context("running the plugin")?;
    let said = String::from_utf8(output.stdout).context("text")?;
    let fine = [
        "is held by",
        "has 2 ready endpoints",
        "trusted by the API server",
        "gets its sidecars",
        "AgentCards: 1",
    ];
    for text in fine {
        ensure!(said.contains(text), "no {text:?} in {said}");
    }
    ensure!(output.status.success() && said.ends_with(" 0 failed, 0 unknown\n"), "{said}");
    Ok(())
}

/// Applies what the README has right after `helm install --wait`. Helm waits for the webhook's Pods; that the node routes their
/// Service, too, is a matter of moments which nobody reports. Until then the API server says so, and only that is tried again.
async fn apply(node: &RealNode) -> Result<()> {
    let outcome = wait_for(secs(20), "the API server to reach the webhook", async || {
        match node.cluster().apply_yaml(QUICK_START).await {
            Err(error) if format!("{error:#}").contains("failed calling webhook") => Err(error),
            outcome => Ok(Some(outcome)),
        }
    });
    outcome.await?.map(drop)
}

/// The Pod that came through the webhook, called by the API server at its Service address.
async fn injected_pod(ns: &Ns) -> Result<serde_json::Value> {
    let selector = "app.kubernetes.io/name=weather-agent";
    let pods = ns
        .until_list(secs(90), kinds::POD, selector, "one ready Pod with its sidecar", |pods| {
            let live: Vec<_> =
                pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).collect();
            live.len() == 1
                && live[0].container("authbridge-proxy").is_some()
                && live[0].condition("Ready").status == "True"
        })
        .await?;
    let pod = pods.into_iter().find(|pod| pod.container("authbridge-proxy").is_some());
    let pod = pod.context("the injected Pod")?;
    let waits_for = |kind: &str| pod.items("/spec/volumes").iter().any(|volume| volume.get(kind).is_some());
    assert!(!waits_for("secret") && !waits_for("csi"), "{}", pod.readable());
    Ok(pod)
}

/// The ports of the plan, by traffic: the Service reaches the sidecar, which relays to the agent's new port.
async fn port_plan(ns: &Ns, pod: &serde_json::Value) -> Result<()> {
    let address = pod.text("/status/podIP");
    let service = ns.get(kinds::SERVICE, "weather-agent").await?.text("/spec/clusterIP").to_owned();
    let card = "/.well-known/agent-card.json";
    let through = get(&format!("http://{service}:8000{card}")).await?;
    assert!(through.contains("Weather Agent"), "{through}");
    let moved = pod.container("agent").and_then(|agent| agent.env("PORT")).context("a new port")?.to_owned();
    assert_ne!(moved, "8000");
    assert_eq!(get(&format!("http://{address}:{moved}{card}")).await?, through);
    let config = get(&format!("http://{address}:9091/config")).await?;
    assert!(config.contains(&format!("reverse_proxy_backend: http://127.0.0.1:{moved}")), "{config}");
    assert_eq!(get(&format!("http://{address}:8081/")).await?.trim(), "forward_proxy_addr");
    Ok(())
}

async fn get(url: &str) -> Result<String> {
    wait_for(secs(20), &format!("200 from {url}"), async || {
        let (status, body) = http::get(url).await?;
        anyhow::ensure!(status.is_success(), "{status}: {body}");
        Ok(Some(body))
    })
    .await
}

/// Packaging 22, the good half.
async fn helm_test(helm: &Helm, node: &RealNode) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    let run = helm.run(["test", RELEASE, &namespace, "--timeout=3m"]).await;
    let said = match run {
        Ok(said) => said,
        // A Pod that failed is kept, and says which check it was.
        Err(error) => {
            let logs =
                ["logs", &namespace, "--selector=app.kubernetes.io/instance=kagenti-operator", "--tail=20"];
            return Err(error.context(node.cluster().kubectl(logs).await.unwrap_or_default()));
        }
    };
    assert!(said.contains("Succeeded") && !said.contains("Failed"), "{said}");
    Ok(())
}

/// Packaging 21, `uninstall.cleanup=none`: nothing of the release stays but the objects of the user, and Pods can be made.
async fn uninstall(helm: &Helm, node: &RealNode, ns: &Ns) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    helm.run(["uninstall", RELEASE, &namespace, "--wait", "--timeout=3m"]).await?;
    let all = Ns::cluster(node.cluster().client().await?);
    for kind in [kinds::MUTATING_WEBHOOK, kinds::VALIDATING_WEBHOOK] {
        let hooks = all.list(kind, "").await?;
        assert!(hooks.is_empty(), "{hooks:?}");
    }
    ns.get(kinds::AGENT_RUNTIME, "weather-agent-runtime").await?;
    let before = ns.list(kinds::POD, "app.kubernetes.io/name=weather-agent").await?;
    for pod in &before {
        ns.delete(kinds::POD, pod.name()).await?;
    }
    let old: Vec<String> = before.iter().map(|pod| pod.uid().to_owned()).collect();
    let selector = "app.kubernetes.io/name=weather-agent,agent.kagenti.dev/enrolled=true";
    ns.until_list(secs(60), kinds::POD, selector, "a Pod after the webhook is gone", |pods| {
        pods.iter()
            .any(|pod| !old.contains(&pod.uid().to_owned()) && pod.container("authbridge-proxy").is_none())
    })
    .await
    .map(drop)
}
