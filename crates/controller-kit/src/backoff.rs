//! Retry delays: exponential per key, and jitter for periodic looks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Exponential back-off with jitter, counted per key (runtime §20: 200 ms .. 5 min).
///
/// A key costs memory only while it fails: [`PerKey::reset`] drops it.
pub struct PerKey<K> {
    max: Duration,
    /// How often a key failed, by the first delay of that kind of failure.
    failures: Mutex<HashMap<K, Vec<(Duration, u32)>>>,
}

impl<K: Eq + Hash> PerKey<K> {
    /// No delay is above `max`.
    pub fn new(max: Duration) -> Self {
        Self { max, failures: Mutex::default() }
    }

    /// Counts one more failure of `key` and says how long to wait: between half of the step and the
    /// step, so that keys that fail together do not come back together. The first step is `first`, each
    /// further one twice as long; failures with another first step are counted apart.
    pub fn next(&self, key: K, first: Duration) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = failures.entry(key).or_default();
        let before = if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == first) {
            std::mem::replace(count, count.saturating_add(1))
        } else {
            counts.push((first, 1));
            0
        };
        let step = step(first, self.max, before);
        drop(failures);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Forgets the failures of `key`.
    pub fn reset<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// How many keys are failing now.
    pub fn len(&self) -> usize {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True when nothing is failing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn step(min: Duration, max: Duration, failures: u32) -> Duration {
    2_u32.checked_pow(failures).and_then(|factor| min.checked_mul(factor)).map_or(max, |step| step.min(max))
}

/// `interval` ± `fraction` of it (0.1 = ±10 %), so that periodic work of many objects spreads.
pub fn jitter(interval: Duration, fraction: f64) -> Duration {
    interval.mul_f64((1.0 + fraction * (2.0 * fastrand::f64() - 1.0)).max(0.0))
}

/// The next safety look at an object that needs nothing: `interval` ±10 % (runtime §6).
pub fn resync_jitter(interval: Duration) -> Duration {
    jitter(interval, 0.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_mins(5);

    #[rstest]
    #[case(0, 200)]
    #[case(1, 400)]
    #[case(5, 6_400)]
    #[case(11, 300_000)]
    #[case(40, 300_000)]
    fn steps_double_up_to_the_limit(#[case] failures: u32, #[case] millis: u64) {
        assert_eq!(step(MIN, MAX, failures), Duration::from_millis(millis));
    }

    #[test]
    fn keys_are_independent_and_forgotten_on_success() {
        let backoff = PerKey::new(MAX);
        for _ in 0..6 {
            backoff.next("a", MIN);
        }
        let sixth = backoff.next("a", MIN);
        assert!(sixth >= Duration::from_millis(6_400), "{sixth:?}");
        assert!(backoff.next("b", MIN) <= MIN);
        assert!(backoff.next("a", MIN * 5) <= MIN * 5, "another kind of failure");
        backoff.reset("a");
        assert_eq!(backoff.len(), 1);
        assert!(backoff.next("a", MIN) <= MIN);
    }

    #[test]
    fn the_delay_stays_between_half_and_the_whole_step() {
        let backoff = PerKey::new(MIN);
        for _ in 0..100 {
            let delay = backoff.next((), MIN);
            assert!((MIN / 2..=MIN).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn jitter_stays_within_its_fraction() {
        for _ in 0..100 {
            let look = resync_jitter(Duration::from_secs(100));
            assert!((Duration::from_secs(90)..=Duration::from_secs(110)).contains(&look), "{look:?}");
        }
    }
}
