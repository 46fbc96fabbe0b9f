//! A merge patch of a workload that holds only the keys that differ (runtime §6.1).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{kinds, workload::Workload};

/// Label or annotation changes: a value to set, or `None` to remove the key.
pub type Changes = BTreeMap<&'static str, Option<String>>;

/// Differences between a workload and what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPatch {
    /// `metadata.labels`.
    pub labels: Changes,
    /// `metadata.annotations`.
    pub annotations: Changes,
    /// Labels of the pod template.
    pub template_labels: Changes,
    /// Annotations of the pod template.
    pub template_annotations: Changes,
    /// Sandbox only: run (true) or suspend (false), runtime §8.2.
    pub run: Option<bool>,
}

impl WorkloadPatch {
    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True when the pod template changes, so Deployments and StatefulSets replace their Pods.
    pub fn changes_template(&self) -> bool {
        !self.template_labels.is_empty() || !self.template_annotations.is_empty()
    }

    /// The JSON merge patch. The uid makes it a patch of this very object: one that was deleted and created
    /// again answers 409 instead of being changed unseen.
    pub fn document(&self, workload: &Workload) -> Value {
        let mut metadata = Map::new();
        if !workload.uid.is_empty() {
            metadata.insert("uid".into(), json!(workload.uid));
        }
        insert(&mut metadata, "labels", &self.labels);
        insert(&mut metadata, "annotations", &self.annotations);
        let mut spec = match (self.run, &workload.sandbox) {
            (Some(running), Some(state)) => {
                // Suspending and resuming depend on what was read: a user who scales meanwhile must win.
                metadata.insert("resourceVersion".into(), json!(workload.resource_version));
                state.version.run_patch(running)
            }
            _ => json!({}),
        };
        let mut template = Map::new();
        insert(&mut template, "labels", &self.template_labels);
        insert(&mut template, "annotations", &self.template_annotations);
        if let (Value::Object(spec), false) = (&mut spec, template.is_empty()) {
            spec.insert(kinds::template_field(workload.key.kind).into(), json!({ "metadata": template }));
        }
        let mut document = Map::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
        if spec.as_object().is_some_and(|spec| !spec.is_empty()) {
            document.insert("spec".into(), spec);
        }
        Value::Object(document)
    }
}

fn insert(into: &mut Map<String, Value>, field: &str, changes: &Changes) {
    if !changes.is_empty() {
        into.insert(field.into(), json!(changes));
    }
}

/// Adds `key` to the changes when its present value is another one.
pub fn set(changes: &mut Changes, key: &'static str, now: Option<&str>, want: &str) {
    if now != Some(want) {
        changes.insert(key, Some(want.to_owned()));
    }
}

/// Adds the removal of `key` to the changes when it is there.
pub fn unset(changes: &mut Changes, key: &'static str, now: Option<&str>) {
    if now.is_some() {
        changes.insert(key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};

    #[test]
    fn only_differing_keys_and_explicit_nulls() {
        let deployment = workload(WorkloadKind::Deployment, json!({}));
        let mut patch = WorkloadPatch::default();
        set(&mut patch.labels, "a", Some("1"), "1");
        assert!(patch.is_empty());
        set(&mut patch.labels, "a", None, "1");
        unset(&mut patch.template_annotations, "b", Some("x"));
        unset(&mut patch.template_annotations, "c", None);
        assert_eq!(
            patch.document(&deployment),
            json!({
                "metadata": {"uid": "uid-1", "labels": {"a": "1"}},
                "spec": {"template": {"metadata": {"annotations": {"b": null}}}},
            })
        );
    }

    #[test]
    fn a_sandbox_has_its_own_template_path_and_scale() {
        let sandbox = workload(WorkloadKind::Sandbox, json!({"metadata": {"resourceVersion": "7"}}));
        let patch = WorkloadPatch {
            run: Some(false),
            template_labels: [("k", Some("v".to_owned()))].into(),
            ..WorkloadPatch::default()
        };
        assert_eq!(
            patch.document(&sandbox),
            json!({
                "metadata": {"uid": "uid-1", "resourceVersion": "7"},
                "spec": {"replicas": 0, "podTemplate": {"metadata": {"labels": {"k": "v"}}}},
            })
        );
    }
}
