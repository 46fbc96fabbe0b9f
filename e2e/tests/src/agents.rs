//! Agents without processes, and the card-ctl that looks after them: Deployments whose Services lead to an
//! [`AgentServer`].

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};

use crate::json::Json as _;
use crate::{AgentServer, Ns, Suite, kinds, objects, secs};

/// The controller of agent cards: package, program, chart, ServiceAccount.
pub const CARD_CTL: &str = "card-ctl";
/// Agents that are made at once.
const AT_ONCE: usize = 8;

/// Starts a card-ctl for some namespaces, and waits until it is ready.
pub async fn start_card_ctl(
    suite: &Suite,
    instance: &str,
    namespaces: Vec<String>,
    flags: &[&str],
) -> Result<Component> {
    let options = ComponentOptions::new(CARD_CTL)
        .instance(instance)
        .namespaced(namespaces)
        .args(["--fetch-dial=endpoints", "--enable-verified-fetch=false"])
        .args(flags.iter().copied());
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    Ok(process)
}

/// A Deployment that is an agent and speaks A2A.
pub fn agent(name: &str) -> objects::Object {
    labelled(objects::deployment(name))
}

/// The labels of an agent that speaks A2A.
pub fn labelled(workload: objects::Object) -> objects::Object {
    workload.label("kagenti.io/type", "agent").label("protocol.kagenti.io/a2a", "")
}

/// A small, complete card.
pub fn card(name: &str) -> Value {
    json!({
        "name": name, "description": "An agent of a test.", "version": "1.0.0", "url": "http://localhost:9999/",
        "protocolVersion": "0.3.0", "capabilities": {"streaming": true},
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "echo", "name": "Echo", "description": "Says it again.", "tags": ["echo"]}],
    })
}

/// A Service without selector, and an EndpointSlice that points at a server.
pub async fn expose(ns: &Ns, name: &str, server: &AgentServer) -> Result<()> {
    expose_ports(ns, name, server, json!([{"name": "a2a", "port": 8000}])).await
}

/// The same with other ports of the Service; whichever is chosen leads to the server, as the slice has only one.
pub async fn expose_ports(ns: &Ns, name: &str, server: &AgentServer, ports: Value) -> Result<()> {
    let address = server.address();
    let slice_ports = json!([{"name": "", "port": address.port(), "protocol": "TCP"}]);
    ns.create(objects::named(kinds::SERVICE, name).spec(json!({"ports": ports}))).await?;
    ns.create(objects::named(kinds::ENDPOINT_SLICE, name).label("kubernetes.io/service-name", name).with(
        json!({
            "addressType": "IPv4",
            "ports": slice_ports,
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        }),
    ))
    .await?;
    Ok(())
}

/// A workload whose Service leads to a server, as ready as a Deployment controller would call it.
pub async fn ready_agent(ns: &Ns, workload: objects::Object, server: &AgentServer) -> Result<()> {
    let workload: Value = workload.into();
    let name = workload.name().to_owned();
    expose(ns, &name, server).await?;
    ns.create(workload).await?;
    set_ready(ns, &name, true).await
}

/// Says whether a Deployment is available, where no controller does.
pub async fn set_ready(ns: &Ns, name: &str, ready: bool) -> Result<()> {
    let (count, status) = if ready { (1, "True") } else { (0, "False") };
    let condition = json!({"type": "Available", "status": status, "reason": "Test", "message": ""});
    let status = json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1,
        "readyReplicas": count, "availableReplicas": count, "conditions": [condition],
    });
    ns.patch_status(kinds::DEPLOYMENT, name, json!({"status": status})).await.map(drop)
}

/// Many ready agents that share a server.
pub async fn ready_agents(ns: &Ns, names: &[String], server: &AgentServer) -> Result<()> {
    stream::iter(names)
        .map(async |name| ready_agent(ns, agent(name), server).await)
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
}

/// `<prefix>-0`, `<prefix>-1` and so on.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}
