//! What a cluster should look like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Options of [`crate::Cluster::start`]. The default is a bare cluster with two fake nodes whose
/// controllers are not slowed down by client limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterOptions {
    /// Use the running cluster of this kubeconfig instead of starting one. Only processes are managed then;
    /// faults, audit log and etcd are not to be had.
    pub kubeconfig: Option<PathBuf>,
    /// Number of fake nodes.
    pub nodes: u16,
    /// One real node: Pods run in containers, Services lead to them, names are resolved. Needs root on Linux; then
    /// [`ClusterOptions::nodes`] is best 0.
    pub real_node: bool,
    /// Give running Pods addresses. Without them Pods run, but no EndpointSlice names them.
    pub pod_addresses: bool,
    /// Give them addresses only where something can answer there, which needs root.
    pub only_reachable_addresses: bool,
    /// Run kube-controller-manager (all controllers).
    pub controller_manager: bool,
    /// Run kube-scheduler.
    pub scheduler: bool,
    /// Requests per second that kube-controller-manager and kube-scheduler may send (burst: twice that).
    /// None keeps their own defaults (20 and 50), as on most real clusters.
    pub controller_qps: Option<u32>,
    /// Admission plugins to switch on besides the API server's defaults.
    pub admission_plugins: Vec<String>,
    /// Further arguments of kube-apiserver; they win over the usual ones.
    pub api_server_args: Vec<String>,
    /// Further arguments of kube-controller-manager.
    pub controller_manager_args: Vec<String>,
    /// How the suite's programs are built for this cluster.
    pub profile: Profile,
}

/// Cargo profile of the suite's own programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The one the running program was built with.
    #[default]
    Same,
    /// `dev`.
    Dev,
    /// `release`.
    Release,
}

impl ClusterOptions {
    /// A cluster with one real node and no fake ones.
    #[must_use]
    pub fn on_a_real_node() -> Self {
        Self { nodes: 0, real_node: true, ..Self::default() }
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            nodes: 2,
            real_node: false,
            pod_addresses: true,
            only_reachable_addresses: false,
            controller_manager: true,
            scheduler: true,
            controller_qps: Some(500),
            admission_plugins: Vec::new(),
            api_server_args: Vec::new(),
            controller_manager_args: Vec::new(),
            profile: Profile::Same,
        }
    }
}
