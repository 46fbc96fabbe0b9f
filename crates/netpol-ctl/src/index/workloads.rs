//! Agents: workloads with label `kagenti.io/type=agent`, and how their Pods are selected.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::enrolment::TargetKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Slot;

/// Names one workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Namespace and name.
    pub slot: Slot,
    /// Kind.
    pub kind: TargetKind,
}

type Selector = Option<Arc<LabelSelector>>;

/// The index. The selector is all that is kept; `None` = nothing would tell the Pods from others.
#[derive(Debug, Default)]
pub struct Workloads {
    inner: RwLock<HashMap<WorkloadKey, Selector>>,
}

impl Workloads {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<WorkloadKey, Selector>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<WorkloadKey, Selector>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a workload; true when that is news.
    pub fn upsert(&self, key: WorkloadKey, selector: Option<LabelSelector>) -> bool {
        let selector = selector.map(Arc::new);
        let mut map = self.write();
        if map.get(&key).is_some_and(|known| known.as_deref() == selector.as_deref()) {
            return false;
        }
        map.insert(key, selector);
        true
    }

    /// Removes a workload; true when it was there.
    pub fn remove(&self, key: &WorkloadKey) -> bool {
        self.write().remove(key).is_some()
    }

    /// After a new list of one kind in `namespace` (all, when `None`): removes what was not in it and returns it.
    pub fn retain(
        &self,
        kind: TargetKind,
        namespace: Option<&str>,
        seen: &HashSet<WorkloadKey>,
    ) -> Vec<WorkloadKey> {
        let mut map = self.write();
        let scoped = |key: &&WorkloadKey| {
            key.kind == kind && namespace.is_none_or(|ns| key.slot.namespace == ns) && !seen.contains(*key)
        };
        let gone: Vec<WorkloadKey> = map.keys().filter(scoped).cloned().collect();
        for key in &gone {
            map.remove(key);
        }
        gone
    }

    /// The selector of a workload; the outer `None` = it does not exist or is no agent.
    pub fn get(&self, key: &WorkloadKey) -> Option<Selector> {
        self.read().get(key).cloned()
    }

    /// Number of workloads of a kind.
    pub fn count(&self, kind: TargetKind) -> usize {
        self.read().keys().filter(|key| key.kind == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::by_convention;

    #[test]
    fn only_news_is_news() {
        let index = Workloads::default();
        let key = WorkloadKey {
            slot: Slot { namespace: "ns".into(), name: "w".into() },
            kind: TargetKind::Deployment,
        };
        assert!(index.upsert(key.clone(), None));
        assert!(!index.upsert(key.clone(), None));
        assert!(index.upsert(key.clone(), Some(by_convention("w"))));
        assert_eq!(index.retain(TargetKind::Sandbox, None, &HashSet::new()), []);
        assert_eq!(
            index.retain(TargetKind::Deployment, Some("ns"), &HashSet::new()),
            std::slice::from_ref(&key)
        );
        assert!(!index.remove(&key));
    }
}
