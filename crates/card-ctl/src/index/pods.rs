//! Pods of agents by workload; only filled in label mode `pods` and with endpoint policy `workload-pods`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use api_types::{
    names::label,
    owner::{PodIdentity, controller_of, workload_of},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ObjectKey;
use crate::kinds::TargetKey;

/// A Pod as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// The workload it belongs to (runtime §8.3).
    pub owner: TargetKey,
    /// The verified label is there.
    pub labelled: bool,
    /// Being deleted.
    pub terminating: bool,
}

impl Pod {
    /// Compacts metadata. `None` without namespace or name, which the API server never sends.
    pub fn of(metadata: ObjectMeta) -> Option<Self> {
        let key = ObjectKey::new(metadata.namespace.clone()?, metadata.name.clone()?);
        let identity = PodIdentity {
            name: &key.name,
            generate_name: metadata.generate_name.as_deref().unwrap_or_default(),
            uid: metadata.uid.as_deref().unwrap_or_default(),
            labels: metadata.labels.as_ref(),
            owner: controller_of(metadata.owner_references.as_deref().unwrap_or_default()),
        };
        let owner = workload_of(&identity, None);
        Some(Self {
            owner: TargetKey {
                namespace: key.namespace.clone(),
                group: owner.group,
                kind: owner.kind,
                name: owner.name,
            },
            uid: metadata.uid.unwrap_or_default(),
            labelled: metadata.labels.as_ref().is_some_and(|map| map.contains_key(label::SIGNATURE_VERIFIED)),
            terminating: metadata.deletion_timestamp.is_some(),
            key,
        })
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct Pods {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<ObjectKey, Arc<Pod>>,
    by_owner: HashMap<TargetKey, BTreeMap<ObjectKey, Arc<Pod>>>,
}

impl Inner {
    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Pod>> {
        let gone = self.by_key.remove(key)?;
        if let Some(pods) = self.by_owner.get_mut(&gone.owner) {
            pods.remove(key);
            if pods.is_empty() {
                self.by_owner.remove(&gone.owner);
            }
        }
        Some(gone)
    }
}

impl Pods {
    /// Stores a Pod; true when that changed something.
    pub fn upsert(&self, pod: Pod) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.by_key.get(&pod.key).is_some_and(|old| **old == pod) {
            return false;
        }
        inner.remove(&pod.key);
        let pod = Arc::new(pod);
        inner.by_owner.entry(pod.owner.clone()).or_default().insert(pod.key.clone(), pod.clone());
        inner.by_key.insert(pod.key.clone(), pod);
        true
    }

    /// Removes a Pod; returns what was known.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// After a new list: removes what was not in it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<ObjectKey>) -> Vec<Arc<Pod>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let scoped =
            |key: &&ObjectKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
        let gone: Vec<ObjectKey> = inner.by_key.keys().filter(scoped).cloned().collect();
        gone.iter().filter_map(|key| inner.remove(key)).collect()
    }

    /// Pods of a workload, by name.
    pub fn of(&self, workload: &TargetKey) -> Vec<Arc<Pod>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_owner.get(workload).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Number of Pods.
    pub fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
