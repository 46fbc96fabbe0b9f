//! Objects read in part: without the managed fields, and without what nobody looks at.
//!
//! Lists arrive in pages of whole objects, and the managed fields are the bigger half of each of them. Whoever does
//! not look at them should not have them in memory either, not even while a page is read.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{
    Resource,
    core::{DynamicObject, DynamicResourceScope},
    discovery::ApiResource,
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Lean {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    generate_name: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

/// For `#[serde(deserialize_with)]`: reads metadata and skips the managed fields.
///
/// # Errors
/// When the metadata is not what the API server sends.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let lean = Lean::deserialize(deserializer)?;
    Ok(ObjectMeta {
        annotations: lean.annotations,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        finalizers: lean.finalizers,
        generate_name: lean.generate_name,
        generation: lean.generation,
        labels: lean.labels,
        name: lean.name,
        namespace: lean.namespace,
        owner_references: lean.owner_references,
        resource_version: lean.resource_version,
        uid: lean.uid,
        ..ObjectMeta::default()
    })
}

/// Type and status of a condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConditionView {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// The metadata of a `K`, asked for and read without anything else.
#[derive(Deserialize)]
#[serde(bound = "")]
pub struct LeanMeta<K> {
    /// The metadata.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for LeanMeta<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), kind: PhantomData }
    }
}

impl<K> fmt::Debug for LeanMeta<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.metadata.fmt(f)
    }
}

impl<K: Resource> Resource for LeanMeta<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }
    fn metadata_api() -> bool {
        true
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// An object of a kind that is known at run time only: its metadata, and the parts of spec and status that matter.
///
/// Nothing is ever written from this type; writes are merge patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(bound = "Spec: Default + Deserialize<'de>, Status: Default + Deserialize<'de>")]
pub struct LeanObject<Spec, Status = IgnoredAny> {
    /// The metadata.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// The part of the spec that matters.
    #[serde(default)]
    pub spec: Spec,
    /// The part of the status that matters.
    #[serde(default)]
    pub status: Status,
}

impl<Spec, Status> Resource for LeanObject<Spec, Status> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(dt)
    }
    fn group(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(dt)
    }
    fn version(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(dt)
    }
    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn managed_fields_are_skipped_and_the_rest_is_read() {
        let document = json!({
            "kind": "PartialObjectMetadata",
            "metadata": {"name": "a", "namespace": "b", "generation": 3, "labels": {"x": "y"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {}}}]},
        });
        let read: LeanMeta<Pod> = serde_json::from_value(document).unwrap();
        assert_eq!(read.metadata.managed_fields, None);
        assert_eq!(read.metadata.generation, Some(3));
        assert_eq!(read.metadata.labels.as_ref().map(BTreeMap::len), Some(1));
        assert!(LeanMeta::<Pod>::metadata_api());
    }

    #[test]
    fn parts_that_are_absent_are_at_their_default() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        struct Spec {
            replicas: Option<i32>,
        }
        let document =
            json!({"metadata": {"name": "a"}, "spec": {"replicas": 2, "x": 1}, "status": {"y": []}});
        let read: LeanObject<Spec> = serde_json::from_value(document).unwrap();
        assert_eq!(read.spec, Spec { replicas: Some(2) });
        let read: LeanObject<Spec, Spec> = serde_json::from_value(json!({})).unwrap();
        assert_eq!((read.spec, read.status), (Spec::default(), Spec::default()));
    }
}
