//! AgentRuntimes by name, by namespace and by target.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{
    AgentRuntime,
    duplicates::{Claim, runtime_winner},
};
use controller_kit::index::{Stale, is_older};
use kube::ResourceExt;

/// Names one AgentRuntime.
pub use controller_kit::watch::Key as RuntimeKey;

/// A target without its API version (runtime §7.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// API group; the whole apiVersion when it cannot be parsed.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl Target {
    /// The target of an AgentRuntime.
    pub fn of(runtime: &AgentRuntime) -> Self {
        let reference = &runtime.spec.target_ref;
        Self {
            namespace: runtime.namespace().unwrap_or_default(),
            group: reference.group().unwrap_or(&reference.api_version).to_owned(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        }
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct Runtimes {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: HashMap<RuntimeKey, Arc<AgentRuntime>>,
    /// Nearly always one name each, so a set would be mostly air.
    targets: HashMap<Target, Vec<String>>,
    namespaces: HashMap<String, BTreeSet<String>>,
}

impl Runtimes {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before; `Err` when something newer is known.
    pub fn upsert(&self, runtime: AgentRuntime) -> Result<Option<Arc<AgentRuntime>>, Stale> {
        let runtime = compact(runtime);
        let key = RuntimeKey::of(&runtime);
        let mut inner = self.write();
        let old = inner.objects.get(&key).cloned();
        if let (Some(old), Some(new)) = (&old, &runtime.metadata.resource_version)
            && old.metadata.resource_version.as_ref().is_some_and(|known| is_older(new, known))
        {
            return Err(Stale);
        }
        inner.unlink(&key);
        inner
            .targets
            .entry(Target::of(&runtime))
            .or_insert_with(|| Vec::with_capacity(1))
            .push(key.name.clone());
        inner.namespaces.entry(key.namespace.clone()).or_default().insert(key.name.clone());
        inner.objects.insert(key, Arc::new(runtime));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &RuntimeKey) -> Option<Arc<AgentRuntime>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.objects.remove(key)
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it and returns those objects.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<RuntimeKey>) -> Vec<Arc<AgentRuntime>> {
        let gone: Vec<RuntimeKey> = {
            let inner = self.read();
            let scoped =
                |key: &&RuntimeKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
            inner.objects.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &RuntimeKey) -> Option<Arc<AgentRuntime>> {
        self.read().objects.get(key).cloned()
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<RuntimeKey> {
        self.read().objects.keys().cloned().collect()
    }

    /// Keys of the objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<RuntimeKey> {
        let inner = self.read();
        let names = inner.namespaces.get(namespace).into_iter().flatten();
        names.map(|name| RuntimeKey { namespace: namespace.to_owned(), name: name.clone() }).collect()
    }

    /// Keys of the objects with a target.
    pub fn targeting(&self, target: &Target) -> Vec<RuntimeKey> {
        let inner = self.read();
        let names = inner.targets.get(target).into_iter().flatten();
        names.map(|name| RuntimeKey { namespace: target.namespace.clone(), name: name.clone() }).collect()
    }

    /// The AgentRuntime that owns a target (runtime §9.2).
    pub fn winner(&self, target: &Target) -> Option<Arc<AgentRuntime>> {
        let claimants: Vec<_> = self.targeting(target).iter().filter_map(|key| self.get(key)).collect();
        let name =
            runtime_winner(claimants.iter().map(|runtime| Claim::of_runtime(runtime)))?.name.to_owned();
        claimants.into_iter().find(|runtime| runtime.metadata.name.as_ref() == Some(&name))
    }

    /// Number of objects by type and phase, for the gauge.
    pub fn count(&self) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for runtime in self.read().objects.values() {
            let phase = runtime.status.as_ref().and_then(|status| status.phase.as_ref());
            // Both come from objects that anyone may write: unknown values share one series.
            let phase = phase.filter(|phase| !phase.is_unknown()).map_or("Pending", |phase| phase.as_str());
            let kind = &runtime.spec.workload_type;
            let kind = if kind.is_unknown() { "unknown" } else { kind.as_str() };
            *counts.entry((kind.to_owned(), phase.to_owned())).or_default() += 1;
        }
        counts
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
        let Some(old) = self.objects.get(key) else { return };
        let target = Target::of(old);
        if let Some(names) = self.targets.get_mut(&target) {
            names.retain(|name| *name != key.name);
            if names.is_empty() {
                self.targets.remove(&target);
            }
        }
        if let Some(names) = self.namespaces.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.namespaces.remove(&key.namespace);
            }
        }
    }
}

/// Without what is never looked at; the card of an agent can be big.
fn compact(mut runtime: AgentRuntime) -> AgentRuntime {
    runtime.metadata.managed_fields = None;
    runtime.metadata.annotations = None;
    runtime.metadata.labels = None;
    if let Some(status) = &mut runtime.status {
        status.card = None;
    }
    runtime
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runtime(name: &str, target: &str, created: &str, version: &str) -> AgentRuntime {
        serde_json::from_value(json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": "ns", "name": name, "creationTimestamp": created, "resourceVersion": version},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
        }))
        .unwrap()
    }

    fn target(name: &str) -> Target {
        Target { namespace: "ns".into(), group: "apps".into(), kind: "Deployment".into(), name: name.into() }
    }

    #[test]
    fn the_target_index_follows_edits() {
        let index = Runtimes::default();
        index.upsert(runtime("a", "w1", "2026-01-01T00:00:00Z", "1")).unwrap();
        index.upsert(runtime("b", "w1", "2026-01-02T00:00:00Z", "2")).unwrap();
        assert_eq!(index.winner(&target("w1")).unwrap().name_any(), "a");
        index.upsert(runtime("a", "w2", "2026-01-01T00:00:00Z", "3")).unwrap();
        assert_eq!(index.winner(&target("w1")).unwrap().name_any(), "b");
        assert_eq!(index.targeting(&target("w2")).len(), 1);
        index.remove(&RuntimeKey { namespace: "ns".into(), name: "a".into() });
        assert!(index.targeting(&target("w2")).is_empty());
        assert_eq!(index.in_namespace("ns").len(), 1);
    }

    #[test]
    fn older_events_are_dropped() {
        let index = Runtimes::default();
        index.upsert(runtime("a", "w2", "2026-01-01T00:00:00Z", "10")).unwrap();
        assert!(index.upsert(runtime("a", "w1", "2026-01-01T00:00:00Z", "9")).is_err());
        assert_eq!(index.targeting(&target("w2")).len(), 1);
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_hold() {
        let index = Runtimes::default();
        for name in ["a", "b"] {
            index.upsert(runtime(name, "w", "2026-01-01T00:00:00Z", "1")).unwrap();
        }
        let seen = HashSet::from([RuntimeKey { namespace: "ns".into(), name: "b".into() }]);
        assert!(index.retain(Some("other"), &HashSet::new()).is_empty());
        assert_eq!(index.retain(Some("ns"), &seen).len(), 1);
        assert_eq!(index.keys().len(), 1);
    }
}
