//! Edits of one container's environment, as operations on the raw list.

use serde_json::{Map, Value, json};

use super::{
    Patch,
    pod::{Container, text},
};

/// Collects the edits of one container's `env`; [`Self::finish`] writes the appended entries.
#[derive(Debug)]
pub(crate) struct EnvEdit<'a> {
    container: Container<'a>,
    appended: Vec<Value>,
    replaced: Patch,
}

impl<'a> EnvEdit<'a> {
    /// No edits yet.
    pub(crate) fn new(container: &Container<'a>) -> Self {
        Self { container: *container, appended: Vec::new(), replaced: Patch::default() }
    }

    /// Appends a variable unless its upper- or lower-case form exists in the Pod (webhook §10.1).
    pub(crate) fn add_in_both_cases(&mut self, variables: &[(&str, &str)]) {
        let exists = |name: &str| {
            self.container.objects("env").any(|entry| text(entry, "name").eq_ignore_ascii_case(name))
        };
        let missing: Vec<_> = variables.iter().filter(|(name, _)| !exists(name)).collect();
        for (name, value) in &missing {
            self.append(name, value);
        }
        for (name, value) in missing {
            self.append(&name.to_ascii_lowercase(), value);
        }
    }

    /// Appends a variable that does not exist in the Pod.
    pub(crate) fn append(&mut self, name: &str, value: &str) {
        self.appended.push(variable(name, value));
    }

    /// Sets a variable: overwritten in place where it exists, else appended. True when a different value of the
    /// user was overwritten.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> bool {
        let pointer = self.container.pointer();
        let (mut found, mut overwritten) = (false, false);
        for (index, entry) in self.container.objects("env").enumerate() {
            if text(entry, "name") != name {
                continue;
            }
            found = true;
            if literal(entry) == Some(value) {
                continue;
            }
            overwritten = true;
            if entry.get("valueFrom").is_some_and(|from| !from.is_null()) {
                self.replaced.replace(format!("{pointer}/env/{index}"), variable(name, value));
            } else {
                self.replaced.add(format!("{pointer}/env/{index}/value"), value);
            }
        }
        if !found {
            self.append(name, value);
        }
        overwritten
    }

    /// Writes the edits.
    pub(crate) fn finish(self, patch: &mut Patch) {
        patch.extend(self.replaced);
        append_all(patch, &self.container, "env", self.appended);
    }
}

/// Appends entries to a list of a container, which is made when it is missing.
pub(crate) fn append_all(patch: &mut Patch, container: &Container<'_>, member: &str, entries: Vec<Value>) {
    if entries.is_empty() {
        return;
    }
    let at = format!("{}/{member}", container.pointer());
    if container.has_list(member) {
        for entry in entries {
            patch.add(format!("{at}/-"), entry);
        }
    } else {
        patch.add(at, entries);
    }
}

/// The value of a variable that is not taken from elsewhere; an absent value is empty.
pub(crate) fn literal(entry: &Map<String, Value>) -> Option<&str> {
    match entry.get("valueFrom") {
        None | Some(Value::Null) => Some(text(entry, "value")),
        Some(_) => None,
    }
}

/// A literal variable.
pub(crate) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::injection::Pod;

    fn edited(env: &Value, edit: impl FnOnce(&mut EnvEdit<'_>)) -> Value {
        let raw = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "env": env}]}});
        let pod = Pod::parse(&raw).expect("a Pod");
        let mut patch = Patch::default();
        let mut env = EnvEdit::new(&pod.containers()[0]);
        edit(&mut env);
        env.finish(&mut patch);
        serde_json::to_value(&patch).expect("JSON")
    }

    // Webhook §10.1: a variable whose upper- or lower-case form exists is left alone in both cases.
    #[test]
    fn either_case_of_a_variable_blocks_both() {
        let patch = edited(&json!([{"name": "http_proxy", "value": "http://corp"}]), |env| {
            env.add_in_both_cases(&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", "p"), ("NO_PROXY", "n")]);
        });
        let names: Vec<&str> = patch
            .as_array()
            .expect("a list")
            .iter()
            .map(|op| op["value"]["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(names, ["HTTPS_PROXY", "NO_PROXY", "https_proxy", "no_proxy"]);
    }

    #[test]
    fn set_overwrites_in_place() {
        let env = json!([
            {"name": "PORT", "value": "8000"},
            {"name": "PORT", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
            {"name": "PORT", "value": "8001"},
        ]);
        let patch = edited(&env, |env| assert!(env.set("PORT", "8001")));
        assert_eq!(
            patch,
            json!([
                {"op": "add", "path": "/spec/containers/0/env/0/value", "value": "8001"},
                {"op": "replace", "path": "/spec/containers/0/env/1", "value": {"name": "PORT", "value": "8001"}},
            ])
        );
    }

    #[test]
    fn a_missing_list_is_made_once() {
        let patch = edited(&Value::Null, |env| {
            assert!(!env.set("A", "1"));
            env.append("B", "2");
        });
        assert_eq!(
            patch,
            json!([
                {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            ])
        );
    }
}
