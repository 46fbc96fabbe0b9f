//! What is watched (MLflow §2).

pub use controller_kit::sources::State;

use crate::kinds::WorkloadKind;

/// Which watches have delivered.
pub type Sources = controller_kit::sources::Sources<Source>;

/// One kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Agents of a kind.
    Workloads(WorkloadKind),
    /// AgentRuntimes.
    Runtimes,
    /// Roles.
    Roles,
    /// RoleBindings.
    Bindings,
    /// MLflow objects.
    Servers,
}
