//! NetworkPolicies of ours by name and by the card they were made for.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use controller_kit::watch::Key;

use super::{Upsert, is_older};
use crate::{policy::Policy, verdict::Mode};

/// The index.
#[derive(Debug, Default)]
pub struct Policies {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<Key, Arc<Policy>>,
    by_card: HashMap<Key, BTreeSet<Key>>,
}

fn card_of(policy: &Policy) -> Option<Key> {
    Some(Key::new(policy.key.namespace.clone(), policy.card.clone()?))
}

impl Policies {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a policy.
    pub fn upsert(&self, policy: Policy) -> Upsert<Arc<Policy>> {
        let mut inner = self.write();
        let old = inner.by_key.get(&policy.key).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.uid == policy.uid) {
            if is_older(&policy.resource_version, &old.resource_version) {
                return Upsert::Stale;
            }
            if policy.resource_version == old.resource_version {
                return Upsert::Known;
            }
        }
        inner.unlink(&policy.key);
        if let Some(card) = card_of(&policy) {
            inner.by_card.entry(card).or_default().insert(policy.key.clone());
        }
        inner.by_key.insert(policy.key.clone(), Arc::new(policy));
        Upsert::Stored(old)
    }

    /// Removes a policy; returns what was known.
    pub fn remove(&self, key: &Key) -> Option<Arc<Policy>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.by_key.remove(key)
    }

    /// Removes a policy unless a version newer than `version` is known; true when it was there.
    pub fn remove_until(&self, key: &Key, version: &str) -> bool {
        let mut inner = self.write();
        if inner.by_key.get(key).is_none_or(|known| is_older(version, &known.resource_version)) {
            return false;
        }
        inner.unlink(key);
        inner.by_key.remove(key).is_some()
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it and returns it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<Key>) -> Vec<Arc<Policy>> {
        let scoped = |key: &&Key| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
        let gone: Vec<Key> = self.read().by_key.keys().filter(scoped).cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One policy that this suite made and nobody deletes.
    pub fn managed(&self, key: &Key) -> Option<Arc<Policy>> {
        self.get(key).filter(|policy| policy.is_managed() && !policy.terminating)
    }

    /// One policy, whatever it is.
    pub fn get(&self, key: &Key) -> Option<Arc<Policy>> {
        self.read().by_key.get(key).cloned()
    }

    /// The policies that were made for a card.
    pub fn of_card(&self, card: &Key) -> Vec<Key> {
        self.read().by_card.get(card).into_iter().flatten().cloned().collect()
    }

    /// How many there are of a mode.
    pub fn count(&self, mode: Mode) -> usize {
        self.read().by_key.values().filter(|policy| policy.mode == mode && policy.is_managed()).count()
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn unlink(&mut self, key: &Key) {
        let Some(card) = self.by_key.get(key).and_then(|old| card_of(old)) else { return };
        if let Some(keys) = self.by_card.get_mut(&card) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_card.remove(&card);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(name: &str, card: &str, version: &str) -> Policy {
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "ns", "name": name, "uid": "u", "resourceVersion": version,
                "labels": {"managed-by": "kagenti-operator", "kagenti.dev/policy-type": "identity-verification"},
                "annotations": {"kagenti.dev/agentcard-name": card}},
            "spec": {"egress": [{}]}});
        Policy::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn policies_are_found_by_their_card() {
        let index = Policies::default();
        index.upsert(policy("p", "c", "1"));
        let card = |name: &str| Key::new("ns", name);
        assert_eq!(index.of_card(&card("c")), [card("p")]);
        assert_eq!(index.upsert(policy("p", "c", "1")), Upsert::Known);
        index.upsert(policy("p", "d", "2"));
        assert!(index.of_card(&card("c")).is_empty());
        assert_eq!(index.of_card(&card("d")).len(), 1);
        assert_eq!(index.upsert(policy("p", "c", "1")), Upsert::Stale);
        assert_eq!((index.count(Mode::Permissive), index.count(Mode::Restrictive)), (1, 0));
        index.remove(&card("p"));
        assert!(index.of_card(&card("d")).is_empty() && index.is_empty());
    }
}
