//! Waiting with a deadline; never for a time that is merely hoped to suffice.

use std::time::Duration;

use anyhow::{Result, anyhow};

/// Between two looks. Many tests look at the same time, so not less.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Seconds, for short lines in tests.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
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
    let started = tokio::time::Instant::now();
    loop {
        let last = match tokio::time::timeout(limit.max(PAUSE) * 2, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => anyhow!("not so within {limit:?}"),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("one look took longer than twice {limit:?}"),
        };
        if started.elapsed() >= limit {
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
