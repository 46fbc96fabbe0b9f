//! Waiting with a deadline; never for a time that is merely hoped to suffice.

use std::time::Duration;

use anyhow::{Result, anyhow};

/// Between two looks. Many tests look at the same time, so not less.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Seconds, for short lines in tests.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Time that passed for a test: while tasks of this machine wait for a CPU the processes under test cannot keep their
/// times either, so up to two thirds of it do not count. Without Linux's pressure figures all of it counts.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    started: tokio::time::Instant,
    stalled: Option<Duration>,
}

impl Stopwatch {
    /// From now on.
    pub fn start() -> Self {
        Self { started: tokio::time::Instant::now(), stalled: stalled() }
    }

    /// What has passed, less what the machine was short of CPUs.
    pub fn spent(&self) -> Duration {
        self.less_stalls(self.started.elapsed())
    }

    /// The same for a time that began after the stopwatch did.
    pub fn less_stalls(&self, elapsed: Duration) -> Duration {
        let stalled =
            stalled().zip(self.stalled).map_or(Duration::ZERO, |(now, then)| now.saturating_sub(then));
        counted(elapsed, stalled)
    }
}

fn counted(elapsed: Duration, stalled: Duration) -> Duration {
    elapsed.saturating_sub(stalled).max(elapsed / 3)
}

/// How long tasks have waited for a CPU since the machine started.
fn stalled() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1;
    total.trim().parse().ok().map(Duration::from_micros)
}

/// Looks until it finds something. `Ok(None)` and errors mean "not yet"; the last error is part of the message
/// when the time is over.
pub async fn poll<T>(limit: Duration, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    poll_every(PAUSE, limit, look).await
}

async fn poll_every<T>(
    pause: Duration,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let watch = Stopwatch::start();
    loop {
        let last = match tokio::time::timeout(limit.max(PAUSE) * 3, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => anyhow!("not so within {limit:?}"),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("one look took longer than three times {limit:?}"),
        };
        if watch.spent() >= limit {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Looks until it finds something, and says what it waited for when it does not.
pub async fn wait_for<T>(
    limit: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    poll(limit, look).await.map_err(|error| error.context(format!("waited {limit:?} for {what}")))
}

/// Like [`wait_for`] for a look that costs: the next one begins two seconds after the last.
pub async fn wait_patiently<T>(
    limit: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let outcome = poll_every(Duration::from_secs(2), limit, look).await;
    outcome.map_err(|error| error.context(format!("waited {limit:?} for {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_has_up_to_three_times_as_long() {
        assert_eq!(counted(secs(9), secs(0)), secs(9));
        assert_eq!(counted(secs(9), secs(4)), secs(5));
        assert_eq!(counted(secs(9), secs(8)), secs(3));
        assert_eq!(counted(secs(9), secs(20)), secs(3));
    }

    #[tokio::test]
    async fn a_stopwatch_runs() {
        let watch = Stopwatch::start();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(watch.spent() >= Duration::from_millis(20) && watch.spent() <= watch.started.elapsed());
    }
}
