//! A read-only view of the raw Pod: checked once, then read without surprises.
//!
//! The tree itself stays as the API server sent it, so fields unknown to this build survive (webhook §4.3).

use std::collections::BTreeMap;

use api_types::owner::{PodIdentity, controller_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The object is not shaped like a Pod; answered with code 400 (webhook §4.2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Pod cannot be read: {field} {problem}")]
pub struct BadPod {
    /// Path of the offending field, for example `spec.containers[0].env`.
    pub field: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A Pod whose parts that matter here have the right types.
#[derive(Debug)]
pub struct Pod<'a> {
    metadata: &'a Map<String, Value>,
    spec: &'a Map<String, Value>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
    containers: Vec<Container<'a>>,
    init_containers: Vec<Container<'a>>,
}

/// One container, with its place in the Pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container<'a> {
    /// Index in its list.
    pub(crate) index: usize,
    /// True for an entry of `initContainers`.
    pub(crate) init: bool,
    /// `name`.
    pub(crate) name: &'a str,
    /// The container itself.
    pub(crate) raw: &'a Map<String, Value>,
}

impl<'a> Pod<'a> {
    /// Checks the shape of everything this product reads. Fields it does not know are not looked at.
    pub fn parse(raw: &'a Value) -> Result<Self, BadPod> {
        let metadata = object(raw, "metadata")?;
        let spec = object(raw, "spec")?;
        if !spec.get("containers").is_some_and(Value::is_array) {
            return Err(bad("spec.containers", "is missing or no list"));
        }
        let owner = owner(metadata)?;
        objects(spec, "spec", "volumes")?;
        for part in ["securityContext", "os"] {
            optional(spec, "spec", part, Value::is_object, "is no object")?;
        }
        Ok(Self {
            metadata,
            spec,
            labels: strings(metadata, "labels")?,
            annotations: strings(metadata, "annotations")?,
            owner,
            containers: containers(spec, "containers", false)?,
            init_containers: containers(spec, "initContainers", true)?,
        })
    }

    /// `metadata.name`; empty when the API server is yet to generate it.
    pub fn name(&self) -> &'a str {
        text(self.metadata, "name")
    }

    /// What decides about the workload (webhook §6).
    pub fn identity(&self) -> PodIdentity<'_> {
        PodIdentity {
            name: self.name(),
            generate_name: text(self.metadata, "generateName"),
            uid: text(self.metadata, "uid"),
            labels: Some(&self.labels),
            owner: self.owner.as_ref(),
        }
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// `metadata.annotations`.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// One annotation; empty when absent.
    pub(crate) fn annotation(&self, key: &str) -> &str {
        self.annotations.get(key).map_or("", String::as_str)
    }

    /// True when `metadata.<map>` exists, so that a member can be added to it.
    pub(crate) fn has_metadata_map(&self, map: &str) -> bool {
        self.metadata.get(map).is_some_and(Value::is_object)
    }

    /// `spec.containers`.
    pub(crate) fn containers(&self) -> &[Container<'a>] {
        &self.containers
    }

    /// `spec.initContainers`.
    pub(crate) fn init_containers(&self) -> &[Container<'a>] {
        &self.init_containers
    }

    /// Regular containers, then init containers.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().chain(&self.init_containers)
    }

    /// Regular containers, then native sidecars: whatever runs for the life of the Pod.
    pub(crate) fn running_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers
            .iter()
            .chain(self.init_containers.iter().filter(|container| container.is_native_sidecar()))
    }

    /// `spec`.
    pub(crate) fn spec(&self) -> &'a Map<String, Value> {
        self.spec
    }

    /// `spec.volumes`.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &'a Map<String, Value>> + use<'a> {
        list(self.spec, "volumes").iter().filter_map(Value::as_object)
    }

    /// The volume of that name.
    pub(crate) fn volume(&self, name: &str) -> Option<&'a Map<String, Value>> {
        self.volumes().find(|volume| text(volume, "name") == name)
    }

    /// True when `spec.<member>` exists and is not null.
    pub(crate) fn has_spec(&self, member: &str) -> bool {
        self.spec.get(member).is_some_and(|value| !value.is_null())
    }

    /// A boolean of `spec`; false when absent.
    pub(crate) fn spec_flag(&self, member: &str) -> bool {
        self.spec.get(member).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A member of `spec.securityContext` that is not null.
    pub(crate) fn security(&self, member: &str) -> Option<&'a Value> {
        member_of(self.spec.get("securityContext")?, member)
    }
}

impl<'a> Container<'a> {
    /// JSON pointer of the container.
    pub(crate) fn pointer(&self) -> String {
        format!("/spec/{}/{}", if self.init { "initContainers" } else { "containers" }, self.index)
    }

    /// An init container with `restartPolicy: Always`.
    pub(crate) fn is_native_sidecar(&self) -> bool {
        self.init && text(self.raw, "restartPolicy") == "Always"
    }

    /// The objects of a list member; empty when it is absent.
    pub(crate) fn objects(&self, member: &str) -> impl Iterator<Item = &'a Map<String, Value>> + use<'a> {
        list(self.raw, member).iter().filter_map(Value::as_object)
    }

    /// True when the list member exists, so that entries can be appended to it.
    pub(crate) fn has_list(&self, member: &str) -> bool {
        self.raw.get(member).is_some_and(Value::is_array)
    }

    /// The environment variable of that name; the last one counts, as at the kubelet.
    pub(crate) fn env(&self, name: &str) -> Option<&'a Map<String, Value>> {
        self.objects("env").filter(|entry| text(entry, "name") == name).last()
    }

    /// True when a volume of that name is mounted.
    pub(crate) fn mounts(&self, volume: &str) -> bool {
        self.objects("volumeMounts").any(|mount| text(mount, "name") == volume)
    }

    /// A member of `securityContext` that is not null.
    pub(crate) fn security(&self, member: &str) -> Option<&'a Value> {
        member_of(self.raw.get("securityContext")?, member)
    }
}

/// A string member; empty when absent or no string.
pub(crate) fn text<'v>(map: &'v Map<String, Value>, member: &str) -> &'v str {
    map.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// A list member; empty when absent or no list.
pub(crate) fn list<'v>(map: &'v Map<String, Value>, member: &str) -> &'v [Value] {
    map.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn member_of<'v>(value: &'v Value, member: &str) -> Option<&'v Value> {
    value.get(member).filter(|value| !value.is_null())
}

fn bad(field: impl Into<String>, problem: &'static str) -> BadPod {
    BadPod { field: field.into(), problem }
}

fn object<'v>(raw: &'v Value, member: &str) -> Result<&'v Map<String, Value>, BadPod> {
    raw.get(member).and_then(Value::as_object).ok_or_else(|| bad(member, "is missing or no object"))
}

/// Null counts as absent everywhere, as it does at the API server.
fn optional(
    map: &Map<String, Value>,
    path: &str,
    member: &str,
    shape: impl Fn(&Value) -> bool,
    problem: &'static str,
) -> Result<(), BadPod> {
    match map.get(member) {
        Some(value) if !value.is_null() && !shape(value) => Err(bad(format!("{path}.{member}"), problem)),
        _ => Ok(()),
    }
}

fn objects(map: &Map<String, Value>, path: &str, member: &str) -> Result<(), BadPod> {
    let shape = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_object));
    optional(map, path, member, shape, "is no list of objects")
}

fn strings(metadata: &Map<String, Value>, member: &str) -> Result<BTreeMap<String, String>, BadPod> {
    let Some(map) = metadata.get(member).filter(|value| !value.is_null()) else { return Ok(BTreeMap::new()) };
    let entries = map.as_object().ok_or_else(|| bad(format!("metadata.{member}"), "is no object"))?;
    entries
        .iter()
        .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(|| bad(format!("metadata.{member}"), "has a value that is no string"))
}

fn owner(metadata: &Map<String, Value>) -> Result<Option<OwnerReference>, BadPod> {
    let references = list(metadata, "ownerReferences")
        .iter()
        .map(OwnerReference::deserialize)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad("metadata.ownerReferences", "is no list of owner references"))?;
    Ok(controller_of(&references).cloned())
}

fn containers<'a>(
    spec: &'a Map<String, Value>,
    member: &str,
    init: bool,
) -> Result<Vec<Container<'a>>, BadPod> {
    objects(spec, "spec", member)?;
    list(spec, member)
        .iter()
        .filter_map(Value::as_object)
        .enumerate()
        .map(|(index, raw)| {
            let path = || format!("spec.{member}[{index}]");
            let name = raw.get("name").and_then(Value::as_str).ok_or_else(|| bad(path(), "has no name"))?;
            for part in ["ports", "env", "volumeMounts"] {
                objects(raw, &path(), part)?;
            }
            for part in ["securityContext", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                optional(raw, &path(), part, Value::is_object, "is no object")?;
            }
            Ok(Container { index, init, name, raw })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::no_spec(json!({"metadata": {}}), "spec")]
    #[case::no_containers(json!({"metadata": {}, "spec": {}}), "spec.containers")]
    #[case::nameless(json!({"metadata": {}, "spec": {"containers": [{}]}}), "spec.containers[0]")]
    #[case::label_number(json!({"metadata": {"labels": {"a": 1}}, "spec": {"containers": []}}), "metadata.labels")]
    #[case::env_map(
        json!({"metadata": {}, "spec": {"containers": [{"name": "a", "env": {}}]}}),
        "spec.containers[0].env"
    )]
    #[case::owners(
        json!({"metadata": {"ownerReferences": [{"name": 1}]}, "spec": {"containers": []}}),
        "metadata.ownerReferences"
    )]
    fn wrong_shapes_name_the_field(#[case] raw: Value, #[case] field: &str) {
        assert_eq!(Pod::parse(&raw).expect_err("refused").field, field);
    }

    #[test]
    fn null_counts_as_absent() {
        let raw = json!({"metadata": {"labels": null}, "spec": {
            "volumes": null, "initContainers": null,
            "containers": [{"name": "a", "env": null, "securityContext": null}],
        }});
        let pod = Pod::parse(&raw).expect("a Pod");
        assert_eq!(pod.containers().len(), 1);
        assert!(!pod.containers()[0].has_list("env"));
        assert!(!pod.has_metadata_map("labels"));
    }
}
