//! Whether the API server answers, learnt from the requests that are made anyway.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::readiness::Readiness;

/// Failures in a row that count as "not there"; a single one is often just an old connection.
const FAILURES: u32 = 2;
/// While nothing answers, one request per this time asks whether it does again.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Name of the readiness check.
pub(crate) const CHECK: &str = "kubernetes-api";

/// Shared by the client's layer, which reports, and the task that keeps `/readyz` right.
pub struct Reachability {
    host: String,
    reachable: AtomicBool,
    failures: AtomicU32,
    error: Mutex<String>,
    changed: Notify,
}

impl Reachability {
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            reachable: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            error: Mutex::new("not asked yet".to_owned()),
            changed: Notify::new(),
        }
    }

    /// Any answer counts, also a refusal.
    pub(super) fn answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
        if !self.reachable.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    pub(super) fn failed(&self, error: &(dyn StdError + 'static)) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = root(error);
        if failures >= FAILURES && self.reachable.swap(false, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// Adds the check, failing until there is an answer.
    pub fn register(&self, readiness: &Readiness) {
        readiness.register(CHECK, format!("no answer from {} yet", self.host));
    }

    /// Keeps the check `kubernetes-api` right, for ever. While the server does not answer it asks for
    /// its version every second, so the check heals although nothing else is tried so often.
    pub async fn run(&self, client: Client, readiness: Readiness) {
        self.register(&readiness);
        loop {
            if self.reachable.load(Ordering::Relaxed) {
                readiness.set_ok(CHECK);
                self.changed.notified().await;
                continue;
            }
            let _ = timeout(PROBE_TIMEOUT, client.apiserver_version()).await;
            if !self.reachable.load(Ordering::Relaxed) {
                let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
                readiness
                    .set_failing(CHECK, format!("cannot reach the API server at {}: {error}", self.host));
                sleep(PROBE).await;
            }
        }
    }
}

/// The innermost cause, which is the one that says something ("connection refused").
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn two_failures_in_a_row_are_named_and_one_answer_heals() {
        let reachability = Arc::new(Reachability::new("api:6443"));
        let readiness = Readiness::new();
        let layer = {
            let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
            tokio::spawn(async move {
                while let Some((_, answer)) = handle.next_request().await {
                    answer.send_error(std::io::Error::other("connection refused"));
                }
            });
            Client::new(service, "default")
        };
        let task = tokio::spawn({
            let (reachability, readiness) = (Arc::clone(&reachability), readiness.clone());
            async move { reachability.run(layer, readiness).await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!readiness.is_ready());
        reachability.answered();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(readiness.is_ready());
        reachability.failed(&std::io::Error::other("connection reset"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(readiness.is_ready(), "one failure is everyday life");
        reachability.failed(&std::io::Error::other("connection reset"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(readiness.report().checks[0].reason.contains("api:6443: connection reset"));
        task.abort();
    }
}
