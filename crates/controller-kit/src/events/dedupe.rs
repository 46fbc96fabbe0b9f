//! Memory of what was said: the same (object, reason, note) once in five minutes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a repetition is swallowed (webhook §17).
const WINDOW: Duration = Duration::from_mins(5);
/// Things remembered at most. Beyond it the memory is emptied: a few repetitions are better than
/// memory that grows with the cluster.
const CAPACITY: usize = 16_384;

/// Says whether something is said for the first time in five minutes.
#[derive(Default)]
pub struct Dedupe {
    hasher: RandomState,
    said: Mutex<HashMap<u64, Instant>>,
}

impl Dedupe {
    /// True for the first call with these values within the window; counts as said.
    pub fn first(&self, object: &str, reason: &str, note: &str) -> bool {
        let key = self.hasher.hash_one((object, reason, note));
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&key).is_some_and(|at| now - *at < WINDOW) {
            return false;
        }
        if said.len() >= CAPACITY {
            said.retain(|_, at| now - *at < WINDOW);
            if said.len() >= CAPACITY {
                said.clear();
            }
        }
        said.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repetition_is_swallowed_for_five_minutes() {
        let dedupe = Dedupe::default();
        assert!(dedupe.first("u1", "TargetNotFound", "no such Deployment"));
        assert!(!dedupe.first("u1", "TargetNotFound", "no such Deployment"));
        assert!(dedupe.first("u2", "TargetNotFound", "no such Deployment"), "another object");
        assert!(dedupe.first("u1", "TargetNotFound", "another note"));
        tokio::time::advance(WINDOW).await;
        assert!(dedupe.first("u1", "TargetNotFound", "no such Deployment"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let dedupe = Dedupe::default();
        for n in 0..2 * CAPACITY {
            dedupe.first(&n.to_string(), "R", "n");
        }
        assert!(dedupe.said.lock().unwrap().len() <= CAPACITY);
    }
}
