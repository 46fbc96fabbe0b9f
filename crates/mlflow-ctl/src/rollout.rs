//! When a pod template may be changed: the limiter's exceptions and the guard against endless patching (MLflow §7.4).
//! Pure.

use std::{collections::VecDeque, hash::BuildHasher, hash::RandomState, sync::LazyLock, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use tokio::time::Instant;

use crate::{env::Values, workload::Workload};

/// A workload younger than this passes the limiter at once when it is configured for the first time.
const YOUNG: Duration = Duration::from_secs(600);
/// The same state written this often ...
const REPETITIONS: usize = 3;
/// ... within this time is fought over.
const WINDOW: Duration = Duration::from_secs(600);
/// How long nothing is written then.
const TRUCE: Duration = Duration::from_secs(1800);

/// Why a pod template is changed; label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// For the first time.
    Configured,
    /// Another server.
    Server,
    /// The server lost the experiment.
    ExperimentLost,
    /// Somebody changed what was written, or the workload.
    Repair,
    /// It is no agent any more, or opted out.
    Unenrolled,
}

impl Cause {
    /// Metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Server => "server",
            Self::ExperimentLost => "ExperimentLost",
            Self::Repair => "repair",
            Self::Unenrolled => "unenrolled",
        }
    }
}

/// True for a workload whose Pods serve somebody: changing it takes a token of the limiter. One that is being rolled
/// out with its first settings is not held up; once it has them it is like any other, or a new address would restart
/// everything that was made in the last ten minutes at once (scenario 14).
pub fn needs_token(workload: &Workload, now: Timestamp) -> bool {
    workload.available && (workload.is_marked() || !is_young(workload, now))
}

/// Created less than ten minutes ago.
pub fn is_young(workload: &Workload, now: Timestamp) -> bool {
    workload
        .created
        .is_some_and(|created| now.duration_since(created).unsigned_abs() < YOUNG || created > now)
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Stands for one desired state of one workload, in this process.
pub fn fingerprint(desired: &Values, containers: usize) -> u64 {
    HASHER.hash_one((desired, containers))
}

/// Writes of one workload.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    state: Option<u64>,
    writes: VecDeque<Instant>,
    until: Option<Instant>,
}

impl Guard {
    /// How long writing this state is to be left alone; `None` = it may be written.
    pub fn truce(&mut self, state: u64, now: Instant) -> Option<Duration> {
        if self.state != Some(state) {
            *self = Self { state: Some(state), ..Self::default() };
            return None;
        }
        if let Some(until) = self.until {
            if now < until {
                return Some(until - now);
            }
            *self = Self { state: Some(state), ..Self::default() };
            return None;
        }
        self.writes.retain(|at| now - *at < WINDOW);
        (self.writes.len() >= REPETITIONS).then(|| {
            self.until = Some(now + TRUCE);
            TRUCE
        })
    }

    /// The state was written.
    pub fn wrote(&mut self, state: u64, now: Instant) {
        if self.state != Some(state) {
            *self = Self { state: Some(state), ..Self::default() };
        }
        if self.writes.len() >= REPETITIONS {
            self.writes.pop_front();
        }
        self.writes.push_back(now);
    }
}

/// The manager, other than `own`, that last wrote a pod template.
pub fn last_writer<'m>(entries: &'m [ManagedFieldsEntry], own: &str, template: &str) -> Option<&'m str> {
    let wrote_template = |entry: &&ManagedFieldsEntry| {
        let spec = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:spec"));
        spec.and_then(|spec| spec.get(format!("f:{template}"))).is_some()
    };
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(own) && entry.subresource.is_none())
        .filter(wrote_template)
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::old_and_serving("2026-01-01T00:00:00Z", 1, json!({}), true)]
    #[case::young("2026-01-01T11:55:00Z", 1, json!({}), false)]
    #[case::young_and_configured("2026-01-01T11:55:00Z", 1, json!({"mlflow.kagenti.io/experiment-id": "1"}), true)]
    #[case::nobody_serves("2026-01-01T00:00:00Z", 0, json!({"mlflow.kagenti.io/experiment-id": "1"}), false)]
    #[case::ahead_of_our_clock("2026-01-01T12:00:30Z", 1, json!({}), false)]
    fn tokens(
        #[case] created: &str,
        #[case] available: i32,
        #[case] annotations: serde_json::Value,
        #[case] want: bool,
    ) {
        let document = json!({
            "metadata": {"creationTimestamp": created},
            "spec": {"template": {"metadata": {"annotations": annotations}}},
            "status": {"availableReplicas": available},
        });
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(needs_token(&workload(WorkloadKind::Deployment, document), now), want);
    }

    /// MLflow §7.4: three times within ten minutes, then half an hour of peace.
    #[tokio::test(start_paused = true)]
    async fn a_state_that_is_reverted_again_and_again_is_left() {
        let mut guard = Guard::default();
        for _ in 0..3 {
            assert_eq!(guard.truce(1, Instant::now()), None);
            guard.wrote(1, Instant::now());
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(guard.truce(1, Instant::now()), Some(TRUCE));
        tokio::time::advance(Duration::from_secs(1799)).await;
        assert_eq!(guard.truce(1, Instant::now()), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(guard.truce(1, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_state_or_enough_time_starts_anew() {
        let mut guard = Guard::default();
        for state in [1, 1, 2, 1, 1] {
            assert_eq!(guard.truce(state, Instant::now()), None);
            guard.wrote(state, Instant::now());
        }
        for _ in 0..6 {
            tokio::time::advance(Duration::from_secs(301)).await;
            assert_eq!(guard.truce(1, Instant::now()), None);
            guard.wrote(1, Instant::now());
        }
    }

    #[test]
    fn the_other_writer_is_named() {
        let entries: Vec<ManagedFieldsEntry> = serde_json::from_value(json!([
            {"manager": "kubectl", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
            {"manager": "argocd", "operation": "Update", "time": "2026-01-03T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
            {"manager": "mlflow-ctl", "operation": "Update", "time": "2026-01-04T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
            {"manager": "kcm", "operation": "Update", "time": "2026-01-05T00:00:00Z", "subresource": "status", "fieldsV1": {"f:status": {}}},
            {"manager": "hpa", "operation": "Update", "time": "2026-01-06T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]))
        .unwrap();
        assert_eq!(last_writer(&entries, "mlflow-ctl", "template"), Some("argocd"));
        assert_eq!(last_writer(&entries, "mlflow-ctl", "podTemplate"), None);
    }
}
