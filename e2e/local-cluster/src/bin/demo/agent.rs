//! The agent behind the quick start's Service: a small A2A server in this process.
//!
//! Pods of the fake nodes have no processes. Where Pods have addresses that lead somewhere (root), the agent answers at
//! the address of every Pod of the workload; elsewhere at this machine's address, behind an EndpointSlice of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use local_cluster::{Cluster, machine_address};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Port of the quick start's container.
const PORT: u16 = 8000;

/// Name on the card.
pub(crate) const NAME: &str = "Weather Agent";

/// The card that the agent serves (A2A 0.3).
pub(crate) fn card() -> Value {
    json!({
        "protocolVersion": "0.3.0",
        "name": NAME,
        "description": "Says what the weather is like in a city.",
        "url": "http://weather-agent.default.svc.cluster.local:8000/",
        "preferredTransport": "JSONRPC",
        "version": "0.1.0",
        "capabilities": {"streaming": false, "pushNotifications": false},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{
            "id": "current-weather",
            "name": "Current weather",
            "description": "The weather in one city, now.",
            "tags": ["weather"],
            "examples": ["What is the weather like in Rome?"],
        }],
    })
}

/// Where the agent answers.
#[derive(Default)]
pub(crate) struct Agent {
    servers: BTreeMap<IpAddr, JoinHandle<()>>,
    /// Pods have no addresses; the EndpointSlice names this machine.
    stand_in: bool,
}

impl Agent {
    /// Answers at this machine's address if nothing can answer at those of the Pods.
    pub(crate) async fn start(&mut self, cluster: &Cluster, applied: &mut Vec<DynamicObject>) -> Result<()> {
        if cluster.info().netns.is_some() {
            return Ok(());
        }
        let address = machine_address().context("finding this machine's address")?;
        let listener = TcpListener::bind((address, 0)).await.context("a port for the agent")?;
        let port = listener.local_addr().context("the agent's port")?.port();
        self.serve(IpAddr::V4(address), listener);
        self.stand_in = true;
        applied.extend(cluster.apply_yaml(&endpoint_slice(address, port)).await?);
        Ok(())
    }

    /// Answers at the address of each of these Pods.
    pub(crate) fn follow(&mut self, cluster: &Cluster, pods: &[Pod]) -> Result<()> {
        if self.stand_in || cluster.info().netns.is_none() {
            return Ok(());
        }
        let addresses: Vec<(Ipv4Addr, String)> = pods
            .iter()
            .filter_map(|pod| Some((pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?, pod.name_any())))
            .collect();
        for (address, pod) in addresses {
            if self.servers.contains_key(&IpAddr::V4(address)) {
                continue;
            }
            let listener = cluster.listen_at(SocketAddrV4::new(address, PORT))?;
            listener.set_nonblocking(true).with_context(|| format!("the agent's socket in Pod {pod}"))?;
            let listener =
                TcpListener::from_std(listener).with_context(|| format!("the agent in Pod {pod}"))?;
            self.serve(IpAddr::V4(address), listener);
        }
        Ok(())
    }

    fn serve(&mut self, address: IpAddr, listener: TcpListener) {
        let router = Router::new()
            .route("/.well-known/agent-card.json", get(async |State(card): State<Value>| Json(card)))
            .route("/", post(answer))
            .with_state(card());
        // It ends with the demo; a connection that breaks is the client's business.
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        self.servers.insert(address, server);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.servers.values().for_each(JoinHandle::abort);
    }
}

/// A2A over JSON-RPC: every message gets the same good weather.
async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let id = request.get("id").cloned().unwrap_or_default();
    Json(match request.get("method").and_then(Value::as_str) {
        Some("message/send") => json!({"jsonrpc": "2.0", "id": id, "result": {
            "kind": "message",
            "messageId": format!("answer-{id}"),
            "role": "agent",
            "parts": [{"kind": "text", "text": "Sunny, 24 °C."}],
        }}),
        _ => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
    })
}

fn endpoint_slice(address: Ipv4Addr, port: u16) -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "weather-agent-demo",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "weather-agent"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_serves_its_card_and_speaks_a2a() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let mut agent = Agent::default();
        agent.serve(IpAddr::V4(Ipv4Addr::LOCALHOST), listener);
        let (status, body) =
            local_cluster::http::get(&format!("{base}/.well-known/agent-card.json")).await.expect("the card");
        assert!(status.is_success());
        assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), card());
        let Json(reply) = answer(Json(json!({"id": 1, "method": "message/send"}))).await;
        assert_eq!(reply["result"]["role"], "agent");
        let Json(reply) = answer(Json(json!({"id": 2, "method": "tasks/get"}))).await;
        assert_eq!(reply["error"]["code"], -32601);
    }
}
