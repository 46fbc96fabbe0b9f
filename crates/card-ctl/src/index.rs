//! What the watches have seen, kept by the keys it is looked up with (card §4.2, §19).
//!
//! Own writes go in too, with the answer of the API server, so that the next look does not act on what was before; an
//! event that is older than what is known is dropped.

mod cards;
pub mod documents;
mod pods;
mod runtimes;
mod services;
mod workloads;

use std::collections::BTreeMap;

use api_types::card::condition;

pub use self::{
    cards::{Card, Cards, is_about},
    documents::Documents,
    pods::{Pod, Pods},
    runtimes::{Runtime, Runtimes},
    services::{Endpoint, Port, Service, Services, Slice, SlicePort},
    workloads::Workloads,
};

/// Namespace and name.
pub use controller_kit::watch::Key as ObjectKey;

/// All indexes of the process.
#[derive(Debug, Default)]
pub struct Indexes {
    /// AgentCards.
    pub cards: Cards,
    /// Workloads labelled `kagenti.io/type=agent`.
    pub workloads: Workloads,
    /// Services and EndpointSlices.
    pub services: Services,
    /// Signed cards in labelled ConfigMaps.
    pub documents: Documents,
    /// AgentRuntimes.
    pub runtimes: Runtimes,
    /// Pods of agents, where they are watched.
    pub pods: Pods,
}

impl Indexes {
    /// Number of cards by truth of Synced and Verified.
    pub fn cards_by_truth(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        self.cards.fold(BTreeMap::new(), |mut counts, card| {
            *counts.entry((card.says(condition::SYNCED), card.says(condition::VERIFIED))).or_insert(0) += 1;
            counts
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// An AgentCard as the index keeps it.
    pub(crate) fn card(object: Value) -> Card {
        Card::of(serde_json::from_value(object).unwrap()).unwrap()
    }
}
