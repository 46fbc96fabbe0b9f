//! The metrics registry of a process and the metrics every component has.
//!
//! Names are those dashboards of controller-runtime know (runtime §19.2, packaging §11). Counters
//! are registered without `_total`; the exposition adds it. No label ever holds an object's name.

mod counted;
mod exposition;
mod process;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use crate::version;

pub use exposition::text_0_0_4;

/// Content type of the OpenMetrics form.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the older text form.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// Plural of the watched resource, e.g. `agentruntimes`.
    pub kind: String,
}

/// Labels of `kagenti_watch_errors_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchErrorLabels {
    /// Plural of the watched resource.
    pub kind: String,
    /// One of a closed set: `forbidden`, `not_found`, `expired`, `too_many_requests`, `unauthorized`,
    /// `server`, `connection`, `decode`, `other`.
    pub reason: &'static str,
}

/// Labels of `rest_client_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP status, or `<error>` when there was no answer.
    pub code: String,
    /// HTTP method.
    pub method: String,
    /// Host and port of the API server.
    pub host: String,
}

/// Label `name` of leader election and work queue metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabel {
    /// Name of the Lease or of the queue.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    component: &'static str,
    version: &'static str,
    revision: &'static str,
}

/// The registry of one process; clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// `kagenti_watch_errors_total{kind,reason}`.
    pub watch_errors: Family<WatchErrorLabels, Counter>,
    /// `kagenti_undecodable_objects_total{kind}` (runtime §2.7).
    pub undecodable_objects: Family<KindLabel, Counter>,
    /// `kagenti_store_objects{kind}`.
    pub store_objects: Family<KindLabel, Gauge>,
    /// `rest_client_requests_total{code,method,host}`.
    pub requests: Family<RequestLabels, Counter>,
    /// `leader_election_master_status{name}`: 1 while this replica holds the Lease.
    pub leader: Family<NameLabel, Gauge>,
    counts: Arc<Mutex<Vec<(KindLabel, Count)>>>,
}

/// Counts the objects of a store.
type Count = Box<dyn Fn() -> usize + Send + Sync>;

impl Metrics {
    /// A registry with the metrics common to all components.
    pub fn new(component: &'static str) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            watch_errors: Family::default(),
            undecodable_objects: Family::default(),
            store_objects: Family::default(),
            requests: Family::default(),
            leader: Family::default(),
            counts: Arc::default(),
        };
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels { component, version: version::VERSION, revision: version::REVISION })
            .set(1);
        metrics.register("kagenti_build_info", "Version of this process", build);
        metrics.register(
            "kagenti_watch_errors",
            "Failed lists and watches by kind and reason",
            metrics.watch_errors.clone(),
        );
        metrics.register(
            "kagenti_undecodable_objects",
            "Objects that could not be read and were skipped",
            metrics.undecodable_objects.clone(),
        );
        metrics.register(
            "kagenti_store_objects",
            "Objects held in memory by kind",
            metrics.store_objects.clone(),
        );
        metrics.register(
            "rest_client_requests",
            "Requests to the API server by status code, method and host",
            metrics.requests.clone(),
        );
        metrics.register(
            "leader_election_master_status",
            "1 while this replica holds the Lease",
            metrics.leader.clone(),
        );
        metrics.with_registry(|registry| {
            registry.register_collector(Box::new(process::ProcessCollector::new()));
        });
        metrics
    }

    /// Registers `metric` and gives it back, so that a handle can be kept. Counters are named without
    /// `_total`. Registering one name twice makes the exposition invalid.
    #[allow(clippy::needless_pass_by_value, reason = "reads well with a metric made in place")]
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with_registry(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// For collectors and whatever else [`Metrics::register`] does not cover.
    pub fn with_registry<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `kagenti_store_objects{kind}` counted in `indexes` whenever it is asked for; one count per kind.
    pub fn count_objects<I: Send + Sync + 'static>(
        &self,
        kind: &str,
        indexes: &Arc<I>,
        count: impl Fn(&I) -> usize + Send + Sync + 'static,
    ) {
        let indexes = indexes.clone();
        let entry = (KindLabel { kind: kind.to_owned() }, Box::new(move || count(&indexes)) as Count);
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// The exposition in OpenMetrics text 1.0.
    pub fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        for (kind, count) in self.counts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.store_objects.get_or_create(kind).set(i64::try_from(count()).unwrap_or(i64::MAX));
        }
        let mut text = String::with_capacity(16 * 1024);
        self.with_registry(|registry| prometheus_client::encoding::text::encode(&mut text, registry))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn objects_are_counted_when_they_are_asked_for() {
        let (metrics, held) = (Metrics::new("test"), Arc::new(AtomicUsize::new(0)));
        metrics.count_objects("pods", &held, |held| held.load(Ordering::Relaxed));
        held.store(7, Ordering::Relaxed);
        assert!(metrics.openmetrics().unwrap().contains("kagenti_store_objects{kind=\"pods\"} 7\n"));
    }
}
