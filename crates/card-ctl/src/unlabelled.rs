//! ConfigMaps of old signers, which carry no label and so are not watched (card §6.4).
//!
//! They are asked for from the API server's cache after each rollout, and again every five minutes; where there was
//! none, less and less often and few at a time, so that ten thousand agents without one cost a few requests per second
//! at most, and hold up no fetch.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controller_kit::memory::Memory;
use tokio::time::Instant;

use crate::kinds::TargetKey;

/// Shortest time between two looks.
const AGAIN: Duration = Duration::from_secs(300);
/// Longest time between two looks where there was none.
const LONGEST: Duration = Duration::from_secs(3600);

/// Shortest time between two second looks of all workloads together.
const PAUSE: Duration = Duration::from_millis(50);

/// What the last look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    at: Instant,
    /// For which pod template.
    of: String,
    /// Looks in a row without a ConfigMap.
    misses: u32,
    /// The documents.
    pub candidates: Arc<Vec<Arc<[u8]>>>,
}

/// The last looks, by workload.
#[derive(Debug, Default)]
pub struct Unlabelled {
    looks: Memory<TargetKey, Look>,
    /// When a place without ConfigMap may be looked at again.
    free: Mutex<Option<Instant>>,
}

impl Unlabelled {
    /// Time until the next look; `None` = now.
    pub fn wait(&self, target: &TargetKey, template: &str) -> Option<Duration> {
        let look = self.looks.get(target).filter(|look| look.of == template)?;
        let pause =
            AGAIN.saturating_mul(2_u32.saturating_pow(look.misses.saturating_sub(1).min(8))).min(LONGEST);
        pause.checked_sub(look.at.elapsed()).filter(|wait| !wait.is_zero())
    }

    /// May somebody look now? A first look for this pod template may, and one where there was something; the others
    /// take turns.
    pub fn turn(&self, target: &TargetKey, template: &str) -> bool {
        let missed = self.looks.get(target).is_some_and(|look| look.of == template && look.misses > 0);
        if !missed {
            return true;
        }
        let (now, mut free) = (Instant::now(), self.free.lock().unwrap_or_else(PoisonError::into_inner));
        let granted = free.is_none_or(|free| free <= now);
        if granted {
            *free = Some(now + PAUSE);
        }
        granted
    }

    /// The documents of the last look, for this pod template or an older one.
    pub fn get(&self, target: &TargetKey) -> Option<Arc<Vec<Arc<[u8]>>>> {
        self.looks.get(target).map(|look| look.candidates).filter(|list| !list.is_empty())
    }

    /// Notes a look.
    pub fn saw(&self, target: &TargetKey, template: &str, candidates: Vec<Arc<[u8]>>) {
        let before = self.looks.get(target).filter(|look| look.of == template);
        let misses =
            if candidates.is_empty() { before.map_or(1, |look| look.misses.saturating_add(1)) } else { 0 };
        let candidates = Arc::new(candidates);
        self.looks
            .insert(target.clone(), Look { at: Instant::now(), of: template.to_owned(), misses, candidates });
    }

    /// Drops what is known of a workload.
    pub fn forget(&self, target: &TargetKey) {
        self.looks.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_get_rarer_without_a_find_and_start_again_with_a_rollout() {
        let (all, key) = (Unlabelled::default(), TargetKey::default());
        assert_eq!(all.wait(&key, "a"), None);
        for minutes in [5, 10, 20, 40, 60, 60] {
            all.saw(&key, "a", Vec::new());
            assert_eq!(all.wait(&key, "a"), Some(Duration::from_secs(60 * minutes)));
            assert_eq!(all.wait(&key, "b"), None, "another template");
            tokio::time::advance(Duration::from_secs(60 * minutes)).await;
            assert_eq!(all.wait(&key, "a"), None);
        }
        all.saw(&key, "a", vec![Arc::from(&b"x"[..])]);
        assert_eq!(all.wait(&key, "a"), Some(AGAIN));
        assert!(all.get(&key).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn second_looks_in_vain_take_turns_and_no_other() {
        let all = Unlabelled::default();
        let key = |name: &str| TargetKey { name: name.into(), ..TargetKey::default() };
        assert!(all.turn(&key("a"), "1") && all.turn(&key("b"), "1"), "first looks");
        all.saw(&key("a"), "1", Vec::new());
        all.saw(&key("b"), "1", Vec::new());
        all.saw(&key("c"), "1", vec![Arc::from(&b"x"[..])]);
        assert!(all.turn(&key("a"), "1") && !all.turn(&key("b"), "1"));
        assert!(all.turn(&key("c"), "1") && all.turn(&key("b"), "2"));
        tokio::time::advance(PAUSE).await;
        assert!(all.turn(&key("b"), "1") && !all.turn(&key("a"), "1"));
    }
}
