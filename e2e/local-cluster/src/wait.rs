//! Waiting for conditions with a deadline and a message that helps.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` returns `Ok(Some(value))`. `Ok(None)` and errors mean "not yet"; the last error is
/// part of the message when `limit` has passed, which begins with "waited <limit> for <what>".
///
/// ```no_run
/// # async fn example(api: kube::Api<k8s_openapi::api::core::v1::Pod>) -> anyhow::Result<()> {
/// use std::time::Duration;
/// let pod = local_cluster::wait_for(Duration::from_secs(10), "Pod web to get a node", async || {
///     let pod = api.get("web").await?;
///     Ok(pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()).then_some(pod))
/// })
/// .await?;
/// # Ok(()) }
/// ```
pub async fn wait_for<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let last = match tokio::time::timeout(limit.max(PAUSE), look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the look itself took longer than that")),
        };
        if started.elapsed() >= limit {
            let message = format!("waited {limit:?} for {what}");
            return Err(last.map_or_else(|| anyhow!(message.clone()), |error| error.context(message.clone())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The last lines of a log file, for messages; empty when it cannot be read.
pub(crate) fn log_tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn the_message_names_what_and_why() {
        let limit = Duration::from_millis(20);
        let error = wait_for(limit, "the moon", async || -> Result<Option<()>> { bail!("too far") }).await;
        let message = format!("{:#}", error.expect_err("never"));
        assert_eq!(message, "waited 20ms for the moon: too far");
    }

    #[tokio::test]
    async fn the_value_comes_back() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.await.expect("found"), 3);
    }
}
