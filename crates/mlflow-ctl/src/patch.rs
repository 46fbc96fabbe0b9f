//! The one patch of a workload: annotations and variables together, and nothing else (MLflow §7.3). Pure.
//!
//! It carries the resourceVersion of what was looked at, so it is applied to exactly that or not at all.

use std::{collections::BTreeMap, fmt::Write as _};

use api_types::mlflow::Field;
use serde_json::{Map, Value, json};

use crate::{
    env::{Action, Container, ContainerChange, Held, Values},
    kinds::{self, WorkloadKind},
    workload::Workload,
};

/// Differences between a pod template and what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatePatch {
    /// Annotations to set, or (`None`) to remove.
    pub annotations: BTreeMap<&'static str, Option<String>>,
    /// Containers that change.
    pub containers: Vec<ContainerChange>,
    /// The values to set.
    pub values: Values,
}

impl TemplatePatch {
    /// What brings the annotations to `desired` and the containers where `containers` says.
    pub fn new(workload: &Workload, desired: &Values, containers: Vec<ContainerChange>) -> Self {
        let mut annotations = BTreeMap::new();
        for field in Field::ALL {
            let now = workload.template_annotations.get(field.annotation());
            let want = desired.get(field);
            if now != want {
                annotations.insert(field.annotation(), want.map(str::to_owned));
            }
        }
        Self { annotations, containers, values: desired.clone() }
    }

    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.annotations.is_empty() && self.containers.is_empty()
    }

    /// Strategic merge patch, for Deployments and StatefulSets.
    pub fn strategic(&self, workload: &Workload) -> Value {
        let mut template = Map::new();
        if !self.annotations.is_empty() {
            template.insert("metadata".into(), json!({ "annotations": self.annotations }));
        }
        let containers: Vec<Value> = self
            .changed(workload)
            .map(|(container, change)| {
                let entries: Vec<Value> = change
                    .actions
                    .iter()
                    .map(|(field, action)| self.strategic_entry(*field, *action))
                    .collect();
                json!({ "name": container.name, "env": entries })
            })
            .collect();
        if !containers.is_empty() {
            template.insert("spec".into(), json!({ "containers": containers }));
        }
        json!({
            "metadata": { "uid": workload.uid, "resourceVersion": workload.resource_version },
            "spec": { kinds::template_field(workload.key.kind): template },
        })
    }

    fn strategic_entry(&self, field: Field, action: Action) -> Value {
        let name = field.variable();
        let value = self.values.get(field);
        match (action, value) {
            (Action::Set(true), Some(value)) => json!({ "name": name, "value": value, "valueFrom": null }),
            (Action::Set(false), Some(value)) => json!({ "name": name, "value": value }),
            _ => json!({ "name": name, "$patch": "delete" }),
        }
    }

    /// JSON patch, for Sandboxes: a custom resource knows no strategic merge. Indexes are those of the version it
    /// carries; on any other the API server refuses it.
    pub fn operations(&self, workload: &Workload) -> Vec<Value> {
        let template = format!("/spec/{}", kinds::template_field(workload.key.kind));
        let mut operations = vec![json!({
            "op": "replace", "path": "/metadata/resourceVersion", "value": workload.resource_version,
        })];
        let mut add = |op: &str, path: String, value: Option<Value>| {
            let mut operation =
                Map::from_iter([("op".to_owned(), op.into()), ("path".to_owned(), path.into())]);
            if let Some(value) = value {
                operation.insert("value".into(), value);
            }
            operations.push(Value::Object(operation));
        };
        if self.annotations.values().any(Option::is_some) {
            if !workload.has_template_metadata {
                add("add", format!("{template}/metadata"), Some(json!({ "annotations": {} })));
            } else if !workload.has_template_annotations {
                add("add", format!("{template}/metadata/annotations"), Some(json!({})));
            }
        }
        for (key, value) in &self.annotations {
            let path = format!("{template}/metadata/annotations/{}", escaped(key));
            match value {
                Some(value) => add("add", path, Some(json!(value))),
                None => add("remove", path, None),
            }
        }
        for (container, change) in self.changed(workload) {
            let env = format!("{template}/spec/containers/{}/env", change.index);
            if !container.has_env {
                add("add", env.clone(), Some(json!([])));
            }
            let entry = |field: Field| json!({ "name": field.variable(), "value": self.values.get(field) });
            let mut removed = Vec::new();
            for (field, action) in &change.actions {
                match (action, index(container.held(*field))) {
                    (Action::Set(_), Some(at)) => add("replace", format!("{env}/{at}"), Some(entry(*field))),
                    (Action::Set(_), None) => {}
                    (Action::Remove, at) => removed.extend(at),
                }
            }
            // From the end, so that the indexes of the others stay what they are.
            removed.sort_unstable_by(|a, b| b.cmp(a));
            for at in removed {
                add("remove", format!("{env}/{at}"), None);
            }
            for (field, action) in &change.actions {
                if matches!(action, Action::Set(_)) && index(container.held(*field)).is_none() {
                    add("add", format!("{env}/-"), Some(entry(*field)));
                }
            }
        }
        operations
    }

    /// The changed containers with their changes.
    fn changed<'p>(
        &'p self,
        workload: &'p Workload,
    ) -> impl Iterator<Item = (&'p Container, &'p ContainerChange)> {
        self.containers.iter().filter_map(|change| Some((workload.containers.get(change.index)?, change)))
    }

    /// The body and whether it is a JSON patch.
    pub fn is_json_patch(kind: WorkloadKind) -> bool {
        kind == WorkloadKind::Sandbox
    }
}

fn index(held: &Held) -> Option<u16> {
    match held {
        Held::Literal { at, .. } | Held::Reference { at } => Some(*at),
        Held::Absent | Held::Repeated => None,
    }
}

/// A key as one step of a JSON pointer.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len() + 2);
    for c in key.chars() {
        match c {
            '~' => text.push_str("~0"),
            '/' => text.push_str("~1"),
            c => {
                // Writing to a string cannot fail.
                let _ = text.write_char(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        env::{Rules, plan, withdrawal},
        workload::tests::workload,
    };

    fn desired() -> Values {
        Values::default()
            .with(Field::TrackingUri, "https://m")
            .with(Field::TrackingAuth, "kubernetes-namespaced")
            .with(Field::ExperimentId, "12")
            .with(Field::ExperimentName, "weather")
    }

    fn patch(workload: &Workload, desired: &Values) -> TemplatePatch {
        let plan = plan(&workload.containers, &workload.recorded(), desired, Rules::default());
        TemplatePatch::new(workload, desired, plan.changes)
    }

    /// Annotations and variables of all containers go in one patch, and nothing but them.
    #[test]
    fn one_patch_carries_everything() {
        let workload = workload(
            WorkloadKind::Deployment,
            json!({
            "spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "x"}]}}}}),
        );
        assert_eq!(
            patch(&workload, &desired()).strategic(&workload),
            json!({
                "metadata": {"uid": "uid-1", "resourceVersion": "7"},
                "spec": {"template": {
                    "metadata": {"annotations": {
                        "mlflow.kagenti.io/experiment-id": "12", "mlflow.kagenti.io/experiment-name": "weather",
                        "mlflow.kagenti.io/tracking-auth": "kubernetes-namespaced",
                        "mlflow.kagenti.io/tracking-uri": "https://m"}},
                    "spec": {"containers": [{"name": "agent", "env": [
                        {"name": "MLFLOW_TRACKING_URI", "value": "https://m"},
                        {"name": "MLFLOW_TRACKING_AUTH", "value": "kubernetes-namespaced"},
                        {"name": "MLFLOW_EXPERIMENT_ID", "value": "12"},
                        {"name": "MLFLOW_EXPERIMENT_NAME", "value": "weather"}]}]}}},
            })
        );
    }

    #[test]
    fn what_is_in_place_is_left_out() {
        let mut document = json!({"spec": {"template": {
            "metadata": {"annotations": {}}, "spec": {"containers": [{"name": "agent", "env": []}]}}}});
        for field in Field::ALL {
            let value = json!(desired().get(field));
            document["spec"]["template"]["metadata"]["annotations"][field.annotation()] = value.clone();
            let env = document.pointer_mut("/spec/template/spec/containers/0/env").unwrap();
            env.as_array_mut().unwrap().push(json!({"name": field.variable(), "value": value}));
        }
        let ready = workload(WorkloadKind::Deployment, document.clone());
        assert!(patch(&ready, &desired()).is_empty());
        let changed = patch(&ready, &desired().with(Field::ExperimentId, "13"));
        let body = changed.strategic(&ready);
        assert_eq!(
            body["spec"]["template"]["metadata"]["annotations"],
            json!({"mlflow.kagenti.io/experiment-id": "13"})
        );
        assert_eq!(
            body["spec"]["template"]["spec"]["containers"],
            json!([{"name": "agent", "env": [{"name": "MLFLOW_EXPERIMENT_ID", "value": "13"}]}])
        );
        let leaving =
            TemplatePatch::new(&ready, &Values::default(), withdrawal(&ready.containers, &ready.recorded()));
        let body = leaving.strategic(&ready);
        assert_eq!(
            body["spec"]["template"]["metadata"]["annotations"]["mlflow.kagenti.io/experiment-id"],
            Value::Null
        );
        assert_eq!(
            body["spec"]["template"]["spec"]["containers"][0]["env"][0],
            json!({"name": "MLFLOW_TRACKING_URI", "$patch": "delete"})
        );
    }

    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]
    fn sandbox(template: Value) -> Value {
        json!({"metadata": {"resourceVersion": "7"}, "spec": {"podTemplate": template}})
    }

    /// Applies the operations as the API server does.
    fn applied(document: &Value, patch: &TemplatePatch, workload: &Workload) -> Value {
        let operations: json_patch::Patch =
            serde_json::from_value(Value::Array(patch.operations(workload))).unwrap();
        let mut after = document.clone();
        json_patch::patch(&mut after, &operations).unwrap();
        after
    }

    #[test]
    fn a_bare_sandbox_gets_metadata_and_env() {
        let document = sandbox(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "env": [{"name": "X", "value": "1"}]}]}}),
        );
        let before = workload(WorkloadKind::Sandbox, document.clone());
        let after = applied(&document, &patch(&before, &desired()), &before);
        let containers = after["spec"]["podTemplate"]["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers[0]["env"].as_array().unwrap().len(), 4);
        assert_eq!(containers[1]["env"][0], json!({"name": "X", "value": "1"}));
        assert_eq!(containers[1]["env"][4], json!({"name": "MLFLOW_EXPERIMENT_NAME", "value": "weather"}));
        let after = workload(WorkloadKind::Sandbox, after);
        assert_eq!(after.recorded(), desired());
        assert!(patch(&after, &desired()).is_empty());
    }

    /// Indexes hold although entries before them go.
    #[test]
    fn a_sandbox_is_cleaned_from_the_end() {
        let env: Vec<_> = Field::ALL
            .into_iter()
            .flat_map(|field| {
                [
                    json!({"name": field.variable(), "value": desired().get(field)}),
                    json!({"name": format!("OWN_{}", field.variable()), "value": "x"}),
                ]
            })
            .collect();
        let annotations: Map<String, Value> =
            Field::ALL.into_iter().map(|f| (f.annotation().to_owned(), json!(desired().get(f)))).collect();
        let document = sandbox(json!({"metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "a", "env": env}]}}));
        let before = workload(WorkloadKind::Sandbox, document.clone());
        let leaving = TemplatePatch::new(
            &before,
            &Values::default(),
            withdrawal(&before.containers, &before.recorded()),
        );
        let after = applied(&document, &leaving, &before);
        let env = after["spec"]["podTemplate"]["spec"]["containers"][0]["env"].as_array().unwrap();
        assert!(
            env.len() == 4 && env.iter().all(|entry| entry["name"].as_str().unwrap().starts_with("OWN_"))
        );
        assert_eq!(after["spec"]["podTemplate"]["metadata"]["annotations"], json!({}));
    }

    /// A patch that was made for one version carries it.
    #[test]
    fn the_version_that_was_looked_at_is_in_the_patch() {
        let document = sandbox(json!({"spec": {"containers": [{"name": "a"}]}}));
        let before = workload(WorkloadKind::Sandbox, document);
        let operations = patch(&before, &desired()).operations(&before);
        assert_eq!(
            operations[0],
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"})
        );
    }
}
