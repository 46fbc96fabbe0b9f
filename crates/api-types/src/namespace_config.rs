//! What a namespace configures: `authbridge-runtime-config` and `authbridge-config` (webhook §7.3, runtime §4).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::yaml::{self, YamlError};

/// Key `config.yaml` of ConfigMap `authbridge-runtime-config`, parsed once per version.
///
/// The extracted settings are `None` when the key is missing, empty or not a scalar: the next layer decides. A
/// scalar of another type than string is kept as its text, so it is reported as an invalid value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeConfig {
    /// The whole document, base of the per-workload file.
    pub document: Map<String, Value>,
    /// Top-level `mode`.
    pub mode: Option<String>,
    /// `mtls.mode`.
    pub mtls_mode: Option<String>,
    /// `tls_bridge.mode`.
    pub tls_bridge_mode: Option<String>,
    /// Top-level `egressEnforcement`.
    pub egress_enforcement: Option<String>,
    /// `listener.inbound_interception`.
    pub inbound_interception: Option<String>,
    /// Top-level `sidecarLayout` (split §1).
    pub sidecar_layout: Option<String>,
}

impl RuntimeConfig {
    /// Parses `config.yaml`. An empty text is an empty map; a root that is not a map is an error.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let document = match yaml::parse_value(text)? {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            _ => return Err(YamlError { message: "the root must be a map".into(), line: 1, column: 1 }),
        };
        let top = |key: &str| scalar(document.get(key));
        let nested =
            |section: &str, key: &str| scalar(document.get(section).and_then(|value| value.get(key)));
        Ok(Self {
            mode: top("mode"),
            mtls_mode: nested("mtls", "mode"),
            tls_bridge_mode: nested("tls_bridge", "mode"),
            egress_enforcement: top("egressEnforcement"),
            inbound_interception: nested("listener", "inbound_interception"),
            sidecar_layout: top("sidecarLayout"),
            document,
        })
    }

    /// The document brings its own `pipeline`, which is then left as it is (webhook §12.1 step 2).
    pub fn has_pipeline(&self) -> bool {
        match self.document.get("pipeline") {
            None | Some(Value::Null) => false,
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(_) => true,
        }
    }
}

fn scalar(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The flat keys of ConfigMap `authbridge-config`; an absent ConfigMap is an empty one.
///
/// Accessors return trimmed, non-empty values.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthbridgeConfig<'a>(pub Option<&'a BTreeMap<String, String>>);

impl<'a> AuthbridgeConfig<'a> {
    /// The value of a key, trimmed; `None` when absent or blank.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0?.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// `KEYCLOAK_URL`.
    pub fn keycloak_url(&self) -> Option<&'a str> {
        self.get("KEYCLOAK_URL")
    }

    /// `KEYCLOAK_REALM`.
    pub fn keycloak_realm(&self) -> Option<&'a str> {
        self.get("KEYCLOAK_REALM")
    }

    /// `TOKEN_URL`.
    pub fn token_url(&self) -> Option<&'a str> {
        self.get("TOKEN_URL")
    }

    /// `ISSUER` as written; see [`Self::issuer`].
    pub fn issuer_key(&self) -> Option<&'a str> {
        self.get("ISSUER")
    }

    /// The issuer of webhook §12.1 step 2: `ISSUER`, else `<KEYCLOAK_URL>/realms/<KEYCLOAK_REALM>` when both are
    /// set.
    pub fn issuer(&self) -> Option<String> {
        if let Some(issuer) = self.issuer_key() {
            return Some(issuer.to_owned());
        }
        let url = self.keycloak_url()?.trim_end_matches('/');
        Some(format!("{url}/realms/{}", self.keycloak_realm()?))
    }

    /// `CLIENT_AUTH_TYPE`.
    pub fn client_auth_type(&self) -> Option<&'a str> {
        self.get("CLIENT_AUTH_TYPE")
    }

    /// `JWT_AUDIENCE`.
    pub fn jwt_audience(&self) -> Option<&'a str> {
        self.get("JWT_AUDIENCE")
    }

    /// `DEFAULT_OUTBOUND_POLICY`.
    pub fn default_outbound_policy(&self) -> Option<&'a str> {
        self.get("DEFAULT_OUTBOUND_POLICY")
    }

    /// `KEYCLOAK_URL` and `KEYCLOAK_REALM` are set, so client-registration-ctl can write the credentials Secret
    /// (webhook §11.3).
    pub fn can_register(&self) -> bool {
        self.keycloak_url().is_some() && self.keycloak_realm().is_some()
    }
}

/// Has the namespace an identity provider (webhook §12.1 step 2)? Yes when `authbridge-config` has one of
/// `KEYCLOAK_URL`, `ISSUER`, `TOKEN_URL`, or the namespace brings its own `pipeline`.
pub fn has_identity_provider(authbridge: AuthbridgeConfig<'_>, runtime: Option<&RuntimeConfig>) -> bool {
    runtime.is_some_and(RuntimeConfig::has_pipeline)
        || authbridge.keycloak_url().is_some()
        || authbridge.issuer_key().is_some()
        || authbridge.token_url().is_some()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn settings_are_found_at_their_places() {
        let config = RuntimeConfig::parse(
            "mode: lite\nmtls: {mode: strict}\ntls_bridge: {mode: enabled}\negressEnforcement: none\n\
             listener: {inbound_interception: transparent}\nsidecarLayout: split\nextra: 1\n",
        )
        .expect("config");
        assert_eq!(config.mode.as_deref(), Some("lite"));
        assert_eq!(config.mtls_mode.as_deref(), Some("strict"));
        assert_eq!(config.tls_bridge_mode.as_deref(), Some("enabled"));
        assert_eq!(config.egress_enforcement.as_deref(), Some("none"));
        assert_eq!(config.inbound_interception.as_deref(), Some("transparent"));
        assert_eq!(config.sidecar_layout.as_deref(), Some("split"));
        assert_eq!(config.document.len(), 7);
    }

    /// Runtime §4: empty, malformed or missing = next layer; other scalars are kept to be reported.
    #[rstest]
    #[case("", None)]
    #[case("mode:", None)]
    #[case("mode: '  '", None)]
    #[case("mode: {x: y}", None)]
    #[case("mode: [lite]", None)]
    #[case("mode: ' lite '", Some("lite"))]
    #[case("mode: 3", Some("3"))]
    #[case("mode: true", Some("true"))]
    #[case("mode: off", Some("off"))]
    fn one_value(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(RuntimeConfig::parse(text).expect("config").mode.as_deref(), expected);
    }

    #[rstest]
    #[case("mode: [")]
    #[case("text")]
    #[case("[1, 2]")]
    fn other_roots_are_errors(#[case] text: &str) {
        let error = RuntimeConfig::parse(text).expect_err("not a map");
        assert_eq!(error.line, 1);
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Webhook §12.1 step 2.
    #[rstest]
    #[case(&[("ISSUER", " i "), ("KEYCLOAK_URL", "u"), ("KEYCLOAK_REALM", "r")], Some("i"))]
    #[case(&[("KEYCLOAK_URL", "http://kc:8080/"), ("KEYCLOAK_REALM", "r")], Some("http://kc:8080/realms/r"))]
    #[case(&[("KEYCLOAK_URL", "u")], None)]
    #[case(&[], None)]
    fn issuer(#[case] data: &[(&str, &str)], #[case] expected: Option<&str>) {
        assert_eq!(AuthbridgeConfig(Some(&map(data))).issuer().as_deref(), expected);
    }

    #[test]
    fn absent_is_empty() {
        let absent = AuthbridgeConfig(None);
        assert!(!absent.can_register());
        assert!(!has_identity_provider(absent, None));
        let data = map(&[("KEYCLOAK_URL", "u"), ("KEYCLOAK_REALM", " ")]);
        assert!(!AuthbridgeConfig(Some(&data)).can_register());
        assert!(has_identity_provider(AuthbridgeConfig(Some(&data)), None));
    }
}
