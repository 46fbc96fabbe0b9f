//! Small maps of what is remembered between passes; entries go when their object does.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// A map behind a lock.
#[derive(Debug)]
pub struct Memory<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<K, V>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.with(|map| map.get(key).cloned())
    }

    /// The value of a key, set now if there was none.
    pub fn get_or_insert(&self, key: K, value: V) -> V {
        self.with(|map| map.entry(key).or_insert(value).clone())
    }

    /// Sets a value; the old one is returned.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.with(|map| map.insert(key, value))
    }

    /// Forgets what `keep` says no to.
    pub fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        self.with(|map| map.retain(|key, _| keep(key)));
    }

    /// Forgets a key.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.with(|map| map.remove(key))
    }
}
