//! AgentCards by name and by target.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{
    AgentCard, AgentCardSpec, TargetRef,
    card::condition,
    duplicates::{Claim, same_target},
    names::{MANAGED_BY_OPERATOR, finalizer, label},
};
use controller_kit::index::{Stale, is_older};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::ObjectKey;
use crate::{conditions::verdict_of, kinds::TargetKey, status::Stored, verdict::Truth};

/// An AgentCard as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
    /// Made by card-ctl.
    pub automatic: bool,
    /// Owners.
    pub owners: Vec<OwnerReference>,
    /// All finalizers, when one of them is of the previous operator.
    pub legacy_finalizers: Option<Vec<String>>,
    /// `spec`.
    pub spec: AgentCardSpec,
    /// The workload it targets; `None` without a usable reference.
    pub target: Option<TargetKey>,
    /// `status`.
    pub stored: Stored,
}

impl Card {
    /// Compacts an object. `None` without namespace or name, which the API server never sends.
    pub fn of(card: AgentCard) -> Option<Self> {
        let AgentCard { metadata, spec, status } = card;
        let key = ObjectKey::new(metadata.namespace?, metadata.name?);
        let mut status = status.unwrap_or_default();
        let stored_card = status.card.take().and_then(|card| serde_json::to_string(&card).ok());
        let finalizers = metadata.finalizers.unwrap_or_default();
        let legacy = |name: &String| {
            [finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY].contains(&name.as_str())
        };
        Some(Self {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            terminating: metadata.deletion_timestamp.is_some(),
            automatic: metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(label::MANAGED_BY))
                .map(String::as_str)
                == Some(MANAGED_BY_OPERATOR),
            owners: metadata.owner_references.unwrap_or_default(),
            legacy_finalizers: finalizers.iter().any(legacy).then_some(finalizers),
            target: spec.target_ref.as_ref().and_then(|target| TargetKey::of(&key.namespace, target)),
            stored: Stored { status, card: stored_card.map(Into::into) },
            spec,
            key,
        })
    }

    /// The claim on its workload.
    pub fn claim(&self) -> Claim<'_> {
        Claim {
            name: &self.key.name,
            created: self.created,
            terminating: self.terminating,
            automatic: self.automatic,
        }
    }

    /// The stored status is about the workload that the card targets now. After an edit of the target it is not, until the
    /// new one was looked at: a verdict never passes from one workload to another.
    pub fn is_about_target(&self) -> bool {
        is_about(self.stored.status.target_ref.as_ref(), self.spec.target_ref.as_ref())
    }

    /// For events.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{}/{}", api_types::names::GROUP, api_types::names::VERSION)),
            kind: Some("AgentCard".into()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.resource_version.clone()),
            ..ObjectReference::default()
        }
    }

    /// The stored truth of a condition, for the gauge: `true`, `false`, `unknown` or `none`.
    fn says(&self, type_: &str) -> &'static str {
        match verdict_of(&self.stored.status.conditions, type_).map(|verdict| verdict.truth) {
            Some(Truth::True) => "true",
            Some(Truth::False) => "false",
            Some(Truth::Unknown) => "unknown",
            None => "none",
        }
    }
}

/// A status with this target is about the target of this spec. One without target says nothing of another.
pub fn is_about(stored: Option<&TargetRef>, wanted: Option<&TargetRef>) -> bool {
    stored.is_none_or(|stored| wanted.is_some_and(|wanted| same_target(stored, wanted)))
}

/// The index.
#[derive(Debug, Default)]
pub struct Cards {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<ObjectKey, Arc<Card>>,
    by_target: HashMap<TargetKey, BTreeSet<ObjectKey>>,
}

impl Cards {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before; `Err` when something newer is known.
    pub fn upsert(&self, card: Card) -> Result<Option<Arc<Card>>, Stale> {
        let mut inner = self.write();
        let old = inner.by_key.get(&card.key).cloned();
        if old.as_ref().is_some_and(|old| is_older(&card.resource_version, &old.resource_version)) {
            return Err(Stale);
        }
        inner.unlink(&card.key);
        if let Some(target) = card.target.clone() {
            inner.by_target.entry(target).or_default().insert(card.key.clone());
        }
        inner.by_key.insert(card.key.clone(), Arc::new(card));
        Ok(old)
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<Card>> {
        let mut inner = self.write();
        inner.unlink(key);
        inner.by_key.remove(key)
    }

    /// After a new list: removes what was not in it and returns it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<ObjectKey>) -> Vec<Arc<Card>> {
        let gone: Vec<ObjectKey> = {
            let scoped =
                |key: &&ObjectKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
            self.read().by_key.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Card>> {
        self.read().by_key.get(key).cloned()
    }

    /// All cards of a workload, by name, also those being deleted.
    pub fn targeting(&self, target: &TargetKey) -> Vec<Arc<Card>> {
        let inner = self.read();
        let keys = inner.by_target.get(target).into_iter().flatten();
        keys.filter_map(|key| inner.by_key.get(key).cloned()).collect()
    }

    /// Everything.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.read().by_key.keys().cloned().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of cards by truth of Synced and Verified.
    pub fn count(&self) -> BTreeMap<(&'static str, &'static str), i64> {
        let mut counts = BTreeMap::new();
        for card in self.read().by_key.values() {
            *counts.entry((card.says(condition::SYNCED), card.says(condition::VERIFIED))).or_insert(0) += 1;
        }
        counts
    }
}

impl Inner {
    fn unlink(&mut self, key: &ObjectKey) {
        let Some(target) = self.by_key.get(key).and_then(|old| old.target.clone()) else { return };
        if let Some(keys) = self.by_target.get_mut(&target) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::card, *};
    use serde_json::json;

    fn of(name: &str, target: &str, version: &str) -> Card {
        card(json!({
            "metadata": {"namespace": "ns", "name": name, "resourceVersion": version},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
            "status": {"card": {"name": "x"}},
        }))
    }

    #[test]
    fn cards_are_found_by_their_present_target() {
        let index = Cards::default();
        let target = |name: &str| TargetKey {
            namespace: "ns".into(),
            group: "apps".into(),
            kind: "Deployment".into(),
            name: name.into(),
        };
        index.upsert(of("a", "w", "1")).unwrap();
        index.upsert(of("b", "w", "1")).unwrap();
        assert_eq!(index.targeting(&target("w")).len(), 2);
        index.upsert(of("a", "v", "2")).unwrap();
        assert!(index.upsert(of("a", "w", "1")).is_err(), "older");
        assert_eq!(index.targeting(&target("v"))[0].key.name, "a");
        index.retain(None, &HashSet::from([ObjectKey::new("ns", "a")]));
        assert!(index.targeting(&target("w")).is_empty());
    }

    #[test]
    fn the_card_is_kept_as_text_and_legacy_finalizers_are_noticed() {
        let plain = of("a", "w", "1");
        assert_eq!(plain.stored.card.as_deref(), Some(r#"{"name":"x"}"#));
        assert_eq!(plain.stored.status.card, None);
        assert_eq!(plain.legacy_finalizers, None);
        let legacy = card(json!({"metadata": {"namespace": "ns", "name": "l",
            "finalizers": ["x/y", "agentcard.kagenti.dev/finalizer"]}}));
        assert_eq!(legacy.legacy_finalizers.map(|list| list.len()), Some(2));
    }
}
