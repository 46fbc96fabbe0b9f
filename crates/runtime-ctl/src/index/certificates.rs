//! TLS-bridge certificates that AgentRuntimes own (runtime §15).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use api_types::names;
use controller_kit::index::is_older;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RuntimeKey;

/// A cert-manager Certificate as it is read and created.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// `apiVersion`.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// `kind`.
    #[serde(default = "kind")]
    pub kind: String,
    /// Object metadata.
    #[serde(default, deserialize_with = "controller_kit::lean::metadata")]
    pub metadata: ObjectMeta,
    /// The spec, to be compared with the wanted one.
    #[serde(default)]
    pub spec: Value,
    /// The part of the status that matters; never written.
    #[serde(default, skip_serializing)]
    pub status: CertificateStatus,
}

fn api_version() -> String {
    "cert-manager.io/v1".into()
}

fn kind() -> String {
    "Certificate".into()
}

/// The part of a Certificate's status that matters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CertificateStatus {
    /// Counts up with every issued certificate.
    pub revision: Option<i64>,
    /// Conditions; `Ready` and `Issuing` are looked at.
    pub conditions: Vec<CertificateCondition>,
}

/// A condition of a Certificate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CertificateCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Status.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

impl Resource for CertificateView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Certificate".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "cert-manager.io".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "certificates".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A Certificate as kept in the index; those of others are not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// Namespace.
    pub namespace: String,
    /// Name, also of its Secret.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Being deleted.
    pub deleting: bool,
    /// Name of the AgentRuntime that controls it.
    pub runtime: String,
    /// uid of that AgentRuntime.
    pub runtime_uid: String,
    /// The whole spec.
    pub spec: Value,
    /// The status.
    pub status: CertificateStatus,
}

impl Certificate {
    /// Compacts what was read; `None` unless an AgentRuntime controls it.
    pub fn from_view(view: CertificateView) -> Option<Self> {
        let owner = view.metadata.owner_references.iter().flatten().find(|owner| {
            owner.controller == Some(true)
                && owner.kind == "AgentRuntime"
                && owner.api_version.split('/').next() == Some(names::GROUP)
        })?;
        Some(Self {
            runtime: owner.name.clone(),
            runtime_uid: owner.uid.clone(),
            namespace: view.metadata.namespace.unwrap_or_default(),
            name: view.metadata.name.unwrap_or_default(),
            uid: view.metadata.uid.unwrap_or_default(),
            resource_version: view.metadata.resource_version.unwrap_or_default(),
            deleting: view.metadata.deletion_timestamp.is_some(),
            spec: view.spec,
            status: view.status,
        })
    }

    /// The AgentRuntime that controls it.
    pub fn owner(&self) -> RuntimeKey {
        RuntimeKey { namespace: self.namespace.clone(), name: self.runtime.clone() }
    }
}

/// The index, by namespace and name.
#[derive(Debug, Default)]
pub struct Certificates {
    inner: RwLock<HashMap<(String, String), Arc<Certificate>>>,
}

impl Certificates {
    /// Stores an object; returns the AgentRuntimes to look at: its controller and the one before.
    pub fn upsert(&self, certificate: Certificate) -> Vec<RuntimeKey> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let key = (certificate.namespace.clone(), certificate.name.clone());
        let owner = certificate.owner();
        match inner.get(&key) {
            Some(old) if is_older(&certificate.resource_version, &old.resource_version) => Vec::new(),
            Some(old) => {
                let former = Some(old.owner()).filter(|former| *former != owner);
                let wake = former.into_iter().chain([owner]).collect();
                inner.insert(key, Arc::new(certificate));
                wake
            }
            None => {
                inner.insert(key, Arc::new(certificate));
                vec![owner]
            }
        }
    }

    /// Removes an object; returns its controller.
    pub fn remove(&self, namespace: &str, name: &str) -> Option<RuntimeKey> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(&(namespace.to_owned(), name.to_owned())).map(|certificate| certificate.owner())
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<(String, String)>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|key, _| namespace.is_some_and(|ns| key.0 != ns) || seen.contains(key));
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Certificate>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Certificates that an AgentRuntime controls. There are few of them at all, so they are scanned.
    pub fn controlled_by(&self, runtime: &RuntimeKey) -> Vec<Arc<Certificate>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mine = |c: &&Arc<Certificate>| c.namespace == runtime.namespace && c.runtime == runtime.name;
        inner.values().filter(mine).cloned().collect()
    }
}
