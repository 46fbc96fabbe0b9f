//! AgentRuntimes by name and by target (card §18).

use std::sync::Arc;

use api_types::{AgentRuntime, CardStatus, WorkloadType, names::annotation};
use controller_kit::index::{Entry, Index};

use super::ObjectKey;
use crate::kinds::TargetKey;

/// An AgentRuntime as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Being deleted.
    pub terminating: bool,
    /// `spec.type: agent`.
    pub is_agent: bool,
    /// The workload; `None` when the reference cannot be parsed.
    pub target: Option<TargetKey>,
    /// Annotation `agent.kagenti.dev/last-card-fetch-hash`.
    pub fetched_for: Option<String>,
    /// `status.card` as JSON.
    pub card: Option<Arc<str>>,
    /// `status.card.cardHash`.
    pub card_hash: Option<String>,
}

impl Runtime {
    /// Compacts an object. `None` without namespace or name, which the API server never sends.
    pub fn of(runtime: AgentRuntime) -> Option<Self> {
        let AgentRuntime { metadata, spec, status, .. } = runtime;
        let key = ObjectKey::new(metadata.namespace?, metadata.name?);
        let card: Option<CardStatus> = status.and_then(|status| status.card);
        Some(Self {
            resource_version: metadata.resource_version.unwrap_or_default(),
            terminating: metadata.deletion_timestamp.is_some(),
            is_agent: spec.workload_type == WorkloadType::Agent,
            target: TargetKey::of(&key.namespace, &spec.target_ref),
            fetched_for: metadata
                .annotations
                .and_then(|mut map| map.remove(annotation::LAST_CARD_FETCH_HASH)),
            card_hash: card.as_ref().and_then(|card| card.card_hash.clone()),
            card: card.and_then(|card| serde_json::to_string(&card).ok()).map(Into::into),
            key,
        })
    }
}

/// The index; its links are the targets.
pub type Runtimes = Index<Runtime>;

impl Entry for Runtime {
    type Key = ObjectKey;
    type Link = TargetKey;

    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = TargetKey> {
        self.target.iter().cloned()
    }
}
