//! The agent behind the quick start's Service: a server made with the A2A SDK, or a small one in this process.
//!
//! Pods of the fake nodes have no processes. Where Pods have addresses that lead somewhere (root), the agent answers at
//! the address of every Pod of the workload; elsewhere at this machine's address, behind an EndpointSlice of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use local_cluster::terminal::Tone;
use local_cluster::{Cluster, machine_address};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::built_in;
use super::screen::Screen;
use super::sdk::{self, Sdk};

/// Port of the quick start's container.
const PORT: u16 = 8000;

/// Name on the card.
pub(crate) const NAME: &str = "Weather Agent";
/// Where the agent says that it is.
pub(crate) const URL: &str = "http://weather-agent.default.svc.cluster.local:8000/";

/// The value of `--agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The A2A SDK when Python is there and the SDK can be had, else the built-in server
    Auto,
    /// A Python server made with the A2A SDK from PyPI, installed once per user
    #[value(name = "a2a-sdk")]
    A2aSdk,
    /// A small server inside the demo
    BuiltIn,
}

/// What answers.
#[derive(Debug)]
enum Program {
    BuiltIn,
    Sdk(Sdk),
    /// The container of the Pod.
    InPod,
}

/// The agent, and where it answers.
#[derive(Debug)]
pub(crate) struct Agent {
    program: Arc<Program>,
    card: Value,
    servers: BTreeMap<IpAddr, JoinHandle<()>>,
    /// Pods have no addresses; the EndpointSlice names this machine.
    stand_in: bool,
}

impl Agent {
    /// Starts the program and says which one it is.
    pub(crate) async fn choose(choice: Choice, cluster: &Cluster, screen: &Screen) -> Result<Self> {
        if choice == Choice::BuiltIn {
            return Ok(Self::built_in());
        }
        match Sdk::start(cluster, screen).await {
            Ok((sdk, card)) => Ok(Self::of(Program::Sdk(sdk), card)),
            Err(error) if choice == Choice::Auto => {
                screen.plain(&format!("no A2A SDK, so the agent is the demo's own: {error:#}"), Tone::Faint);
                Ok(Self::built_in())
            }
            Err(error) => Err(error.context("--agent a2a-sdk")),
        }
    }

    /// The server in this process.
    pub(crate) fn built_in() -> Self {
        Self::of(Program::BuiltIn, built_in::card())
    }

    /// The container that the quick start names.
    pub(crate) fn in_its_pod() -> Self {
        Self::of(Program::InPod, Value::Null)
    }

    fn of(program: Program, card: Value) -> Self {
        Self { program: Arc::new(program), card, servers: BTreeMap::new(), stand_in: false }
    }

    /// The card that it serves.
    pub(crate) fn card(&self) -> &Value {
        &self.card
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match &*self.program {
            Program::BuiltIn => "a small A2A 0.3 server inside the demo".to_owned(),
            Program::Sdk(sdk) => {
                format!("an A2A 1.0 server made with {}, process {}", sdk::version(), sdk.pid())
            }
            Program::InPod => "the container of its Pod".to_owned(),
        }
    }

    /// Answers at this machine's address if nothing can answer at those of the Pods.
    pub(crate) async fn start(&mut self, cluster: &Cluster, applied: &mut Vec<DynamicObject>) -> Result<()> {
        if cluster.info().netns.is_some() || self.runs_by_itself() {
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
        if self.stand_in || cluster.info().netns.is_none() || self.runs_by_itself() {
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

    fn runs_by_itself(&self) -> bool {
        matches!(*self.program, Program::InPod)
    }

    fn serve(&mut self, address: IpAddr, listener: TcpListener) {
        let program = self.program.clone();
        // It ends with the demo; a connection that breaks is the client's business.
        let server = tokio::spawn(async move {
            match &*program {
                Program::BuiltIn => built_in::serve(listener).await,
                Program::Sdk(sdk) => relay(listener, sdk.port()).await,
                Program::InPod => {}
            }
        });
        self.servers.insert(address, server);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.servers.values().for_each(JoinHandle::abort);
    }
}

/// Passes connections on to a port of loopback, which no EndpointSlice may name.
async fn relay(listener: TcpListener, port: u16) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        open.spawn(async move {
            if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
        while open.try_join_next().is_some() {}
    }
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
    async fn it_serves_its_card_where_it_is_told_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("its address").port();
        let mut agent = Agent::built_in();
        agent.serve(IpAddr::V4(Ipv4Addr::LOCALHOST), listener);
        let relayed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let other = relayed.local_addr().expect("its address").port();
        let passing_on = tokio::spawn(relay(relayed, own));
        for port in [own, other] {
            let url = format!("http://127.0.0.1:{port}/.well-known/agent-card.json");
            let (status, body) = local_cluster::http::get(&url).await.expect("the card");
            assert!(status.is_success());
            assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), *agent.card());
        }
        passing_on.abort();
    }
}
