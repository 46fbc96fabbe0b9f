//! What is watched (runtime §7.4).

pub use controller_kit::sources::State;

use crate::{index::Input, kinds::WorkloadKind};

/// One kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// AgentRuntimes.
    Runtimes,
    /// Deployments, StatefulSets or Sandboxes.
    Workloads(WorkloadKind),
    /// Pods of agents and tools.
    Pods,
    /// Namespaces.
    Namespaces,
    /// A configuration input.
    Config(Input),
    /// The CSIDriver of SPIRE.
    Spire,
    /// Whether this is OpenShift.
    OpenShift,
}
