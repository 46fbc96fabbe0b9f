//! Which watches have delivered, so that "not in the index" means "does not exist" (runtime §6).

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::watch::{TroubleKind, WatchOptions};

/// How a watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The first list is under way.
    Pending,
    /// The first list was complete at least once; the index holds the last known state.
    Synced,
    /// There was no complete list yet, for this reason.
    Troubled(String),
}

/// The watches by source and namespace (`None` = every namespace). `S` names what a component watches.
#[derive(Debug)]
pub struct Sources<S> {
    states: Mutex<HashMap<(S, Option<String>), State>>,
    changed: Notify,
}

impl<S> Default for Sources<S> {
    fn default() -> Self {
        Self { states: Mutex::default(), changed: Notify::default() }
    }
}

impl<S: Copy + Eq + Hash> Sources<S> {
    fn lock(&self) -> MutexGuard<'_, HashMap<(S, Option<String>), State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch was started.
    pub fn register(&self, source: S, namespace: Option<&str>) {
        self.lock().entry((source, namespace.map(str::to_owned))).or_insert(State::Pending);
    }

    fn restart(&self, source: S, namespace: Option<&str>) {
        self.lock().insert((source, namespace.map(str::to_owned)), State::Pending);
    }

    /// The watch delivered a complete list; true the first time.
    pub fn synced(&self, source: S, namespace: Option<&str>) -> bool {
        let old = self.lock().insert((source, namespace.map(str::to_owned)), State::Synced);
        self.changed.notify_waiters();
        old != Some(State::Synced)
    }

    /// The watch has a problem; a watch that delivered once keeps what it delivered.
    pub fn troubled(&self, source: S, namespace: Option<&str>, why: &str) {
        let mut states = self.lock();
        let state = states.entry((source, namespace.map(str::to_owned))).or_insert(State::Pending);
        if *state != State::Synced {
            *state = State::Troubled(why.to_owned());
        }
        drop(states);
        self.changed.notify_waiters();
    }

    /// The kind of a source was looked for, for its watches in `namespaces`: they begin anew when it is served; when it
    /// is not, nothing of it exists.
    pub fn looked_for(&self, source: S, namespaces: &[Option<String>], served: bool) {
        for namespace in namespaces {
            if served {
                self.restart(source, namespace.as_deref());
            } else {
                self.synced(source, namespace.as_deref());
            }
        }
    }

    /// Has the troubles of a watch noted, as far as they `count` for those that depend on it.
    pub fn note_troubles(
        self: &Arc<Self>,
        options: WatchOptions,
        source: S,
        namespace: Option<&str>,
        count: fn(TroubleKind) -> bool,
    ) -> WatchOptions
    where
        S: Send + Sync + 'static,
    {
        let (sources, namespace) = (self.clone(), namespace.map(str::to_owned));
        options.on_trouble(move |trouble| {
            if count(trouble.kind) {
                sources.troubled(source, namespace.as_deref(), &trouble.text);
            }
        })
    }

    /// How the watch that covers a namespace is doing; a source nobody watches counts as complete.
    pub fn state(&self, source: S, namespace: &str) -> State {
        let states = self.lock();
        let everywhere = states.get(&(source, None));
        let here = || states.get(&(source, Some(namespace.to_owned())));
        everywhere.or_else(here).cloned().unwrap_or(State::Synced)
    }

    /// True when the watch that covers a namespace has delivered.
    pub fn is_synced(&self, source: S, namespace: &str) -> bool {
        self.state(source, namespace) == State::Synced
    }

    /// Waits until every registered watch has delivered or reported a problem, at most `patience`.
    pub async fn settled(&self, patience: Duration) {
        let all_decided = async {
            loop {
                let notified = self.changed.notified();
                if !self.lock().values().any(|state| *state == State::Pending) {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(patience, all_decided).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    enum Source {
        Runtimes,
        Pods,
    }

    #[tokio::test(start_paused = true)]
    async fn settled_waits_for_every_watch() {
        let sources = Sources::default();
        sources.register(Source::Runtimes, None);
        sources.register(Source::Pods, Some("a"));
        sources.synced(Source::Runtimes, None);
        let start = tokio::time::Instant::now();
        sources.settled(Duration::from_secs(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        sources.troubled(Source::Pods, Some("a"), "forbidden");
        sources.settled(Duration::from_secs(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert!(sources.is_synced(Source::Runtimes, "any"));
        assert_eq!(sources.state(Source::Pods, "a"), State::Troubled("forbidden".into()));
        assert!(sources.is_synced(Source::Pods, "b"), "nobody watches it");
    }

    #[test]
    fn what_was_delivered_once_stays() {
        let sources = Sources::default();
        sources.synced(Source::Pods, None);
        sources.troubled(Source::Pods, None, "connection lost");
        assert!(sources.is_synced(Source::Pods, "a"));
    }
}
