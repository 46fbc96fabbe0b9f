//! Metrics of netpol-ctl (card §15.5). No label ever holds the name of an object.

use std::sync::Arc;

use controller_kit::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::{api_server::Endpoints, card::Card, index::Indexes, policy::Policy, verdict::Mode};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A policy is made.
    Create,
    /// A policy is changed.
    Update,
    /// A policy is deleted.
    Delete,
    /// A finalizer of the previous operator is taken off a card.
    Finalizer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabel {
    op: &'static str,
}

/// Handles of all metrics; cheap to clone.
#[derive(Clone)]
pub struct OwnMetrics {
    writes: Family<OpLabel, Counter>,
}

impl OwnMetrics {
    /// Registers everything.
    pub fn register(metrics: &Metrics, index: &Arc<Indexes>, endpoints: &Arc<Endpoints>) -> Self {
        let policies = index.clone();
        metrics.register_counts("kagenti_netpol_policies", "NetworkPolicies of ours by mode", move || {
            [Mode::Permissive, Mode::Restrictive].map(|mode| {
                let of_mode = |policy: &Policy| policy.mode == mode && policy.is_managed();
                ([("mode", mode.as_str())], policies.policies.count(of_mode))
            })
        });
        let endpoints = endpoints.clone();
        metrics.register_count(
            "kagenti_netpol_apiserver_endpoints",
            "Networks of the API server that unverified agents may reach",
            move || endpoints.current().networks.len(),
        );
        let cards = index.clone();
        metrics.register_count(
            "kagenti_netpol_unverifiable_cards",
            "AgentCards without condition Verified: no trust mechanism is on, so their agents are isolated",
            move || cards.cards.count(Card::is_unverifiable),
        );
        let own = Self {
            writes: metrics.register(
                "kagenti_netpol_writes",
                "Writes of NetworkPolicies and of finalizers of cards, by operation",
                Family::default(),
            ),
        };
        for op in [Op::Create, Op::Update, Op::Delete, Op::Finalizer] {
            drop(own.writes.get_or_create(&OpLabel { op: op.as_str() }));
        }
        own
    }

    /// Counts a write.
    pub fn wrote(&self, op: Op) {
        self.writes.get_or_create(&OpLabel { op: op.as_str() }).inc();
    }
}

impl Op {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Finalizer => "finalizer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_chapter_is_exposed() {
        let metrics = Metrics::new("netpol-ctl");
        let (index, endpoints) = (Arc::default(), Arc::new(Endpoints::new(&[])));
        OwnMetrics::register(&metrics, &index, &endpoints).wrote(Op::Update);
        let text = metrics.openmetrics().unwrap();
        for line in [
            "kagenti_netpol_policies{mode=\"permissive\"} 0",
            "kagenti_netpol_policies{mode=\"restrictive\"} 0",
            "kagenti_netpol_writes_total{op=\"create\"} 0",
            "kagenti_netpol_writes_total{op=\"update\"} 1",
            "kagenti_netpol_apiserver_endpoints 0",
            "kagenti_netpol_unverifiable_cards 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} missing in\n{text}");
        }
    }
}
