//! Feature gates: cluster policy that no namespace can override (runtime §4, webhook §7.2, split §3).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    injection::Layout,
    names::configmap,
    yaml::{self, Parsed, YamlError},
};

/// The gates; [`Default`] gives the compiled defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureGates {
    /// `globalEnabled`: inject at all. Default true.
    pub global_enabled: bool,
    /// `envoyProxy`: inject in mode envoy-sidecar. Default true.
    pub envoy_proxy: bool,
    /// `injectTools`: type `tool` is injected too. Default false.
    pub inject_tools: bool,
    /// `perWorkloadConfigResolution`: environment of the Envoy sidecar as literals. Default false.
    pub per_workload_config_resolution: bool,
    /// `skillDiscovery`: runtime-ctl copies linked skills to the status. Default false.
    pub skill_discovery: bool,
    /// `clientRegistration`: credentials are registered, by either way. Default true.
    pub client_registration: bool,
    /// `spiffeHelper`: layout `split` only. `None` = not in the file, which means true.
    pub spiffe_helper: Option<bool>,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self {
            global_enabled: true,
            envoy_proxy: true,
            inject_tools: false,
            per_workload_config_resolution: false,
            skill_discovery: false,
            client_registration: true,
            spiffe_helper: None,
        }
    }
}

impl FeatureGates {
    /// The gate `spiffeHelper` as layout `split` sees it (split §3): true unless the file says false.
    pub fn spiffe_helper(&self) -> bool {
        self.spiffe_helper.unwrap_or(true)
    }

    /// The sentence to log when the file sets a gate that the platform's layout does not have (split §3).
    pub fn ignored_in(&self, layout: Layout) -> Option<&'static str> {
        (layout == Layout::Combined && self.spiffe_helper.is_some())
            .then_some("feature gate spiffeHelper: only used in layout split, ignored")
    }

    /// Parses a gates file. Missing keys keep their default; presence of a key decides, never the values
    /// (webhook §7.2). Values that are not YAML booleans are ignored and listed.
    pub fn parse(text: &str) -> Result<Parsed<Self>, YamlError> {
        let document = match yaml::parse_switches(text)? {
            Value::Null => return Ok(Parsed::default()),
            Value::Object(map) => map,
            _ => {
                return Err(YamlError {
                    message: "the root of the feature gates must be a map of gate names to booleans".into(),
                    line: 1,
                    column: 1,
                });
            }
        };
        let mut parsed = Parsed::<Self>::default();
        for (key, value) in &document {
            let Value::Bool(on) = *value else {
                parsed.ignored.push(format!("feature gate {key}: not a boolean, the default is used"));
                continue;
            };
            let gates = &mut parsed.value;
            match key.as_str() {
                "globalEnabled" => gates.global_enabled = on,
                "envoyProxy" => gates.envoy_proxy = on,
                "injectTools" => gates.inject_tools = on,
                "perWorkloadConfigResolution" => gates.per_workload_config_resolution = on,
                "skillDiscovery" => gates.skill_discovery = on,
                "clientRegistration" => gates.client_registration = on,
                "spiffeHelper" => gates.spiffe_helper = Some(on),
                _ => parsed.ignored.push(format!("feature gate {key}: unknown, ignored")),
            }
        }
        Ok(parsed)
    }

    /// Parses the data of ConfigMap `kagenti-feature-gates`: key `feature-gates.yaml` when it is a non-empty
    /// map, else the first other key in sorted order that is one (client-registration §2.2), else the defaults.
    ///
    /// An error is returned only when no key gave gates and `feature-gates.yaml` is not YAML.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Parsed<Self>, YamlError> {
        let own = data.get(configmap::GATES_KEY);
        let others = data.iter().filter(|(key, _)| *key != configmap::GATES_KEY).map(|(_, text)| text);
        for text in own.into_iter().chain(others) {
            if matches!(yaml::parse_switches(text), Ok(Value::Object(map)) if !map.is_empty()) {
                return Self::parse(text);
            }
        }
        own.map_or_else(|| Ok(Parsed::default()), |text| Self::parse(text))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> FeatureGates {
        FeatureGates::parse(text).expect("gates").value
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case("# only a comment\n")]
    fn an_empty_file_means_the_defaults(#[case] text: &str) {
        assert_eq!(parse(text), FeatureGates::default());
        assert!(parse(text).spiffe_helper());
    }

    /// Webhook §7.2: an explicit all-false file means all false; the kill switch must not turn injection on.
    #[test]
    fn all_false_means_all_false() {
        let gates = parse(
            "globalEnabled: false\nenvoyProxy: false\ninjectTools: false\nperWorkloadConfigResolution: false\n\
             skillDiscovery: false\nclientRegistration: false\nspiffeHelper: false\n",
        );
        assert_eq!(
            gates,
            FeatureGates {
                global_enabled: false,
                envoy_proxy: false,
                inject_tools: false,
                per_workload_config_resolution: false,
                skill_discovery: false,
                client_registration: false,
                spiffe_helper: Some(false),
            }
        );
        assert!(!gates.spiffe_helper());
    }

    #[test]
    fn missing_keys_keep_their_default() {
        assert_eq!(
            parse("injectTools: true"),
            FeatureGates { inject_tools: true, ..FeatureGates::default() }
        );
    }

    #[test]
    fn unknown_gates_and_values_that_are_not_booleans_are_listed() {
        let parsed =
            FeatureGates::parse("combinedSidecar: false\nglobalEnabled: \"false\"\nenvoyProxy: no\n")
                .expect("gates");
        assert_eq!(parsed.value, FeatureGates { envoy_proxy: false, ..FeatureGates::default() });
        assert_eq!(
            parsed.ignored,
            [
                "feature gate combinedSidecar: unknown, ignored",
                "feature gate globalEnabled: not a boolean, the default is used"
            ]
        );
    }

    #[rstest]
    #[case("globalEnabled: [")]
    #[case("- globalEnabled")]
    #[case("false")]
    fn other_documents_are_errors(#[case] text: &str) {
        assert!(FeatureGates::parse(text).is_err());
    }

    #[rstest]
    #[case("spiffeHelper: true", Layout::Combined, true)]
    #[case("spiffeHelper: true", Layout::Split, false)]
    #[case("", Layout::Combined, false)]
    fn the_gate_of_the_other_layout_is_reported(
        #[case] text: &str,
        #[case] layout: Layout,
        #[case] reported: bool,
    ) {
        assert_eq!(parse(text).ignored_in(layout).is_some(), reported);
    }

    /// Client-registration §2.2.
    #[rstest]
    #[case::own(&[("feature-gates.yaml", "injectTools: true"), ("a", "injectTools: false")], Some(true))]
    #[case::empty_own(&[("feature-gates.yaml", "{}"), ("gates.yaml", "injectTools: true")], Some(true))]
    #[case::broken_own(&[("feature-gates.yaml", "["), ("gates.yaml", "injectTools: true")], Some(true))]
    #[case::first_other(&[("a.yaml", "x"), ("b.yaml", "injectTools: true"), ("c.yaml", "injectTools: false")], Some(true))]
    #[case::nothing(&[], Some(false))]
    #[case::only_broken(&[("feature-gates.yaml", "[")], None)]
    fn from_data(#[case] data: &[(&str, &str)], #[case] inject_tools: Option<bool>) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let got = FeatureGates::from_data(&data).ok().map(|parsed| parsed.value.inject_tools);
        assert_eq!(got, inject_tools);
    }
}
