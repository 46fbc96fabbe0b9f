//! An API server where nothing acts but card-ctl: tests say themselves which workloads are ready.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, Result};
pub(super) use e2e::agents::{ready_agent, set_ready};
use e2e::group::Shared;
use e2e::{AgentServer, Group, Json as _, Ns, Options, kinds, objects, secs};
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, WatchEvent, WatchParams};
use local_cluster::{ClusterOptions, Component};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::fixture::{agent, signature_flags, start};

static BARE: Group = Group::new(|| {
    let cluster =
        ClusterOptions { nodes: 0, controller_manager: false, scheduler: false, ..ClusterOptions::default() };
    Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() }
});

/// The vectors of the signature crate; nothing when they cannot be read, which no test survives.
pub(super) static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../../crates/agent-trust/tests/vectors/card-vectors.json");
    serde_json::from_str(text).unwrap_or_default()
});

/// The document of a verification vector. Its signer is ServiceAccount `echo-sa` in namespace `demo`.
pub(super) fn document(id: &str) -> Value {
    let vector = VECTORS.items("/verification").iter().find(|vector| vector["id"] == id);
    vector.and_then(|vector| serde_json::from_str(vector.text("/card")).ok()).unwrap_or_default()
}

/// The text of a bundle of the vectors.
pub(super) fn bundle(name: &str) -> String {
    VECTORS["trustBundles"][name].text("/text").to_owned()
}

/// The API server.
pub(super) async fn cluster() -> Result<Shared> {
    BARE.share().await
}

/// Flags that turn verification on, with the bundle in a namespace, and have agents asked every second.
pub(super) fn verifying(namespace: &str) -> Vec<String> {
    signature_flags(namespace, &["--max-sync-period=1s"])
}

/// The API server, a namespace with the first bundle, and a card-ctl that verifies.
pub(super) struct Verified {
    pub(super) suite: Shared,
    pub(super) ns: Ns,
    pub(super) process: Component,
}

impl Verified {
    /// Starts card-ctl with further flags.
    pub(super) async fn new(namespace: &str, flags: &[&str]) -> Result<Self> {
        let suite = cluster().await?;
        let ns = suite.namespace(namespace, Value::Null).await?;
        set_bundle(&ns, &bundle("spiffe-json")).await?;
        let mut all = verifying(namespace);
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let process = start(&suite, namespace, &all).await?;
        Ok(Self { suite, ns, process })
    }

    /// A ready agent that serves this card.
    pub(super) async fn agent(&self, name: &str, card: Value) -> Result<AgentServer> {
        let server = AgentServer::with_card(self.suite.cluster(), 8000, card)?;
        ready_agent(&self.ns, agent(name), &server).await?;
        Ok(server)
    }

    /// Waits until a condition of the card of an agent is so (`True/Bound`).
    pub(super) async fn until(&self, agent: &str, condition: &str, short: &str) -> Result<Value> {
        let what = format!("{condition} {short}");
        self.ns
            .until(secs(60), kinds::AGENT_CARD, &auto(agent), &what, |card| {
                card.condition(condition).short() == short
            })
            .await
            .with_context(|| format!("the log of card-ctl ends with:\n{}", self.process.log_tail()))
    }
}

/// Name of the card that card-ctl makes for a Deployment.
pub(super) fn auto(agent: &str) -> String {
    format!("{agent}-deployment-card")
}

/// Writes the trust bundle.
pub(super) async fn set_bundle(ns: &Ns, text: &str) -> Result<()> {
    ns.apply(objects::config_map("spire-bundle", json!({"bundle.spiffe": text}))).await.map(drop)
}

/// Everything that the API server told about the cards of a namespace, however short it lasted.
pub(super) struct Timeline {
    seen: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Timeline {
    /// Starts to listen.
    pub(super) async fn start(ns: &Ns) -> Result<Self> {
        let resource = ApiResource {
            group: kinds::AGENT_CARD.group.into(),
            version: kinds::AGENT_CARD.version.into(),
            api_version: kinds::AGENT_CARD.api_version(),
            kind: kinds::AGENT_CARD.kind.into(),
            plural: kinds::AGENT_CARD.plural.into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(ns.client().clone(), ns.name(), &resource);
        let mut events = api.watch(&WatchParams::default(), "").await?.boxed();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let told = seen.clone();
        let task = tokio::spawn(async move {
            let mut version = String::new();
            loop {
                while let Some(event) = events.next().await {
                    let object = match event {
                        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => object,
                        Ok(WatchEvent::Deleted(object)) => {
                            version = object.metadata.resource_version.unwrap_or(version);
                            continue;
                        }
                        Ok(WatchEvent::Bookmark(mark)) => {
                            version = mark.metadata.resource_version;
                            continue;
                        }
                        Ok(WatchEvent::Error(_)) | Err(_) => return,
                    };
                    version = object.metadata.resource_version.clone().unwrap_or(version);
                    if let Ok(object) = serde_json::to_value(object) {
                        told.lock().unwrap_or_else(PoisonError::into_inner).push(object);
                    }
                }
                // The API server ends a watch after some minutes; the next one goes on where it ended.
                let Ok(next) = api.watch(&WatchParams::default(), &version).await else { return };
                events = next.boxed();
            }
        });
        Ok(Self { seen, task })
    }

    /// The verdicts on a card so far (`True/SignatureVerified`), without repetitions in a row.
    pub(super) fn verdicts(&self, card: &str) -> Vec<String> {
        assert!(!self.task.is_finished(), "the watch has ended");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_card = seen.iter().filter(|object| object.name() == card);
        let mut verdicts: Vec<String> = of_card.map(|card| card.condition("Verified").short()).collect();
        verdicts.dedup();
        verdicts
    }

    /// A card was not called verified for a moment.
    pub(super) fn never_verified(&self, card: &str) {
        let verdicts = self.verdicts(card);
        assert!(!verdicts.is_empty(), "nobody saw {card}");
        assert!(!verdicts.iter().any(|verdict| verdict.starts_with("True/")), "{card}: {verdicts:?}");
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}
