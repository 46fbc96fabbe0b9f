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

pub use self::{
    cards::{Card, Cards},
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

/// The index knows something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// True when the resourceVersion `candidate` is certainly older than `known`.
///
/// Versions are numbers that only rise, in every API server since etcd3; anything else is never called older.
pub(crate) fn is_older(candidate: &str, known: &str) -> bool {
    match (candidate.parse::<u64>(), known.parse::<u64>()) {
        (Ok(candidate), Ok(known)) => candidate < known,
        _ => false,
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

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "9"));
        assert!(!is_older("7", "7"));
        assert!(!is_older("x", "7"));
    }
}
