//! What the tests of card-ctl have in common.

use anyhow::{Context as _, Result};
use e2e::group::Shared;
use e2e::{AgentServer, Group, Ns, Options, Suite, kinds, objects, secs};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};

/// Package, program, chart, ServiceAccount.
pub(super) const CARD_CTL: &str = "card-ctl";

/// A cluster in which Deployments become Available, without the rest of the suite.
static CLUSTER: Group = Group::new(|| Options::default().without_webhook().without_runtime_ctl());

/// The cluster, a namespace and a card-ctl that watches it.
pub(super) struct Stage {
    pub(super) suite: Shared,
    pub(super) ns: Ns,
    pub(super) process: Component,
}

/// The cluster, for a test that prepares its namespace before card-ctl starts.
pub(super) async fn cluster() -> Result<Shared> {
    CLUSTER.share().await
}

impl Stage {
    /// Starts card-ctl with these flags.
    pub(super) async fn new(namespace: &str, flags: &[&str]) -> Result<Self> {
        let suite = CLUSTER.share().await?;
        let ns = suite.namespace(namespace, Value::Null).await?;
        let process = start(&suite, namespace, flags).await?;
        Ok(Self { suite, ns, process })
    }

    /// A server with this card behind a Service and an EndpointSlice called `name`.
    pub(super) async fn agent_server(&self, name: &str, card: Value) -> Result<AgentServer> {
        let server = AgentServer::with_card(self.suite.cluster(), 8000, card)?;
        expose(&self.ns, name, &server).await?;
        Ok(server)
    }

    /// Waits until a condition of a card has this status and reason.
    pub(super) async fn until(
        &self,
        card: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> Result<Value> {
        let what = format!("{condition}={status}/{reason}");
        self.ns
            .until(secs(20), kinds::AGENT_CARD, card, &what, |object| {
                let found = e2e::Json::condition(object, condition);
                found.status == status && found.reason == reason
            })
            .await
            .with_context(|| format!("the log of card-ctl ends with:\n{}", self.process.log_tail()))
    }
}

/// Starts another card-ctl for a namespace.
pub(super) async fn start(suite: &Suite, namespace: &str, flags: &[&str]) -> Result<Component> {
    let options = ComponentOptions::new(CARD_CTL)
        .instance(&format!("{CARD_CTL}-{namespace}"))
        .namespaced([namespace])
        .args(["--fetch-dial=endpoints", "--enable-verified-fetch=false"])
        .args(flags.iter().copied());
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    Ok(process)
}

/// A Deployment that is an agent and speaks A2A.
pub(super) fn agent(name: &str) -> objects::Object {
    labelled(objects::deployment(name))
}

/// The labels of an agent that speaks A2A.
pub(super) fn labelled(workload: objects::Object) -> objects::Object {
    workload.label("kagenti.io/type", "agent").label("protocol.kagenti.io/a2a", "")
}

/// A small, complete card.
pub(super) fn card(name: &str) -> Value {
    json!({
        "name": name, "description": "An agent of a test.", "version": "1.0.0", "url": "http://localhost:9999/",
        "protocolVersion": "0.3.0", "capabilities": {"streaming": true},
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "echo", "name": "Echo", "description": "Says it again.", "tags": ["echo"]}],
    })
}

/// A Service without selector, and an EndpointSlice that points at a server.
pub(super) async fn expose(ns: &Ns, name: &str, server: &AgentServer) -> Result<()> {
    expose_ports(ns, name, server, json!([{"name": "a2a", "port": 8000}])).await
}

/// The same with other ports of the Service; whichever is chosen leads to the server, as the slice has only one.
pub(super) async fn expose_ports(ns: &Ns, name: &str, server: &AgentServer, ports: Value) -> Result<()> {
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
