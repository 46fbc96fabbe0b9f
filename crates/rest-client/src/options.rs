//! Limits of calls.

use std::sync::Arc;
use std::time::Duration;

use crate::base_url::BaseUrl;
use crate::response::Response;

/// How a client behaves; the same for all servers it talks to.
#[derive(Clone)]
pub struct ClientOptions {
    /// Value of `User-Agent`.
    pub user_agent: String,
    /// Longest time for a connection with its TLS handshake.
    pub connect: Duration,
    /// Longest time of one attempt, from the connection to the last byte of the body.
    pub attempt: Duration,
    /// When a call is repeated.
    pub retry: RetryPolicy,
    /// Calls per second and server.
    pub rate: Rate,
    /// When a failing server is left alone.
    pub breaker: BreakerLimits,
    /// Whether an answer is worth a repetition.
    pub classify: fn(&Response) -> Verdict,
    /// Hears of every attempt.
    pub observer: Arc<dyn Observer>,
}

impl ClientOptions {
    /// 5 s to connect, 15 s per attempt, three repetitions after 250 ms, 1 s and 4 s, no rate limit, a circuit that
    /// opens after 5 failures for 15 s to 2 min; 429 and 5xx are transient.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            user_agent: user_agent.into(),
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(15),
            retry: RetryPolicy::default(),
            rate: Rate::default(),
            breaker: BreakerLimits::default(),
            classify: by_status,
            observer: Arc::new(NoObserver),
        }
    }
}

/// When a call is repeated.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The delay before each repetition; their number is the number of repetitions.
    pub delays: Vec<Duration>,
    /// Each delay is multiplied with a random factor between these two.
    pub spread: (f64, f64),
    /// A server's `Retry-After` wins when it is longer than the delay, up to this.
    pub retry_after_cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            delays: vec![Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)],
            spread: (0.75, 1.25),
            retry_after_cap: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The time to wait before a repetition whose configured delay is `base`; `random` is in 0..1.
    pub(crate) fn pause(&self, base: Duration, retry_after: Option<Duration>, random: f64) -> Duration {
        let (low, high) = self.spread;
        let delay = base.mul_f64((low + (high - low) * random).max(0.0));
        delay.max(retry_after.unwrap_or_default().min(self.retry_after_cap))
    }
}

/// A token bucket per server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Calls per second; 0 = no limit.
    pub qps: f64,
    /// Calls at once after a rest.
    pub burst: u32,
}

/// When a failing server is left alone.
#[derive(Clone, Copy, Debug)]
pub struct BreakerLimits {
    /// Consecutive failures that open the circuit.
    pub failures: u32,
    /// How long it is open at first.
    pub open: Duration,
    /// It doubles with each failed probe up to this.
    pub longest: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(15), longest: Duration::from_mins(2) }
    }
}

/// Whether an answer is worth a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands.
    Final,
    /// The same call may get another answer later.
    Transient,
}

/// 429 and 5xx are transient.
pub fn by_status(response: &Response) -> Verdict {
    if response.status() == 429 || response.status() >= 500 { Verdict::Transient } else { Verdict::Final }
}

/// Hears of attempts and circuits, for metrics.
pub trait Observer: Send + Sync {
    /// One attempt ended: an HTTP status or [`crate::CallError::class`], and how long it took.
    fn attempt(&self, operation: &'static str, outcome: &str, took: Duration);
    /// One attempt got this answer. Counted by its HTTP status, unless the observer knows a better word for it.
    fn answer(&self, operation: &'static str, response: &Response, took: Duration) {
        self.attempt(operation, &response.status().to_string(), took);
    }
    /// The circuit of a server opened or closed.
    fn circuit(&self, base: &BaseUrl, open: bool);
}

/// Hears nothing.
pub struct NoObserver;

impl Observer for NoObserver {
    fn attempt(&self, _: &'static str, _: &str, _: Duration) {}
    fn circuit(&self, _: &BaseUrl, _: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1000, None, 0.0, 750)]
    #[case(1000, None, 1.0, 1250)]
    #[case(1000, Some(500), 0.5, 1000)]
    #[case(1000, Some(8_000), 0.5, 8_000)]
    #[case(1000, Some(3_600_000), 0.5, 30_000)]
    fn pauses(#[case] base: u64, #[case] after: Option<u64>, #[case] random: f64, #[case] expected: u64) {
        let pause = RetryPolicy::default().pause(
            Duration::from_millis(base),
            after.map(Duration::from_millis),
            random,
        );
        assert_eq!(pause, Duration::from_millis(expected));
    }
}
