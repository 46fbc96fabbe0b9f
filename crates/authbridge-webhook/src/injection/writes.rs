//! The objects a Pod needs before it may run (webhook §11.2, §12.3; split §6), as plans for the caller.

use std::{borrow::Cow, collections::BTreeMap};

use api_types::owner::{self, PodIdentity, Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sha2::{Digest, Sha256};

/// The objects that must exist before the Pod is allowed. The two kinds are independent of each other.
#[derive(Debug, Default)]
pub struct Writes {
    /// ServiceAccount that must exist (label `kagenti.io/managed-by: webhook` on creation, no ownerReference);
    /// `None` when the Pod keeps its own.
    pub service_account: Option<String>,
    /// ConfigMaps to apply, at most three; empty when the layout has none.
    pub config_maps: Vec<PlannedConfigMap>,
}

/// One ConfigMap to apply with force, label `kagenti.io/managed-by: webhook` and annotation
/// `kagenti.io/content-hash`; skipped when the stored one has this hash and this owner (webhook §12.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedConfigMap {
    /// Name, in the Pod's namespace.
    pub name: String,
    /// Field manager: `kagenti-webhook`, or `kagenti-webhook-helper` for the lone `helper.conf` of a Pod
    /// without proxy, which must not take `config.yaml` from older Pods (split §6).
    pub field_manager: &'static str,
    /// Data keys of this manager.
    pub data: BTreeMap<&'static str, String>,
    /// Lower-case hex SHA-256 of `data`.
    pub content_hash: String,
}

impl PlannedConfigMap {
    /// Plans a ConfigMap and hashes its data.
    pub fn new(name: String, field_manager: &'static str, data: BTreeMap<&'static str, String>) -> Self {
        let content_hash = content_hash(&data);
        Self { name, field_manager, data, content_hash }
    }
}

/// Lower-case hex SHA-256 over the data: key, NUL, length, NUL and value of each entry in key order.
fn content_hash(data: &BTreeMap<&'static str, String>) -> String {
    let mut hash = Sha256::new();
    for (key, value) in data {
        hash.update(key.as_bytes());
        hash.update([0]);
        hash.update(value.len().to_string());
        hash.update([0]);
        hash.update(value.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// What the caller's metadata store knows of a stored per-workload ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExistingConfigMap {
    /// Its controller ownerReference.
    pub controller: Option<OwnerReference>,
}

/// Names of the per-workload ConfigMaps of one Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigNames {
    /// `authbridge-config-<w>`, with a suffix after a collision.
    pub config: String,
    /// `envoy-config-<w>`, with the same suffix.
    pub envoy: String,
    /// The plain name belongs to another workload (webhook §12.3); gives a warning.
    pub collision: bool,
}

/// The ConfigMap names of a workload (webhook §12.3, name collision).
///
/// Workloads of one kind have distinct names, so a stored map whose controller has our group, kind and name but
/// another UID belongs to a deleted predecessor and is taken over; any other controller is a collision.
/// `stored` is called with the plain name of each of the two maps. When the stored `config` map carries
/// `kagenti.io/config-pinned: "true"`, read its `config.yaml` and pass it as [`super::Inputs::pinned_config`].
pub fn config_names(workload: &Workload, stored: impl Fn(&str) -> Option<ExistingConfigMap>) -> ConfigNames {
    let config = owner::config_map_name(&workload.name);
    let envoy = owner::envoy_config_map_name(&workload.name);
    let taken = |name: &str| {
        stored(name).and_then(|map| map.controller).is_some_and(|controller| {
            owner::group_of(&controller.api_version) != workload.group
                || controller.kind != workload.kind
                || controller.name != workload.name
        })
    };
    if !taken(&config) && !taken(&envoy) {
        return ConfigNames { config, envoy, collision: false };
    }
    let hash = hex::encode(Sha256::digest(format!("{}/{}", workload.kind, workload.name)));
    let suffix = hash.get(..8).unwrap_or_default();
    ConfigNames {
        config: suffixed(&config, &workload.name, suffix),
        envoy: suffixed(&envoy, &workload.name, suffix),
        collision: true,
    }
}

/// `<plain>-<suffix>`, shortened where the suffix would make the name too long.
fn suffixed(plain: &str, workload: &str, suffix: &str) -> String {
    const LONGEST: usize = 253;
    let mut name: Cow<'_, str> = plain.into();
    if name.len() + 1 + suffix.len() > LONGEST {
        let tail = hex::encode(Sha256::digest(workload));
        let keep: String = plain.chars().take(LONGEST - 2 * (suffix.len() + 1)).collect();
        name = format!("{keep}-{}", tail.get(..suffix.len()).unwrap_or_default()).into();
    }
    format!("{name}-{suffix}")
}

/// Where the ownerReference of the ConfigMaps comes from (webhook §12.3).
#[derive(Clone, Debug, PartialEq)]
pub enum OwnerPlan {
    /// This reference (`controller: true`, `blockOwnerDeletion: false`).
    Known(OwnerReference),
    /// The controller of the object that owns the Pod: one metadata read, cached by UID. Needed only when a
    /// ConfigMap has to be written: a stored map that is owned by the Pod's workload answers it, too.
    ControllerOf {
        /// `ReplicaSet` or `Job`.
        kind: String,
        /// Name, in the Pod's namespace.
        name: String,
        /// UID of that object.
        uid: String,
    },
    /// None: the orphan sweeper looks after the map.
    Unknown,
}

/// The owner of a Pod's ConfigMaps. `live` is the controller ownerReference of the ReplicaSet or Job that owns
/// the Pod: `None` = not read; `Some(None)` = read, and the object is gone or has no controller.
pub fn owner_plan(pod: &PodIdentity<'_>, live: Option<Option<&OwnerReference>>) -> OwnerPlan {
    let Some(direct) = pod.owner else { return OwnerPlan::Unknown };
    let known = |of: &OwnerReference| {
        OwnerPlan::Known(OwnerReference {
            controller: Some(true),
            block_owner_deletion: Some(false),
            ..of.clone()
        })
    };
    let read = || OwnerPlan::ControllerOf {
        kind: direct.kind.clone(),
        name: direct.name.clone(),
        uid: direct.uid.clone(),
    };
    match (owner::group_of(&direct.api_version), direct.kind.as_str(), live) {
        ("apps", "ReplicaSet", None) | ("batch", "Job", None) => read(),
        ("apps", "ReplicaSet", Some(controller)) => controller.map_or(OwnerPlan::Unknown, known),
        ("batch", "Job", Some(Some(controller)))
            if controller.kind == "CronJob" && owner::group_of(&controller.api_version) == "batch" =>
        {
            known(controller)
        }
        _ => known(direct),
    }
}
