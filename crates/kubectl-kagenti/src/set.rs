//! Values as arguments of Helm.

use std::fmt::Write as _;

use serde_json::Value;

use crate::document::{Yaml, sorted};

/// One `--set-json 'path=value'` per leaf, in the order of the paths, quoted for a POSIX shell and ended by a backslash where
/// another one follows, so that the text can stand behind `helm upgrade <release> <chart>`. Nothing for no values.
pub fn write(values: &Yaml) -> String {
    let mut settings = Vec::new();
    if let Value::Object(values) = sorted(&Value::Object(values.clone())) {
        collect("", &values, &mut settings);
    }
    let arguments: Vec<String> =
        settings.iter().map(|setting| format!("--set-json {}", shell_quoted(setting))).collect();
    if arguments.is_empty() { String::new() } else { format!("{}\n", arguments.join(" \\\n")) }
}

fn collect(parent: &str, values: &Yaml, into: &mut Vec<String>) {
    for (key, value) in values {
        let dot = if parent.is_empty() { "" } else { "." };
        let path = format!("{parent}{dot}{}", escaped(key));
        match value {
            // Helm's paths have no empty keys; a whole map says the same.
            Value::Object(below) if !below.is_empty() && !has_empty_key(below) => collect(&path, below, into),
            leaf => into.push(format!("{path}={}", ascii(leaf))),
        }
    }
}

fn has_empty_key(values: &Yaml) -> bool {
    values.iter().any(|(key, value)| key.is_empty() || value.as_object().is_some_and(has_empty_key))
}

/// A key as a part of Helm's paths.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for character in key.chars() {
        if matches!(character, '.' | ',' | '=' | '[' | ']' | '{' | '}' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// JSON without line ends and control characters, which a terminal would act on.
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

/// One word for a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(value: Value) -> String {
        let Value::Object(values) = value else { panic!("a map") };
        write(&values)
    }

    #[test]
    fn leaves_are_arguments() {
        assert_eq!(written(json!({})), "");
        assert_eq!(
            written(json!({"b": {"x": true, "a": null}, "a": "it's", "c": {}, "d": [1, {"e": "f"}]})),
            "--set-json 'a=\"it'\\''s\"' \\\n--set-json 'b.a=null' \\\n--set-json 'b.x=true' \\\n--set-json 'c={}' \\\n\
             --set-json 'd=[1,{\"e\":\"f\"}]'\n"
        );
    }

    #[test]
    fn keys_are_escaped() {
        assert_eq!(
            written(json!({"a": {"eks.amazonaws.com/role-arn": "arn:x,y=z"}})),
            "--set-json 'a.eks\\.amazonaws\\.com/role-arn=\"arn:x,y=z\"'\n"
        );
        assert_eq!(
            written(json!({"a": {"": 1}, "b[0]": "\u{85}\n"})),
            "--set-json 'a={\"\":1}' \\\n--set-json 'b\\[0\\]=\"\\u0085\\n\"'\n"
        );
    }
}
