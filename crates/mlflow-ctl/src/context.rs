//! Handles and memories of the process.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use controller_kit::{
    controller::{Common, Handles},
    events::EventRecorder,
    limiter::RolloutLimiter,
    surroundings::Surroundings,
};
use jiff::Timestamp;

use crate::{
    index::{Indexes, ServerIndex},
    metrics::{OwnMetrics, ServerWatch},
    settings::Settings,
    sources::Source,
    track::Tracks,
    tracking::Tracking,
    workload::WorkloadKey,
};

/// `reportingController` of Events, as the previous operator wrote it.
const REPORTER: &str = "mlflow-controller";
/// Wakes of many workloads are spread: this many per second.
const WAKES_PER_SECOND: f64 = 500.0;

/// Handles and memories of the process; what every controller has is reached through `Deref`.
pub struct Context {
    common: Common<WorkloadKey, Source>,
    /// Flags of this component.
    pub settings: Settings,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// What the shared injection decision asks besides the workload.
    pub around: Arc<Surroundings>,
    /// Tokens for changes of running workloads (MLflow §7.4).
    pub limiter: RolloutLimiter<WorkloadKey>,
    /// MLflow.
    pub tracking: Tracking,
    /// Which MLflow servers are left alone.
    pub servers: Arc<ServerWatch>,
    /// What is remembered of each workload.
    pub tracks: Arc<Tracks>,
    /// Events, under the name of the previous operator's controller.
    pub announcements: EventRecorder,
    /// Metrics.
    pub metrics: OwnMetrics,
    started: OnceLock<Timestamp>,
}

impl Deref for Context {
    type Target = Common<WorkloadKey, Source>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

impl Context {
    /// A context without anything in its indexes; `servers` hears of the calls of `tracking`.
    pub fn new(handles: Handles, settings: Settings, tracking: Tracking, servers: Arc<ServerWatch>) -> Self {
        let index = Arc::new(Indexes {
            servers: ServerIndex::new(settings.mlflow_tracking_uri.clone()),
            ..Indexes::default()
        });
        let limiter = RolloutLimiter::new(settings.rollout_qps, settings.rollout_burst);
        let tracks = Arc::new(Tracks::default());
        servers.register(&handles.metrics);
        Self {
            metrics: OwnMetrics::register(&handles.metrics, &limiter, index.clone(), tracks.clone()),
            around: Arc::new(Surroundings::new(&handles.operator_namespace)),
            announcements: handles.events.reporting_as(REPORTER),
            started: OnceLock::new(),
            common: Common::new(handles, "mlflow"),
            settings,
            index,
            limiter,
            tracking,
            servers,
            tracks,
        }
    }

    /// When this process began to work, which it does once it leads: what was made before had another one to look
    /// after it.
    pub fn started(&self) -> Timestamp {
        *self.started.get_or_init(|| self.now())
    }

    /// Asks for a look at a workload.
    pub fn wake(&self, key: WorkloadKey, after: Duration) {
        self.queue.add(key, after);
    }

    /// Asks for a look at every agent of a namespace, or (`None`) of all.
    pub fn wake_all(&self, namespace: Option<&str>, after: Duration) {
        self.wake_spread(self.index.agents(namespace), after);
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

    /// Drops what is remembered of a workload that is gone.
    pub fn forget(&self, key: &WorkloadKey) {
        self.tracks.forget(key);
        self.limiter.forget(key);
        self.succeeded(key);
    }
}
