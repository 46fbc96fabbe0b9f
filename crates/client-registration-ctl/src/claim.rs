//! Whether the Secret of a workload's name may be written, and whose its fields are (client-registration §8). Pure.

use api_types::registration::{MANAGER, annotation as own};
use k8s_openapi::{
    api::core::v1::Secret as ApiSecret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use serde_json::{Value, json};

use crate::{conditions::Verdict, reason::Reason, secret, workload::Unit};

/// An annotation that is not empty.
pub fn annotation(secret: &ApiSecret, key: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned()
}

/// Why a Secret is left alone; `None` = it may be written.
pub fn objection(live: &ApiSecret, unit: &Unit) -> Option<Verdict> {
    let name = unit.secret_name();
    if live.metadata.deletion_timestamp.is_some() {
        return Some(Verdict::pending(format!("Secret {name} is being deleted")));
    }
    if live.metadata.annotations.as_ref().is_some_and(secret::is_kept) {
        let text = format!("Secret {name} has annotation {}: \"false\", so it is left alone", own::MANAGED);
        return Some(Verdict::off(Reason::UserProvided, text));
    }
    let other = secret::controller(live, unit)?;
    Some(Verdict::failing(
        Reason::SecretConflict,
        format!(
            "Secret {name} is controlled by {other}, so it is left alone: delete it there, or set its annotation {}: \
             \"false\" if the workload is to use it",
            own::MANAGED
        ),
    ))
}

/// The merge patch after which the fields that a Secret was created with count as applied; `None` = they do. An apply
/// takes away only what its manager had applied.
pub fn takeover(metadata: &ObjectMeta) -> Option<Value> {
    let fields = metadata.managed_fields.as_ref()?;
    let ours = |entry: &&ManagedFieldsEntry, operation: &str| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some(operation)
            && entry.subresource.is_none()
    };
    if fields.iter().any(|entry| ours(&entry, "Apply")) || !fields.iter().any(|entry| ours(&entry, "Update"))
    {
        return None;
    }
    let applied: Vec<ManagedFieldsEntry> = fields
        .iter()
        .map(|entry| {
            let operation =
                if ours(&entry, "Update") { Some("Apply".to_owned()) } else { entry.operation.clone() };
            ManagedFieldsEntry { operation, ..entry.clone() }
        })
        .collect();
    Some(json!({ "metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "managedFields": applied,
    } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> ObjectMeta {
        let entry = |(manager, operation): &(&str, &str)| ManagedFieldsEntry {
            manager: Some((*manager).to_owned()),
            operation: Some((*operation).to_owned()),
            ..ManagedFieldsEntry::default()
        };
        ObjectMeta {
            uid: Some("u".to_owned()),
            resource_version: Some("7".to_owned()),
            managed_fields: Some(entries.iter().map(entry).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_was_created_here_counts_as_applied_once() {
        let patch = takeover(&metadata(&[("kubectl", "Update"), (MANAGER, "Update")])).unwrap();
        assert_eq!(
            (&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]),
            (&json!("u"), &json!("7"))
        );
        let operations: Vec<&Value> = patch["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| &entry["operation"])
            .collect();
        assert_eq!(operations, ["Update", "Apply"]);
        assert_eq!(takeover(&metadata(&[(MANAGER, "Apply"), (MANAGER, "Update")])), None);
        assert_eq!(takeover(&metadata(&[("kubectl", "Update")])), None);
        assert_eq!(takeover(&ObjectMeta::default()), None);
    }
}
