//! Values files: read as Helm reads them, merged as Helm merges them, written so that Helm reads the same again.

use serde_json::{Map, Value};

/// The values of a chart; keys in any order.
pub type Yaml = Map<String, Value>;

/// A text that is no values file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not YAML, or more of it than any values file needs.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// One line.
        message: String,
        /// From 1; 0 = unknown.
        line: u64,
        /// From 1; 0 = unknown.
        column: u64,
    },
    /// YAML, but a list or a single value.
    #[error("it holds {0}, and values are a map of keys")]
    NoMap(&'static str),
}

/// Reads one document. Empty text and `null` are no values; the last of two equal keys counts; `yes` and `on` are booleans,
/// as they are for Helm.
pub fn read(text: &str) -> Result<Yaml, Unreadable> {
    if text.trim().is_empty() {
        return Ok(Yaml::new());
    }
    // Budgets: a file of 1 MiB with some aliases is fine, one that unfolds to gigabytes is not.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            flow_nesting_limit: 64,
            max_nodes: 500_000,
            max_events: 1_000_000,
            max_recorded_anchor_events: 100_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        emit_comments: false,
        strict_booleans: false,
        legacy_octal_numbers: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = error.without_snippet().to_string();
        let message = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("not YAML");
        Unreadable::Syntax { message: message.chars().take(200).collect(), line, column }
    })?;
    match value {
        Value::Null => Ok(Yaml::new()),
        Value::Object(map) => Ok(map),
        Value::Array(_) => Err(Unreadable::NoMap("a list")),
        _ => Err(Unreadable::NoMap("a single value")),
    }
}

/// What two `-f` mean: maps are merged key by key, everything else of the later one, null among it, replaces.
pub fn merge(earlier: &mut Yaml, later: Yaml) {
    for (key, value) in later {
        match (earlier.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(more)) => merge(below, more),
            (_, value) => {
                earlier.insert(key, value);
            }
        }
    }
}

/// YAML with sorted keys, ending in a newline; the same values give the same bytes. Texts that older YAML, which Helm reads,
/// takes for something else are quoted.
pub fn write(values: &Yaml) -> String {
    if values.is_empty() {
        return "{}\n".to_owned();
    }
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let sorted = sorted(&Value::Object(values.clone()));
    // Maps with text keys, lists and scalars can always be written.
    let mut text = serde_saphyr::to_string_with_options(&sorted, options).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A copy whose maps are ordered by key at every level.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            Value::Object(members.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::empty("", json!({}))]
    #[case::comment("# nothing\n", json!({}))]
    #[case::null("null\n", json!({}))]
    #[case::start("---\nnull\n", json!({}))]
    #[case::switches("{a: yes, b: Off, c: TRUE, d: y, e: \"yes\"}", json!({"a": true, "b": false, "c": true, "d": true, "e": "yes"}))]
    #[case::octal("{a: 0777, b: 0o17}", json!({"a": 511, "b": 15}))]
    #[case::last_wins("a: 1\na: 2\n", json!({"a": 2}))]
    #[case::nulls("{a: ~, b: null, c: }", json!({"a": null, "b": null, "c": null}))]
    #[case::alias("a: &x {k: v}\nb: {<<: *x, l: w}\n", json!({"a": {"k": "v"}, "b": {"k": "v", "l": "w"}}))]
    fn reads_as_helm_does(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(read(text).map(Value::Object), Ok(expected));
    }

    #[rstest]
    #[case::list("[1]", "it holds a list, and values are a map of keys")]
    #[case::scalar("Error: release: not found", "")]
    #[case::scalar("hello", "it holds a single value, and values are a map of keys")]
    #[case::unclosed("a: 1\nb: [", "line ")]
    #[case::two_documents("a: 1\n---\nb: 2\n", "")]
    fn refuses_with_a_reason(#[case] text: &str, #[case] says: &str) {
        let said = read(text).expect_err("no values").to_string();
        assert!(said.starts_with(says) && !said.contains('\n'), "{said}");
    }

    #[test]
    fn hostile_documents_are_refused() {
        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"].windows(2).map(|pair| (pair[0], pair[1])) {
            let refs = vec![format!("*{from}"); 9].join(", ");
            bomb = format!("{bomb}{to}: &{to} [{refs}]\n");
        }
        for text in [bomb, "[".repeat(100_000), "{a: ".repeat(5_000), "- ".repeat(50_000)] {
            assert!(read(&text).is_err());
        }
    }

    #[test]
    fn later_files_replace_all_but_maps() {
        let mut values = Yaml::new();
        for text in ["{a: {b: 1, c: [1, 2]}, d: 1}", "{a: {c: [3]}, d: null}", "{a: {e: {}}, f: x}"] {
            merge(&mut values, read(text).expect("yaml"));
        }
        assert_eq!(Value::Object(values), json!({"a": {"b": 1, "c": [3], "e": {}}, "d": null, "f": "x"}));
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(write(&Yaml::new()), "{}\n");
        let Value::Object(values) = json!({
            "z": "yes", "a": "0777", "b": "1_000", "c": "on", "d": "2001-01-01", "e": "1:30", "f": ["~", "", null, {}, []],
            "g": {"y": 1, "x.y/z": "a: b"}, "h": "é\u{85}\u{2028}\u{7f}\u{7} ", "i": "line\nline\n", "j": "'\"\\", "k": 1.5, "l": -3,
        }) else {
            panic!("a map")
        };
        let written = write(&values);
        assert!(written.starts_with("a: "), "{written}");
        assert_eq!(read(&written).as_ref(), Ok(&values), "{written}");
    }
}
