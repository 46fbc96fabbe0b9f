//! A plain token bucket: who takes a token waits until there is one, in order.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// `rate` tokens per second, at most `burst` saved up.
///
/// A taker reserves its token at once, even one that does not exist yet, and sleeps until it does;
/// so takers are served in the order they came and no queue is needed.
pub struct TokenBucket {
    interval: Duration,
    burst: u32,
    /// When the bucket would have been full, had it no limit: the usual "virtual schedule".
    schedule: Mutex<Option<Instant>>,
}

impl TokenBucket {
    /// A full bucket; `rate` must be above zero.
    pub fn new(rate: f64, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs_f64(1.0 / rate),
            burst: burst.max(1),
            schedule: Mutex::new(None),
        }
    }

    /// Takes a token; waits for it if need be. A taker that is dropped while it waits has still used
    /// its token.
    pub async fn take(&self) {
        let now = Instant::now();
        let at = self.reserve(now);
        if at > now {
            tokio::time::sleep_until(at).await;
        }
    }

    fn reserve(&self, now: Instant) -> Instant {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        // The next free slot; slots further back than a burst are lost.
        let oldest = now.checked_sub(self.interval * (self.burst - 1)).unwrap_or(now);
        let slot = schedule.map_or(oldest, |next| next.max(oldest));
        *schedule = Some(slot + self.interval);
        slot.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_then_the_rate_holds() {
        // An instant early in a paused clock cannot be subtracted from; let some time pass.
        tokio::time::advance(Duration::from_mins(1)).await;
        let bucket = TokenBucket::new(100.0, 200);
        let start = Instant::now();
        for _ in 0..200 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            bucket.take().await;
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(980)..Duration::from_millis(1150)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_saves_no_more_than_a_burst() {
        tokio::time::advance(Duration::from_mins(1)).await;
        let bucket = TokenBucket::new(10.0, 5);
        bucket.take().await;
        tokio::time::advance(Duration::from_secs(1000)).await;
        let start = Instant::now();
        for _ in 0..5 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        bucket.take().await;
        assert!(start.elapsed() >= Duration::from_millis(99));
    }
}
