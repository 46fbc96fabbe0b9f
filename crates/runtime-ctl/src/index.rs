//! What the watches have seen, kept by the keys it is looked up with (runtime §20).
//!
//! Every index is filled by one task per watch and read by the reconciles. Own writes go in too, with the answer
//! of the API server, so that the next look does not act on what was before; an event that is older than what is
//! known is dropped.

mod certificates;
mod configs;
mod namespace_config;
mod namespaces;
mod pods;
mod runtimes;
mod workloads;

use std::sync::atomic::{AtomicBool, Ordering};

pub use self::{
    certificates::{Certificate, CertificateView, Certificates},
    configs::{Configs, Input, Unreadable},
    namespace_config::{NamespaceConfig, RuntimeText},
    namespaces::{NamespaceFacts, NamespaceState, Namespaces},
    pods::{OwnerKey, Pod, Pods, Resolved as PodResolved},
    runtimes::{RuntimeKey, Runtimes, Target},
    workloads::{WorkloadLink, Workloads},
};

/// All indexes of the process.
#[derive(Debug)]
pub struct Indexes {
    /// AgentRuntimes.
    pub runtimes: Runtimes,
    /// Deployments, StatefulSets and Sandboxes.
    pub workloads: Workloads,
    /// Pods of agents and tools.
    pub pods: Pods,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Configuration inputs.
    pub configs: Configs,
    /// TLS-bridge certificates.
    pub certificates: Certificates,
    spire: AtomicBool,
}

impl Indexes {
    /// Empty indexes of a process whose own namespace is `operator_namespace`.
    pub fn new(operator_namespace: &str) -> Self {
        Self {
            runtimes: Runtimes::default(),
            workloads: Workloads::default(),
            pods: Pods::default(),
            namespaces: Namespaces::default(),
            configs: Configs::new(operator_namespace),
            certificates: Certificates::default(),
            spire: AtomicBool::new(false),
        }
    }

    /// CSIDriver `csi.spiffe.io` exists.
    pub fn spire_driver(&self) -> bool {
        self.spire.load(Ordering::Acquire)
    }

    /// Notes whether the CSIDriver exists; true when that is news.
    pub fn set_spire_driver(&self, present: bool) -> bool {
        self.spire.swap(present, Ordering::AcqRel) != present
    }
}
