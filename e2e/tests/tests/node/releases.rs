//! Releases side by side (packaging §2, §7).

use anyhow::{Context as _, Result, ensure};
use api_types::names::label;
use e2e::{Json as _, Ns, kinds, secs};
use serde_json::json;

use crate::chart::Helm;
use crate::node::RealNode;
use crate::release::{answers, deploy, enrol, helm_run, lives, only, pods, until_ready, wide_objects};

/// `helm install` of the umbrella; the namespace of the release.
async fn install(helm: &Helm, node: &RealNode, release: &str, namespace: &str, set: &str) -> Result<Ns> {
    let chart = helm.chart().display().to_string();
    let place = format!("--namespace={namespace}");
    let args = ["install", release, &chart, &place, "--create-namespace", set, "--wait", "--timeout=3m"];
    helm_run(helm, node.cluster(), &args).await.with_context(|| format!("release {release}"))?;
    Ok(Ns::new(node.cluster().client().await?, namespace))
}

async fn uninstall(helm: &Helm, node: &RealNode, release: &str, namespace: &str) -> Result<()> {
    let args = ["uninstall", release, "--namespace", namespace, "--wait", "--timeout=2m"];
    helm_run(helm, node.cluster(), &args).await.map(drop)
}

/// Packaging 8: two releases with a namespace each, then two of the whole cluster with different components, at work side
/// by side; one goes, the other goes on.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_08_two_releases() -> Result<()> {
    let node = RealNode::own().await?;
    let helm = Helm::new(&node.built().helm, node.cluster()).await?;
    let team1 = node.namespace("team1", json!({})).await?;
    let team2 = node.namespace("team2", json!({})).await?;
    a_namespace_each(&helm, &node, &team1, &team2).await?;
    components_apart(&helm, &node, &team1).await?;
    node.cluster().stop().await
}

async fn a_namespace_each(helm: &Helm, node: &RealNode, team1: &Ns, team2: &Ns) -> Result<()> {
    let all = Ns::cluster(node.cluster().client().await?);
    let before = wide_objects(&all).await?;
    let ns_a = install(helm, node, "a", "ns-a", "--set=global.watchNamespaces={team1}").await?;
    let ns_b = install(helm, node, "b", "ns-b", "--set=global.watchNamespaces={team2}").await?;
    let mut after = wide_objects(&all).await?;
    after.retain(|name| !before.contains(name) && !name.starts_with("CustomResourceDefinition "));
    assert!(after.is_empty(), "two releases of one namespace each made {after:?}");
    for team in [team1, team2] {
        answers(team).await?;
        enrol(team, "weather").await?;
    }
    for team in [team1, team2] {
        team.until_ready(secs(60), "weather").await?;
        let card = "weather-deployment-card";
        team.until(secs(60), kinds::AGENT_CARD, card, "a card", |_| true).await?;
    }
    // Neither reads the other's namespace.
    for (release, foreign) in [(&ns_a, team2), (&ns_b, team1)] {
        let user = format!("system:serviceaccount:{}:", release.name());
        let crossed = node.cluster().audit()?.since(local_cluster::Mark::default(), |request| {
            request.user.starts_with(&user) && request.namespace == foreign.name()
        })?;
        assert!(crossed.is_empty(), "{crossed:?}");
    }

    let running = lives(&pods(&ns_b, "").await?);
    uninstall(helm, node, "a", "ns-a").await?;
    enrol(team2, "second").await?;
    team2.until_ready(secs(60), "second").await?;
    assert_eq!(lives(&pods(&ns_b, "").await?), running, "the other release's Pods");
    enrol(team1, "second").await?;
    let nobodys = team1.stays(secs(3), kinds::AGENT_RUNTIME, "second").await?;
    assert!(nobodys.get("status").is_none(), "{}", nobodys.readable());
    uninstall(helm, node, "b", "ns-b").await
}

async fn components_apart(helm: &Helm, node: &RealNode, team1: &Ns) -> Result<()> {
    let cluster = node.cluster();
    let (first, second) = (["runtime-ctl", "authbridge-webhook"], ["card-ctl", "client-registration-ctl"]);
    let ns_a = install(helm, node, "one", "ns-a", &only(&first)).await?;
    let ns_b = install(helm, node, "two", "ns-b", &only(&second)).await?;
    // What the releases before left is taken over: no marks of theirs are in the way.
    team1.until_ready(secs(60), "second").await?;

    // Twice the same release in two namespaces: its webhook configurations have kept their names, so Helm says whose they
    // are, before it changes anything.
    let chart = helm.chart().display().to_string();
    let again = ["install", "one", &chart, "--namespace=elsewhere", "--create-namespace"];
    let refused = format!("{:#}", helm.run(again).await.err().context("two releases own one object")?);
    ensure!(refused.contains("one-kagenti-operator-chart") && refused.contains("\"ns-a\""), "{refused}");
    let left = cluster.kubectl(["get", "all,secrets", "--namespace=elsewhere", "--output=name"]).await?;
    assert_eq!(left.trim(), "", "the refused release left something");

    // Each does its part for the same agent.
    let team3 = node.namespace("team3", json!({})).await?;
    answers(&team3).await?;
    enrol(&team3, "weather").await?;
    let injected = |pods: &[serde_json::Value]| {
        pods.iter()
            .any(|pod| pod.container("authbridge-proxy").is_some() && pod.condition("Ready").status == "True")
    };
    team3.until_list(secs(90), kinds::POD, "app=weather", "a ready Pod with its sidecar", injected).await?;
    let card = "weather-deployment-card";
    team3.until(secs(60), kinds::AGENT_CARD, card, "a card", |_| true).await?;

    let running = lives(&pods(&ns_b, "").await?);
    uninstall(helm, node, "one", "ns-a").await?;
    assert!(pods(&ns_a, "").await?.is_empty());
    deploy(&team3, "labelled").await?;
    team3.set_labels(kinds::DEPLOYMENT, "labelled", json!({label::TYPE: "agent"})).await?;
    let card = "labelled-deployment-card";
    team3.until(secs(60), kinds::AGENT_CARD, card, "a card from the release that is left", |_| true).await?;
    until_ready(&ns_b, secs(30)).await?;
    assert_eq!(lives(&pods(&ns_b, "").await?), running, "the other release's Pods");
    Ok(())
}
