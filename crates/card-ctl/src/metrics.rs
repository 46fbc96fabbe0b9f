//! Metrics of card-ctl (card §14.3). No label ever holds the name of an object.

use std::{sync::Arc, time::Duration};

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

use crate::{index::Indexes, kinds::TargetKey};

macro_rules! labels {
    ($($name:ident { $($field:ident),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: &'static str),+ })+
    };
}

labels! {
    SourceResult { source, result }
    SourceLabel { source }
    ReasonLabel { reason }
    OpLabel { op }
    ProviderLabel { provider }
    Verification { provider, result, audit_mode }
    ErrorLabels { provider, error_type }
    Chain { valid, reason }
}

const PROVIDER: &str = "x5c";
/// Label of cards that stand in a ConfigMap.
pub const CONFIG_MAP: &str = "configmap";

/// Bounds in seconds of what should be much less than one.
const DELAYS: [f64; 13] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Handles of all metrics; cheap to clone.
#[derive(Clone)]
pub struct OwnMetrics {
    fetches: Family<SourceResult, Counter>,
    fetch_seconds: Family<SourceLabel, Histogram>,
    fetch_delay: Family<SourceLabel, Histogram>,
    /// Fetches that wait for a slot.
    pub fetch_queue: Gauge,
    /// Statuses written.
    pub status_writes: Counter,
    workload_writes: Family<OpLabel, Counter>,
    restarts: Family<ReasonLabel, Counter>,
    verifications: Family<Verification, Counter>,
    verification_seconds: Family<ProviderLabel, Histogram>,
    verification_errors: Family<ErrorLabels, Counter>,
    chains: Family<Chain, Counter>,
    /// Age of the trust bundle in seconds.
    pub bundle_age: Gauge,
    bundle_errors: Family<ReasonLabel, Counter>,
    /// IDs of a foreign trust domain.
    pub foreign_domains: Counter,
    unusable_config_maps: Counter,
    /// An SVID is at hand.
    pub svid_ready: Gauge,
    /// Its end, in seconds since 1970.
    pub svid_not_after: Gauge,
}

impl OwnMetrics {
    /// Registers everything.
    pub fn register(metrics: &Metrics, limiter: &RolloutLimiter<TargetKey>, index: Arc<Indexes>) -> Self {
        metrics.register(
            "kagenti_rollout_queue_length",
            "Workloads whose restart waits for the limiter",
            limiter.queue_length(),
        );
        metrics.register_counts("kagenti_agentcards", "AgentCards by condition", move || {
            let labels = |(synced, verified)| [("synced", synced), ("verified", verified)];
            index.cards_by_truth().into_iter().map(move |(by, count)| (labels(by), count))
        });
        Self {
            fetches: metrics.register(
                "kagenti_card_fetch",
                "Cards read, by source and result",
                Family::default(),
            ),
            fetch_seconds: metrics.register(
                "kagenti_card_fetch_duration_seconds",
                "Time of a fetch, without the time in the queue",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.5, 12))),
            ),
            fetch_delay: metrics.register(
                "kagenti_card_fetch_delay_seconds",
                "Time from when a fetch was due to its start, of those that succeeded",
                Family::new_with_constructor(|| Histogram::new(DELAYS)),
            ),
            fetch_queue: metrics.register(
                "kagenti_card_fetch_queue_length",
                "Fetches that wait for a slot",
                Gauge::default(),
            ),
            status_writes: metrics.register(
                "kagenti_card_status_writes",
                "Statuses of AgentCards written",
                Counter::default(),
            ),
            workload_writes: metrics.register(
                "kagenti_card_writes",
                "Other objects written, by what was done",
                Family::default(),
            ),
            restarts: metrics.register(
                "kagenti_resign_restarts",
                "Workloads restarted to renew their signature, by reason",
                Family::default(),
            ),
            verifications: metrics.register(
                "a2a_signature_verification",
                "Cards whose signatures were checked",
                Family::default(),
            ),
            verification_seconds: metrics.register(
                "a2a_signature_verification_duration_seconds",
                "Time of a signature check",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 2.5, 12))),
            ),
            verification_errors: metrics.register(
                "a2a_signature_verification_errors",
                "Signature checks that could not be made",
                Family::default(),
            ),
            chains: metrics.register(
                "kagenti_x5c_chain_validation",
                "Signatures by outcome",
                Family::default(),
            ),
            bundle_age: metrics.register(
                "kagenti_x5c_trust_bundle_age_seconds",
                "Time since the trust bundle was last read",
                Gauge::default(),
            ),
            bundle_errors: metrics.register(
                "kagenti_x5c_trust_bundle_load_errors",
                "Failures to read the trust bundle",
                Family::default(),
            ),
            foreign_domains: metrics.register(
                "kagenti_x5c_binding_trust_domain_mismatch",
                "Bindings refused because the ID is of another trust domain",
                Counter::default(),
            ),
            unusable_config_maps: metrics.register(
                "kagenti_card_unusable_configmaps",
                "ConfigMaps for signed cards without a usable card",
                Counter::default(),
            ),
            svid_ready: metrics.register(
                "kagenti_svid_source_ready",
                "1 while this controller has an SVID",
                Gauge::default(),
            ),
            svid_not_after: metrics.register(
                "kagenti_svid_not_after_seconds",
                "End of this controller's SVID, seconds since 1970",
                Gauge::default(),
            ),
        }
    }

    /// Counts a card that was read, or not.
    pub fn fetched(&self, source: &'static str, result: &'static str) {
        self.fetches.get_or_create(&SourceResult { source, result }).inc();
    }

    /// Time of an exchange.
    pub fn took(&self, source: &'static str, time: Duration) {
        self.fetch_seconds.get_or_create(&SourceLabel { source }).observe(time.as_secs_f64());
    }

    /// How much later than due an exchange began.
    pub fn late(&self, source: &'static str, delay: Duration) {
        self.fetch_delay.get_or_create(&SourceLabel { source }).observe(delay.as_secs_f64());
    }

    /// Counts a write to something else than a status.
    pub fn wrote(&self, op: &'static str) {
        self.workload_writes.get_or_create(&OpLabel { op }).inc();
    }

    /// Counts a restart.
    pub fn restarted(&self, reason: &'static str) {
        self.restarts.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a signature check.
    pub fn verified(&self, valid: bool, audit: bool, codes: &[&'static str], time: Duration) {
        let result = if valid { "success" } else { "failed" };
        let audit_mode = if audit { "true" } else { "false" };
        self.verifications.get_or_create(&Verification { provider: PROVIDER, result, audit_mode }).inc();
        self.verification_seconds
            .get_or_create(&ProviderLabel { provider: PROVIDER })
            .observe(time.as_secs_f64());
        for reason in codes.iter().copied() {
            let valid = if reason.starts_with("ok") { "true" } else { "false" };
            self.chains.get_or_create(&Chain { valid, reason }).inc();
        }
    }

    /// Counts a check that could not be made.
    pub fn not_verifiable(&self) {
        let labels = ErrorLabels { provider: PROVIDER, error_type: "verification_error" };
        self.verification_errors.get_or_create(&labels).inc();
    }

    /// Counts a bundle that could not be read.
    pub fn bundle_failed(&self, reason: &'static str) {
        self.bundle_errors.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a ConfigMap without a usable card.
    pub fn unusable_config_map(&self) {
        self.unusable_config_maps.inc();
    }
}
