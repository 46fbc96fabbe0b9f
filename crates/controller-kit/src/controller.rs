//! The skeleton of a controller: what its passes work with, and the workers that run them.
//!
//! A controller writes its own `Context`, which holds [`Common`] and dereferences to it, and one function that makes a
//! pass over a key. Watches fill its [indexes](crate::index) and add keys to [`Common::queue`];
//! [`workers`] take them out again. docs/contributing.md shows the parts file by file.

mod pass;
mod workers;

use std::{
    fmt::{Debug, Display},
    future::Future,
    hash::Hash,
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::stream::BoxStream;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use pass::{Failed, PassError, Retry};
pub use workers::workers;

use crate::{
    backoff::{PerKey, jitter},
    events::EventRecorder,
    lease::Leadership,
    memory::Memory,
    metrics::Metrics,
    queue::Queue,
    readiness::Readiness,
    reconcile::{ControllerMetrics, ReconcileMetrics},
    scope::Scope,
    sources::Sources,
    watch::{Undecodable, WatchOptions, Watches, guarded_watch_stream, pages, watch_stream},
};

/// How long the first passes wait for watches that neither deliver nor fail.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often everything is looked at although its watches told of no change (runtime §6).
const SAFETY_LOOK: Duration = Duration::from_secs(10 * 3600);
/// Over this time the safety looks are spread.
const SAFETY_SPREAD: Duration = Duration::from_secs(600);
/// Longest wait after failures.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a started process gives to its controller.
pub struct Handles {
    /// The API server.
    pub client: Client,
    /// Namespace of the suite.
    pub operator_namespace: String,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// The registry behind `/metrics`.
    pub metrics: Metrics,
    /// The list behind `/readyz`.
    pub readiness: Readiness,
    /// Events.
    pub events: EventRecorder,
    /// May this replica write?
    pub leadership: Leadership,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

/// What the contexts of all controllers have in common. `K` is what the queue holds, `S` what is watched.
pub struct Common<K, S> {
    /// The API server.
    pub client: Client,
    /// Namespace of the suite.
    pub operator_namespace: String,
    /// Namespaces that are ours.
    pub scope: Scope,
    /// What every watch reports to.
    pub watches: Watches,
    /// Which watches work.
    pub sources: Arc<Sources<S>>,
    /// The work.
    pub queue: Queue<K>,
    /// Events.
    pub events: EventRecorder,
    /// May this replica write?
    pub leadership: Leadership,
    passes: ControllerMetrics,
    failures: PerKey<K>,
    /// The error of the last pass over a key, so that a standing one is logged once.
    last_error: Memory<K, String>,
    sandbox: RwLock<Option<&'static str>>,
    clock: fn() -> Timestamp,
}

/// What a queue can hold.
pub trait Key: Clone + Debug + Display + Hash + Ord + Send + Sync + 'static {}

impl<K: Clone + Debug + Display + Hash + Ord + Send + Sync + 'static> Key for K {}

/// A context whose keys the [`workers`] work on.
pub trait Controller<K: Key, S>: Deref<Target = Common<K, S>> + Send + Sync + 'static {
    /// Why a pass did not reach its end.
    type Error: Failed + Send;

    /// One pass over a key: looks at what there is, writes what differs, says when to look again.
    fn pass(&self, key: &K) -> impl Future<Output = Result<Option<Duration>, Self::Error>> + Send;
}

impl<K: Key, S> Common<K, S> {
    /// Nothing to do yet. `controller` is the label of the metrics of passes, e.g. `agentruntime`.
    pub fn new(handles: Handles, controller: &'static str) -> Self {
        let Handles { client, operator_namespace, scope, metrics, readiness, events, leadership, clock } =
            handles;
        Self {
            client,
            operator_namespace,
            scope,
            passes: ReconcileMetrics::register(&metrics).controller(controller),
            watches: Watches { metrics, readiness },
            sources: Arc::default(),
            queue: Queue::default(),
            events,
            leadership,
            failures: PerKey::new(LONGEST_WAIT),
            last_error: Memory::default(),
            sandbox: RwLock::default(),
            clock,
        }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Refuses when this replica must not write; asked before every write.
    ///
    /// # Errors
    /// [`PassError::NotLeader`].
    pub fn may_write(&self) -> Result<(), PassError> {
        if self.leadership.is_leader() { Ok(()) } else { Err(PassError::NotLeader) }
    }

    /// A [watch](watch_stream) of this process.
    pub fn watch<O>(
        &self,
        api: Api<O>,
        config: watcher::Config,
        options: WatchOptions,
    ) -> BoxStream<'static, Event<O>>
    where
        O: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        watch_stream(&self.watches, api, config, options)
    }

    /// A [guarded watch](guarded_watch_stream) of this process, of everything in a namespace or, with `None`, in all.
    pub fn watch_guarded<O>(
        &self,
        namespace: Option<&str>,
        options: WatchOptions,
        on_bad: impl Fn(Undecodable) + Send + 'static,
    ) -> BoxStream<'static, Event<DeserializeGuard<O>>>
    where
        O: Resource<Scope = NamespaceResourceScope, DynamicType: Default>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        guarded_watch_stream(&self.watches, &self.client, namespace, pages(), options, on_bad)
    }

    /// The served version of the Sandbox kind; `None` = not served.
    pub fn sandbox_version(&self) -> Option<&'static str> {
        *self.sandbox.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the served version; true when that is news.
    pub fn set_sandbox_version(&self, version: Option<&'static str>) -> bool {
        let mut known = self.sandbox.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, version) != version
    }

    /// Forgets the failures of a key.
    pub fn succeeded(&self, key: &K) {
        self.failures.reset(key);
        self.last_error.remove(key);
    }

    /// Asks for a look at all of `keys` every ten hours, spread over ten minutes; never ends.
    pub async fn safety_looks<I: IntoIterator<Item = K>>(&self, keys: impl Fn() -> I) {
        loop {
            tokio::time::sleep(jitter(SAFETY_LOOK, 0.1)).await;
            for key in keys() {
                self.queue.add(key, SAFETY_SPREAD.mul_f64(fastrand::f64()));
            }
        }
    }
}

impl<K, S: Copy + Eq + Hash> Common<K, S> {
    /// Waits until the watches have delivered or failed; false when the process stops before.
    pub async fn watches_settled(&self, stop: &CancellationToken) -> bool {
        stop.run_until_cancelled(self.sources.settled(PATIENCE)).await.is_some()
    }
}
