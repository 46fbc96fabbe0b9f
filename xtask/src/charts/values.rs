//! Tables of values. Of a chart's own keys meaning and default are in its values.yaml; of the keys of `global` the meaning
//! is in xtask/charts/shared.yaml and the default in the library.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::{built_in, fragments};

/// Begins the meaning of the key below it.
const MEANING: &str = "# -- ";

/// Keys that are handed to Kubernetes: without a value they are its business (packaging §3.2).
const HANDED_ON: [&str; 10] = [
    "affinity",
    "livenessProbe",
    "pdb",
    "readinessProbe",
    "replicas",
    "resources",
    "startupProbe",
    "terminationGracePeriodSeconds",
    "topologySpreadConstraints",
    "updateStrategy",
];

/// The text of a chart's values.yaml, and what it says.
fn read(root: &Path, chart: &str) -> Result<(String, Value)> {
    let path = root.join(format!("charts/{chart}/values.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let values = serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok((text, values))
}

/// The defaults of a chart's own settings, those apart that are handed to Kubernetes.
pub(super) fn settings(root: &Path, chart: &str) -> Result<Value> {
    let (_, mut values) = read(root, chart)?;
    without_handed_on(&mut values);
    Ok(values)
}

fn without_handed_on(values: &mut Value) {
    let Some(map) = values.as_object_mut() else { return };
    map.retain(|key, _| !HANDED_ON.contains(&key.as_str()));
    map.values_mut().for_each(without_handed_on);
}

/// Rows of a chart's own values.
pub(super) fn table(root: &Path, chart: &str) -> Result<String> {
    let (text, values) = read(root, chart)?;
    let mut table = String::from("| key | default | meaning |\n|---|---|---|\n");
    for (key, given, meaning) in documented(&text) {
        let pointer = format!("/{}", key.replace('.', "/"));
        let default = match given {
            Some(text) => format!("unset (`{text}`)"),
            None => shown(values.pointer(&pointer).with_context(|| format!("{chart}: no value at {key}"))?),
        };
        writeln!(table, "| `{key}` | {default} | {} |", meaning.replace('|', "\\|"))?;
    }
    Ok(table)
}

/// Keys with their meanings, in the order of the file. A key that is itself a comment has no value, only what it shows.
fn documented(text: &str) -> Vec<(String, Option<String>, String)> {
    let mut rows = Vec::new();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut meaning: Option<String> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(start) = bare.strip_prefix(MEANING) {
            meaning = Some(start.trim_end().to_owned());
            continue;
        }
        let comment = bare.strip_prefix("# ");
        let (Some((key, rest)), true) = (comment.unwrap_or(bare).split_once(':'), !bare.is_empty()) else {
            if let (Some(more), Some(meaning)) = (comment, &mut meaning) {
                meaning.push(' ');
                meaning.push_str(more.trim_end());
            }
            continue;
        };
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain {
            // A sentence with a colon in it goes on.
            if let (Some(more), Some(meaning)) = (comment, &mut meaning) {
                meaning.push(' ');
                meaning.push_str(more.trim_end());
            }
            continue;
        }
        if comment.is_none() || meaning.is_some() {
            parents.retain(|(at, _)| *at < indent);
        }
        if let Some(meaning) = meaning.take() {
            let path: Vec<&str> = parents.iter().map(|(_, key)| key.as_str()).chain([key]).collect();
            let given = comment.map(|_| rest.trim().to_owned());
            let meaning = meaning.trim_end_matches('.').to_owned();
            rows.push((path.join("."), given, meaning));
        }
        if comment.is_none() {
            parents.push((indent, key.to_owned()));
        }
    }
    rows
}

/// Rows of the keys of `global`.
pub(super) fn global_table(root: &Path) -> Result<String> {
    let mut table =
        String::from("| key | built-in default | on a component too | meaning |\n|---|---|---|---|\n");
    let shared = fragments(root, "shared")?;
    let defaults = built_in(root)?;
    for (name, also) in [("global", ""), ("both", "yes")] {
        let part = shared.get(name).and_then(Value::as_object).context("a part of shared.yaml")?;
        for (path, schema) in leaves(part) {
            let default = defaults.pointer(&format!("/{}", path.replace('.', "/")));
            let default = default.map_or_else(|| "unset".to_owned(), shown);
            writeln!(
                table,
                "| `global.{path}` | {default} | {also} | {} |",
                meaning_of(schema).replace('|', "\\|")
            )?;
        }
    }
    Ok(table)
}

/// The same keys as commented YAML, for a values.yaml. `umbrella` = below `global`, with the keys that only it has.
pub(super) fn commented(root: &Path, umbrella: bool) -> Result<String> {
    let shared = fragments(root, "shared")?;
    let defaults = built_in(root)?;
    let mut text = String::new();
    if umbrella {
        text.push_str("# global:\n");
    }
    for name in [if umbrella { "global" } else { "component" }, "both"] {
        let part = shared.get(name).and_then(Value::as_object).context("a part of shared.yaml")?;
        lines(&mut text, part, &defaults, usize::from(umbrella));
    }
    Ok(text)
}

fn lines(text: &mut String, properties: &Map<String, Value>, defaults: &Value, depth: usize) {
    for (key, schema) in properties {
        let indent = "  ".repeat(depth);
        let default = defaults.get(key).unwrap_or(&Value::Null);
        let inner = schema.get("properties").and_then(Value::as_object);
        if let Some(inner) = inner.filter(|_| schema.get("description").is_none()) {
            let _ = writeln!(text, "# {indent}{key}:");
            lines(text, inner, default, depth + 1);
        } else {
            let shown = if default.is_null() { String::new() } else { format!(" {default}") };
            let _ = writeln!(text, "# {indent}{key}:{shown}  # {}", meaning_of(schema));
        }
    }
}

/// Paths and schemas of everything that has a meaning.
fn leaves(properties: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (key, schema) in properties {
        match schema.get("properties").and_then(Value::as_object) {
            Some(inner) => {
                all.extend(leaves(inner).into_iter().map(|(path, schema)| (format!("{key}.{path}"), schema)));
            }
            None => all.push((key.clone(), schema)),
        }
    }
    all
}

fn meaning_of(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A value in a cell of a table; big ones stay in the file.
fn shown(value: &Value) -> String {
    let text = value.to_string().replace('|', "\\|");
    if text.len() > 90 { "see values.yaml".to_owned() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_gets_is_no_setting_of_ours() {
        let mut values = serde_json::json!({
            "replicas": 1, "port": 9443, "upgradeJob": {"enabled": true, "resources": {"limits": {}}},
        });
        without_handed_on(&mut values);
        assert_eq!(values, serde_json::json!({"port": 9443, "upgradeJob": {"enabled": true}}));
    }

    #[test]
    fn meanings_belong_to_the_key_below_them() {
        let text = "# A head: nothing.\n\n# -- First.\n# Goes on.\na: 1\nb:\n  # -- Second.\n  c: {x: y}\n  # plain\n  d: 2\n\
                    # -- Third.\n# e: 3\n";
        let rows = documented(text);
        let row = |key: &str, given: Option<&str>, meaning: &str| {
            (key.into(), given.map(Into::into), meaning.into())
        };
        assert_eq!(
            rows,
            [row("a", None, "First. Goes on"), row("b.c", None, "Second"), row("e", Some("3"), "Third")]
        );
    }
}
