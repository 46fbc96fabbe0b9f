//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_types::names::RUNTIME_REPORTING_CONTROLLER;
use controller_kit::{
    controller::{Common, Handles},
    limiter::RolloutLimiter,
    memory::Memory,
    watch::Undecodable,
};

use crate::{
    index::{Indexes, RuntimeKey, WorkloadLink},
    mesh::MeshMemory,
    metrics::OwnMetrics,
    scc::SccMemory,
    settings::Settings,
    sources::Source,
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

/// Handles and memories of the process; what every controller has is reached through `Deref`.
pub struct Context {
    common: Common<Key, Source>,
    /// Flags of this component.
    pub settings: Settings,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// Tokens for restarts nobody asked for (runtime §20).
    pub limiter: RolloutLimiter<WorkloadKey>,
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
    cert_manager: AtomicBool,
}

impl Deref for Context {
    type Target = Common<Key, Source>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

impl Context {
    /// A context without anything in its indexes.
    pub fn new(mut handles: Handles, settings: Settings) -> Self {
        let index = Arc::new(Indexes::new(&handles.operator_namespace));
        let limiter = RolloutLimiter::new(settings.rollout_qps, settings.rollout_burst);
        handles.events = handles.events.reporting_as(RUNTIME_REPORTING_CONTROLLER);
        Self {
            metrics: OwnMetrics::register(&handles.metrics, &limiter, &index),
            common: Common::new(handles, "agentruntime"),
            settings,
            index,
            limiter,
            mesh: MeshMemory::default(),
            scc: SccMemory::default(),
            namespace_locks: NamespaceLocks::default(),
            restarts: Memory::default(),
            bad_skills: Memory::default(),
            progress: Memory::default(),
            odd: Memory::default(),
            undecodable: Memory::default(),
            orphaned_secrets: Memory::default(),
            cert_manager: AtomicBool::new(false),
        }
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
        let labelled = match namespace {
            Some(namespace) => vec![WorkloadLink::HandLabelled(namespace.to_owned())],
            None => index
                .workloads
                .links(|link| matches!(link, WorkloadLink::HandLabelled(_)).then(|| link.clone())),
        };
        for workload in labelled.iter().flat_map(|link| index.workloads.linked(link)) {
            self.queue.add(Key::Workload(workload.key.clone()), after);
        }
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
