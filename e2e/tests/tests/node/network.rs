//! The node itself: what later tests stand on.

use anyhow::{Context as _, Result};
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use local_cluster::http;
use serde_json::json;

use crate::node::RealNode;

/// A Deployment of the small agent with a Service of the same name.
async fn agent(ns: &Ns, name: &str) -> Result<()> {
    ns.create(objects::deployment(name)).await?;
    ns.create(objects::service(name, name, json!([{"name": "http", "port": 80, "targetPort": 8000}])))
        .await?;
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, name).await.map(drop)
}

async fn answer(url: &str) -> Result<String> {
    wait_for(secs(20), &format!("200 from {url}"), async || {
        let (status, body) = http::get(url).await?;
        anyhow::ensure!(status.is_success(), "{status}: {body}");
        Ok(Some(body))
    })
    .await
}

/// From this machine and from a Pod: Service addresses lead to Pods, and names to Service addresses.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn node_services_and_names() -> Result<()> {
    let node = RealNode::shared().await?;
    let ns = node.namespace("services", json!({})).await?;
    agent(&ns, "near").await?;
    agent(&ns, "far").await?;
    let near = ns.get(kinds::SERVICE, "near").await?.text("/spec/clusterIP").to_owned();
    let pod = ns.pods("far").await?.first().context("a Pod")?.name().to_owned();
    // The agent says the name of its Pod.
    for host in ["far", "far.services", "far.services.svc.cluster.local"] {
        let said = answer(&format!("http://{near}/reach?http://{host}/")).await?;
        assert_eq!(said.trim(), pod, "{host}");
    }
    // A Pod reaches itself through its own Service, too.
    let own = ns.pods("near").await?.first().context("a Pod")?.name().to_owned();
    assert_eq!(answer(&format!("http://{near}/reach?http://near/")).await?.trim(), own);
    let (status, said) = http::get(&format!("http://{near}/reach?http://nobody.services/")).await?;
    assert_eq!(status, 502, "{said}");
    Ok(())
}

/// A reboot kills every container; all of them come back by themselves, and Services lead to them again.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn node_reboot() -> Result<()> {
    let node = RealNode::own().await?;
    let ns = node.namespace("reboot", json!({})).await?;
    agent(&ns, "steady").await?;
    let address = ns.get(kinds::SERVICE, "steady").await?.text("/spec/clusterIP").to_owned();
    answer(&format!("http://{address}/")).await?;
    node.cluster().real_node().stop().await?;
    assert!(http::get(&format!("http://{address}/")).await.is_err(), "nothing runs any more");
    node.cluster().real_node().start().await?;
    let restarted = |pods: &[serde_json::Value]| {
        pods.iter().any(|pod| {
            pod.number("/status/containerStatuses/0/restartCount").unwrap_or_default() > 0
                && pod.pointer("/status/containerStatuses/0/ready") == Some(&json!(true))
        })
    };
    ns.until_list(secs(90), kinds::POD, "app=steady", "the container to run again", restarted).await?;
    answer(&format!("http://{address}/")).await?;
    node.cluster().stop().await
}
