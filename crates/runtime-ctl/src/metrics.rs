//! Metrics of runtime-ctl (runtime §19.2). No label ever holds the name of an object.

use std::sync::Arc;

use controller_kit::{limiter::RolloutLimiter, metrics::Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::{enrolment::Trigger, index::Indexes, kinds::WorkloadKind, workload::WorkloadKey};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    trigger: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Handles of all metrics; cheap to clone.
#[derive(Clone)]
pub struct OwnMetrics {
    rollouts: Family<RolloutLabels, Counter>,
    config_warnings: Family<ReasonLabel, Gauge>,
    conflicts: Family<KindLabel, Counter>,
}

impl OwnMetrics {
    /// Registers everything.
    pub fn register(metrics: &Metrics, limiter: &RolloutLimiter<WorkloadKey>, index: &Arc<Indexes>) -> Self {
        metrics.register(
            "kagenti_rollout_queue_length",
            "Workloads whose restart waits for the limiter",
            limiter.queue_length(),
        );
        let index = index.clone();
        metrics.register_counts("kagenti_agentruntimes", "AgentRuntimes by type and phase", move || {
            let labels = |(kind, phase)| [("type", kind), ("phase", phase)];
            index.runtimes.count().into_iter().map(move |(by, count)| (labels(by), count))
        });
        Self {
            rollouts: metrics.register(
                "kagenti_rollouts",
                "Pod templates changed, by trigger and kind",
                Family::default(),
            ),
            config_warnings: metrics.register(
                "kagenti_config_warnings",
                "AgentRuntimes whose configuration is odd, by reason",
                Family::default(),
            ),
            conflicts: metrics.register(
                "kagenti_patch_conflicts",
                "Patches that were refused because the object had changed",
                Family::default(),
            ),
        }
    }

    /// Counts a changed pod template.
    pub fn rollout(&self, trigger: Trigger, kind: WorkloadKind) {
        self.rollouts.get_or_create(&RolloutLabels { trigger: trigger.as_str(), kind: kind.as_str() }).inc();
    }

    /// The warnings of one AgentRuntime were `before` and are `now`; reasons come from a closed set.
    pub fn config_warnings(&self, before: &[&'static str], now: &[&'static str]) {
        for reason in before {
            self.config_warnings.get_or_create(&ReasonLabel { reason }).dec();
        }
        for reason in now {
            self.config_warnings.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Counts a conflict.
    pub fn conflict(&self, kind: &'static str) {
        self.conflicts.get_or_create(&KindLabel { kind }).inc();
    }
}
