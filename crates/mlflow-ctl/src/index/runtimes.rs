//! AgentRuntimes by name and by the workload they target.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{
    AgentRuntime, AgentRuntimeSpec,
    conditions::condition,
    duplicates::{Claim, runtime_winner},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::{Stale, is_older};
use crate::{conditions::CONDITION, kinds::WorkloadKind, workload::WorkloadKey};

/// Names one AgentRuntime.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuntimeKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for RuntimeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An AgentRuntime as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Its name.
    pub key: RuntimeKey,
    /// The workload it targets, when that can be an agent.
    pub target: Option<WorkloadKey>,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Being deleted.
    pub deleting: bool,
    created: Option<Timestamp>,
    /// Spec, for the shared decision.
    pub spec: AgentRuntimeSpec,
    /// Our condition.
    pub condition: Option<Condition>,
}

impl Runtime {
    /// Compacts what was read.
    pub fn of(runtime: AgentRuntime) -> Self {
        let namespace = runtime.namespace().unwrap_or_default();
        let reference = &runtime.spec.target_ref;
        let kind = reference.group().and_then(|group| WorkloadKind::of(group, &reference.kind));
        let target = kind.map(|kind| WorkloadKey {
            namespace: namespace.clone(),
            kind,
            name: reference.name.clone(),
        });
        let conditions = runtime.status.as_ref().map(|status| status.conditions.as_slice());
        Self {
            key: RuntimeKey { namespace, name: runtime.name_any() },
            target,
            condition: condition(conditions.unwrap_or_default(), CONDITION).cloned(),
            resource_version: runtime.metadata.resource_version.unwrap_or_default(),
            generation: runtime.metadata.generation.unwrap_or_default(),
            deleting: runtime.metadata.deletion_timestamp.is_some(),
            created: runtime.metadata.creation_timestamp.map(|time| time.0),
            spec: runtime.spec,
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim { name: &self.key.name, created: self.created, terminating: self.deleting, automatic: false }
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct Runtimes {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: HashMap<RuntimeKey, Arc<Runtime>>,
    /// Nearly always one name each.
    targets: HashMap<WorkloadKey, Vec<String>>,
}

impl Runtimes {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before.
    ///
    /// # Errors
    /// [`Stale`] when something newer is known.
    pub fn upsert(&self, runtime: Runtime) -> Result<Option<Arc<Runtime>>, Stale> {
        let mut inner = self.write();
        let old = inner.objects.get(&runtime.key).cloned();
        if old.as_ref().is_some_and(|old| is_older(&runtime.resource_version, &old.resource_version)) {
            return Err(Stale);
        }
        inner.unlink(&runtime.key);
        if let Some(target) = &runtime.target {
            let names = inner.targets.entry(target.clone()).or_insert_with(|| Vec::with_capacity(1));
            names.push(runtime.key.name.clone());
        }
        inner.objects.insert(runtime.key.clone(), Arc::new(runtime));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &RuntimeKey) -> Option<Arc<Runtime>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.objects.remove(key)
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<RuntimeKey>) -> Vec<Arc<Runtime>> {
        let gone: Vec<RuntimeKey> = {
            let inner = self.read();
            let scoped = |key: &&RuntimeKey| {
                namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key)
            };
            inner.objects.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &RuntimeKey) -> Option<Arc<Runtime>> {
        self.read().objects.get(key).cloned()
    }

    /// All that target a workload.
    pub fn targeting(&self, target: &WorkloadKey) -> Vec<Arc<Runtime>> {
        let inner = self.read();
        let names = inner.targets.get(target).into_iter().flatten();
        let key = |name: &String| RuntimeKey { namespace: target.namespace.clone(), name: name.clone() };
        names.filter_map(|name| inner.objects.get(&key(name)).cloned()).collect()
    }

    /// The one that speaks for a workload (runtime §9.2).
    pub fn winner(&self, target: &WorkloadKey) -> Option<Arc<Runtime>> {
        let claimants = self.targeting(target);
        let name = runtime_winner(claimants.iter().map(|runtime| runtime.claim()))?.name.to_owned();
        claimants.into_iter().find(|runtime| runtime.key.name == name)
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// True without objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn unlink(&mut self, key: &RuntimeKey) {
        let Some(target) = self.objects.get(key).and_then(|old| old.target.clone()) else { return };
        if let Some(names) = self.targets.get_mut(&target) {
            names.retain(|name| *name != key.name);
            if names.is_empty() {
                self.targets.remove(&target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runtime(name: &str, target: &str, created: &str, version: &str) -> Runtime {
        Runtime::of(
            serde_json::from_value(json!({
                "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
                "metadata": {"namespace": "ns", "name": name, "creationTimestamp": created, "resourceVersion": version},
                "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
            }))
            .unwrap(),
        )
    }

    fn target(name: &str) -> WorkloadKey {
        WorkloadKey { namespace: "ns".into(), kind: WorkloadKind::Deployment, name: name.into() }
    }

    #[test]
    fn the_oldest_speaks_and_edits_are_followed() {
        let index = Runtimes::default();
        index.upsert(runtime("a", "w1", "2026-01-01T00:00:00Z", "1")).unwrap();
        index.upsert(runtime("b", "w1", "2026-01-02T00:00:00Z", "2")).unwrap();
        assert_eq!(index.winner(&target("w1")).unwrap().key.name, "a");
        index.upsert(runtime("a", "w2", "2026-01-01T00:00:00Z", "3")).unwrap();
        assert_eq!(index.winner(&target("w1")).unwrap().key.name, "b");
        assert_eq!(index.targeting(&target("w2")).len(), 1);
        assert_eq!(index.upsert(runtime("a", "w1", "2026-01-01T00:00:00Z", "2")), Err(Stale));
        assert_eq!(index.retain(Some("ns"), &HashSet::new()).len(), 2);
        assert!(index.winner(&target("w1")).is_none() && index.is_empty());
    }
}
