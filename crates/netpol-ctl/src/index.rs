//! What the watches have seen, kept by the keys it is looked up with.
//!
//! Every index is filled by one task per watch and read by the passes. Own writes go in too, with the answer of the
//! API server; what is older than what is known is dropped.

mod cards;
mod policies;
mod workloads;

pub use self::{
    cards::Cards,
    policies::Policies,
    workloads::{WorkloadKey, Workloads},
};

/// All workloads of one name in a namespace: their policies share names, so one pass looks at all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Namespace.
    pub namespace: String,
    /// Name of the workloads.
    pub name: String,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "workload {}/{}", self.namespace, self.name)
    }
}

/// All indexes of the process.
#[derive(Debug, Default)]
pub struct Indexes {
    /// AgentCards.
    pub cards: Cards,
    /// NetworkPolicies of ours.
    pub policies: Policies,
    /// Agents.
    pub workloads: Workloads,
}

/// True when the resourceVersion `candidate` is certainly older than `known`. Versions are numbers that only rise;
/// anything else is never called older.
fn is_older(candidate: &str, known: &str) -> bool {
    match (candidate.parse::<u64>(), known.parse::<u64>()) {
        (Ok(candidate), Ok(known)) => candidate < known,
        _ => false,
    }
}

/// What an object did to an index.
#[derive(Clone, Debug, PartialEq)]
pub enum Upsert<T> {
    /// Something newer is known; nothing changed.
    Stale,
    /// The very same version was known; nothing changed.
    Known,
    /// It is in the index now; this was there before.
    Stored(Option<T>),
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "9"));
        assert!(!is_older("7", "7"));
        assert!(!is_older("x", "7"));
    }
}
