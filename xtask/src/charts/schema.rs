//! values.schema.json: draft-07, because older releases of Helm 3 know nothing newer. Every object we own is closed, so
//! that a misspelt key fails; null is allowed everywhere, because it means "not set".

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{CHARTS, Chart, Kind, fragments};

type Properties = Map<String, Value>;

/// Top-level keys of the previous chart; the render check answers them, not the schema.
const LEGACY: [&str; 20] = [
    "controllerManager",
    "rbac",
    "metrics",
    "prometheus",
    "networkPolicy",
    "webhook",
    "certmanager",
    "crd",
    "enforceNetworkPolicies",
    "keycloak",
    "authbridgeConfig",
    "mlflow",
    "verifiedFetch",
    "signatureVerification",
    "sigstore",
    "kuadrant",
    "otelBootstrap",
    "spiffe",
    "fullnameOverride",
    "nameOverride",
];

/// The schema of a chart's values.
pub(super) fn of(root: &Path, chart: &Chart) -> Result<Value> {
    let mut properties = if chart.kind == Kind::Umbrella { umbrella(root)? } else { own(root, chart)? };
    let shared = fragments(root, "shared")?;
    let mut global = part(&shared, "global")?;
    global.extend(part(&shared, "both")?);
    // A chart above ours may share `global`: unknown keys are the render check's to judge.
    let global = closed(json!({"type": "object", "properties": global, "additionalProperties": true}));
    properties.insert("global".to_owned(), global);
    // Helm itself adds the name of each dependency.
    properties.insert("kagenti-lib".to_owned(), json!({"type": "object"}));
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if chart.kind == Kind::Umbrella {
        let keys = fragments(root, "kagenti-operator")?;
        let own = keys.get("required").and_then(Value::as_array).context("no part required")?;
        let toggles = toggled().map(|chart| Value::from(chart.folder));
        let all: Vec<Value> = toggles.chain(own.iter().cloned()).collect();
        merge(&mut schema, &json!({"required": all}));
    }
    Ok(schema)
}

/// The charts with a toggle in the umbrella.
fn toggled() -> impl Iterator<Item = &'static Chart> {
    CHARTS.iter().filter(|chart| !matches!(chart.kind, Kind::Library | Kind::Umbrella))
}

/// Own keys and those of `global` that a component may set too.
fn own(root: &Path, chart: &Chart) -> Result<Properties> {
    let shared = fragments(root, "shared")?;
    let mut all = json!({"properties": part(&shared, "both")?});
    let mut add = |properties: Properties| merge(&mut all, &json!({"properties": properties}));
    add(part(&shared, "component")?);
    if chart.kind != Kind::Definitions {
        add(object(fragments(root, "own")?)?);
    }
    if chart.kind == Kind::PlatformReader {
        add(object(fragments(root, "platform")?)?);
    }
    add(object(fragments(root, chart.folder)?)?);
    let Value::Object(mut all) = all else { return Ok(Properties::new()) };
    let properties = all.remove("properties").context("properties")?;
    let mut properties: Properties =
        object(properties)?.into_iter().map(|(key, value)| (key, closed(value))).collect();
    // Handed down by the umbrella; alone it means nothing.
    properties.insert("enabled".to_owned(), json!({"type": "boolean"}));
    Ok(properties)
}

fn umbrella(root: &Path) -> Result<Properties> {
    let keys = fragments(root, "kagenti-operator")?;
    let mut properties: Properties =
        part(&keys, "own")?.into_iter().map(|(key, value)| (key, closed(value))).collect();
    for chart in toggled() {
        // Helm validates only charts that are on; a misspelt key of one that is off is found here.
        let mut of = own(root, chart)?;
        of.insert("global".to_owned(), json!({"type": ["object", "null"]}));
        of.insert("kagenti-lib".to_owned(), json!({"type": "object"}));
        let schema = json!({
            "type": "object", "properties": of, "additionalProperties": false, "required": ["enabled"],
        });
        properties.insert(chart.folder.to_owned(), schema);
    }
    let absent = keys.get("absent").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in absent.chain(LEGACY) {
        properties.insert(key.to_owned(), json!({}));
    }
    Ok(properties)
}

fn part(fragments: &Value, name: &str) -> Result<Properties> {
    object(fragments.get(name).cloned().with_context(|| format!("no part {name}"))?)
}

fn object(value: Value) -> Result<Properties> {
    match value {
        Value::Object(map) => Ok(map),
        other => anyhow::bail!("not an object: {other}"),
    }
}

/// Puts `other` into `value`, object by object.
fn merge(value: &mut Value, other: &Value) {
    match (value, other) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, theirs) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), theirs);
            }
        }
        (value, other) => *value = other.clone(),
    }
}

/// Allows null at every node and forbids unknown keys where the known ones are listed.
fn closed(mut schema: Value) -> Value {
    let Some(map) = schema.as_object_mut() else { return schema };
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.push(Value::Null);
    }
    match map.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(kind) => *kind = json!([kind.clone(), "null"]),
        None => {}
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for property in properties.values_mut() {
            *property = closed(property.take());
        }
        map.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_null_means_unset() {
        let schema = closed(json!({
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"enum": ["x"]}, "free": {"type": "object"}},
        }));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["a"]["type"], json!(["string", "null"]));
        assert_eq!(schema["properties"]["b"]["enum"], json!(["x", null]));
        assert_eq!(schema["properties"]["free"].get("additionalProperties"), None);
    }

    #[test]
    fn merging_keeps_both_sides() {
        let mut value = json!({"a": {"b": 1}});
        merge(&mut value, &json!({"a": {"c": 2}, "d": 3}));
        assert_eq!(value, json!({"a": {"b": 1, "c": 2}, "d": 3}));
    }
}
