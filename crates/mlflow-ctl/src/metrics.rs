//! Metrics of mlflow-ctl (MLflow §10). No label ever holds the name of an object.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controller_kit::{limiter::RolloutLimiter, metrics::Metrics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
};
use rest_client::{BaseUrl, options::Observer, response::Response};
use tokio::sync::Notify;

use crate::{
    conditions::State,
    index::Indexes,
    kinds::WorkloadKind,
    rollout::Cause,
    track::Tracks,
    tracking::answers::{Reply, error_code},
    workload::WorkloadKey,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// Handles of all metrics; cheap to clone.
#[derive(Clone)]
pub struct OwnMetrics {
    results: Family<ResultLabels, Counter>,
    durations: Histogram,
    rollouts: Family<ReasonLabel, Counter>,
}

impl OwnMetrics {
    /// Registers everything but what [`ServerWatch`] counts.
    pub fn register(
        metrics: &Metrics,
        limiter: &RolloutLimiter<WorkloadKey>,
        index: Arc<Indexes>,
        tracks: Arc<Tracks>,
    ) -> Self {
        metrics.register(
            "mlflow_ctl_rollout_queue",
            "Workloads whose change waits for the limiter",
            limiter.queue_length(),
        );
        metrics.with_registry(|registry| registry.register_collector(Box::new(Gauges { index, tracks })));
        Self {
            results: metrics.register(
                "mlflow_ctl_reconcile",
                "Passes over workloads, by kind and result",
                Family::default(),
            ),
            durations: metrics.register(
                "mlflow_ctl_reconcile_duration_seconds",
                "Duration of passes over workloads",
                seconds(),
            ),
            rollouts: metrics.register(
                "mlflow_ctl_rollouts",
                "Pod templates changed, by reason",
                Family::default(),
            ),
        }
    }

    /// Counts a changed pod template.
    pub fn rollout(&self, cause: Cause) {
        self.rollouts.get_or_create(&ReasonLabel { reason: cause.as_str() }).inc();
    }

    /// Counts a pass.
    pub fn pass(&self, kind: WorkloadKind, ok: bool, took: Duration) {
        let result = if ok { "success" } else { "error" };
        self.results.get_or_create(&ResultLabels { kind: kind.as_str(), result }).inc();
        self.durations.observe(took.as_secs_f64());
    }
}

/// `mlflow_ctl_workloads{state}` and `mlflow_ctl_server_available`, counted when they are asked for.
#[derive(Debug)]
struct Gauges {
    index: Arc<Indexes>,
    tracks: Arc<Tracks>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut family =
            encoder.encode_descriptor("mlflow_ctl_workloads", "Agents by state", None, MetricType::Gauge)?;
        for state in State::ALL {
            let gauge = ConstGauge::new(i64::try_from(self.tracks.count(state)).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("state", state.as_str())])?)?;
        }
        let available = encoder.encode_descriptor(
            "mlflow_ctl_server_available",
            "1 when there is an MLflow server for new agents",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.index.servers.choose(None).is_ok())).encode(available)
    }
}

/// Hears of the calls to MLflow: counts them, and knows which servers are left alone.
pub struct ServerWatch {
    requests: Family<RequestLabels, Counter>,
    durations: Family<EndpointLabel, Histogram>,
    circuit: Gauge,
    open: Mutex<HashSet<BaseUrl>>,
    recovered: Notify,
}

impl Default for ServerWatch {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds as fn() -> Histogram),
            circuit: Gauge::default(),
            open: Mutex::default(),
            recovered: Notify::new(),
        }
    }
}

impl ServerWatch {
    /// Registers its metrics.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(
            "mlflow_ctl_api_requests",
            "Requests to MLflow, by endpoint and MLflow's error code, else HTTP status or kind of failure",
            self.requests.clone(),
        );
        metrics.register(
            "mlflow_ctl_api_request_duration_seconds",
            "Duration of requests to MLflow",
            self.durations.clone(),
        );
        metrics.register(
            "mlflow_ctl_circuit_open",
            "1 while a failing MLflow server is left alone",
            self.circuit.clone(),
        );
    }

    /// Returns when a server that was left alone answers again.
    pub async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// The servers that are left alone.
    pub fn open(&self) -> Vec<BaseUrl> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Observer for ServerWatch {
    fn attempt(&self, operation: &'static str, outcome: &str, took: Duration) {
        let labels = RequestLabels { endpoint: operation, code: outcome.to_owned() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&EndpointLabel { endpoint: operation }).observe(took.as_secs_f64());
    }

    fn answer(&self, operation: &'static str, response: &Response, took: Duration) {
        match error_code(Reply::of(response)) {
            Some(code) => self.attempt(operation, code, took),
            None => self.attempt(operation, &response.status().to_string(), took),
        }
    }

    fn circuit(&self, base: &BaseUrl, open: bool) {
        let mut servers = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open {
            servers.insert(base.clone());
        } else {
            servers.remove(base);
            self.recovered.notify_one();
        }
        self.circuit.set(i64::from(!servers.is_empty()));
    }
}
