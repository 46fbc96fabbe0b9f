//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use controller_kit::{
    backoff::PerKey, events::EventRecorder, lease::Leadership, metrics::Metrics, queue::Queue, scope::Scope,
    watch::Key as ObjectKey,
};
use jiff::Timestamp;
use kube::Client;

use crate::{
    api_server::Endpoints,
    desired::Rules,
    error::Error,
    index::{Indexes, Slot},
    metrics::OwnMetrics,
    settings::Settings,
    sources::Sources,
};

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The policies of the workloads of one name.
    Slot(Slot),
    /// A policy: does anybody want it?
    Policy(ObjectKey),
    /// A card with finalizers of the previous operator.
    Card(ObjectKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slot(slot) => slot.fmt(f),
            Self::Policy(key) => write!(f, "NetworkPolicy {key}"),
            Self::Card(key) => write!(f, "AgentCard {key}"),
        }
    }
}

/// Handles and memories of the process.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Flags of this component.
    pub settings: Settings,
    /// What every policy has in common.
    pub rules: Rules,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Where the API server is.
    pub endpoints: Arc<Endpoints>,
    /// Which watches work.
    pub sources: Sources,
    /// The work.
    pub queue: Queue<Key>,
    /// Events.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// May this replica write?
    pub leadership: Leadership,
    /// Retries after unexpected errors.
    pub backoff: PerKey<Key>,
    /// Retries of what the API server refused.
    pub refused_backoff: PerKey<Key>,
    /// The error of the last pass over a key, so that a standing one is logged once.
    pub last_error: Memory<Key, String>,
    /// Cards (by uid) that were told that nothing selects their Pods.
    pub unselectable: Mutex<HashSet<String>>,
    sandbox: RwLock<Option<&'static str>>,
    clock: fn() -> Timestamp,
}

impl Context {
    /// A context without anything in its indexes.
    #[allow(clippy::too_many_arguments, reason = "one call, at start")]
    pub fn new(
        client: Client,
        settings: Settings,
        operator_namespace: &str,
        scope: Scope,
        metrics: &Metrics,
        events: &EventRecorder,
        leadership: Leadership,
        clock: fn() -> Timestamp,
    ) -> Self {
        let index = Arc::new(Indexes::default());
        let endpoints = Arc::new(Endpoints::new(&settings.apiserver_cidrs.0));
        let metrics = OwnMetrics::register(metrics, &index, &endpoints);
        let longest = Duration::from_secs(300);
        Self {
            client,
            rules: Rules::new(&settings, operator_namespace),
            settings,
            scope,
            index,
            endpoints,
            sources: Sources::default(),
            queue: Queue::default(),
            events: events.clone(),
            metrics,
            leadership,
            backoff: PerKey::new(Duration::from_millis(200), longest),
            refused_backoff: PerKey::new(Duration::from_secs(10), longest),
            last_error: Memory::default(),
            unselectable: Mutex::default(),
            sandbox: RwLock::new(None),
            clock,
        }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Refuses when this replica must not write; asked before every write.
    ///
    /// # Errors
    /// [`Error::NotLeader`].
    pub fn may_write(&self) -> Result<(), Error> {
        if self.leadership.is_leader() { Ok(()) } else { Err(Error::NotLeader) }
    }

    /// The served version of the Sandbox kind; `None` = not served.
    pub fn sandbox_version(&self) -> Option<&'static str> {
        *self.sandbox.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the served version; true when that is news.
    pub fn set_sandbox_version(&self, version: Option<&'static str>) -> bool {
        let mut known = self.sandbox.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, version) != version
    }

    /// Asks for a look at the workloads of a name.
    pub fn wake(&self, slot: Slot, after: Duration) {
        self.queue.add(Key::Slot(slot), after);
    }

    /// Asks for a look at everything in a namespace, or everywhere.
    pub fn wake_all(&self, namespace: Option<&str>, after: Duration) {
        for slot in self.index.cards.slots(namespace) {
            self.wake(slot, after);
        }
    }

    /// True the first time it is asked for a card.
    pub fn first_complaint(&self, card_uid: &str) -> bool {
        self.unselectable.lock().unwrap_or_else(PoisonError::into_inner).insert(card_uid.to_owned())
    }

    /// The complaint about a card is settled, or the card is gone.
    pub fn settle_complaint(&self, card_uid: &str) {
        self.unselectable.lock().unwrap_or_else(PoisonError::into_inner).remove(card_uid);
    }

    /// Brings the queue's metrics up to date. Counting walks the backlog, so it is done now and then only.
    pub fn count_queue(&self) {
        let metrics = &self.metrics.reconciles;
        metrics.depth.set(i64::try_from(self.queue.depth()).unwrap_or(i64::MAX));
        metrics.adds.inc_by(self.queue.adds().saturating_sub(metrics.adds.get()));
    }

    /// Forgets the failures of a key.
    pub fn succeeded(&self, key: &Key) {
        self.backoff.reset(key);
        self.refused_backoff.reset(key);
        self.last_error.remove(key);
    }
}

/// A small map of what is remembered between passes; entries go when their key succeeds.
#[derive(Debug)]
pub struct Memory<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Memory<K, V> {
    /// Sets a value; the old one is returned.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value)
    }

    /// Forgets a key.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }
}
