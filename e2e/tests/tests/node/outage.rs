//! Nobody answers for a while: no replica of the webhook, or no container at all.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api_types::names::label;
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use local_cluster::ApiRequest;
use serde_json::{Value, json};

use crate::chart::NAMESPACE;
use crate::installed::Turn;
use crate::release::{self, enrol, restarts};
use crate::traffic::impatient;

const WEBHOOK: &str = "kagenti-authbridge-webhook";

/// Ready Pods with their sidecar that are not being deleted.
fn at_work(pods: &[Value]) -> Vec<&Value> {
    pods.iter()
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
        .filter(|pod| pod.container("authbridge-proxy").is_some() && pod.condition("Ready").status == "True")
        .collect()
}

async fn without_webhook(turn: &Turn, ns: &Ns) -> Result<()> {
    wait_for(secs(60), "no replica", async || {
        let left = turn.operator.list(kinds::POD, "app.kubernetes.io/component=authbridge-webhook").await?;
        let live = left.iter().filter(|pod| pod.text("/status/phase") == "Running").count();
        Ok((live == 0).then_some(()))
    })
    .await?;
    let direct = impatient(turn.cluster(), "no-webhook").await?;
    // Until the node has learned that the Service leads nowhere, the call ends with its time.
    wait_for(secs(60), "a refusal that says why", async || {
        let reply = direct.refused(objects::pod("labelled").label(label::TYPE, "agent")).await?;
        let said = reply.message();
        eprintln!("{}: {said}", reply.status);
        ensure!(reply.status == 500 && said.contains("inject.kagenti.io"), "{} {said}", reply.status);
        Ok((said.contains("no endpoints available") || said.contains("connection refused")).then_some(()))
    })
    .await?;
    ns.create(objects::pod("plain")).await.context("a Pod without the label")?;
    ns.delete(kinds::POD, "plain").await?;

    for pod in ns.pods("weather").await? {
        ns.delete(kinds::POD, pod.name()).await?;
    }
    let sets = ns.replica_sets("weather").await?;
    let set = sets.iter().find(|set| set.number("/spec/replicas") == Some(1)).context("a ReplicaSet")?;
    let event = ns.until_event(secs(60), set.name(), "FailedCreate").await?;
    ensure!(event.text("/note").contains("inject.kagenti.io"), "{}", event.readable());
    Ok(())
}

/// With every replica of the webhook gone, a Pod that should be injected is refused with a text that names the webhook and the
/// reason, any other Pod is made, and what a ReplicaSet wants is there again by itself once the webhook is.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn fault_no_replica_of_the_webhook() -> Result<()> {
    let turn = Turn::take().await?;
    let ns = turn.node().namespace("no-webhook", json!({"kagenti-enabled": "true"})).await?;
    enrol(&ns, "weather").await?;
    let found = ns
        .until_list(secs(120), kinds::POD, "app=weather", "one injected Pod", |pods| at_work(pods).len() == 1)
        .await?;
    let old = at_work(&found).first().context("a Pod")?.uid().to_owned();

    turn.operator.set_spec(kinds::DEPLOYMENT, WEBHOOK, json!({"replicas": 0})).await?;
    let refused = without_webhook(&turn, &ns).await;
    // Also for the tests after this one.
    turn.operator.set_spec(kinds::DEPLOYMENT, WEBHOOK, json!({"replicas": 2})).await?;
    release::until_ready(&turn.operator, secs(120)).await?;
    refused?;
    // Pauses of the ReplicaSet controller double; the outage was short, so the next one is, too.
    ns.until_list(secs(180), kinds::POD, "app=weather", "a new injected Pod", |pods| {
        at_work(pods).iter().any(|pod| pod.uid() != old)
    })
    .await?;
    ns.until_ready(secs(60), "weather").await.map(drop)
}

/// Writes of the suite but for Leases and Events, by what was written.
fn writes(requests: Vec<ApiRequest>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let name = format!("{} {} {}/{}", request.verb, request.resource, request.namespace, request.name);
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// A reboot of the node kills every container of the suite and of an agent. All of them come back, nobody rolls out or makes anything
/// anew, and what is written tells what happened, a few times per object.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn fault_reboot_with_the_suite() -> Result<()> {
    let turn = Turn::take().await?;
    let cluster = turn.cluster();
    let ns = turn.node().namespace("rebooted", json!({})).await?;
    enrol(&ns, "weather").await?;
    ns.until_list(secs(120), kinds::POD, "app=weather", "one injected Pod", |pods| at_work(pods).len() == 1)
        .await?;
    ns.until_ready(secs(60), "weather").await?;
    ns.until_list(secs(90), kinds::AGENT_CARD, "", "a card", |cards| {
        cards.iter().any(|card| card.condition("Synced").status == "True")
    })
    .await?;
    let before = Before::of(&turn.operator, &ns).await?;
    let mark = cluster.audit()?.mark()?;

    cluster.real_node().stop().await?;
    cluster.real_node().start().await?;
    ns.until_list(secs(120), kinds::POD, "app=weather", "the agent to run again", |pods| {
        at_work(pods).iter().any(|pod| restarts(pod) > 0)
    })
    .await?;
    wait_for(secs(180), "every Pod of the suite to run again", async || {
        let pods = release::pods(&turn.operator, "").await?;
        let back = |pod: &Value| restarts(pod) > 0 && pod.condition("Ready").status == "True";
        Ok(pods.iter().all(back).then_some(()))
    })
    .await?;
    ns.until_ready(secs(60), "weather").await?;
    ns.until_list(secs(120), kinds::AGENT_CARD, "", "the card again", |cards| {
        cards.iter().all(|card| card.condition("Synced").status == "True")
    })
    .await?;

    assert_eq!(Before::of(&turn.operator, &ns).await?, before, "same Pods, same templates");
    // The test before may still be leaving its namespace.
    let places = ["", NAMESPACE, ns.name()];
    let ours = |request: &ApiRequest| {
        request.is_write()
            && request.code < 400
            && places.contains(&request.namespace.as_str())
            && request.user.starts_with("system:serviceaccount:kagenti-system:")
            && !["leases", "events", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews"]
                .contains(&request.resource.as_str())
    };
    let written = writes(cluster.audit()?.since(mark, ours)?);
    eprintln!("{written:#?}");
    for (what, count) in &written {
        let status = what.contains("agentruntimes/status") || what.contains("agentcards/status");
        ensure!(status, "a reboot is no reason to write {what}");
        ensure!(*count <= 4, "{what}: {count} times");
    }
    Ok(())
}

/// What a reboot must not change.
#[derive(Debug, PartialEq, Eq)]
struct Before {
    pods: Vec<String>,
    template: Value,
    secrets: Vec<String>,
}

impl Before {
    async fn of(operator: &Ns, ns: &Ns) -> Result<Self> {
        let mut pods: Vec<String> =
            release::pods(operator, "").await?.iter().map(|pod| pod.uid().to_owned()).collect();
        pods.extend(ns.pods("weather").await?.iter().map(|pod| pod.uid().to_owned()));
        pods.sort_unstable();
        let template = ns.get(kinds::DEPLOYMENT, "weather").await?.template().clone();
        let secrets = operator.list(kinds::SECRET, "").await?;
        let secrets =
            secrets.iter().map(|secret| format!("{} {}", secret.name(), secret.version())).collect();
        Ok(Self { pods, template, secrets })
    }
}
