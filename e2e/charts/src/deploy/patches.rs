//! What an overlay changes, as patches of kustomize: so a reader sees the difference and not a second copy.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Objects, text};

/// Objects that only the second has.
pub(super) fn added(from: &Objects, to: &Objects) -> Objects {
    let known = from.by_identity();
    let mut new = to.clone();
    new.0.retain(|object| !known.contains_key(&Objects::identity(object)));
    new
}

/// One patch for every object of the first that the second changes or does not have.
pub(super) fn between(from: &Objects, to: &Objects) -> Result<Vec<Value>> {
    let wanted = to.by_identity();
    let mut patches = Vec::new();
    for object in &from.0 {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        let target = match text(object, "/metadata/namespace") {
            "" => json!({"kind": kind, "name": name}),
            namespace => json!({"kind": kind, "name": name, "namespace": namespace}),
        };
        let Some(next) = wanted.get(&Objects::identity(object)) else {
            let version = text(object, "/apiVersion");
            let gone =
                json!({"$patch": "delete", "apiVersion": version, "kind": kind, "metadata": {"name": name}});
            patches.push(json!({"target": target, "patch": serde_saphyr::to_string(&gone)?}));
            continue;
        };
        let mut operations = Vec::new();
        compare(object, next, "", &mut operations);
        if !operations.is_empty() {
            patches.push(json!({"target": target, "patch": serde_saphyr::to_string(&operations)?}));
        }
    }
    Ok(patches)
}

/// Operations of a JSON patch that make `to` of `from`.
fn compare(from: &Value, to: &Value, path: &str, out: &mut Vec<Value>) {
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => {
            let below = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                out.push(json!({"op": "remove", "path": below(key)}));
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => compare(before, value, &below(key), out),
                    None => out.push(json!({"op": "add", "path": below(key), "value": value})),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (at, (before, value)) in old.iter().zip(new).enumerate() {
                compare(before, value, &format!("{path}/{at}"), out);
            }
        }
        (Value::Array(old), Value::Array(new)) if inserted(old, new).is_some() => {
            for at in inserted(old, new).unwrap_or_default() {
                out.push(json!({"op": "add", "path": format!("{path}/{at}"), "value": new.get(at)}));
            }
        }
        _ if from == to => {}
        _ => out.push(json!({"op": "replace", "path": path, "value": to})),
    }
}

/// Where elements were put in, when nothing else happened to the list.
fn inserted(old: &[Value], new: &[Value]) -> Option<Vec<usize>> {
    let mut rest = old.iter().peekable();
    let at = new.iter().enumerate().filter_map(|(at, value)| match rest.peek() {
        Some(next) if *next == value => {
            rest.next();
            None
        }
        _ => Some(at),
    });
    let at: Vec<usize> = at.collect();
    rest.peek().is_none().then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_name_what_differs() {
        let from = json!({"a": [1, 3], "b": {"x/y": 1}, "c": [1, 2], "d": 1, "e": [1, 2]});
        let to = json!({"a": [1, 2, 3, 4], "b": {"x/y": 2}, "c": [1, 5], "e": [7], "f": true});
        let mut operations = Vec::new();
        compare(&from, &to, "", &mut operations);
        let expected = json!([
            {"op": "remove", "path": "/d"},
            {"op": "add", "path": "/a/1", "value": 2},
            {"op": "add", "path": "/a/3", "value": 4},
            {"op": "replace", "path": "/b/x~1y", "value": 2},
            {"op": "replace", "path": "/c/1", "value": 5},
            {"op": "replace", "path": "/e", "value": [7]},
            {"op": "add", "path": "/f", "value": true},
        ]);
        assert_eq!(Value::from(operations), expected);
    }
}
