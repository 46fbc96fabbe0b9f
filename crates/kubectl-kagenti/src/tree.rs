//! Values at dotted paths.

use serde_json::{Map, Value};

use crate::document::Yaml;

/// Takes what is at a path, and parents that become empty by it.
pub(crate) fn take(values: &mut Yaml, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => values.remove(path),
        Some((first, rest)) => {
            let Some(Value::Object(below)) = values.get_mut(first) else { return None };
            let taken = take(below, rest);
            if taken.is_some() && below.is_empty() {
                values.remove(first);
            }
            taken
        }
    }
}

/// The map at a path, made when nothing is there; `Err` is the path of what stands in the way.
pub(crate) fn map_at<'a>(values: &'a mut Yaml, path: &str) -> Result<&'a mut Yaml, String> {
    let mut node = values;
    let mut walked = String::new();
    for key in path.split('.') {
        walked = if walked.is_empty() { key.to_owned() } else { format!("{walked}.{key}") };
        node = match node.entry(key).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(below) => below,
            _ => return Err(walked),
        };
    }
    Ok(node)
}

/// What is at a path.
pub(crate) fn at<'a>(values: &'a Yaml, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = values.get(first)?;
    if rest.is_empty() { Some(value) } else { at(value.as_object()?, rest) }
}

/// Leaves of a value as dotted path and value; lists and empty maps are leaves.
pub(crate) fn leaves<'a>(path: &str, value: &'a Value, into: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(&format!("{path}.{key}"), value, into);
            }
        }
        leaf => into.push((path.to_owned(), leaf)),
    }
}

/// Whether a value says nothing: null, an empty text, or an empty map.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Parts a value by an old default, leaf by leaf: what differs, and the paths of leaves that do not.
pub(crate) fn part(path: &str, value: Value, default: Option<&Value>) -> (Option<Value>, Vec<String>) {
    match (value, default) {
        (Value::Null, _) => (None, vec![path.to_owned()]),
        (Value::Object(map), Some(Value::Object(of))) => {
            let (mut kept, mut dropped) = (Map::new(), Vec::new());
            for (key, value) in map {
                let (rest, equal) = part(&format!("{path}.{key}"), value, of.get(&key));
                kept.extend(rest.map(|rest| (key, rest)));
                dropped.extend(equal);
            }
            if kept.is_empty() { (None, vec![path.to_owned()]) } else { (Some(Value::Object(kept)), dropped) }
        }
        (value, Some(default)) if same(&value, default) => (None, vec![path.to_owned()]),
        (value, _) => (Some(value), Vec::new()),
    }
}

/// Equal as JSON; an empty list is as good as an empty map, 1.0 as 1.
fn same(value: &Value, default: &Value) -> bool {
    match (value, default) {
        (Value::Array(list), Value::Object(map)) => list.is_empty() && map.is_empty(),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (value, default) => value == default,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::leaf(json!({"a": {"b": 1, "c": 2}}), Some(json!(1)), json!({"a": {"c": 2}}))]
    #[case::last(json!({"a": {"b": 1}}), Some(json!(1)), json!({}))]
    #[case::absent(json!({"a": {"c": 1}}), None, json!({"a": {"c": 1}}))]
    #[case::no_map(json!({"a": "x"}), None, json!({"a": "x"}))]
    #[case::null(json!({"a": {"b": null}}), Some(json!(null)), json!({}))]
    fn takes(#[case] values: Value, #[case] taken: Option<Value>, #[case] left: Value) {
        let Value::Object(mut values) = values else { panic!("a map") };
        assert_eq!(take(&mut values, "a.b"), taken);
        assert_eq!(Value::Object(values), left);
    }

    #[rstest]
    #[case::equal(json!(1), json!(1), None, &["p"])]
    #[case::float(json!(1.0), json!(1), None, &["p"])]
    #[case::null(json!(null), json!(1), None, &["p"])]
    #[case::other(json!(2), json!(1), Some(json!(2)), &[])]
    #[case::text_is_no_number(json!("1"), json!(1), Some(json!("1")), &[])]
    #[case::part(json!({"a": 1, "b": 3}), json!({"a": 1, "b": 2}), Some(json!({"b": 3})), &["p.a"])]
    #[case::all(json!({"a": 1, "b": null}), json!({"a": 1, "b": 2}), None, &["p"])]
    #[case::more(json!({"c": 1}), json!({"a": 1}), Some(json!({"c": 1})), &[])]
    #[case::empty(json!({}), json!({"a": 1}), None, &["p"])]
    #[case::empty_list(json!([]), json!({}), None, &["p"])]
    #[case::list(json!([1]), json!([1]), None, &["p"])]
    fn parts(
        #[case] value: Value,
        #[case] default: Value,
        #[case] kept: Option<Value>,
        #[case] dropped: &[&str],
    ) {
        let dropped: Vec<String> = dropped.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(part("p", value, Some(&default)), (kept, dropped));
    }
}
