//! AgentRuntimes by name and by target (card §18).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{AgentRuntime, CardStatus, WorkloadType, names::annotation};
use controller_kit::index::{Stale, is_older};

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

/// The index.
#[derive(Debug, Default)]
pub struct Runtimes {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<ObjectKey, Arc<Runtime>>,
    by_target: HashMap<TargetKey, BTreeSet<ObjectKey>>,
}

impl Runtimes {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before; `Err` when something newer is known.
    pub fn upsert(&self, runtime: Runtime) -> Result<Option<Arc<Runtime>>, Stale> {
        let mut inner = self.write();
        let old = inner.by_key.get(&runtime.key).cloned();
        if old.as_ref().is_some_and(|old| is_older(&runtime.resource_version, &old.resource_version)) {
            return Err(Stale);
        }
        inner.unlink(&runtime.key);
        if let Some(target) = runtime.target.clone() {
            inner.by_target.entry(target).or_default().insert(runtime.key.clone());
        }
        inner.by_key.insert(runtime.key.clone(), Arc::new(runtime));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<Runtime>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.by_key.remove(key)
    }

    /// After a new list: removes what was not in it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<ObjectKey>) {
        let gone: Vec<ObjectKey> = {
            let scoped =
                |key: &&ObjectKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
            self.read().by_key.keys().filter(scoped).cloned().collect()
        };
        for key in &gone {
            self.remove(key);
        }
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Runtime>> {
        self.read().by_key.get(key).cloned()
    }

    /// AgentRuntimes of a workload, by name.
    pub fn targeting(&self, target: &TargetKey) -> Vec<Arc<Runtime>> {
        let inner = self.read();
        let keys = inner.by_target.get(target).into_iter().flatten();
        keys.filter_map(|key| inner.by_key.get(key).cloned()).collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn unlink(&mut self, key: &ObjectKey) {
        let Some(target) = self.by_key.get(key).and_then(|old| old.target.clone()) else { return };
        if let Some(keys) = self.by_target.get_mut(&target) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }
}
