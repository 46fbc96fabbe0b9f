//! What is watched beside the surroundings.

use api_types::enrolment::TargetKind;

/// One watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Workloads of a kind.
    Workloads(TargetKind),
    /// AgentRuntimes.
    Runtimes,
    /// Metadata of the credentials Secrets.
    Secrets,
    /// The administrator's Secret.
    Admin,
}
