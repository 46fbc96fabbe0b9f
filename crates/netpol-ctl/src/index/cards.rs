//! AgentCards by name and by the name of their workload.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use controller_kit::watch::Key;

use super::{Slot, Upsert, is_older};
use crate::{card::Card, verdict::Verdict};

/// The index.
#[derive(Debug, Default)]
pub struct Cards {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<Key, Arc<Card>>,
    /// Nearly always one card each, so a set would be mostly air.
    by_slot: HashMap<Slot, Vec<Arc<Card>>>,
}

impl Cards {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a card.
    pub fn upsert(&self, card: Card) -> Upsert<Arc<Card>> {
        let mut inner = self.write();
        let old = inner.by_key.get(&card.key).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.uid == card.uid) {
            if is_older(&card.resource_version, &old.resource_version) {
                return Upsert::Stale;
            }
            if card == **old {
                return Upsert::Known;
            }
        }
        inner.unlink(&card.key);
        let card = Arc::new(card);
        if let Some(slot) = card.slot() {
            inner.by_slot.entry(slot).or_insert_with(|| Vec::with_capacity(1)).push(card.clone());
        }
        inner.by_key.insert(card.key.clone(), card);
        Upsert::Stored(old)
    }

    /// Removes a card; returns what was known.
    pub fn remove(&self, key: &Key) -> Option<Arc<Card>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.by_key.remove(key)
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it and returns it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<Key>) -> Vec<Arc<Card>> {
        let scoped = |key: &&Key| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
        let gone: Vec<Key> = self.read().by_key.keys().filter(scoped).cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One card.
    pub fn get(&self, key: &Key) -> Option<Arc<Card>> {
        self.read().by_key.get(key).cloned()
    }

    /// The cards of the workloads of one name, those being deleted too.
    pub fn of(&self, slot: &Slot) -> Vec<Arc<Card>> {
        self.read().by_slot.get(slot).cloned().unwrap_or_default()
    }

    /// Names that have cards, of a namespace or of all.
    pub fn slots(&self, namespace: Option<&str>) -> BTreeSet<Slot> {
        let inner = self.read();
        let scoped = inner.by_slot.keys().filter(|slot| namespace.is_none_or(|ns| slot.namespace == ns));
        scoped.cloned().collect()
    }

    /// Cards with a workload that nobody will ever verify: their condition `Verified` is absent.
    pub fn unverifiable(&self, wanted: impl Fn(&Card) -> bool) -> usize {
        let inner = self.read();
        let silent = |card: &&Arc<Card>| {
            card.verdict == Verdict::Absent && card.target.is_some() && !card.terminating && wanted(card)
        };
        inner.by_key.values().filter(silent).count()
    }

    /// Number of cards.
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
        let Some(slot) = self.by_key.get(key).and_then(|old| old.slot()) else { return };
        if let Some(cards) = self.by_slot.get_mut(&slot) {
            cards.retain(|card| card.key != *key);
            if cards.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::CardView;
    use serde_json::json;

    fn card(name: &str, target: &str, version: &str) -> Card {
        let view: CardView = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
        }))
        .unwrap();
        Card::from_view(view)
    }

    fn slot(name: &str) -> Slot {
        Slot { namespace: "ns".into(), name: name.into() }
    }

    #[test]
    fn the_slot_follows_the_target() {
        let index = Cards::default();
        assert_eq!(index.upsert(card("c", "a", "1")), Upsert::Stored(None));
        assert_eq!(index.upsert(card("c", "a", "1")), Upsert::Known);
        assert_eq!(index.of(&slot("a")).len(), 1);
        assert!(matches!(index.upsert(card("c", "b", "2")), Upsert::Stored(Some(_))));
        assert!(index.of(&slot("a")).is_empty());
        assert_eq!(index.of(&slot("b")).len(), 1);
        assert_eq!(index.upsert(card("c", "a", "1")), Upsert::Stale);
        assert_eq!(index.slots(None), [slot("b")].into());
        assert_eq!(index.unverifiable(|_| true), 1);
        assert_eq!(index.retain(Some("other"), &HashSet::new()).len(), 0);
        assert_eq!(index.retain(None, &HashSet::new()).len(), 1);
        assert!(index.of(&slot("b")).is_empty() && index.is_empty());
    }
}
