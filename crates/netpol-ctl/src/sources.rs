//! What is watched (card §15.1).

use api_types::enrolment::TargetKind;
pub use controller_kit::sources::State;

/// One kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// AgentCards.
    Cards,
    /// NetworkPolicies of ours.
    Policies,
    /// Agents: Deployments, StatefulSets or Sandboxes with label `kagenti.io/type=agent`.
    Workloads(TargetKind),
    /// Addresses of the API server.
    ApiServer,
}
