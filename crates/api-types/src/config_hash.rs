//! The configuration hash whose change rolls pods (runtime §5).

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{names::configmap, yaml};

/// Data of a ConfigMap; `binaryData` never counts.
pub type Data = BTreeMap<String, String>;

/// The hash of the previous operator (runtime §5.1), lowercase hex SHA-256. Needed for adoption only.
///
/// `platform` is overlaid key by key with `namespace_defaults`; `runtime` is `config.yaml` of
/// `authbridge-runtime-config`. Empty = absent.
pub fn v1(gates: &Data, platform: &Data, namespace_defaults: &Data, runtime: &str) -> String {
    let mut defaults: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in platform.iter().chain(namespace_defaults) {
        defaults.insert(key, value);
    }
    let mut json = String::from("{");
    let mut member = |name: &str, write: &dyn Fn(&mut String)| {
        if json.len() > 1 {
            json.push(',');
        }
        v1_string(&mut json, name);
        json.push(':');
        write(&mut json);
    };
    if !gates.is_empty() {
        member("featureGates", &|json| v1_object(json, gates.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
    }
    if !defaults.is_empty() {
        member("defaults", &|json| v1_object(json, defaults.iter().map(|(k, v)| (*k, *v))));
    }
    if !runtime.is_empty() {
        member("authBridgeRuntime", &|json| v1_string(json, runtime));
    }
    json.push('}');
    hex::encode(Sha256::digest(json))
}

fn v1_object<'a>(json: &mut String, members: impl Iterator<Item = (&'a str, &'a str)>) {
    json.push('{');
    for (n, (key, value)) in members.enumerate() {
        if n > 0 {
            json.push(',');
        }
        v1_string(json, key);
        json.push(':');
        v1_string(json, value);
    }
    json.push('}');
}

/// A JSON string with the escapes of the previous operator's encoder.
fn v1_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
}

/// Every v1 hash an adopted workload may carry (runtime §5.4): the 8 combinations of gates, platform and runtime
/// present or emptied, for each labelled ConfigMap as the overlay. Sorted, without repetition.
pub fn v1_candidates(gates: &Data, platform: &Data, labelled: &[&Data], runtime: &str) -> Vec<String> {
    let empty = Data::new();
    let none = [&empty];
    let overlays = if labelled.is_empty() { &none[..] } else { labelled };
    let mut hashes = Vec::with_capacity(8 * overlays.len());
    for overlay in overlays {
        for gates in [gates, &empty] {
            for platform in [platform, &empty] {
                for runtime in [runtime, ""] {
                    hashes.push(v1(gates, platform, overlay, runtime));
                }
            }
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    hashes
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
///
/// A member is the data of one ConfigMap. Values under keys ending in `.yaml` or `.yml` count as what they mean,
/// so comments, white space and the order of keys do not matter; a value that is not YAML counts as text, with a
/// warning. The gate `skillDiscovery` does not count: no pod reads it.
pub fn v2(inputs: &HashInputs<'_>) -> HashResult {
    let mut warnings = Vec::new();
    let defaults = choose_defaults(inputs, &mut warnings);
    let defaults_name = defaults.map_or("", |chosen| chosen.name);
    // In the order of their names, which is part of the canonical form.
    let members: [(&str, &str, Option<&Data>); 8] = [
        ("authbridgeConfig", configmap::AUTHBRIDGE, inputs.authbridge_config),
        ("authbridgeRuntime", configmap::AUTHBRIDGE_RUNTIME, inputs.authbridge_runtime),
        ("authproxyRoutes", configmap::AUTHPROXY_ROUTES, inputs.authproxy_routes),
        ("envoy", configmap::ENVOY, inputs.envoy),
        (FEATURE_GATES, configmap::FEATURE_GATES, inputs.feature_gates),
        ("namespaceDefaults", defaults_name, defaults.map(|chosen| chosen.data)),
        ("platform", configmap::PLATFORM, inputs.platform),
        ("spiffeHelper", configmap::SPIFFE_HELPER, inputs.spiffe_helper),
    ];
    let mut json = String::from("{\"v\":2");
    for (member, name, data) in members {
        let Some(data) = data.filter(|data| !data.is_empty()) else { continue };
        json.push(',');
        string(&mut json, member);
        json.push_str(":{");
        for (n, (key, text)) in data.iter().enumerate() {
            if n > 0 {
                json.push(',');
            }
            string(&mut json, key);
            json.push(':');
            match meaning(member, name, key, text, &mut warnings) {
                Some(value) => canonical(&mut json, &value),
                None => string(&mut json, text),
            }
        }
        json.push('}');
    }
    json.push('}');
    HashResult { hash: hex::encode(Sha256::digest(json)), warnings }
}

const FEATURE_GATES: &str = "featureGates";

/// The labelled ConfigMap in force: the first by name that is not `authbridge-config`.
fn choose_defaults<'a>(inputs: &HashInputs<'a>, warnings: &mut Vec<String>) -> Option<NamedData<'a>> {
    let mut candidates: Vec<NamedData<'a>> = inputs
        .labelled_defaults
        .iter()
        .filter(|candidate| candidate.name != configmap::AUTHBRIDGE)
        .copied()
        .collect();
    candidates.sort_by(|a, b| a.name.cmp(b.name));
    let first = *candidates.first()?;
    if candidates.len() > 1 {
        let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name).collect();
        warnings.push(format!(
            "multiple namespace defaults ConfigMaps found in {} (expected at most one): [{}]; using {}",
            inputs.namespace,
            names.join(" "),
            first.name
        ));
    }
    Some(first)
}

/// The value under a YAML key; `None` = it counts as text.
fn meaning(member: &str, name: &str, key: &str, text: &str, warnings: &mut Vec<String>) -> Option<Value> {
    let is_yaml = key.rsplit_once('.').is_some_and(|(_, suffix)| matches!(suffix, "yaml" | "yml"));
    if !is_yaml {
        return None;
    }
    let mut value = match yaml::parse_value(text) {
        Ok(value) => value,
        Err(error) => {
            warnings
                .push(format!("ConfigMap {name}, key {key}: not valid YAML: {error}; its text is compared"));
            return None;
        }
    };
    if member == FEATURE_GATES {
        if value.is_null() {
            value = Value::Object(serde_json::Map::new());
        }
        if let Value::Object(gates) = &mut value {
            gates.remove("skillDiscovery");
        }
    }
    Some(value)
}

/// JSON with sorted keys and without white space; integers as integers, other numbers in their shortest form.
fn canonical(json: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = write!(json, "{value}");
        }
        Value::String(text) => string(json, text),
        Value::Array(items) => {
            json.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    json.push(',');
                }
                canonical(json, item);
            }
            json.push(']');
        }
        Value::Object(map) => {
            json.push('{');
            for (n, (key, item)) in yaml::by_key(map).into_iter().enumerate() {
                if n > 0 {
                    json.push(',');
                }
                string(json, key);
                json.push(':');
                canonical(json, item);
            }
            json.push('}');
        }
    }
}

/// A JSON string.
fn string(json: &mut String, text: &str) {
    json.push_str(&serde_json::to_string(text).map_or(Cow::Borrowed("\"\""), Cow::Owned));
}

#[cfg(test)]
mod tests;
