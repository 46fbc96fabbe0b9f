//! The configuration of one namespace, computed once per version of its inputs (runtime §5.3).

use std::sync::{Arc, OnceLock};

use api_types::{
    config_hash::{self, Data, HashInputs, NamedData},
    gates::FeatureGates,
    injection::RuntimeDocument,
    names::configmap,
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    platform::PlatformConfig,
    yaml::YamlError,
};

/// `config.yaml` of `authbridge-runtime-config`.
#[derive(Debug, Default)]
pub enum RuntimeText {
    /// No ConfigMap or no such key.
    #[default]
    Absent,
    /// Parsed.
    Parsed(Box<RuntimeConfig>),
    /// Not YAML, or not a map.
    Malformed(YamlError),
}

/// Everything that the ConfigMaps of a namespace and of the suite say.
#[derive(Debug)]
pub struct NamespaceConfig {
    /// The hash v2 that goes to pod templates.
    pub hash: String,
    /// For condition ConfigResolved; empty when all is well.
    pub warnings: Vec<String>,
    /// Feature gates.
    pub gates: FeatureGates,
    /// Platform configuration.
    pub platform: Arc<PlatformConfig>,
    /// `authbridge-config`.
    pub authbridge: Option<Arc<Data>>,
    /// `authbridge-runtime-config`.
    pub runtime: RuntimeText,
    raw: Inputs,
    v1: OnceLock<Vec<String>>,
}

/// Raw data of every input; `None` = the ConfigMap does not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) namespace: String,
    pub(crate) gates: Option<Arc<Data>>,
    pub(crate) platform: Option<Arc<Data>>,
    /// Labelled ConfigMaps by name.
    pub(crate) defaults: Vec<(String, Arc<Data>)>,
    pub(crate) authbridge: Option<Arc<Data>>,
    pub(crate) runtime: Option<Arc<Data>>,
    pub(crate) spiffe_helper: Option<Arc<Data>>,
    pub(crate) routes: Option<Arc<Data>>,
    pub(crate) envoy: Option<Arc<Data>>,
}

impl NamespaceConfig {
    /// Computes hash and settings. `warnings` come first in the result.
    pub(crate) fn new(
        raw: Inputs,
        gates: FeatureGates,
        platform: Arc<PlatformConfig>,
        mut warnings: Vec<String>,
    ) -> Self {
        let labelled: Vec<_> = raw.defaults.iter().map(|(name, data)| NamedData { name, data }).collect();
        let result = config_hash::v2(&HashInputs {
            namespace: &raw.namespace,
            feature_gates: raw.gates.as_deref(),
            platform: raw.platform.as_deref(),
            labelled_defaults: &labelled,
            authbridge_config: raw.authbridge.as_deref(),
            authbridge_runtime: raw.runtime.as_deref(),
            spiffe_helper: raw.spiffe_helper.as_deref(),
            authproxy_routes: raw.routes.as_deref(),
            envoy: raw.envoy.as_deref(),
        });
        // A document that does not parse is named once, by whoever knows what it means.
        let subject = |warning: &String| warning.split(": ").next().map(str::to_owned);
        let known: Vec<_> = warnings.iter().map(subject).collect();
        warnings.extend(result.warnings.into_iter().filter(|warning| !known.contains(&subject(warning))));
        let runtime = match raw.runtime.as_ref().and_then(|data| data.get(configmap::CONFIG_KEY)) {
            None => RuntimeText::Absent,
            Some(text) => match RuntimeConfig::parse(text) {
                Ok(config) => RuntimeText::Parsed(Box::new(config)),
                Err(error) => RuntimeText::Malformed(error),
            },
        };
        Self {
            hash: result.hash,
            warnings,
            gates,
            platform,
            authbridge: raw.authbridge.clone(),
            runtime,
            raw,
            v1: OnceLock::new(),
        }
    }

    /// True when the previous operator would write this hash for the same inputs (runtime §5.4). Computed at the
    /// first question: only an upgrade asks it.
    pub fn is_v1(&self, hash: &str) -> bool {
        let candidates = self.v1.get_or_init(|| {
            let empty = Data::new();
            let mut labelled: Vec<&Data> = self.raw.defaults.iter().map(|(_, data)| data.as_ref()).collect();
            // The previous operator labels the one it makes; whether it had made this one, nobody knows any more.
            if let Some(authbridge) = &self.raw.authbridge {
                labelled.extend([authbridge.as_ref(), &empty]);
            }
            let text = self.raw.runtime.as_ref().and_then(|data| data.get(configmap::CONFIG_KEY));
            config_hash::v1_candidates(
                self.raw.gates.as_deref().unwrap_or(&empty),
                self.raw.platform.as_deref().unwrap_or(&empty),
                &labelled,
                text.map_or("", String::as_str),
            )
        });
        candidates.iter().any(|candidate| candidate == hash)
    }

    /// The flat keys of `authbridge-config`.
    pub fn authbridge(&self) -> AuthbridgeConfig<'_> {
        AuthbridgeConfig(self.authbridge.as_deref())
    }

    /// `config.yaml` for the injection decision.
    pub fn runtime_document(&self) -> RuntimeDocument<'_> {
        match &self.runtime {
            RuntimeText::Absent => RuntimeDocument::Absent,
            RuntimeText::Parsed(config) => RuntimeDocument::Parsed(config),
            RuntimeText::Malformed(error) => RuntimeDocument::Malformed(error),
        }
    }
}
