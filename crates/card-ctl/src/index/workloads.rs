//! Agent workloads by name.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{Stale, is_older};
use crate::{
    kinds::{TargetKey, WorkloadKind},
    workload::Workload,
};

/// The index.
#[derive(Debug, Default)]
pub struct Workloads {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<TargetKey, Arc<Workload>>,
    by_namespace: HashMap<String, BTreeSet<TargetKey>>,
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
        inner.by_namespace.entry(workload.key.namespace.clone()).or_default().insert(workload.key.clone());
        inner.by_key.insert(workload.key.clone(), Arc::new(workload));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &TargetKey) -> Option<Arc<Workload>> {
        let mut inner = self.write();
        if let Some(keys) = inner.by_namespace.get_mut(&key.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                inner.by_namespace.remove(&key.namespace);
            }
        }
        inner.by_key.remove(key)
    }

    /// After a new list of one kind in `namespace` (all, when `None`): removes what was not in it and returns it.
    pub fn retain(
        &self,
        kind: WorkloadKind,
        namespace: Option<&str>,
        seen: &HashSet<TargetKey>,
    ) -> Vec<Arc<Workload>> {
        let gone: Vec<TargetKey> = {
            let scoped = |key: &&TargetKey| {
                key.workload_kind() == Some(kind)
                    && namespace.is_none_or(|ns| key.namespace == ns)
                    && !seen.contains(*key)
            };
            self.read().by_key.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &TargetKey) -> Option<Arc<Workload>> {
        self.read().by_key.get(key).cloned()
    }

    /// Workloads of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Workload>> {
        let inner = self.read();
        let keys = inner.by_namespace.get(namespace).into_iter().flatten();
        keys.filter_map(|key| inner.by_key.get(key).cloned()).collect()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<TargetKey> {
        self.read().by_key.keys().cloned().collect()
    }

    /// Number of objects of a kind.
    pub fn count(&self, kind: WorkloadKind) -> usize {
        self.read().by_key.keys().filter(|key| key.workload_kind() == Some(kind)).count()
    }
}
