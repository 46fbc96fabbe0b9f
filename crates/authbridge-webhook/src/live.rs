//! The few reads that go to the API server during an admission; none is on a happy path.
//!
//! Each exists because a stale store would let a Pod start with weaker settings than asked for, or
//! refuse an object for no reason (webhook §4.6, §7.4, README decision 27).

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api_types::{AgentCard, AgentRuntime, AgentRuntimeSpec, names::configmap};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api, Client,
    api::{ListParams, PartialObjectMeta},
};
use lru::LruCache;
use tokio::time::Instant;

use crate::{caches::targets::Targeting, keyed_lock::KeyedLock, metrics::Metrics};

/// How long a live answer about a namespace is used again, so a burst of Pods costs one read.
const REUSE: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 1024;

/// A read that failed.
#[derive(Debug, thiserror::Error)]
#[error("reading {object}: {source}")]
pub struct LiveError {
    object: String,
    source: Box<kube::Error>,
}

type Labels = BTreeMap<String, String>;
type Runtimes = Arc<Vec<Arc<Targeting<AgentRuntimeSpec>>>>;

/// Answers of the last seconds.
type Recent<V> = Mutex<LruCache<Box<str>, (Instant, V)>>;

/// Namespace and name of a pinned ConfigMap -> its version and `config.yaml`.
type Pinned = LruCache<(Box<str>, Box<str>), (Box<str>, Arc<str>)>;

/// Reads from the API server.
pub struct Live {
    client: Client,
    metrics: Arc<Metrics>,
    namespaces: Recent<Option<Arc<Labels>>>,
    runtimes: Recent<Runtimes>,
    pinned: Mutex<Pinned>,
    turns: KeyedLock<(&'static str, Box<str>)>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// A reader.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let limit = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self {
            client,
            metrics,
            namespaces: Mutex::new(LruCache::new(limit)),
            runtimes: Mutex::new(LruCache::new(limit)),
            pinned: Mutex::new(LruCache::new(limit)),
            turns: KeyedLock::default(),
        }
    }

    /// Labels of a Namespace, for one the store does not know yet or whose labels contradict that we
    /// were called. `None` = it does not exist.
    pub async fn namespace_labels(&self, name: &str) -> Result<Option<Arc<Labels>>, LiveError> {
        if let Some(known) = recall(&self.namespaces, name) {
            return Ok(known);
        }
        let _turn = self.turns.turn(("namespace", name.into())).await;
        if let Some(known) = recall(&self.namespaces, name) {
            return Ok(known);
        }
        let read = Api::<Namespace>::all(self.client.clone()).get_metadata_opt(name).await;
        let found = self.counted("get", "namespaces", || format!("Namespace {name}"), read)?;
        let labels =
            found.map(|ns: PartialObjectMeta<Namespace>| Arc::new(ns.metadata.labels.unwrap_or_default()));
        remember(&self.namespaces, name, labels.clone());
        Ok(labels)
    }

    /// The AgentRuntimes of a namespace, for a Pod that runtime-ctl stamped while the store knows no
    /// AgentRuntime for it. A missing CRD means none.
    pub async fn runtimes(&self, namespace: &str) -> Result<Runtimes, LiveError> {
        if let Some(known) = recall(&self.runtimes, namespace) {
            return Ok(known);
        }
        let _turn = self.turns.turn(("agentruntimes", namespace.into())).await;
        if let Some(known) = recall(&self.runtimes, namespace) {
            return Ok(known);
        }
        let api = Api::<AgentRuntime>::namespaced(self.client.clone(), namespace);
        let list = match api.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
            other => other.map(|list| list.items),
        };
        let object = || format!("AgentRuntimes of namespace {namespace}");
        let items = self.counted("list", "agentruntimes", object, list)?;
        let found: Runtimes = Arc::new(items.into_iter().map(|r| Arc::new(r.into())).collect());
        remember(&self.runtimes, namespace, found.clone());
        Ok(found)
    }

    /// `config.yaml` of a pinned ConfigMap (webhook §12.3). Read once per version of the map.
    pub async fn pinned_config(
        &self,
        namespace: &str,
        name: &str,
        version: &str,
    ) -> Result<Option<Arc<str>>, LiveError> {
        let key = (Box::from(namespace), Box::from(name));
        {
            let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, text)) = pinned.get(&key)
                && **at == *version
            {
                return Ok(Some(text.clone()));
            }
        }
        let read = Api::<ConfigMap>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        let object = || format!("ConfigMap {namespace}/{name}");
        let Some(map) = self.counted("get", "configmaps", object, read)? else { return Ok(None) };
        let text: Option<Arc<str>> =
            map.data.and_then(|mut data| data.remove(configmap::CONFIG_KEY)).map(Into::into);
        if let (Some(text), Some(version)) = (&text, map.metadata.resource_version) {
            let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
            pinned.put(key, (version.into(), text.clone()));
        }
        Ok(text)
    }

    /// Labels of a ServiceAccount; `None` = it does not exist.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Option<Labels>, LiveError> {
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let read = api.get_metadata_opt(name).await;
        let object = || format!("ServiceAccount {namespace}/{name}");
        let found = self.counted("get", "serviceaccounts", object, read)?;
        Ok(found.map(|account| account.metadata.labels.unwrap_or_default()))
    }

    /// One AgentRuntime, before it is named as the reason of a denial.
    pub async fn agent_runtime(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<AgentRuntime>, LiveError> {
        let read = Api::<AgentRuntime>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        self.counted("get", "agentruntimes", || format!("AgentRuntime {namespace}/{name}"), read)
    }

    /// One AgentCard, before it is named as the reason of a denial.
    pub async fn agent_card(&self, namespace: &str, name: &str) -> Result<Option<AgentCard>, LiveError> {
        let read = Api::<AgentCard>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        self.counted("get", "agentcards", || format!("AgentCard {namespace}/{name}"), read)
    }

    fn counted<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        object: impl FnOnce() -> String,
        result: kube::Result<T>,
    ) -> Result<T, LiveError> {
        self.metrics.api(verb, resource, if result.is_ok() { "ok" } else { "error" });
        result.map_err(|source| LiveError { object: object(), source: Box::new(source) })
    }
}

fn recall<V: Clone>(recent: &Recent<V>, key: &str) -> Option<V> {
    let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
    let (at, value) = recent.get(key)?;
    (at.elapsed() < REUSE).then(|| value.clone())
}

fn remember<V>(recent: &Recent<V>, key: &str, value: V) {
    recent.lock().unwrap_or_else(PoisonError::into_inner).put(key.into(), (Instant::now(), value));
}
