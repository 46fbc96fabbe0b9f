//! `--fetch-endpoint-policy=workload-pods` (card §6.5): only Pods of the workload are asked, whatever a Service leads to.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{AgentServer, Answer, Json as _, kinds, objects, poll, secs};
use serde_json::{Value, json};

use super::fixture::{CARD_CTL, Stage, agent, card};

const LIMIT: Duration = secs(30);
const FLAGS: &[&str] =
    &["--fetch-endpoint-policy=workload-pods", "--min-sync-period=1s", "--max-sync-period=1s"];

/// A server at the address of a running Pod.
async fn at_pod(stage: &Stage, selector: &str, name: &str) -> Result<(AgentServer, String)> {
    let pods = stage
        .ns
        .until_list(LIMIT, kinds::POD, selector, "an address", |pods| {
            pods.len() == 1 && !pods.iter().any(|pod| pod.text("/status/podIP").is_empty())
        })
        .await?;
    let pod = pods.first().context("a Pod")?;
    let address = SocketAddrV4::new(pod.text("/status/podIP").parse()?, 8000);
    let shown = card(name);
    let server = AgentServer::start_at(stage.suite.cluster(), address, move |_| Answer::json(&shown))?;
    Ok((server, pod.name().to_owned()))
}

fn service(name: &str) -> objects::Object {
    objects::service(name, name, json!([{"name": "a2a", "port": 8000}]))
}

/// Two Pods behind one Service: the workload's own is asked, the one that only carries its labels never is.
#[tokio::test]
async fn card_endpoint_policy_workload_pods() -> Result<()> {
    let stage = Stage::new("card-endpoints", FLAGS).await?;
    let ns = &stage.ns;
    ns.create(service("echo")).await?;
    let squatter = objects::pod("squatter").label("app", "echo").label("kagenti.io/type", "agent");
    ns.create(squatter.label("test", "squatter")).await?;
    let (squatter, _) = at_pod(&stage, "test=squatter", "squatter").await?;
    // Not an agent yet, so that nobody asks before somebody answers.
    let template = [("kagenti.io/type", "agent"), ("test", "own")];
    let deployment = template.iter().fold(objects::deployment("echo"), |it, (k, v)| it.template_label(k, v));
    ns.create(deployment).await?;
    let (own, _) = at_pod(&stage, "test=own", "echo").await?;
    ns.until_list(
        LIMIT,
        kinds::ENDPOINT_SLICE,
        "kubernetes.io/service-name=echo",
        "both endpoints",
        |slices| {
            let ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready") == Some(&json!(true));
            slices.iter().flat_map(|slice| slice.items("/endpoints")).filter(ready).count() == 2
        },
    )
    .await?;
    let labels = json!({"kagenti.io/type": "agent", "protocol.kagenti.io/a2a": ""});
    ns.set_labels(kinds::DEPLOYMENT, "echo", labels).await?;
    let synced = stage.until("echo-deployment-card", "Synced", "True", "SyncSucceeded").await?;
    assert_eq!(synced.text("/status/card/name"), "echo");
    poll(LIMIT, async || Ok((own.requests().len() >= 4).then_some(()))).await?;
    assert_eq!(squatter.requests(), [] as [&str; 0]);
    // A new process knows the Pods before it asks anybody, and finds nothing to write (card §19).
    stage.process.kill9().await?;
    let (mark, asked) = (stage.suite.cluster().audit()?.mark()?, own.requests().len());
    stage.process.restart().await?;
    poll(LIMIT, async || Ok((own.requests().len() >= asked + 3).then_some(()))).await?;
    let writes = stage.suite.object_writes(mark, CARD_CTL)?;
    let writes: Vec<_> = writes.iter().filter(|write| write.namespace == ns.name()).collect();
    ensure!(writes.is_empty(), "{writes:?}");
    // The own Pod does not answer any more: that is no reason to ask somebody else.
    drop(own);
    let failed = stage.until("echo-deployment-card", "Synced", "False", "FetchFailed").await?;
    assert_eq!(failed.text("/status/card/name"), "echo");
    assert_eq!(squatter.requests(), [] as [&str; 0]);
    Ok(())
}

/// Endpoints that are no Pods, that say nothing of a Pod, or that are somebody else's.
#[tokio::test]
async fn card_endpoint_policy_refuses_the_rest() -> Result<()> {
    let stage = Stage::new("card-endpoints-other", FLAGS).await?;
    let ns = &stage.ns;
    let other = objects::deployment("other").template_label("kagenti.io/type", "agent");
    ns.create(other).await?;
    let (neighbour, pod) = at_pod(&stage, "app=other", "other").await?;
    let stray = AgentServer::with_card(stage.suite.cluster(), 8000, card("stray"))?;
    let targets = [
        ("nobody", &stray, Value::Null),
        ("elsewhere", &stray, json!({"kind": "Pod", "name": pod, "namespace": "default"})),
        ("no-pod", &stray, json!({"kind": "Node", "name": "node-1"})),
        ("unknown", &stray, json!({"kind": "Pod", "name": "unknown", "namespace": ns.name()})),
        ("neighbour", &neighbour, json!({"kind": "Pod", "name": pod, "namespace": ns.name()})),
    ];
    for (name, server, target) in &targets {
        let address = server.address();
        ns.create(
            objects::named(kinds::SERVICE, name).spec(json!({"ports": [{"name": "a2a", "port": 8000}]})),
        )
        .await?;
        let slice = json!({
            "addressType": "IPv4",
            "ports": [{"name": "a2a", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{
                "addresses": [address.ip().to_string()], "conditions": {"ready": true}, "targetRef": target,
            }],
        });
        let named = objects::named(kinds::ENDPOINT_SLICE, name).label("kubernetes.io/service-name", name);
        ns.create(named.with(slice)).await?;
        ns.create(agent(name).template_label("kagenti.io/type", "agent")).await?;
    }
    for (name, ..) in &targets {
        let refused =
            stage.until(&format!("{name}-deployment-card"), "Synced", "False", "FetchFailed").await?;
        let message = refused.condition("Synced").message;
        ensure!(message.contains("address"), "{name}: {message}");
        assert_eq!(refused["status"]["card"], Value::Null);
    }
    for server in [&stray, &neighbour] {
        assert_eq!(server.requests(), [] as [&str; 0]);
    }
    // The workload whose Pod it is asks it.
    ns.create(service("other")).await?;
    let labels = json!({"kagenti.io/type": "agent", "protocol.kagenti.io/a2a": ""});
    ns.set_labels(kinds::DEPLOYMENT, "other", labels).await?;
    let synced = stage.until("other-deployment-card", "Synced", "True", "SyncSucceeded").await?;
    assert_eq!(synced.text("/status/card/name"), "other");
    assert_eq!(stray.requests(), [] as [&str; 0]);
    Ok(())
}
