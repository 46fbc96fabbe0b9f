//! What the watches have seen, kept by the keys it is looked up with.
//!
//! Own writes go in too, with the answer of the API server, so that the next look does not act on what was before;
//! an event that is older than what is known is dropped.

mod grants;
mod runtimes;
mod servers;
mod workloads;

pub use self::{
    grants::Grants,
    runtimes::{Runtime, RuntimeKey, Runtimes},
    servers::ServerIndex,
    workloads::Workloads,
};

/// All indexes of the process.
#[derive(Debug)]
pub struct Indexes {
    /// Agents.
    pub workloads: Workloads,
    /// AgentRuntimes.
    pub runtimes: Runtimes,
    /// Roles and RoleBindings of ours.
    pub grants: Grants,
    /// MLflow servers.
    pub servers: ServerIndex,
}

/// The index knows something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// True when the resourceVersion `candidate` is certainly older than `known`.
pub(crate) fn is_older(candidate: &str, known: &str) -> bool {
    match (candidate.parse::<u64>(), known.parse::<u64>()) {
        (Ok(candidate), Ok(known)) => candidate < known,
        _ => false,
    }
}
