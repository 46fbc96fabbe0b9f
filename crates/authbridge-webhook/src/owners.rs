//! Live owner look-ups (webhook §6): the controller of a ReplicaSet or Job, cached by UID.
//!
//! The controller of one object never changes in a way that matters here, so an answer is good for
//! as long as the UID exists. A metadata read is made once per ReplicaSet, not per Pod.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use api_types::owner::controller_of;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::GetParams};
use lru::LruCache;

use crate::{keyed_lock::KeyedLock, metrics::Metrics};

/// Owners remembered; about 250 bytes each.
const REMEMBERED: usize = 16_384;

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// `apps/ReplicaSet`.
    ReplicaSet,
    /// `batch/Job`.
    Job,
}

impl OwnerKind {
    /// By the kind of an ownerReference.
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "ReplicaSet" => Some(Self::ReplicaSet),
            "Job" => Some(Self::Job),
            _ => None,
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::ReplicaSet => "replicasets",
            Self::Job => "jobs",
        }
    }
}

/// A look-up that failed for another reason than "not found".
#[derive(Debug, thiserror::Error)]
#[error("reading {resource} {namespace}/{name}: {source}")]
pub struct OwnerError {
    resource: &'static str,
    namespace: String,
    name: String,
    source: kube::Error,
}

type Controller = Option<Arc<OwnerReference>>;

/// Reads owners and remembers them.
pub struct Owners {
    client: Client,
    metrics: Arc<Metrics>,
    remembered: Mutex<LruCache<Box<str>, Controller>>,
    /// One read at a time per UID; the others wait for its answer.
    reading: KeyedLock<Box<str>>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owners {
    /// A reader with an empty memory.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let limit = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self { client, metrics, remembered: Mutex::new(LruCache::new(limit)), reading: KeyedLock::default() }
    }

    /// The controller of that object; `None` when it has none, is gone, or is another one of the
    /// same name by now.
    pub async fn controller(
        &self,
        namespace: &str,
        kind: OwnerKind,
        name: &str,
        uid: &str,
    ) -> Result<Controller, OwnerError> {
        if let Some(known) = self.recall(uid) {
            return Ok(known);
        }
        let _turn = self.reading.turn(uid.into()).await;
        match self.recall(uid) {
            Some(known) => Ok(known),
            None => self.read(namespace, kind, name, uid).await,
        }
    }

    fn recall(&self, uid: &str) -> Option<Controller> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// The API server's cache is asked first: owners do not change, and whoever made the Pod has seen the object. What
    /// is not in there, or not this one, is read from the store.
    async fn read(
        &self,
        namespace: &str,
        kind: OwnerKind,
        name: &str,
        uid: &str,
    ) -> Result<Controller, OwnerError> {
        let is_it = |meta: &ObjectMeta| uid.is_empty() || meta.uid.as_deref() == Some(uid);
        let cached = self.get(namespace, kind, name, &GetParams::any()).await?.filter(is_it);
        let meta = match cached {
            Some(meta) => Some(meta),
            None => self.get(namespace, kind, name, &GetParams::default()).await?.filter(is_it),
        };
        let controller = meta
            .and_then(|meta| controller_of(meta.owner_references.as_deref().unwrap_or_default()).cloned())
            .map(Arc::new);
        if !uid.is_empty() {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.put(uid.into(), controller.clone());
        }
        Ok(controller)
    }

    async fn get(
        &self,
        namespace: &str,
        kind: OwnerKind,
        name: &str,
        how: &GetParams,
    ) -> Result<Option<ObjectMeta>, OwnerError> {
        let client = self.client.clone();
        let answer = match kind {
            OwnerKind::ReplicaSet => {
                let api = Api::<ReplicaSet>::namespaced(client, namespace);
                api.get_metadata_with(name, how).await.map(|o| o.metadata)
            }
            OwnerKind::Job => {
                let api = Api::<Job>::namespaced(client, namespace);
                api.get_metadata_with(name, how).await.map(|o| o.metadata)
            }
        };
        let (outcome, found) = match answer {
            Ok(meta) => ("ok", Ok(Some(meta))),
            Err(kube::Error::Api(status)) if status.is_not_found() => ("not_found", Ok(None)),
            Err(source) => {
                let (resource, namespace, name) = (kind.resource(), namespace.to_owned(), name.to_owned());
                ("error", Err(OwnerError { resource, namespace, name, source }))
            }
        };
        self.metrics.api("get", kind.resource(), outcome);
        found
    }
}
