//! What the decision may look at.

use std::collections::BTreeMap;

use crate::{
    AgentRuntimeSpec,
    gates::FeatureGates,
    names::{annotation, label},
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    platform::PlatformConfig,
    yaml::YamlError,
};

/// All inputs of [`super::decide`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The cluster.
    pub cluster: ClusterFacts<'a>,
    /// The namespace and its ConfigMaps.
    pub namespace: NamespaceFacts<'a>,
    /// The Pod or pod template.
    pub pod: PodFacts<'a>,
    /// The AgentRuntime that targets the workload (the winner, when there are several); `None` = there is none.
    pub runtime: Option<&'a AgentRuntimeSpec>,
}

/// Cluster-wide facts: one snapshot for one decision.
#[derive(Clone, Copy, Debug)]
pub struct ClusterFacts<'a> {
    /// Feature gates.
    pub gates: &'a FeatureGates,
    /// Platform configuration.
    pub platform: &'a PlatformConfig,
    /// CSIDriver `csi.spiffe.io` exists.
    pub spire_driver: bool,
    /// Namespace of the suite; nothing is injected there.
    pub operator_namespace: &'a str,
}

/// The namespace of the workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels; only `kagenti-enabled` counts.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// `config.yaml` of `authbridge-runtime-config`.
    pub runtime_config: RuntimeDocument<'a>,
    /// `authbridge-config`.
    pub authbridge: AuthbridgeConfig<'a>,
}

impl NamespaceFacts<'_> {
    /// Label `kagenti-enabled` is exactly `true`.
    pub fn enabled(&self) -> bool {
        is(self.labels, label::NAMESPACE_ENABLED, "true")
    }
}

/// State of the namespace's `config.yaml`.
#[derive(Clone, Copy, Debug, Default)]
pub enum RuntimeDocument<'a> {
    /// No ConfigMap or no such key.
    #[default]
    Absent,
    /// Parsed.
    Parsed(&'a RuntimeConfig),
    /// Not YAML, or its root is not a map: pods are denied, the namespace layer counts as empty.
    Malformed(&'a YamlError),
}

impl<'a> RuntimeDocument<'a> {
    /// The parsed document.
    pub fn parsed(self) -> Option<&'a RuntimeConfig> {
        match self {
            Self::Parsed(config) => Some(config),
            Self::Absent | Self::Malformed(_) => None,
        }
    }
}

/// A Pod or a pod template. Facts that only a Pod has are false or `None` by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodFacts<'a> {
    /// Name of the workload (see [`crate::owner::workload_of`]); for a template the workload's own name.
    pub workload: &'a str,
    /// Labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Decide as if runtime-ctl's labels were there already: `kagenti.io/type` is this value and the enrolled
    /// label is `"true"`. For callers that decide before they write the labels.
    pub enrolled_as: Option<&'a str>,
    /// `spec.serviceAccountName`; empty counts as absent.
    pub service_account: Option<&'a str>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `spec.os.name` is `windows`.
    pub windows: bool,
    /// `spec.shareProcessNamespace`.
    pub share_process_namespace: bool,
    /// What an injector did before, and containers of the user that carry a sidecar's name.
    pub containers: ContainerNames,
}

impl<'a> PodFacts<'a> {
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels?.get(key).map(String::as_str)
    }

    /// An annotation's value, when it is not empty.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The type in force: `enrolled_as`, else the label.
    pub fn workload_type(&self) -> Option<&'a str> {
        self.enrolled_as.or_else(|| self.label(label::TYPE))
    }

    /// Label `agent.kagenti.dev/enrolled` is exactly `true`, or `enrolled_as` is given.
    pub fn enrolled(&self) -> bool {
        self.enrolled_as.is_some() || is(self.labels, label::ENROLLED, "true")
    }

    /// Annotation `kagenti.io/keycloak-client-credentials-secret-name`.
    pub fn credentials_annotation(&self) -> Option<&'a str> {
        self.annotation(annotation::CREDENTIALS_SECRET)
    }
}

fn is(map: Option<&BTreeMap<String, String>>, key: &str, wanted: &str) -> bool {
    map.and_then(|map| map.get(key)).is_some_and(|value| value == wanted)
}

/// What the names of a Pod's containers say (webhook §11.5, split §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// An injector was here before.
    pub prior: PriorInjection,
    /// A container of the user is named `spiffe-helper`.
    pub own_spiffe_helper: bool,
    /// That container mounts volume `svid-output`.
    pub own_helper_mounts_svid: bool,
    /// A container of the user is named `kagenti-client-registration`.
    pub own_registration: bool,
}

/// Was the Pod injected before?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PriorInjection {
    /// No.
    #[default]
    None,
    /// Yes, by this product: annotation `kagenti.io/authbridge-status` is there.
    Ours,
    /// Proxy names without that annotation: made by hand or by a predecessor.
    Foreign,
}

impl ContainerNames {
    /// Reads container names. `regular` and `init` give name and, for init containers, whether it is a native
    /// sidecar (`restartPolicy: Always`); `annotated` = annotation `kagenti.io/authbridge-status` is there.
    pub fn scan<'n>(
        regular: impl IntoIterator<Item = &'n str>,
        init: impl IntoIterator<Item = (&'n str, bool)>,
        annotated: bool,
    ) -> Self {
        let (mut proxy, mut helper, mut registration) = (false, false, false);
        let mut see = |name: &str| match name {
            "authbridge-proxy" | "envoy-proxy" => proxy = true,
            "spiffe-helper" => helper = true,
            "kagenti-client-registration" => registration = true,
            _ => {}
        };
        regular.into_iter().for_each(&mut see);
        let mut proxy_init = false;
        for (name, native) in init {
            proxy_init |= name == "proxy-init";
            if native {
                see(name);
            }
        }
        let injected = proxy || proxy_init;
        let prior = match (injected || (annotated && (helper || registration)), annotated) {
            (false, _) => PriorInjection::None,
            (true, true) => PriorInjection::Ours,
            (true, false) => PriorInjection::Foreign,
        };
        Self {
            prior,
            own_spiffe_helper: helper,
            own_helper_mounts_svid: false,
            own_registration: registration,
        }
    }
}
