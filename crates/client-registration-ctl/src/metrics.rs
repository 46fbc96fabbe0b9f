//! Metrics (client-registration §12). No label ever holds the name of an object.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use controller_kit::{limiter::RolloutLimiter, metrics::Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use rest_client::{BaseUrl, options::Observer};

use crate::{
    keycloak::KeycloakError,
    reason::Reason,
    workload::{Unit, WorkloadKey},
};

macro_rules! labels {
    ($($name:ident { $($field:ident : $type:ty),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: $type),+ })+
    };
}

labels! {
    ResultLabels { result: &'static str, reason: &'static str }
    ResultLabel { result: &'static str }
    RequestLabels { operation: &'static str, code: String }
    OperationLabel { operation: &'static str }
    StateLabel { state: &'static str }
    UrlLabel { url: String }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.5, 10))
}

/// Counts logins.
#[derive(Clone, Default)]
pub struct Logins(Family<ResultLabel, Counter>);

impl Logins {
    /// Counts one.
    pub fn count<T>(&self, login: &Result<T, KeycloakError>) {
        let result = login.as_ref().map_or_else(|error| error.reason().as_str(), |_| "ok");
        self.0.get_or_create(&ResultLabel { result }).inc();
    }
}

/// Counts calls to Keycloak. The labels are a closed set: operations of the code, HTTP statuses, trusted base URLs.
#[derive(Clone)]
pub struct Calls {
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabel, Histogram, fn() -> Histogram>,
    circuits: Family<UrlLabel, Gauge>,
    /// Told when a Keycloak answers again.
    pub recovered: std::sync::Arc<tokio::sync::Notify>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds as fn() -> Histogram),
            circuits: Family::default(),
            recovered: std::sync::Arc::default(),
        }
    }
}

impl Observer for Calls {
    fn attempt(&self, operation: &'static str, outcome: &str, took: Duration) {
        self.requests.get_or_create(&RequestLabels { operation, code: outcome.to_owned() }).inc();
        self.durations.get_or_create(&OperationLabel { operation }).observe(took.as_secs_f64());
    }

    fn circuit(&self, base: &BaseUrl, open: bool) {
        self.circuits.get_or_create(&UrlLabel { url: base.to_string() }).set(i64::from(open));
        if !open {
            self.recovered.notify_one();
        }
    }
}

/// How a workload's registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnitState {
    /// It has its client.
    Registered,
    /// It waits for something.
    Waiting,
    /// Something is wrong.
    Failing,
    /// It gets none from us.
    Skipped,
}

impl UnitState {
    const ALL: [Self; 4] = [Self::Registered, Self::Waiting, Self::Failing, Self::Skipped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Skipped => "skipped",
        }
    }
}

/// Handles of all metrics.
pub struct OwnMetrics {
    registrations: Family<ResultLabels, Counter>,
    duration: Histogram,
    workloads: Family<StateLabel, Gauge>,
    states: Mutex<HashMap<Unit, UnitState>>,
    /// Clients left behind in Keycloak.
    pub orphans: Counter,
    /// Calls to Keycloak.
    pub calls: Calls,
    /// Logins.
    pub logins: Logins,
}

impl OwnMetrics {
    /// Registers everything; `calls` is what the HTTP client counts with.
    pub fn register(metrics: &Metrics, limiter: &RolloutLimiter<WorkloadKey>, calls: Calls) -> Self {
        metrics.register(
            "kagenti_rollout_queue_length",
            "Workloads whose restart waits for the limiter",
            limiter.queue_length(),
        );
        metrics.register(
            "keycloak_requests",
            "Calls to Keycloak by operation and HTTP status (or why there was none)",
            calls.requests.clone(),
        );
        metrics.register(
            "keycloak_request_duration_seconds",
            "Time of a call to Keycloak",
            calls.durations.clone(),
        );
        metrics.register(
            "keycloak_circuit_open",
            "1 while a failing Keycloak is left alone",
            calls.circuits.clone(),
        );
        let own = Self {
            registrations: metrics.register(
                "client_registration",
                "Registrations that were compared with Keycloak or failed, by result and reason",
                Family::default(),
            ),
            duration: metrics.register(
                "client_registration_duration_seconds",
                "Time of a registration that asked Keycloak",
                seconds(),
            ),
            workloads: metrics.register(
                "client_registration_workloads",
                "Workloads by the state of their registration",
                Family::default(),
            ),
            states: Mutex::default(),
            orphans: metrics.register(
                "client_registration_orphans",
                "Clients left in Keycloak because it was not to be reached for too long",
                Counter::default(),
            ),
            calls,
            logins: Logins(metrics.register(
                "keycloak_token_requests",
                "Logins of the controller at Keycloak, by result",
                Family::default(),
            )),
        };
        for state in UnitState::ALL {
            drop(own.workloads.get_or_create(&StateLabel { state: state.as_str() }));
        }
        own
    }

    /// A registration that asked Keycloak has ended.
    pub fn registered(&self, reason: Reason, ok: bool, took: Duration) {
        let result = if ok { "success" } else { "failure" };
        self.registrations.get_or_create(&ResultLabels { result, reason: reason.as_str() }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Notes the state of a workload; `None` = it is gone.
    pub fn set_state(&self, unit: &Unit, state: Option<UnitState>) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match state {
            Some(state) => states.insert(unit.clone(), state),
            None => states.remove(unit),
        };
        if before == state {
            return;
        }
        let gauge =
            |state: UnitState| self.workloads.get_or_create(&StateLabel { state: state.as_str() }).clone();
        if let Some(before) = before {
            gauge(before).dec();
        }
        if let Some(state) = state {
            gauge(state).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_counted_once() {
        let metrics = Metrics::new("test");
        let own = OwnMetrics::register(&metrics, &RolloutLimiter::new(0.0, 1), Calls::default());
        let unit = Unit::new("team1", "w");
        own.set_state(&unit, Some(UnitState::Waiting));
        own.set_state(&unit, Some(UnitState::Waiting));
        own.set_state(&unit, Some(UnitState::Registered));
        let text = metrics.openmetrics().unwrap();
        assert!(text.contains("client_registration_workloads{state=\"registered\"} 1"), "{text}");
        assert!(text.contains("client_registration_workloads{state=\"waiting\"} 0"), "{text}");
        own.set_state(&unit, None);
        let text = metrics.openmetrics().unwrap();
        assert!(text.contains("client_registration_workloads{state=\"registered\"} 0"), "{text}");
    }
}
