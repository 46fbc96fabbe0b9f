//! When are the indexes complete? Asked by every admission before it decides.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

/// Becomes true when every share of it is done.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    missing: Arc<AtomicUsize>,
    done: Arc<watch::Sender<bool>>,
}

/// One watch's part of a [`Filled`]; clones are the same part.
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<Mutex<Option<Filled>>>);

impl Filled {
    /// Nothing to wait for yet.
    pub(super) fn new() -> Self {
        Self { missing: Arc::default(), done: Arc::new(watch::Sender::new(false)) }
    }

    /// One more part to wait for.
    pub(super) fn share(&self) -> Share {
        self.missing.fetch_add(1, Ordering::AcqRel);
        Share(Arc::new(Mutex::new(Some(self.clone()))))
    }

    pub(super) fn receiver(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }
}

impl Share {
    /// This part is there; further calls do nothing.
    pub(super) fn done(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filled) = taken
            && filled.missing.fetch_sub(1, Ordering::AcqRel) == 1
        {
            filled.done.send_replace(true);
        }
    }
}

/// What admissions wait for. With a list of namespaces each stands for itself: one that may not be
/// read holds up nobody else.
#[derive(Clone, Debug)]
pub struct Synced {
    cluster: watch::Receiver<bool>,
    namespaces: Arc<BTreeMap<String, watch::Receiver<bool>>>,
}

impl Synced {
    pub(super) fn new(
        cluster: watch::Receiver<bool>,
        namespaces: BTreeMap<String, watch::Receiver<bool>>,
    ) -> Self {
        Self { cluster, namespaces: Arc::new(namespaces) }
    }

    /// One signal for everything.
    pub fn whole(signal: watch::Receiver<bool>) -> Self {
        Self { cluster: signal, namespaces: Arc::default() }
    }

    /// Waits until everything that a decision in this namespace reads is there.
    pub async fn wait(&self, namespace: &str) {
        filled(self.cluster.clone()).await;
        if let Some(own) = self.namespaces.get(namespace) {
            filled(own.clone()).await;
        }
    }
}

async fn filled(mut signal: watch::Receiver<bool>) {
    if signal.wait_for(|done| *done).await.is_err() {
        // The watches are gone and never came to an end: nothing will become known.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_synced(synced: &Synced, namespace: &str) -> bool {
        timeout(Duration::from_millis(1), synced.wait(namespace)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_waits_for_the_cluster_and_for_itself_only() {
        let (all, a, b) = (Filled::new(), Filled::new(), Filled::new());
        let (version, first, second, other) = (all.share(), a.share(), a.share(), b.share());
        let own = BTreeMap::from([("a".to_owned(), a.receiver()), ("b".to_owned(), b.receiver())]);
        let synced = Synced::new(all.receiver(), own);
        first.done();
        first.done();
        second.done();
        assert!(!is_synced(&synced, "a").await, "the cluster's facts are missing");
        version.done();
        assert!(is_synced(&synced, "a").await);
        assert!(!is_synced(&synced, "b").await);
        other.done();
        assert!(is_synced(&synced, "b").await);
    }
}
