//! Everything the pure half may look at besides the Pod.

use api_types::{
    AgentRuntimeSpec,
    injection::{ClusterFacts, NamespaceFacts},
    owner::Workload,
};

use super::{ConfigNames, Pod};

/// Input of [`super::inject`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The Pod.
    pub pod: &'a Pod<'a>,
    /// Cluster-wide configuration; one snapshot throughout an admission (webhook §15).
    pub cluster: ClusterFacts<'a>,
    /// The API server is 1.29 or newer: native sidecars work (webhook §10.4).
    pub native_sidecars: bool,
    /// The namespace and its ConfigMaps (webhook §7.3), from synced stores.
    pub namespace: NamespaceFacts<'a>,
    /// Key `helper.conf` of `spiffe-helper-config`; `None` when map or key are absent (split §3, §5.2).
    pub helper_conf: Option<&'a str>,
    /// The Pod's workload (webhook §6).
    pub workload: &'a Workload,
    /// Spec of the AgentRuntime that names the workload, chosen as webhook §7.4 says.
    pub runtime: Option<&'a AgentRuntimeSpec>,
    /// Name of that AgentRuntime when others match as well; gives a warning.
    pub ambiguous_runtime: Option<&'a str>,
    /// See [`super::config_names`].
    pub names: &'a ConfigNames,
    /// Stored `config.yaml` of the ConfigMap `names.config` when it is pinned (webhook §12.3).
    pub pinned_config: Option<&'a str>,
    /// Set for `request.dryRun`.
    pub dry_run: Option<DryRun>,
}

/// What a dry run needs to know (webhook §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// A ServiceAccount with the workload's name exists, so the Pod may name it.
    pub service_account_exists: bool,
}
