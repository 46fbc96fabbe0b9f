//! Pods of agents and tools by the workload they belong to.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{
    injection::{Egress, Inbound, Mode},
    names::{annotation, label},
    owner::{PodIdentity, controller_of, workload_of},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::workload::WorkloadKey;

/// The workload of a Pod: (namespace, group, kind, name). Kinds that cannot be enrolled occur too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerKey {
    /// Namespace.
    pub namespace: String,
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl From<&WorkloadKey> for OwnerKey {
    fn from(key: &WorkloadKey) -> Self {
        Self {
            namespace: key.namespace.clone(),
            group: key.kind.group().to_owned(),
            kind: key.kind.as_str().to_owned(),
            name: key.name.clone(),
        }
    }
}

/// A Pod as kept in the index. Finished Pods are not watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// The workload (runtime §8.3).
    pub owner: OwnerKey,
    /// Label `kagenti.io/type`.
    pub type_label: Option<String>,
    /// Annotation `kagenti.io/config-hash`.
    pub config_hash: Option<String>,
    /// Annotation `kagenti.io/mtls-mode`.
    pub mtls_mode: Option<String>,
    /// Has a deletionTimestamp.
    pub terminating: bool,
    /// What the webhook resolved for it; `None` when it was not injected.
    pub resolved: Option<Resolved>,
}

/// Values of annotation `kagenti.io/authbridge-status` that an AgentRuntime can change (runtime §5.3).
///
/// A value this build does not know is `None` and compares as equal: no false alarm during an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// `mode`.
    pub mode: Option<Mode>,
    /// `egress`.
    pub egress: Option<Egress>,
    /// `inbound`.
    pub inbound: Option<Inbound>,
    /// `tlsBridge`.
    pub tls_bridge: Option<bool>,
    /// `identityHash`.
    pub identity_hash: Option<String>,
}

impl Resolved {
    /// Reads the annotation; `None` when it is not what the webhook writes.
    pub fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Wire {
            mode: Option<String>,
            egress: Option<String>,
            inbound: Option<String>,
            tls_bridge: Option<serde_json::Value>,
            identity_hash: Option<String>,
        }
        let wire: Wire = serde_json::from_str(text).ok()?;
        Some(Self {
            mode: wire.mode.as_deref().and_then(Mode::parse),
            egress: wire.egress.as_deref().and_then(Egress::parse),
            inbound: wire.inbound.as_deref().and_then(Inbound::parse),
            tls_bridge: match wire.tls_bridge {
                Some(serde_json::Value::Bool(on)) => Some(on),
                Some(serde_json::Value::String(text)) => Some(text == "enabled"),
                _ => None,
            },
            identity_hash: wire.identity_hash,
        })
    }
}

impl Pod {
    /// Compacts metadata. `None` without namespace or name, which the API server never sends.
    pub fn from_meta(metadata: ObjectMeta) -> Option<Self> {
        let namespace = metadata.namespace?;
        let name = metadata.name?;
        let owners = metadata.owner_references.unwrap_or_default();
        let workload = workload_of(
            &PodIdentity {
                name: &name,
                generate_name: metadata.generate_name.as_deref().unwrap_or_default(),
                uid: metadata.uid.as_deref().unwrap_or_default(),
                labels: metadata.labels.as_ref(),
                owner: controller_of(&owners),
            },
            None,
        );
        let mut annotations = metadata.annotations.unwrap_or_default();
        Some(Self {
            name,
            owner: OwnerKey { namespace, group: workload.group, kind: workload.kind, name: workload.name },
            type_label: metadata.labels.and_then(|mut labels| labels.remove(label::TYPE)),
            config_hash: annotations.remove(annotation::CONFIG_HASH),
            mtls_mode: annotations.remove(annotation::MTLS_MODE),
            terminating: metadata.deletion_timestamp.is_some(),
            resolved: annotations.get(annotation::AUTHBRIDGE_STATUS).and_then(|text| Resolved::parse(text)),
        })
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct Pods {
    inner: RwLock<Inner>,
}

type PodKey = (String, String);

#[derive(Debug, Default)]
struct Inner {
    /// (namespace, name) to owner.
    owners: HashMap<PodKey, OwnerKey>,
    by_owner: HashMap<OwnerKey, Vec<Arc<Pod>>>,
}

impl Pods {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a Pod; true when something that counts differs from before.
    pub fn upsert(&self, pod: Pod) -> bool {
        let mut inner = self.write();
        let key = (pod.owner.namespace.clone(), pod.name.clone());
        let old = inner.take(&key);
        let changed = old.as_deref() != Some(&pod);
        inner.owners.insert(key, pod.owner.clone());
        let pod = if changed { Arc::new(pod) } else { old.unwrap_or_else(|| Arc::new(pod)) };
        inner.by_owner.entry(pod.owner.clone()).or_default().push(pod);
        changed
    }

    /// Removes a Pod; returns its workload.
    pub fn remove(&self, namespace: &str, name: &str) -> Option<OwnerKey> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut inner = self.write();
        inner.take(&key).map(|pod| pod.owner.clone())
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it; returns the workloads.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<(String, String)>) -> Vec<OwnerKey> {
        let gone: Vec<PodKey> = {
            let scoped = |key: &&PodKey| namespace.is_none_or(|ns| key.0 == ns) && !seen.contains(*key);
            self.read().owners.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|(namespace, name)| self.remove(namespace, name)).collect()
    }

    /// The Pods of a workload.
    pub fn of(&self, owner: &OwnerKey) -> Vec<Arc<Pod>> {
        self.read().by_owner.get(owner).cloned().unwrap_or_default()
    }

    /// Number of Pods.
    pub fn len(&self) -> usize {
        self.read().owners.len()
    }

    /// True without Pods.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn take(&mut self, key: &PodKey) -> Option<Arc<Pod>> {
        let owner = self.owners.remove(key)?;
        let pods = self.by_owner.get_mut(&owner)?;
        let at = pods.iter().position(|pod| pod.name == key.1)?;
        let pod = pods.swap_remove(at);
        if pods.is_empty() {
            self.by_owner.remove(&owner);
        }
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, hash: &str) -> Pod {
        let metadata = json!({
            "namespace": "ns", "name": name,
            "labels": {"kagenti.io/type": "agent", "pod-template-hash": "abc"},
            "annotations": {"kagenti.io/config-hash": hash,
                "kagenti.io/authbridge-status": r#"{"v":1,"mode":"lite","tlsBridge":true,"inbound":"new-thing"}"#},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "weather-abc", "uid": "u",
                "controller": true}],
        });
        Pod::from_meta(serde_json::from_value(metadata).unwrap()).unwrap()
    }

    fn owner() -> OwnerKey {
        OwnerKey {
            namespace: "ns".into(),
            group: "apps".into(),
            kind: "Deployment".into(),
            name: "weather".into(),
        }
    }

    #[test]
    fn pods_are_found_by_their_workload() {
        let index = Pods::default();
        assert!(index.upsert(pod("weather-abc-1", "h")));
        assert!(!index.upsert(pod("weather-abc-1", "h")), "nothing that counts changed");
        assert!(index.upsert(pod("weather-abc-1", "h2")));
        index.upsert(pod("weather-abc-2", "h2"));
        assert_eq!(index.of(&owner()).len(), 2);
        assert_eq!(index.remove("ns", "weather-abc-1"), Some(owner()));
        let gone = index.retain(None, &HashSet::new());
        assert_eq!(gone, [owner()]);
        assert!(index.is_empty() && index.of(&owner()).is_empty());
    }

    #[test]
    fn the_status_annotation_is_read_leniently() {
        let resolved = pod("p", "h").resolved.unwrap();
        assert_eq!(resolved.mode, Some(Mode::Lite));
        assert_eq!(resolved.tls_bridge, Some(true));
        assert_eq!(resolved.inbound, None);
        assert_eq!(Resolved::parse("no json"), None);
    }
}
