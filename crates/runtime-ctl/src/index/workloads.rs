//! Workloads by key and by the AgentRuntime that enrolled them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{RuntimeKey, Stale, is_older};
use crate::{
    kinds::WorkloadKind,
    workload::{Workload, WorkloadKey},
};

/// The index.
#[derive(Debug, Default)]
pub struct Workloads {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<WorkloadKey, Arc<Workload>>,
    /// Nearly always one workload each, so a set would be mostly air.
    by_enroller: HashMap<RuntimeKey, Vec<WorkloadKey>>,
    /// Labelled by hand, by namespace (runtime §13).
    hand_labelled: HashMap<String, BTreeSet<WorkloadKey>>,
}

impl Workloads {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before; `Err` when something newer is known.
    pub fn upsert(&self, workload: Workload) -> Result<Option<Arc<Workload>>, Stale> {
        let mut inner = self.write();
        let old = inner.by_key.get(&workload.key).cloned();
        if old.as_ref().is_some_and(|old| is_older(&workload.resource_version, &old.resource_version)) {
            return Err(Stale);
        }
        inner.unlink(&workload.key);
        if let Some(runtime) = enroller(&workload) {
            inner
                .by_enroller
                .entry(runtime)
                .or_insert_with(|| Vec::with_capacity(1))
                .push(workload.key.clone());
        }
        if workload.is_hand_labelled() {
            let namespace = workload.key.namespace.clone();
            inner.hand_labelled.entry(namespace).or_default().insert(workload.key.clone());
        }
        inner.by_key.insert(workload.key.clone(), Arc::new(workload));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &WorkloadKey) -> Option<Arc<Workload>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.by_key.remove(key)
    }

    /// After a new list of one kind in `namespace` (all, when `None`): removes what was not in it and returns it.
    pub fn retain(
        &self,
        kind: WorkloadKind,
        namespace: Option<&str>,
        seen: &HashSet<WorkloadKey>,
    ) -> Vec<Arc<Workload>> {
        let gone: Vec<WorkloadKey> = {
            let scoped = |key: &&WorkloadKey| {
                key.kind == kind && namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key)
            };
            self.read().by_key.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &WorkloadKey) -> Option<Arc<Workload>> {
        self.read().by_key.get(key).cloned()
    }

    /// Workloads whose annotation `enrolled-by` names this AgentRuntime.
    pub fn enrolled_by(&self, runtime: &RuntimeKey) -> Vec<Arc<Workload>> {
        let inner = self.read();
        let keys = inner.by_enroller.get(runtime).into_iter().flatten();
        keys.filter_map(|key| inner.by_key.get(key).cloned()).collect()
    }

    /// Workloads of a namespace that were labelled by hand.
    pub fn hand_labelled(&self, namespace: &str) -> Vec<WorkloadKey> {
        self.read().hand_labelled.get(namespace).into_iter().flatten().cloned().collect()
    }

    /// Namespaces with workloads that were labelled by hand.
    pub fn hand_labelled_namespaces(&self) -> Vec<String> {
        self.read().hand_labelled.keys().cloned().collect()
    }

    /// Number of objects of a kind.
    pub fn count(&self, kind: WorkloadKind) -> usize {
        self.read().by_key.keys().filter(|key| key.kind == kind).count()
    }
}

fn enroller(workload: &Workload) -> Option<RuntimeKey> {
    let name = workload.enrolled_by.clone()?;
    Some(RuntimeKey { namespace: workload.key.namespace.clone(), name })
}

impl Inner {
    fn unlink(&mut self, key: &WorkloadKey) {
        let Some(old) = self.by_key.get(key) else { return };
        if let Some(runtime) = enroller(old)
            && let Some(keys) = self.by_enroller.get_mut(&runtime)
        {
            keys.retain(|known| known != key);
            if keys.is_empty() {
                self.by_enroller.remove(&runtime);
            }
        }
        if let Some(keys) = self.hand_labelled.get_mut(&key.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.hand_labelled.remove(&key.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::workload;
    use serde_json::json;

    #[test]
    fn the_enroller_index_follows_the_annotation() {
        let index = Workloads::default();
        let of = |by: &str, version: &str| {
            workload(
                WorkloadKind::Deployment,
                json!({"metadata": {"resourceVersion": version, "annotations": {"agent.kagenti.dev/enrolled-by": by}}}),
            )
        };
        let key = |name: &str| RuntimeKey { namespace: "team1".into(), name: name.into() };
        index.upsert(of("a", "1")).unwrap();
        assert_eq!(index.enrolled_by(&key("a")).len(), 1);
        index.upsert(of("b", "2")).unwrap();
        assert!(index.enrolled_by(&key("a")).is_empty());
        assert_eq!(index.enrolled_by(&key("b")).len(), 1);
        assert!(index.upsert(of("c", "1")).is_err());
    }

    #[test]
    fn hand_labelled_workloads_are_found_by_namespace() {
        let index = Workloads::default();
        let plain =
            workload(WorkloadKind::Deployment, json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}}));
        let key = plain.key.clone();
        index.upsert(plain).unwrap();
        assert_eq!(index.hand_labelled("team1"), std::slice::from_ref(&key));
        index.remove(&key);
        assert!(index.hand_labelled("team1").is_empty());
    }
}
