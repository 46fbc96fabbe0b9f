//! The decision, rule by rule.

mod credentials;
mod eligibility;
mod settings;
mod split;

use std::collections::BTreeMap;

use super::*;
use crate::{
    AgentRuntimeSpec, TargetRef, WorkloadType,
    gates::FeatureGates,
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    platform::PlatformConfig,
};

type Map = BTreeMap<String, String>;

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A whole world with the defaults of the chapter's scenarios: namespace `team1` is enabled and has Keycloak,
/// SPIRE is there, the Pod is an agent of workload `weather`.
struct World {
    gates: FeatureGates,
    platform: PlatformConfig,
    spire_driver: bool,
    namespace: String,
    namespace_labels: Map,
    runtime_config: Result<RuntimeConfig, crate::yaml::YamlError>,
    authbridge: Map,
    labels: Map,
    annotations: Map,
    spec: Option<AgentRuntimeSpec>,
}

impl World {
    fn new() -> Self {
        Self {
            gates: FeatureGates::default(),
            platform: PlatformConfig::default(),
            spire_driver: true,
            namespace: "team1".into(),
            namespace_labels: map(&[("kagenti-enabled", "true")]),
            runtime_config: Ok(RuntimeConfig::default()),
            authbridge: map(&[("KEYCLOAK_URL", "http://kc:8080"), ("KEYCLOAK_REALM", "r")]),
            labels: map(&[("kagenti.io/type", "agent")]),
            annotations: Map::new(),
            spec: None,
        }
    }

    /// As [`Self::new`] with layout split of the platform file.
    fn split() -> Self {
        Self::new().platform("sidecars: {layout: split}")
    }

    fn platform(mut self, text: &str) -> Self {
        self.platform = PlatformConfig::parse(text).expect("valid platform file").value;
        self
    }

    fn gates(mut self, text: &str) -> Self {
        self.gates = FeatureGates::parse(text).expect("valid gates").value;
        self
    }

    fn config(mut self, text: &str) -> Self {
        self.runtime_config = RuntimeConfig::parse(text);
        self
    }

    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    fn authbridge(mut self, pairs: &[(&str, &str)]) -> Self {
        self.authbridge = map(pairs);
        self
    }

    fn no_spire(mut self) -> Self {
        self.spire_driver = false;
        self
    }

    /// Adds an AgentRuntime and lets the caller fill it.
    fn cr(mut self, fill: impl FnOnce(&mut AgentRuntimeSpec)) -> Self {
        let mut spec = AgentRuntimeSpec {
            workload_type: WorkloadType::Agent,
            target_ref: TargetRef::default(),
            identity: None,
            auth_bridge_mode: None,
            mtls_mode: None,
            tls_bridge_mode: None,
            inbound_interception: None,
            egress_enforcement: None,
        };
        fill(&mut spec);
        self.spec = Some(spec);
        self
    }

    fn decide_with(&self, adjust: impl FnOnce(&mut Inputs<'_>)) -> Decision {
        let mut inputs = Inputs {
            cluster: ClusterFacts {
                gates: &self.gates,
                platform: &self.platform,
                spire_driver: self.spire_driver,
                operator_namespace: "kagenti-system",
            },
            namespace: NamespaceFacts {
                name: &self.namespace,
                labels: Some(&self.namespace_labels),
                runtime_config: match &self.runtime_config {
                    Ok(config) => RuntimeDocument::Parsed(config),
                    Err(error) => RuntimeDocument::Malformed(error),
                },
                authbridge: AuthbridgeConfig(Some(&self.authbridge)),
            },
            pod: PodFacts {
                workload: "weather",
                labels: Some(&self.labels),
                annotations: Some(&self.annotations),
                ..PodFacts::default()
            },
            runtime: self.spec.as_ref(),
        };
        adjust(&mut inputs);
        decide(&inputs)
    }

    fn decide(&self) -> Decision {
        self.decide_with(|_| {})
    }
}

fn codes(decision: &Decision) -> Vec<WarningCode> {
    decision.warnings.iter().map(|warning| warning.code).collect()
}

fn denied(decision: &Decision) -> Option<DenyReason> {
    match &decision.outcome {
        Outcome::Deny(denial) => Some(denial.reason),
        _ => None,
    }
}
