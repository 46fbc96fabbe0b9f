//! Handles and memories of the process.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use controller_kit::{
    backoff::PerKey, events::EventRecorder, lease::Leadership, limiter::RolloutLimiter, metrics::Metrics,
    queue::Queue, scope::Scope, surroundings::Surroundings,
};
use jiff::Timestamp;
use kube::Client;

use crate::{
    error::Error,
    index::{Grants, Indexes, Runtimes, ServerIndex, Workloads},
    metrics::{OwnMetrics, ServerWatch},
    settings::Settings,
    sources::Sources,
    track::Tracks,
    tracking::Tracking,
    workload::WorkloadKey,
};

/// `reportingController` of Events, as the previous operator wrote it.
const REPORTER: &str = "mlflow-controller";
/// Wakes of many workloads are spread: this many per second.
const WAKES_PER_SECOND: f64 = 500.0;

/// Handles and memories of the process.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Flags of this component.
    pub settings: Settings,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// What the shared injection decision asks besides the workload.
    pub around: Arc<Surroundings>,
    /// Which watches work.
    pub sources: Sources,
    /// The work.
    pub queue: Queue<WorkloadKey>,
    /// Tokens for changes of running workloads (MLflow §7.4).
    pub limiter: RolloutLimiter<WorkloadKey>,
    /// MLflow.
    pub tracking: Tracking,
    /// Which MLflow servers are left alone.
    pub servers: Arc<ServerWatch>,
    /// What is remembered of each workload.
    pub tracks: Arc<Tracks>,
    /// Events.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// May this replica write?
    pub leadership: Leadership,
    /// Retries after errors of the API server.
    pub backoff: PerKey<WorkloadKey>,
    /// When this process started.
    pub started: Timestamp,
    sandbox: RwLock<Option<&'static str>>,
    clock: fn() -> Timestamp,
}

/// What a context is made of.
pub struct Parts<'a> {
    /// The API server.
    pub client: Client,
    /// Flags of this component.
    pub settings: Settings,
    /// Namespace of the suite.
    pub operator_namespace: &'a str,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// Registry.
    pub metrics: &'a Metrics,
    /// Events.
    pub events: &'a EventRecorder,
    /// May this replica write?
    pub leadership: Leadership,
    /// MLflow.
    pub tracking: Tracking,
    /// Hears of its calls.
    pub servers: Arc<ServerWatch>,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

impl Context {
    /// A context without anything in its indexes.
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { client, settings, operator_namespace, scope, metrics, events, leadership, tracking, servers, clock } =
            parts;
        let index = Arc::new(Indexes {
            workloads: Workloads::default(),
            runtimes: Runtimes::default(),
            grants: Grants::default(),
            servers: ServerIndex::new(settings.mlflow_tracking_uri.clone()),
        });
        let limiter = RolloutLimiter::new(settings.rollout_qps, settings.rollout_burst);
        let tracks = Arc::new(Tracks::default());
        Self {
            client,
            metrics: OwnMetrics::register(metrics, &limiter, index.clone(), tracks.clone()),
            settings,
            scope,
            index,
            around: Arc::new(Surroundings::new(operator_namespace)),
            sources: Sources::default(),
            queue: Queue::default(),
            limiter,
            tracking,
            servers,
            tracks,
            events: events.reporting_as(REPORTER),
            leadership,
            backoff: PerKey::new(Duration::from_millis(500), Duration::from_secs(300)),
            started: clock(),
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

    /// Notes the served version.
    pub fn set_sandbox_version(&self, version: Option<&'static str>) {
        *self.sandbox.write().unwrap_or_else(PoisonError::into_inner) = version;
    }

    /// Asks for a look at a workload.
    pub fn wake(&self, key: WorkloadKey, after: Duration) {
        self.queue.add(key, after);
    }

    /// Asks for a look at every agent of a namespace, or (`None`) of all.
    pub fn wake_all(&self, namespace: Option<&str>, after: Duration) {
        self.wake_spread(self.index.workloads.keys(namespace), after);
    }

    /// The MLflow servers changed: what waits for one is asked again, and everything is looked at.
    pub fn servers_changed(&self) {
        self.tracks.release_holds();
        self.wake_all(None, Duration::ZERO);
    }

    /// A server answers again: what waits for it is asked again.
    pub fn server_recovered(&self) {
        self.wake_spread(self.tracks.release_holds(), Duration::ZERO);
    }

    fn wake_spread(&self, keys: Vec<WorkloadKey>, after: Duration) {
        for (number, key) in keys.into_iter().enumerate() {
            self.wake(key, after + Duration::from_secs_f64(number as f64 / WAKES_PER_SECOND));
        }
    }

    /// Brings the queue's metrics up to date. Counting walks the backlog, so it is done now and then only.
    pub fn count_queue(&self) {
        let metrics = &self.metrics.reconciles;
        metrics.depth.set(i64::try_from(self.queue.depth()).unwrap_or(i64::MAX));
        metrics.adds.inc_by(self.queue.adds().saturating_sub(metrics.adds.get()));
    }

    /// Drops what is remembered of a workload that is gone.
    pub fn forget(&self, key: &WorkloadKey) {
        self.tracks.forget(key);
        self.limiter.forget(key);
        self.backoff.reset(key);
    }
}
