//! Tokens for writes that restart running workloads.
//!
//! A change that concerns thousands of workloads at once must not restart them all at once. Every
//! writer of pod templates asks here first (runtime §20, README decision 9): a token bucket, oldest
//! request first. Nobody waits while holding a worker: who gets no token is told when to come back
//! and keeps its place, and re-evaluates its object then.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

/// A request whose owner has not come back this long after its turn loses its place, so that a
/// deleted object does not hold the queue up.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);
/// So many places are counted for an estimate of the wait; who has more in front asks again on the way.
const COUNTED: usize = 1000;

/// The limiter of one process; clones share it. `K` names a workload.
#[derive(Clone)]
pub struct RolloutLimiter<K> {
    inner: Option<Arc<Mutex<Queue<K>>>>,
    length: Gauge,
}

/// Answer of [`RolloutLimiter::try_acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A token was taken: write now.
    Granted,
    /// Not yet. The key is queued; ask again after this time.
    Wait(Duration),
}

impl<K: Clone + Eq + Hash + Send> RolloutLimiter<K> {
    /// `qps` tokens per second, at most `burst` at once. `qps` 0 = no limit.
    pub fn new(qps: f64, burst: u32) -> Self {
        let inner = (qps > 0.0).then(|| Arc::new(Mutex::new(Queue::new(qps, burst.max(1), Instant::now()))));
        Self { inner, length: Gauge::default() }
    }

    /// The gauge with the number of waiting keys, to be registered as `kagenti_rollout_queue_length`.
    pub fn queue_length(&self) -> Gauge {
        self.length.clone()
    }

    /// Takes a token for `key` if it is its turn, else queues it (once) behind those that asked before.
    pub fn try_acquire(&self, key: &K) -> Turn {
        self.try_acquire_ranked(key, 0)
    }

    /// The same in front of all that wait with a higher `rank`, and behind those of the same one. A key that asks again
    /// with another rank moves.
    pub fn try_acquire_ranked(&self, key: &K, rank: i64) -> Turn {
        self.with(|queue| queue.ask(key, rank, Instant::now())).unwrap_or(Turn::Granted)
    }

    /// Waits for a token for `key`. Dropping the future leaves the place in the queue to expire; call
    /// [`RolloutLimiter::forget`] when it is known that nobody comes back.
    pub async fn acquire(&self, key: &K) {
        while let Turn::Wait(delay) = self.try_acquire(key) {
            tokio::time::sleep(delay).await;
        }
    }

    /// Gives up `key`'s place: its workload is gone or needs no write any more.
    pub fn forget(&self, key: &K) {
        self.with(|queue| queue.forget(key));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Queue<K>) -> T) -> Option<T> {
        let inner = self.inner.as_ref()?;
        let mut queue = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let value = f(&mut queue);
        self.length.set(i64::try_from(queue.places.len()).unwrap_or(i64::MAX));
        Some(value)
    }
}

/// Pure: time comes in as an argument.
struct Queue<K> {
    qps: f64,
    burst: f64,
    tokens: f64,
    refilled: Instant,
    next_place: u64,
    places: HashMap<K, At>,
    waiting: BTreeMap<At, Place<K>>,
}

/// Rank, then order of arrival.
type At = (i64, u64);

struct Place<K> {
    key: K,
    /// When this place first could have had a token.
    turn_since: Option<Instant>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    fn new(qps: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            qps,
            burst,
            tokens: burst,
            refilled: now,
            next_place: 0,
            places: HashMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn ask(&mut self, key: &K, rank: i64, now: Instant) -> Turn {
        self.refill(now);
        let place = self.place_of(key, rank);
        self.drop_abandoned(now, place);
        if let Some(own) = self.waiting.get_mut(&place) {
            // It is here, so its turn may come anew.
            own.turn_since = None;
        }
        // Whole tokens serve that many places from the head; the rest must wait.
        #[allow(clippy::cast_sign_loss, reason = "never below zero: one is taken only when there is one")]
        let served = self.tokens as usize;
        for (at, waiting) in self.waiting.iter_mut().take(served) {
            waiting.turn_since.get_or_insert(now);
            if *at == place {
                self.tokens -= 1.0;
                self.forget(key);
                return Turn::Granted;
            }
        }
        let in_front = self.waiting.range(..place).take(COUNTED).count() as f64;
        let missing = (in_front + 1.0 - self.tokens).max(0.0);
        Turn::Wait(Duration::from_secs_f64((missing / self.qps).max(0.001)))
    }

    fn forget(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.waiting.remove(&place);
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.qps).min(self.burst);
        self.refilled = now;
    }

    fn place_of(&mut self, key: &K, rank: i64) -> At {
        if let Some(place) = self.places.get(key) {
            if place.0 == rank {
                return *place;
            }
            self.forget(key);
        }
        let place = (rank, self.next_place);
        self.next_place += 1;
        self.places.insert(key.clone(), place);
        self.waiting.insert(place, Place { key: key.clone(), turn_since: None });
        place
    }

    /// Only the head can be abandoned in a way that matters: it holds a token back.
    fn drop_abandoned(&mut self, now: Instant, asking: At) {
        while let Some(entry) = self.waiting.first_entry() {
            let late = entry.get().turn_since.is_some_and(|since| now - since > ABANDONED_AFTER);
            if *entry.key() == asking || !late {
                break;
            }
            self.places.remove(&entry.remove().key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(limiter: &RolloutLimiter<u32>, key: u32) -> bool {
        limiter.try_acquire(&key) == Turn::Granted
    }

    /// Runtime §20: `--rollout-qps 0` = no limit.
    #[tokio::test]
    async fn zero_is_no_limit() {
        let limiter = RolloutLimiter::new(0.0, 1);
        assert!((0..1000).all(|key| granted(&limiter, key)));
        assert_eq!(limiter.queue_length().get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_burst_goes_at_once_and_the_rest_at_the_rate() {
        let limiter = RolloutLimiter::new(20.0, 100);
        assert_eq!((0..150).filter(|key| granted(&limiter, *key)).count(), 100);
        assert_eq!(limiter.queue_length().get(), 50);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((100..150).filter(|key| granted(&limiter, *key)).count(), 20);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((120..150).filter(|key| granted(&limiter, *key)).count(), 30);
        assert_eq!(limiter.queue_length().get(), 0);
    }

    /// Runtime §20: oldest first, whoever asks first in the new second.
    #[tokio::test(start_paused = true)]
    async fn the_oldest_request_is_served_first() {
        let limiter = RolloutLimiter::new(1.0, 1);
        assert!(granted(&limiter, 0));
        assert!(!granted(&limiter, 1));
        assert!(!granted(&limiter, 2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!granted(&limiter, 2), "1 came before");
        assert!(granted(&limiter, 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(granted(&limiter, 2));
    }

    /// Card §12: earliest expiry first, whoever asked first.
    #[tokio::test(start_paused = true)]
    async fn the_lowest_rank_is_served_first() {
        let limiter = RolloutLimiter::new(1.0, 1);
        assert_eq!(limiter.try_acquire_ranked(&0, 9), Turn::Granted);
        let asks = |key, rank| limiter.try_acquire_ranked(&key, rank) == Turn::Granted;
        assert!(!asks(1, 300));
        assert!(!asks(2, 100));
        assert!(!asks(3, 200));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!asks(1, 300) && !asks(3, 200) && asks(2, 100));
        assert_eq!(limiter.try_acquire_ranked(&1, 300), Turn::Wait(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!asks(3, 400), "its turn has moved");
        assert!(asks(1, 300));
        assert_eq!(limiter.queue_length().get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_again_keeps_the_place() {
        let limiter = RolloutLimiter::new(1.0, 1);
        granted(&limiter, 0);
        for _ in 0..5 {
            granted(&limiter, 1);
        }
        assert_eq!(limiter.queue_length().get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_says_when_the_turn_comes() {
        let limiter = RolloutLimiter::new(2.0, 1);
        granted(&limiter, 0);
        assert_eq!(limiter.try_acquire(&1), Turn::Wait(Duration::from_millis(500)));
        assert_eq!(limiter.try_acquire(&2), Turn::Wait(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_or_abandoned_place_does_not_block() {
        let limiter = RolloutLimiter::new(1.0, 1);
        granted(&limiter, 0);
        for key in 1..=3 {
            granted(&limiter, key);
        }
        limiter.forget(&1);
        tokio::time::advance(Duration::from_secs(1)).await;
        // 2 has its turn but never comes back; 3 gets it after a while.
        assert!(!granted(&limiter, 3));
        tokio::time::advance(ABANDONED_AFTER + Duration::from_secs(1)).await;
        assert!(granted(&limiter, 3));
        assert_eq!(limiter.queue_length().get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn acquire_waits_for_its_turn() {
        let limiter = RolloutLimiter::new(10.0, 1);
        let start = Instant::now();
        let tasks = (0..11).map(|key| {
            let limiter = limiter.clone();
            async move { limiter.acquire(&key).await }
        });
        futures::future::join_all(tasks).await;
        let took = start.elapsed();
        assert!((Duration::from_millis(990)..Duration::from_millis(1100)).contains(&took), "{took:?}");
    }
}
