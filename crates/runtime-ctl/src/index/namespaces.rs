//! Namespaces: what the enrolment, the mesh and the propagation of defaults look at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use api_types::names::{annotation, label};
use controller_kit::index::is_older;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One namespace as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceFacts {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Being deleted.
    pub terminating: bool,
    /// The labels runtime §3 names; others are not kept.
    pub labels: BTreeMap<String, String>,
    /// Annotation `kagenti.io/istio-mesh`.
    pub istio_mesh: Option<String>,
}

impl NamespaceFacts {
    /// Compacts metadata.
    pub fn from_meta(metadata: ObjectMeta) -> Self {
        const KEPT: [&str; 4] = [
            label::NAMESPACE_ENABLED,
            label::ISTIO_DISCOVERY,
            label::ISTIO_DATAPLANE_MODE,
            label::ISTIO_INJECTION,
        ];
        let mut labels = metadata.labels.unwrap_or_default();
        labels.retain(|key, _| KEPT.contains(&key.as_str()));
        Self {
            resource_version: metadata.resource_version.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            terminating: metadata.deletion_timestamp.is_some(),
            labels,
            istio_mesh: metadata.annotations.and_then(|mut map| map.remove(annotation::ISTIO_MESH)),
        }
    }

    /// Label `kagenti-enabled` is `true`.
    pub fn enabled(&self) -> bool {
        self.labels.get(label::NAMESPACE_ENABLED).is_some_and(|value| value == "true")
    }

    /// True when something besides the version differs.
    pub fn differs(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.resource_version.clone_from(&other.resource_version);
        same != *other
    }
}

/// What is known of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum NamespaceState {
    /// It was read.
    Known(Arc<NamespaceFacts>),
    /// It does not exist, or is not seen yet.
    Absent,
    /// Namespaces cannot be read (runtime §19.4).
    Unreadable,
}

/// The index.
#[derive(Debug, Default)]
pub struct Namespaces {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<String, Arc<NamespaceFacts>>,
    unreadable: bool,
}

impl Namespaces {
    /// Stores a namespace. `Some(true)` when something that counts changed, `None` when something newer is known.
    pub fn upsert(&self, name: &str, facts: NamespaceFacts) -> Option<bool> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.unreadable = false;
        let old = inner.by_name.get(name);
        if old.is_some_and(|old| is_older(&facts.resource_version, &old.resource_version)) {
            return None;
        }
        let changed = old.is_none_or(|old| old.differs(&facts));
        inner.by_name.insert(name.to_owned(), Arc::new(facts));
        Some(changed)
    }

    /// Removes a namespace.
    pub fn remove(&self, name: &str) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).by_name.remove(name);
    }

    /// After a new list: removes what was not in it.
    pub fn retain(&self, seen: &HashSet<String>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.by_name.retain(|name, _| seen.contains(name));
    }

    /// Notes that namespaces cannot be read.
    pub fn set_unreadable(&self) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).unreadable = true;
    }

    /// What is known of a namespace.
    pub fn get(&self, name: &str) -> NamespaceState {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match inner.by_name.get(name) {
            Some(facts) => NamespaceState::Known(facts.clone()),
            None if inner.unreadable => NamespaceState::Unreadable,
            None => NamespaceState::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(metadata: serde_json::Value) -> NamespaceFacts {
        NamespaceFacts::from_meta(serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn only_what_counts_is_a_change() {
        let index = Namespaces::default();
        assert_eq!(index.upsert("a", facts(json!({"resourceVersion": "1"}))), Some(true));
        assert_eq!(
            index.upsert("a", facts(json!({"resourceVersion": "3", "labels": {"x": "y"}}))),
            Some(false)
        );
        assert_eq!(index.upsert("a", facts(json!({"resourceVersion": "2"}))), None);
        let labels = json!({"resourceVersion": "4", "labels": {"kagenti-enabled": "true"}});
        assert_eq!(index.upsert("a", facts(labels)), Some(true));
        index.set_unreadable();
        assert!(matches!(index.get("a"), NamespaceState::Known(_)));
        assert_eq!(index.get("b"), NamespaceState::Unreadable);
    }
}
