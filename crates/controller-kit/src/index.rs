//! What a watch has seen, kept by key and by whatever else it is looked up with.
//!
//! One task per watch fills an index and the passes read it. Own writes go in too, with the answer of the API server,
//! so that the next look does not act on what was before; an event that is older than what is known is dropped.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Debug,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// What a component keeps of an object.
pub trait Entry {
    /// Names one object.
    type Key: Clone + Debug + Ord + Hash;
    /// What objects are looked up by beside their key.
    type Link: Clone + Debug + Eq + Hash;

    /// Its key.
    fn key(&self) -> &Self::Key;

    /// Its resourceVersion; empty where order does not matter.
    fn version(&self) -> &str;

    /// By what else it is found.
    fn links(&self) -> impl Iterator<Item = Self::Link>;
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Index<V: Entry> {
    inner: RwLock<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V: Entry> {
    by_key: HashMap<V::Key, Arc<V>>,
    by_link: HashMap<V::Link, Keys<V::Key>>,
}

/// Nearly always one, which needs no set.
#[derive(Debug)]
enum Keys<K> {
    One(K),
    Many(BTreeSet<K>),
}

/// The index knows something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl<V: Entry> Default for Index<V> {
    fn default() -> Self {
        Self { inner: RwLock::new(Inner { by_key: HashMap::new(), by_link: HashMap::new() }) }
    }
}

impl<V: Entry> Index<V> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<V>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<V>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object and returns what was known before.
    ///
    /// # Errors
    /// [`Stale`] when something newer is known; then nothing changes.
    pub fn upsert(&self, value: V) -> Result<Option<Arc<V>>, Stale> {
        let mut inner = self.write();
        if inner.by_key.get(value.key()).is_some_and(|known| is_older(value.version(), known.version())) {
            return Err(Stale);
        }
        Ok(inner.put(value))
    }

    /// Removes an object; returns what was known.
    pub fn remove(&self, key: &V::Key) -> Option<Arc<V>> {
        self.write().take(key)
    }

    /// Removes an object unless something newer than `version` is known; returns what was removed.
    pub fn remove_until(&self, key: &V::Key, version: &str) -> Option<Arc<V>> {
        let mut inner = self.write();
        if inner.by_key.get(key).is_some_and(|known| is_older(version, known.version())) {
            return None;
        }
        inner.take(key)
    }

    /// After a new list of the objects whose keys `covered` names: removes what was not `seen` in it and returns it.
    pub fn retain(&self, covered: impl Fn(&V::Key) -> bool, seen: &HashSet<V::Key>) -> Vec<Arc<V>> {
        let gone = |key: &&V::Key| covered(key) && !seen.contains(*key);
        let gone: Vec<V::Key> = self.read().by_key.keys().filter(gone).cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// One object.
    pub fn get(&self, key: &V::Key) -> Option<Arc<V>> {
        self.read().by_key.get(key).cloned()
    }

    /// The objects with a link, by key.
    pub fn linked(&self, link: &V::Link) -> Vec<Arc<V>> {
        let inner = self.read();
        let of = |key: &V::Key| inner.by_key.get(key).cloned();
        match inner.by_link.get(link) {
            None => Vec::new(),
            Some(Keys::One(key)) => of(key).into_iter().collect(),
            Some(Keys::Many(keys)) => keys.iter().filter_map(of).collect(),
        }
    }

    /// The links for which `wanted` gives something.
    pub fn links<T>(&self, wanted: impl Fn(&V::Link) -> Option<T>) -> Vec<T> {
        self.read().by_link.keys().filter_map(wanted).collect()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<V::Key> {
        self.read().by_key.keys().cloned().collect()
    }

    /// Works something out from all objects; for metrics and summaries, not for passes.
    pub fn fold<T>(&self, start: T, f: impl FnMut(T, &V) -> T) -> T {
        self.read().by_key.values().map(|value| &**value).fold(start, f)
    }

    /// Number of objects that are `wanted`; looks at all of them.
    pub fn count(&self, wanted: impl Fn(&V) -> bool) -> usize {
        self.fold(0, |count, value| count + usize::from(wanted(value)))
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: Entry> Inner<V> {
    fn put(&mut self, value: V) -> Option<Arc<V>> {
        let old = self.by_key.get(value.key()).cloned();
        // Most changes leave the links alone, and some links have thousands of objects.
        if !old.as_ref().is_some_and(|old| old.links().eq(value.links())) {
            if let Some(old) = &old {
                self.unlink(old);
            }
            for link in value.links() {
                Keys::insert(self.by_link.entry(link), value.key());
            }
        }
        self.by_key.insert(value.key().clone(), Arc::new(value));
        old
    }

    fn take(&mut self, key: &V::Key) -> Option<Arc<V>> {
        let old = self.by_key.remove(key)?;
        self.unlink(&old);
        Some(old)
    }

    fn unlink(&mut self, value: &V) {
        for link in value.links() {
            let empty = match self.by_link.get_mut(&link) {
                None => false,
                Some(Keys::One(known)) => known == value.key(),
                Some(Keys::Many(keys)) => keys.remove(value.key()) && keys.is_empty(),
            };
            if empty {
                self.by_link.remove(&link);
            }
        }
    }
}

impl<K: Clone + Ord> Keys<K> {
    fn insert<L>(entry: std::collections::hash_map::Entry<'_, L, Self>, key: &K) {
        let keys = entry.or_insert_with(|| Self::One(key.clone()));
        match keys {
            Self::One(known) if known == key => {}
            Self::One(known) => *keys = Self::Many(BTreeSet::from([known.clone(), key.clone()])),
            Self::Many(keys) => {
                keys.insert(key.clone());
            }
        }
    }
}

/// True when the resourceVersion `candidate` is certainly older than `known`.
///
/// Versions are numbers that only rise, in every API server since etcd3; anything else is never called older.
pub fn is_older(candidate: &str, known: &str) -> bool {
    match (candidate.parse::<u64>(), known.parse::<u64>()) {
        (Ok(candidate), Ok(known)) => candidate < known,
        _ => false,
    }
}

/// True when a watch of `scope` (all namespaces, when `None`) covers `namespace`.
pub fn covers(scope: Option<&str>, namespace: &str) -> bool {
    scope.is_none_or(|scope| scope == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Agent {
        key: (&'static str, &'static str),
        version: &'static str,
        owner: Option<&'static str>,
    }

    impl Entry for Agent {
        type Key = (&'static str, &'static str);
        type Link = &'static str;

        fn key(&self) -> &Self::Key {
            &self.key
        }
        fn version(&self) -> &str {
            self.version
        }
        fn links(&self) -> impl Iterator<Item = &'static str> {
            self.owner.into_iter()
        }
    }

    fn agent(name: &'static str, version: &'static str, owner: Option<&'static str>) -> Agent {
        Agent { key: ("ns", name), version, owner }
    }

    fn names(found: &[Arc<Agent>]) -> Vec<&'static str> {
        found.iter().map(|agent| agent.key.1).collect()
    }

    #[test]
    fn links_follow_the_objects() {
        let index = Index::default();
        assert_eq!(index.upsert(agent("b", "1", Some("o"))), Ok(None));
        assert_eq!(names(&index.linked(&"o")), ["b"]);
        index.upsert(agent("a", "2", Some("o"))).unwrap();
        index.upsert(agent("b", "3", Some("o"))).unwrap();
        assert_eq!(names(&index.linked(&"o")), ["a", "b"], "by key");
        index.upsert(agent("b", "4", Some("p"))).unwrap();
        assert_eq!((names(&index.linked(&"o")), names(&index.linked(&"p"))), (vec!["a"], vec!["b"]));
        assert!(index.remove(&("ns", "a")).is_some());
        assert_eq!(index.links(|link| Some(*link)), ["p"], "an empty link is dropped");
        index.upsert(agent("b", "5", None)).unwrap();
        assert!(index.links(|link| Some(*link)).is_empty() && index.len() == 1);
    }

    #[test]
    fn what_is_older_is_dropped() {
        let index = Index::default();
        index.upsert(agent("a", "9", Some("new"))).unwrap();
        index.upsert(agent("a", "10", Some("new"))).unwrap();
        assert_eq!(index.upsert(agent("a", "9", Some("old"))), Err(Stale));
        assert!(index.linked(&"old").is_empty());
        assert_eq!(index.remove_until(&("ns", "a"), "9"), None);
        assert!(index.remove_until(&("ns", "a"), "10").is_some());
    }

    /// A list of one namespace says nothing of the others.
    #[test]
    fn a_list_removes_what_it_covers_and_did_not_name() {
        let index = Index::default();
        for name in ["a", "b"] {
            index.upsert(agent(name, "1", Some("o"))).unwrap();
        }
        index.upsert(Agent { key: ("other", "c"), version: "1", owner: None }).unwrap();
        let gone = index.retain(|key| covers(Some("ns"), key.0), &HashSet::from([("ns", "a")]));
        assert_eq!(names(&gone), ["b"]);
        assert_eq!((index.len(), names(&index.linked(&"o"))), (2, vec!["a"]));
        assert_eq!(index.retain(|key| covers(None, key.0), &HashSet::new()).len(), 2);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "9"));
        assert!(!is_older("7", "7"));
        assert!(!is_older("x", "7"));
    }
}
