//! What is watched (card §4.2).

pub use controller_kit::sources::State;

use crate::kinds::WorkloadKind;

/// One kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// AgentCards.
    Cards,
    /// Deployments, StatefulSets or Sandboxes.
    Workloads(WorkloadKind),
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Signed cards in ConfigMaps.
    Documents,
    /// AgentRuntimes.
    Runtimes,
    /// Pods of agents.
    Pods,
    /// The trust bundle.
    Bundle,
}
