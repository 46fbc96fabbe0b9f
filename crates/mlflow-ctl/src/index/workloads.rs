//! Agents by namespace, kind and name.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{Stale, is_older};
use crate::{
    kinds::WorkloadKind,
    workload::{Workload, WorkloadKey},
};

type Map = BTreeMap<WorkloadKey, Arc<Workload>>;

/// The index.
#[derive(Debug, Default)]
pub struct Workloads {
    by_key: RwLock<Map>,
}

impl Workloads {
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.by_key.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before.
    ///
    /// # Errors
    /// [`Stale`] when something newer is known.
    pub fn upsert(&self, workload: Workload) -> Result<Option<Arc<Workload>>, Stale> {
        let mut map = self.write();
        let old = map.get(&workload.key).cloned();
        if old.as_ref().is_some_and(|old| is_older(&workload.resource_version, &old.resource_version)) {
            return Err(Stale);
        }
        map.insert(workload.key.clone(), Arc::new(workload));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &WorkloadKey) -> Option<Arc<Workload>> {
        self.write().remove(key)
    }

    /// After a new list of one kind in `namespace` (all, when `None`): removes what was not in it.
    pub fn retain(
        &self,
        kind: WorkloadKind,
        namespace: Option<&str>,
        seen: &HashSet<WorkloadKey>,
    ) -> Vec<WorkloadKey> {
        let mut gone = Vec::new();
        self.write().retain(|key, _| {
            let keep = key.kind != kind || namespace.is_some_and(|ns| key.namespace != ns) || seen.contains(key);
            if !keep {
                gone.push(key.clone());
            }
            keep
        });
        gone
    }

    /// One object.
    pub fn get(&self, key: &WorkloadKey) -> Option<Arc<Workload>> {
        self.read().get(key).cloned()
    }

    /// Keys of a namespace, or (`None`) all.
    pub fn keys(&self, namespace: Option<&str>) -> Vec<WorkloadKey> {
        let map = self.read();
        let Some(namespace) = namespace else { return map.keys().cloned().collect() };
        let first = WorkloadKey {
            namespace: namespace.to_owned(),
            kind: WorkloadKind::Deployment,
            name: String::new(),
        };
        map.range(first..).map(|(key, _)| key).take_while(|key| key.namespace == namespace).cloned().collect()
    }

    /// Number of objects of a kind.
    pub fn count(&self, kind: WorkloadKind) -> usize {
        self.read().keys().filter(|key| key.kind == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::workload;
    use serde_json::json;

    #[test]
    fn objects_are_found_by_namespace() {
        let index = Workloads::default();
        for (namespace, kind) in [
            ("a", WorkloadKind::Deployment),
            ("b", WorkloadKind::Deployment),
            ("b", WorkloadKind::Sandbox),
            ("c", WorkloadKind::StatefulSet),
        ] {
            index.upsert(workload(kind, json!({"metadata": {"namespace": namespace}}))).unwrap();
        }
        assert_eq!(index.keys(Some("b")).len(), 2);
        assert_eq!(index.keys(None).len(), 4);
        assert_eq!(index.keys(Some("d")), []);
        let gone = index.retain(WorkloadKind::Deployment, Some("b"), &HashSet::new());
        assert_eq!(gone.len(), 1);
        assert_eq!(index.keys(Some("b"))[0].kind, WorkloadKind::Sandbox);
    }

    #[test]
    fn an_older_version_is_dropped() {
        let index = Workloads::default();
        let of = |version: &str| {
            workload(WorkloadKind::Deployment, json!({"metadata": {"resourceVersion": version}}))
        };
        index.upsert(of("10")).unwrap();
        assert_eq!(index.upsert(of("9")), Err(Stale));
        index.upsert(of("10")).unwrap();
    }
}
