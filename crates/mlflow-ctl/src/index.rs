//! What the watches have seen, kept by the keys it is looked up with.

mod grants;
mod runtimes;
mod servers;

use std::sync::Arc;

use controller_kit::index::{Entry, Index};

pub use self::{
    grants::Grants,
    runtimes::{Runtime, RuntimeKey, winner},
    servers::ServerIndex,
};
use crate::workload::{Workload, WorkloadKey};

/// All indexes of the process.
#[derive(Debug, Default)]
pub struct Indexes {
    /// Agents; linked by namespace.
    pub workloads: Index<Workload>,
    /// AgentRuntimes; linked by the workload they target.
    pub runtimes: Index<Runtime>,
    /// Roles and RoleBindings of ours.
    pub grants: Grants,
    /// MLflow servers.
    pub servers: ServerIndex,
}

impl Indexes {
    /// Keys of the agents of a namespace, or (`None`) of all.
    pub fn agents(&self, namespace: Option<&str>) -> Vec<WorkloadKey> {
        match namespace {
            None => self.workloads.keys(),
            Some(namespace) => {
                let agents = self.workloads.linked(&namespace.to_owned());
                agents.iter().map(|workload| workload.key.clone()).collect()
            }
        }
    }

    /// The AgentRuntime that speaks for a workload (runtime §9.2).
    pub fn runtime_of(&self, key: &WorkloadKey) -> Option<Arc<Runtime>> {
        winner(self.runtimes.linked(key))
    }
}

impl Entry for Workload {
    type Key = WorkloadKey;
    type Link = String;

    fn key(&self) -> &WorkloadKey {
        &self.key
    }
    fn version(&self) -> &str {
        &self.resource_version
    }
    fn links(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.key.namespace.clone())
    }
}
