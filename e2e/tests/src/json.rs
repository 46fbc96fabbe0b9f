//! Reading JSON objects without ceremony: what is missing is empty, and tests say what they expect.

use serde_json::Value;

/// What a condition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False`, `Unknown`; empty when the object has no such condition.
    pub status: String,
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
    /// Generation that the condition speaks of.
    pub observed_generation: i64,
    /// When the status last flipped.
    pub last_transition_time: String,
}

impl Condition {
    /// `True/TargetFound`.
    pub fn short(&self) -> String {
        format!("{}/{}", self.status, self.reason)
    }
}

/// Short ways into an object.
pub trait Json {
    /// The text at a JSON pointer (`/metadata/name`), empty when there is none. Slashes inside a key are `~1`.
    fn text(&self, pointer: &str) -> &str;
    /// The number at a JSON pointer, none when there is none.
    fn number(&self, pointer: &str) -> Option<i64>;
    /// The array at a JSON pointer, empty when there is none.
    fn items(&self, pointer: &str) -> &[Value];
    /// The texts of the array at a JSON pointer.
    fn texts(&self, pointer: &str) -> Vec<&str>;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.generation`, 0 when there is none.
    fn generation(&self) -> i64;
    /// `metadata.resourceVersion`.
    fn version(&self) -> &str;
    /// A label of the object, none when it has not got it.
    fn label(&self, key: &str) -> Option<&str>;
    /// An annotation of the object.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// A label of the pod template.
    fn template_label(&self, key: &str) -> Option<&str>;
    /// An annotation of the pod template.
    fn template_annotation(&self, key: &str) -> Option<&str>;
    /// The pod template.
    fn template(&self) -> &Value;
    /// A condition, empty when the object has not got it.
    fn condition(&self, kind: &str) -> Condition;
    /// A container or init container of a Pod or pod template's `spec`, by name.
    fn container(&self, name: &str) -> Option<&Value>;
    /// The plain value of an environment variable of a container.
    fn env(&self, name: &str) -> Option<&str>;
    /// The object for messages: without managed fields.
    fn readable(&self) -> String;
}

static NULL: Value = Value::Null;

fn entry<'a>(object: &'a Value, pointer: &str, key: &str) -> Option<&'a str> {
    object.pointer(pointer)?.get(key)?.as_str()
}

impl Json for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer).and_then(Value::as_i64)
    }

    fn items(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn texts(&self, pointer: &str) -> Vec<&str> {
        self.items(pointer).iter().filter_map(Value::as_str).collect()
    }

    fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    fn generation(&self) -> i64 {
        self.number("/metadata/generation").unwrap_or_default()
    }

    fn version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    fn label(&self, key: &str) -> Option<&str> {
        entry(self, "/metadata/labels", key)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        entry(self, "/metadata/annotations", key)
    }

    fn template_label(&self, key: &str) -> Option<&str> {
        entry(self.template(), "/metadata/labels", key)
    }

    fn template_annotation(&self, key: &str) -> Option<&str> {
        entry(self.template(), "/metadata/annotations", key)
    }

    fn template(&self) -> &Value {
        self.pointer("/spec/template").or_else(|| self.pointer("/spec/podTemplate")).unwrap_or(&NULL)
    }

    fn condition(&self, kind: &str) -> Condition {
        let found = self.items("/status/conditions").iter().find(|condition| condition.text("/type") == kind);
        found.map_or_else(Condition::default, |condition| Condition {
            status: condition.text("/status").to_owned(),
            reason: condition.text("/reason").to_owned(),
            message: condition.text("/message").to_owned(),
            observed_generation: condition.number("/observedGeneration").unwrap_or_default(),
            last_transition_time: condition.text("/lastTransitionTime").to_owned(),
        })
    }

    fn container(&self, name: &str) -> Option<&Value> {
        let all = self.items("/spec/containers").iter().chain(self.items("/spec/initContainers"));
        all.into_iter().find(|container| container.text("/name") == name)
    }

    fn env(&self, name: &str) -> Option<&str> {
        let variable = self.items("/env").iter().find(|variable| variable.text("/name") == name)?;
        variable.get("value").map_or(Some(""), Value::as_str)
    }

    fn readable(&self) -> String {
        let mut copy = self.clone();
        if let Some(metadata) = copy.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        serde_json::to_string_pretty(&copy).unwrap_or_default()
    }
}

/// Lays `over` upon `base` as a JSON merge patch does: maps merge, null removes, everything else replaces.
pub fn merge(base: &mut Value, over: Value) {
    match over {
        Value::Object(over) => {
            if !base.is_object() {
                *base = Value::Object(serde_json::Map::new());
            }
            let Some(base) = base.as_object_mut() else { return };
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *base = other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging_follows_rfc_7396() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut base, json!({"a": {"b": null, "e": {"f": null, "g": 3}}, "d": [2, 3]}));
        assert_eq!(base, json!({"a": {"c": 2, "e": {"g": 3}}, "d": [2, 3]}));
    }

    #[test]
    fn what_is_missing_is_empty() {
        let object = json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}});
        assert_eq!(object.label("kagenti.io/type"), Some("agent"));
        assert_eq!(object.template_label("kagenti.io/type"), None);
        assert_eq!(object.condition("Ready").short(), "/");
        assert_eq!(object.generation(), 0);
    }
}
