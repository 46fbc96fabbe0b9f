//! The configuration hash whose change rolls pods (runtime §5).

use std::collections::BTreeMap;

/// Data of a ConfigMap; `binaryData` never counts.
pub type Data = BTreeMap<String, String>;

/// The hash of the previous operator (runtime §5.1), lowercase hex SHA-256. Needed for adoption only.
///
/// `platform` is overlaid key by key with `namespace_defaults`; `runtime` is `config.yaml` of
/// `authbridge-runtime-config`. Empty = absent.
pub fn v1(gates: &Data, platform: &Data, namespace_defaults: &Data, runtime: &str) -> String {
    let _ = (gates, platform, namespace_defaults, runtime);
    String::new()
}

/// Every v1 hash an adopted workload may carry (runtime §5.4): the 8 combinations of gates, platform and runtime
/// present or emptied, for each labelled ConfigMap as the overlay. Sorted, without repetition.
pub fn v1_candidates(gates: &Data, platform: &Data, labelled: &[&Data], runtime: &str) -> Vec<String> {
    let _ = (gates, platform, labelled, runtime);
    Vec::new()
}

/// A labelled namespace-defaults ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct NamedData<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its data.
    pub data: &'a Data,
}

/// Inputs of the v2 hash of one namespace (runtime §5.3); `None` = the ConfigMap does not exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashInputs<'a> {
    /// Name of the namespace, for the warnings only.
    pub namespace: &'a str,
    /// `kagenti-feature-gates`.
    pub feature_gates: Option<&'a Data>,
    /// `kagenti-platform-config`.
    pub platform: Option<&'a Data>,
    /// All ConfigMaps with label `kagenti.io/defaults=true`, in any order; `authbridge-config` is left out here.
    pub labelled_defaults: &'a [NamedData<'a>],
    /// `authbridge-config`.
    pub authbridge_config: Option<&'a Data>,
    /// `authbridge-runtime-config`.
    pub authbridge_runtime: Option<&'a Data>,
    /// `spiffe-helper-config`.
    pub spiffe_helper: Option<&'a Data>,
    /// `authproxy-routes`.
    pub authproxy_routes: Option<&'a Data>,
    /// `envoy-config`.
    pub envoy: Option<&'a Data>,
}

/// A v2 hash and what is wrong with its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashResult {
    /// 64 lowercase hex.
    pub hash: String,
    /// For condition `ConfigResolved`, reason `ConfigWarning`; in a fixed order.
    pub warnings: Vec<String>,
}

/// The v2 hash (runtime §5.3): changes when, and only when, the meaning of an input changes.
pub fn v2(inputs: &HashInputs<'_>) -> HashResult {
    let _ = inputs;
    HashResult::default()
}
