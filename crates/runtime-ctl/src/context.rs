//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use controller_kit::{
    backoff::PerKey, events::EventRecorder, lease::Leadership, limiter::RolloutLimiter, metrics::Metrics,
    queue::Queue, scope::Scope, watch::Undecodable,
};
use jiff::Timestamp;
use kube::Client;

use crate::{
    error::Error,
    index::{Indexes, RuntimeKey},
    kinds::SandboxVersion,
    mesh::MeshMemory,
    metrics::OwnMetrics,
    scc::SccMemory,
    settings::Settings,
    sources::Sources,
    workload::WorkloadKey,
};

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Reconcile an AgentRuntime.
    Runtime(RuntimeKey),
    /// Look after a workload that was labelled by hand (runtime §13).
    Workload(WorkloadKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runtime(key) => write!(f, "AgentRuntime {key}"),
            Self::Workload(key) => key.fmt(f),
        }
    }
}

/// Handles and memories of the process.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Flags of this component.
    pub settings: Settings,
    /// Namespace of the suite.
    pub operator_namespace: String,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Which watches work.
    pub sources: Sources,
    /// The work.
    pub queue: Queue<Key>,
    /// Tokens for restarts nobody asked for (runtime §20).
    pub limiter: RolloutLimiter<WorkloadKey>,
    /// Events.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// May this replica write?
    pub leadership: Leadership,
    /// Retries after unexpected errors.
    pub backoff: PerKey<Key>,
    /// Retries of clean-ups (runtime §8.1).
    pub cleanup_backoff: PerKey<Key>,
    /// Retries of what the API server refused (runtime §6 step 10).
    pub refused_backoff: PerKey<Key>,
    /// Mesh enrolment of namespaces.
    pub mesh: MeshMemory,
    /// SCC bindings of namespaces.
    pub scc: SccMemory,
    /// One lock per namespace, by hash, for what is done once per namespace.
    pub namespace_locks: NamespaceLocks,
    /// When a Sandbox was first seen between the phases of a restart.
    pub restarts: Memory<WorkloadKey, tokio::time::Instant>,
    /// The skills annotation that was last complained about.
    pub bad_skills: Memory<RuntimeKey, String>,
    /// Since when a step of a rollout has not been written.
    pub progress: Memory<RuntimeKey, tokio::time::Instant>,
    /// Reasons of the warnings about the configuration of each AgentRuntime, for the gauge.
    pub odd: Memory<RuntimeKey, Vec<&'static str>>,
    /// AgentRuntimes that this build cannot read.
    pub undecodable: Memory<RuntimeKey, Undecodable>,
    /// Secrets to delete once no Pod mounts them (runtime §15).
    pub orphaned_secrets: Memory<WorkloadKey, String>,
    /// The error of the last pass over a key, so that a standing one is logged once.
    pub last_error: Memory<Key, String>,
    sandbox: RwLock<Option<SandboxVersion>>,
    cert_manager: AtomicBool,
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
        let index = Arc::new(Indexes::new(operator_namespace));
        let limiter = RolloutLimiter::new(settings.rollout_qps, settings.rollout_burst);
        let metrics = OwnMetrics::register(metrics, &limiter, index.clone());
        let longest = Duration::from_secs(300);
        Self {
            client,
            settings,
            operator_namespace: operator_namespace.to_owned(),
            scope,
            index,
            sources: Sources::default(),
            queue: Queue::default(),
            limiter,
            events: events.reporting_as(api_types::names::RUNTIME_REPORTING_CONTROLLER),
            metrics,
            leadership,
            backoff: PerKey::new(Duration::from_millis(200), longest),
            cleanup_backoff: PerKey::new(Duration::from_secs(1), longest),
            refused_backoff: PerKey::new(Duration::from_secs(30), longest),
            mesh: MeshMemory::default(),
            scc: SccMemory::default(),
            namespace_locks: NamespaceLocks::default(),
            restarts: Memory::default(),
            bad_skills: Memory::default(),
            progress: Memory::default(),
            odd: Memory::default(),
            undecodable: Memory::default(),
            orphaned_secrets: Memory::default(),
            last_error: Memory::default(),
            sandbox: RwLock::new(None),
            cert_manager: AtomicBool::new(false),
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
    pub fn sandbox_version(&self) -> Option<SandboxVersion> {
        *self.sandbox.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the served version; true when that is news.
    pub fn set_sandbox_version(&self, version: Option<SandboxVersion>) -> bool {
        let mut known = self.sandbox.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, version) != version
    }

    /// cert-manager is installed.
    pub fn cert_manager(&self) -> bool {
        self.cert_manager.load(Ordering::Acquire)
    }

    /// Notes whether cert-manager is installed; true when that is news.
    pub fn set_cert_manager(&self, present: bool) -> bool {
        self.cert_manager.swap(present, Ordering::AcqRel) != present
    }

    /// Asks for a look at an AgentRuntime.
    pub fn wake(&self, key: RuntimeKey, after: Duration) {
        self.queue.add(Key::Runtime(key), after);
    }

    /// Asks for a look at everything in a namespace whose configuration changed, or everywhere.
    pub fn wake_all(&self, namespace: Option<&str>, after: Duration) {
        let index = &self.index;
        let runtimes = namespace.map_or_else(|| index.runtimes.keys(), |ns| index.runtimes.in_namespace(ns));
        for key in runtimes {
            self.queue.add(Key::Runtime(key), after);
        }
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.to_owned()],
            None => index.workloads.hand_labelled_namespaces(),
        };
        for key in namespaces.iter().flat_map(|namespace| index.workloads.hand_labelled(namespace)) {
            self.queue.add(Key::Workload(key), after);
        }
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
        self.cleanup_backoff.reset(key);
        self.refused_backoff.reset(key);
        self.last_error.remove(key);
    }

    /// Drops what is remembered about an AgentRuntime that is gone.
    pub fn forget(&self, key: &RuntimeKey) {
        self.succeeded(&Key::Runtime(key.clone()));
        self.bad_skills.remove(key);
        self.progress.remove(key);
        self.note_odd(key, Vec::new());
    }

    /// Notes what is odd about the configuration of an AgentRuntime.
    pub fn note_odd(&self, key: &RuntimeKey, reasons: Vec<&'static str>) {
        let now = reasons.clone();
        let before =
            if reasons.is_empty() { self.odd.remove(key) } else { self.odd.insert(key.clone(), reasons) };
        self.metrics.config_warnings(&before.unwrap_or_default(), &now);
    }
}

/// Locks that serialise work on one namespace. A few share a lock, which costs time only.
pub struct NamespaceLocks(Vec<tokio::sync::Mutex<()>>);

impl Default for NamespaceLocks {
    fn default() -> Self {
        Self((0..64).map(|_| tokio::sync::Mutex::new(())).collect())
    }
}

impl NamespaceLocks {
    /// Waits until nobody else works on this namespace.
    pub async fn lock(&self, namespace: &str) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let sum =
            namespace.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let lock = self.0.get(sum % self.0.len().max(1))?;
        Some(lock.lock().await)
    }
}

/// A small map of what is remembered between passes; entries go when their object does.
#[derive(Debug)]
pub struct Memory<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<K, V>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.with(|map| map.get(key).cloned())
    }

    /// The value of a key, set now if there was none.
    pub fn get_or_insert(&self, key: K, value: V) -> V {
        self.with(|map| map.entry(key).or_insert(value).clone())
    }

    /// Sets a value; the old one is returned.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.with(|map| map.insert(key, value))
    }

    /// Forgets a key.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.with(|map| map.remove(key))
    }
}
