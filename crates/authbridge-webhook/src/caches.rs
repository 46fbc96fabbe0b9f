//! What the webhook knows without asking: small indexes fed by watches (webhook §7, §11.2, §12.3).
//!
//! An admission in steady state reads only these. They keep the fields that decisions need and
//! nothing else, so 10,000 AgentRuntimes and 20,000 managed ConfigMaps stay far below the memory
//! target of webhook §18; namespace documents are parsed when they change, not per admission.

pub mod cluster;
pub mod managed;
pub mod namespaces;
pub mod table;
pub mod targets;

use cluster::ClusterFacts;
use managed::{ManagedConfigMaps, ManagedServiceAccounts};
use namespaces::NamespaceStates;
use targets::{CardTargets, RuntimeTargets};

/// Every index of the process.
#[derive(Debug, Default)]
pub struct Caches {
    /// AgentRuntimes by target.
    pub runtimes: RuntimeTargets,
    /// AgentCards by target.
    pub cards: CardTargets,
    /// Namespaces, their labels and their three ConfigMaps.
    pub namespaces: NamespaceStates,
    /// ServiceAccounts this webhook made.
    pub service_accounts: ManagedServiceAccounts,
    /// ConfigMaps this webhook made.
    pub config_maps: ManagedConfigMaps,
    /// CSI driver and server version.
    pub cluster: ClusterFacts,
}
