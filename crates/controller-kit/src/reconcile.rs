//! What every reconcile of every controller is wrapped in: a panic stays inside it, and its result
//! and duration are counted under the names dashboards know (runtime §19.2, §20).

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;

use futures::FutureExt;
use kube::runtime::controller::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use crate::metrics::{Metrics, NameLabel};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: &'static str,
    result: &'static str,
}

/// A gauge with fractions of a second.
pub type Seconds = Gauge<f64, AtomicU64>;

/// Why a reconcile gave no result.
#[derive(Debug)]
pub enum Failure<E> {
    /// It returned this error.
    Error(E),
    /// It panicked with this message. A bug: the object is retried with back-off, others go on.
    Panic(String),
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(message) => write!(f, "the reconcile panicked (please report this): {message}"),
        }
    }
}

impl<E: StdError + 'static> StdError for Failure<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            Self::Panic(_) => None,
        }
    }
}

/// The metrics of one controller: `controller_runtime_reconcile_total{controller,result}`,
/// `controller_runtime_reconcile_errors_total`, `controller_runtime_reconcile_panics_total`,
/// `controller_runtime_reconcile_time_seconds`, `controller_runtime_active_workers`,
/// `workqueue_depth{name}`, `workqueue_oldest_due_seconds{name}`, `workqueue_adds_total{name}`.
///
/// Make [`ReconcileMetrics::register`] once per process and [`ReconcileMetrics::controller`] per
/// controller.
#[derive(Clone)]
pub struct ReconcileMetrics {
    results: Family<ResultLabels, Counter>,
    errors: Family<ControllerLabel, Counter>,
    panics: Family<ControllerLabel, Counter>,
    seconds: Family<ControllerLabel, Histogram>,
    active: Family<ControllerLabel, Gauge>,
    depth: Family<NameLabel, Gauge>,
    oldest_due: Family<NameLabel, Seconds>,
    adds: Family<NameLabel, Counter>,
}

/// Handles for one controller; cheap to clone.
#[derive(Clone)]
pub struct ControllerMetrics {
    success: Counter,
    error: Counter,
    requeue: Counter,
    requeue_after: Counter,
    errors: Counter,
    panics: Counter,
    seconds: Histogram,
    active: Gauge,
    /// `workqueue_depth{name}`: keys waiting to be worked on.
    pub depth: Gauge,
    /// `workqueue_oldest_due_seconds{name}`: how long the oldest of them has been waiting, in seconds; 0 on a follower.
    pub oldest_due: Seconds,
    /// `workqueue_adds_total{name}`: keys ever added.
    pub adds: Counter,
}

impl ReconcileMetrics {
    /// Registers the families; call it once per process.
    pub fn register(metrics: &Metrics) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self {
            results: metrics.register(
                "controller_runtime_reconcile",
                "Reconciles by controller and result",
                Family::default(),
            ),
            errors: metrics.register(
                "controller_runtime_reconcile_errors",
                "Reconciles that ended with an error",
                Family::default(),
            ),
            panics: metrics.register(
                "controller_runtime_reconcile_panics",
                "Reconciles that panicked and were caught",
                Family::default(),
            ),
            seconds: metrics.register(
                "controller_runtime_reconcile_time_seconds",
                "Duration of reconciles",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            active: metrics.register(
                "controller_runtime_active_workers",
                "Reconciles running now",
                Family::default(),
            ),
            depth: metrics.register("workqueue_depth", "Keys waiting to be worked on", Family::default()),
            oldest_due: metrics.register(
                "workqueue_oldest_due_seconds",
                "How long the oldest of these keys has been waiting while this replica leads",
                Family::default(),
            ),
            adds: metrics.register("workqueue_adds", "Keys added to the queue", Family::default()),
        }
    }

    /// The handles of controller `name`, e.g. `agentruntime`. Every series exists from now on, so a
    /// dashboard sees zeros instead of gaps.
    pub fn controller(&self, name: &'static str) -> ControllerMetrics {
        let label = ControllerLabel { controller: name };
        let queue = NameLabel { name: name.to_owned() };
        let result = |result| self.results.get_or_create_owned(&ResultLabels { controller: name, result });
        ControllerMetrics {
            success: result("success"),
            error: result("error"),
            requeue: result("requeue"),
            requeue_after: result("requeue_after"),
            errors: self.errors.get_or_create_owned(&label),
            panics: self.panics.get_or_create_owned(&label),
            seconds: self.seconds.get_or_create_owned(&label),
            active: self.active.get_or_create_owned(&label),
            depth: self.depth.get_or_create_owned(&queue),
            oldest_due: self.oldest_due.get_or_create_owned(&queue),
            adds: self.adds.get_or_create_owned(&queue),
        }
    }
}

/// Runs one reconcile: measures it, counts its result, and turns a panic into [`Failure::Panic`].
pub async fn guarded<E>(
    metrics: &ControllerMetrics,
    reconcile: impl Future<Output = Result<Action, E>>,
) -> Result<Action, Failure<E>> {
    let _active = Active::enter(&metrics.active);
    let start = Instant::now();
    let outcome = AssertUnwindSafe(reconcile).catch_unwind().await;
    metrics.seconds.observe(start.elapsed().as_secs_f64());
    match outcome {
        Ok(Ok(action)) => {
            if action == Action::await_change() {
                metrics.success.inc();
            } else if action == Action::requeue(std::time::Duration::ZERO) {
                metrics.requeue.inc();
            } else {
                metrics.requeue_after.inc();
            }
            Ok(action)
        }
        Ok(Err(error)) => {
            metrics.error.inc();
            metrics.errors.inc();
            Err(Failure::Error(error))
        }
        Err(panic) => {
            metrics.error.inc();
            metrics.errors.inc();
            metrics.panics.inc();
            Err(Failure::Panic(panic_message(panic.as_ref())))
        }
    }
}

/// The text of a caught panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Counts a running reconcile, also when its future is dropped half-way.
struct Active<'a>(&'a Gauge);

impl<'a> Active<'a> {
    fn enter(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn metrics() -> (Metrics, ControllerMetrics) {
        let registry = Metrics::new("test");
        let controller = ReconcileMetrics::register(&registry).controller("agentruntime");
        (registry, controller)
    }

    fn assert_sample(registry: &Metrics, sample: &str) {
        let text = registry.openmetrics().unwrap();
        assert!(text.lines().any(|line| line == sample), "{sample} missing in\n{text}");
    }

    /// Runtime §20: a panic in one reconcile is caught, counted, and does not stop others.
    #[tokio::test]
    async fn a_panic_becomes_a_failure_and_is_counted() {
        let (registry, controller) = metrics();
        let failure = guarded(&controller, async {
            assert_ne!(controller.active.get(), 1, "index 3 out of range");
            Ok::<_, std::io::Error>(Action::await_change())
        })
        .await
        .unwrap_err();
        assert!(failure.to_string().contains("index 3 out of range"));
        assert_eq!(controller.active.get(), 0);
        assert_sample(&registry, "controller_runtime_reconcile_panics_total{controller=\"agentruntime\"} 1");
    }

    /// Runtime §19.2: the four result labels.
    #[tokio::test]
    async fn results_are_counted_under_the_names_of_dashboards() {
        let (registry, controller) = metrics();
        let actions = [
            Action::await_change(),
            Action::requeue(Duration::ZERO),
            Action::requeue(Duration::from_secs(1)),
        ];
        for action in actions {
            guarded(&controller, async { Ok::<_, std::io::Error>(action) }).await.unwrap();
        }
        guarded(&controller, async { Err(std::io::Error::other("x")) }).await.unwrap_err();
        for result in ["success", "requeue", "requeue_after", "error"] {
            assert_sample(
                &registry,
                &format!(
                    "controller_runtime_reconcile_total{{controller=\"agentruntime\",result=\"{result}\"}} 1"
                ),
            );
        }
        assert_sample(&registry, "controller_runtime_reconcile_errors_total{controller=\"agentruntime\"} 1");
        assert_sample(
            &registry,
            "controller_runtime_reconcile_time_seconds_count{controller=\"agentruntime\"} 4",
        );
        assert_sample(&registry, "workqueue_depth{name=\"agentruntime\"} 0");
        assert_sample(&registry, "workqueue_oldest_due_seconds{name=\"agentruntime\"} 0.0");
    }
}
