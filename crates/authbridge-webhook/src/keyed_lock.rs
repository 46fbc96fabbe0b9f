//! One task at a time per key (singleflight); entries vanish when nobody waits.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// A lock per key.
#[derive(Debug)]
pub struct KeyedLock<K> {
    locks: Mutex<HashMap<K, Arc<AsyncMutex<()>>>>,
}

impl<K> Default for KeyedLock<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

/// Held while working on a key.
#[derive(Debug)]
pub struct Turn<'a, K: Eq + Hash> {
    owner: &'a KeyedLock<K>,
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> KeyedLock<K> {
    /// Waits for the key. Dropping the future while it waits is fine.
    pub async fn turn(&self, key: K) -> Turn<'_, K> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(key.clone()).or_default().clone()
        };
        // Made before the wait, so that a caller who gives up cleans up as well.
        let mut turn = Turn { owner: self, key, guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }

    /// Keys that are held or waited for.
    pub fn len(&self) -> usize {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut locks = self.owner.locks.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Only the map holds it: no one works and no one waits.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_per_key_and_nothing_stays_behind() {
        let locks = Arc::new(KeyedLock::default());
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..20).map(|n| {
            let (locks, inside, most) = (locks.clone(), inside.clone(), most.clone());
            tokio::spawn(async move {
                let waiting = locks.turn(n % 2);
                let Ok(_turn) = tokio::time::timeout(Duration::from_millis(35), waiting).await else {
                    return;
                };
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
        assert_eq!(most.load(Ordering::SeqCst), 2, "one per key, two keys");
        assert!(locks.is_empty());
    }
}
