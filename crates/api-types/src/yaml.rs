//! YAML in and out: hostile documents are bounded, output is the same bytes for the same value.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A text that is not YAML this suite accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct YamlError {
    /// What is wrong, one line, without a copy of the text.
    pub message: String,
    /// Line of the problem, from 1; 0 when unknown.
    pub line: u64,
    /// Column of the problem, from 1; 0 when unknown.
    pub column: u64,
}

/// A parsed configuration together with what in it has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The configuration.
    pub value: T,
    /// One sentence for each key that was ignored, in document order; to be logged.
    pub ignored: Vec<String>,
}

/// Longest text that is parsed, in bytes: more than a ConfigMap can hold.
const MAX_TEXT: usize = 3 * 1024 * 1024 / 2;

/// Parses one YAML document into a JSON value; an empty text is `null`.
///
/// Depth, number of nodes and alias expansion are bounded, so that no text costs more than a small multiple of
/// its length. Duplicate keys are an error. Several documents in one text are an error.
///
/// Plain scalars follow YAML 1.2, as the sidecar reads them: `off`, `yes`, `0755` and `1_000` are strings, so a
/// document that is parsed and written again keeps its meaning.
pub fn parse_value(text: &str) -> Result<Value, YamlError> {
    parse(text, true)
}

/// As [`parse_value`], but `yes`, `no`, `on` and `off` are booleans (YAML 1.1), for files of switches.
pub(crate) fn parse_switches(text: &str) -> Result<Value, YamlError> {
    parse(text, false)
}

fn parse(text: &str, strict_booleans: bool) -> Result<Value, YamlError> {
    if text.len() > MAX_TEXT {
        return Err(YamlError { message: format!("longer than {MAX_TEXT} bytes"), line: 0, column: 0 });
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            flow_nesting_limit: 64,
            max_nodes: 100_000,
            max_events: 250_000,
            max_recorded_anchor_events: 20_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
        },
        emit_comments: false,
        strict_booleans: strict_booleans,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        YamlError { message: first_line(&error.without_snippet().to_string()), line, column }
    })
}

/// The first line of a message, at most 200 characters.
fn first_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("not YAML")
        .chars()
        .take(200)
        .collect()
}

/// Writes a value as YAML with the keys of every map in UTF-8 order, ending in a newline.
///
/// The same value gives the same bytes, whatever order its maps were filled in.
pub fn to_yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        prefer_block_scalars: false,
    };
    let mut text = serde_saphyr::to_string_with_options(&sorted(value), options).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A copy whose maps are ordered by key at every level.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(by_key(map).into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// The members of a map in UTF-8 order of their keys.
pub(crate) fn by_key(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_by(|(a, _), (b, _)| -> Ordering { a.cmp(b) });
    members
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::empty("", json!(null))]
    #[case::blank(" \n\n", json!(null))]
    #[case::comment("# nothing\n", json!(null))]
    #[case::map("a: 1\nb: [x, 2.5, true, ~]\n", json!({"a": 1, "b": ["x", 2.5, true, null]}))]
    #[case::json("{\"a\": \"b\"}", json!({"a": "b"}))]
    #[case::number_key("8080: x", json!({"8080": "x"}))]
    #[case::alias("a: &x {k: v}\nb: *x\n", json!({"a": {"k": "v"}, "b": {"k": "v"}}))]
    #[case::merge("a: &x {k: v}\nb: {<<: *x, l: w}\n", json!({"a": {"k": "v"}, "b": {"k": "v", "l": "w"}}))]
    #[case::one_document("---\na: 1\n", json!({"a": 1}))]
    #[case::infinite("a: .inf", json!({"a": ".inf"}))]
    fn parses(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(parse_value(text), Ok(expected));
    }

    /// What the sidecar reads as text must not become something else on its way through.
    #[rstest]
    #[case("off")]
    #[case("yes")]
    #[case("n")]
    #[case("0755")]
    #[case("1_000")]
    #[case("12:30:45")]
    fn plain_scalars_of_older_yaml_stay_text(#[case] scalar: &str) {
        let value = parse_value(&format!("key: {scalar}\n")).expect("yaml");
        assert_eq!(value, json!({ "key": scalar }));
        let written = to_yaml(&value);
        assert_eq!(parse_value(&written), Ok(value), "{written}");
    }

    #[test]
    fn switches_may_be_written_in_older_yaml() {
        assert_eq!(parse_switches("a: no\nb: On\n"), Ok(json!({"a": false, "b": true})));
    }

    #[rstest]
    #[case::unclosed("mode: [", 1)]
    #[case::tab("a:\n\t- b", 2)]
    #[case::duplicate("a: 1\nb: 2\na: 3\n", 3)]
    #[case::two_documents("a: 1\n---\nb: 2\n", 0)]
    fn refuses_with_a_position(#[case] text: &str, #[case] line: u64) {
        let error = parse_value(text).expect_err("not accepted");
        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
        assert!(error.message.chars().count() <= 200);
        if line > 0 {
            assert_eq!(error.line, line, "{error:?}");
        }
    }

    /// Documents that would cost memory or stack.
    #[test]
    fn hostile_documents_are_refused() {
        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (from, to) in ["a", "b", "c", "d", "e", "f", "g"].windows(2).map(|pair| (pair[0], pair[1])) {
            let refs = vec![format!("*{from}"); 9].join(", ");
            bomb = format!("{bomb}{to}: &{to} [{refs}]\n");
        }
        let texts =
            [bomb, "[".repeat(100_000), "{a: ".repeat(5_000), "x".repeat(MAX_TEXT + 1), "- ".repeat(50_000)];
        for text in texts {
            assert!(parse_value(&text).is_err());
        }
    }

    #[test]
    fn output_is_sorted_at_every_level_and_ends_in_a_newline() {
        let a = parse_value("z: 1\nb: {x: 1, a: [{d: 1, c: 2}]}\n").expect("yaml");
        let b = parse_value("b: {a: [{c: 2, d: 1}], x: 1}\nz: 1\n").expect("yaml");
        assert_eq!(to_yaml(&a), to_yaml(&b));
        assert_eq!(to_yaml(&a), "b:\n  a:\n  - c: 2\n    d: 1\n  x: 1\nz: 1\n");
    }

    #[test]
    fn output_keeps_strings_strings() {
        let value = json!({
            "a": ":8000", "b": "true", "c": "1", "d": "", "e": "null", "f": "- x", "g": "a: b", "h": "x\ny\n",
            "i": "  padded ", "j": "#no", "k": "é\u{2028}\u{7}", "l": "{x}", "m": "1e3", "n": "~", "o": "${NAME}",
            "p": {"q": {}, "r": []},
        });
        assert_eq!(parse_value(&to_yaml(&value)), Ok(value.clone()), "{}", to_yaml(&value));
    }
}
