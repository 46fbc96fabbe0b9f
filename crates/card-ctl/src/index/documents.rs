//! Signed cards in ConfigMaps labelled `kagenti.io/card-signed=true`, by the workload they are for (card §6.4).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use api_types::card::signed;
use k8s_openapi::api::core::v1::ConfigMap;

use super::ObjectKey;

/// The candidates of one ConfigMap, preferred first.
pub type Candidates = Vec<Arc<[u8]>>;

/// The index; keys are namespace and name of the workload.
#[derive(Debug, Default)]
pub struct Documents {
    inner: RwLock<HashMap<ObjectKey, Arc<Candidates>>>,
}

/// The workload that a ConfigMap's name belongs to.
pub fn workload_of(config_map: &ConfigMap) -> Option<ObjectKey> {
    let name = config_map.metadata.name.as_deref()?.strip_suffix(signed::SUFFIX)?;
    Some(ObjectKey::new(config_map.metadata.namespace.clone()?, name))
}

/// The documents of a ConfigMap, in the order of preference; empty ones are left out.
pub fn candidates(config_map: &ConfigMap) -> Candidates {
    let of = |key: &str| {
        let text = config_map.data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
        let bytes = || config_map.binary_data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice());
        text.or_else(bytes).filter(|document| !document.is_empty()).map(Arc::from)
    };
    signed::KEYS.into_iter().filter_map(of).collect()
}

impl Documents {
    /// Stores what a ConfigMap holds; true when that changed something.
    pub fn upsert(&self, workload: ObjectKey, candidates: Candidates) -> bool {
        let mut map = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if map.get(&workload).is_some_and(|old| **old == candidates) {
            return false;
        }
        map.insert(workload, Arc::new(candidates));
        true
    }

    /// Removes them; true when there were some.
    pub fn remove(&self, workload: &ObjectKey) -> bool {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).remove(workload).is_some()
    }

    /// After a new list: removes what was not in it and returns it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut map = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let scoped =
            |key: &&ObjectKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
        let gone: Vec<ObjectKey> = map.keys().filter(scoped).cloned().collect();
        for key in &gone {
            map.remove(key);
        }
        gone
    }

    /// The documents of a workload; `None` = no labelled ConfigMap.
    pub fn get(&self, namespace: &str, workload: &str) -> Option<Arc<Candidates>> {
        let map = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&ObjectKey::new(namespace, workload)).cloned()
    }

    /// Number of ConfigMaps.
    pub fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Card §6.4: the preferred key first, empty ones do not count.
    #[test]
    fn the_signed_key_is_preferred() {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "echo-card-signed"},
            "data": {"agent-card.json": "b", "signed-agent-card.json": "a", "other": "c"},
        }))
        .unwrap();
        assert_eq!(workload_of(&map), Some(ObjectKey::new("n", "echo")));
        let found: Vec<&[u8]> =
            candidates(&map).iter().map(|d| &**d).map(|d| if d == b"a" { &b"a"[..] } else { b"b" }).collect();
        assert_eq!(found, [b"a", b"b"]);
        let empty: ConfigMap = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "echo"}, "data": {"agent-card.json": ""},
        }))
        .unwrap();
        assert_eq!(workload_of(&empty), None);
        assert!(candidates(&empty).is_empty());
    }

    #[test]
    fn unchanged_documents_are_no_news() {
        let index = Documents::default();
        let key = ObjectKey::new("n", "w");
        assert!(index.upsert(key.clone(), vec![Arc::from(&b"a"[..])]));
        assert!(!index.upsert(key.clone(), vec![Arc::from(&b"a"[..])]));
        assert_eq!(index.retain(None, &HashSet::new()), [key]);
    }
}
