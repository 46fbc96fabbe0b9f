//! What the tests of card-ctl have in common.

use anyhow::{Context as _, Result};
use e2e::agents::start_card_ctl;
pub(super) use e2e::agents::{CARD_CTL, agent, card, expose, expose_ports, labelled};
use e2e::group::Shared;
use e2e::{AgentServer, Group, Ns, Options, Suite, kinds, secs};
use local_cluster::Component;
use serde_json::Value;

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

/// Flags that turn verification on, with the bundle in a namespace, and then these.
pub(super) fn signature_flags(namespace: &str, further: &[&str]) -> Vec<String> {
    let fixed = [
        "--require-a2a-signature",
        "--spire-trust-domain=dev.cluster.local",
        "--spire-trust-bundle-configmap=spire-bundle",
        "--min-sync-period=1s",
        "--resign-qps=0",
    ];
    let bundle = format!("--spire-trust-bundle-configmap-namespace={namespace}");
    fixed.into_iter().chain(further.iter().copied()).map(str::to_owned).chain([bundle]).collect()
}

/// Starts another card-ctl for a namespace.
pub(super) async fn start(suite: &Suite, namespace: &str, flags: &[&str]) -> Result<Component> {
    start_card_ctl(suite, &format!("{CARD_CTL}-{namespace}"), vec![namespace.to_owned()], flags).await
}
