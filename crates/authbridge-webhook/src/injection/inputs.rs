//! Everything the pure half may look at besides the Pod.

use std::collections::BTreeMap;

use api_types::{
    AgentRuntimeSpec, gates::FeatureGates, namespace_config::RuntimeConfig, owner::Workload,
    platform::PlatformConfig, yaml::YamlError,
};

use super::{ConfigNames, Pod};

/// What holds for the whole cluster; one admission uses one value throughout (webhook §15).
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Feature gates.
    pub gates: &'a FeatureGates,
    /// Platform configuration.
    pub platform: &'a PlatformConfig,
    /// Namespace of this component, never injected.
    pub operator_namespace: &'a str,
    /// CSIDriver `csi.spiffe.io` exists.
    pub csi_driver: bool,
    /// The API server is 1.29 or newer: native sidecars work (webhook §10.4).
    pub native_sidecars: bool,
}

/// The Pod's namespace and its ConfigMaps (webhook §7.3), from synced stores.
#[derive(Clone, Copy, Debug)]
pub struct Namespace<'a> {
    /// Name, from the admission request.
    pub name: &'a str,
    /// Labels of the Namespace object.
    pub labels: &'a BTreeMap<String, String>,
    /// Data of ConfigMap `authbridge-config`; `None` when there is none.
    pub authbridge: Option<&'a BTreeMap<String, String>>,
    /// Parsed `config.yaml` of `authbridge-runtime-config` (absent = the default value), or why it does not parse.
    pub runtime: Result<&'a RuntimeConfig, &'a YamlError>,
    /// Key `helper.conf` of `spiffe-helper-config`; `None` when map or key are absent.
    pub helper_conf: Option<&'a str>,
}

/// Input of [`super::inject`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The Pod.
    pub pod: &'a Pod<'a>,
    /// Cluster-wide configuration.
    pub cluster: Cluster<'a>,
    /// The namespace.
    pub namespace: Namespace<'a>,
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
