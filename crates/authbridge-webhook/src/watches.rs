//! The watches that fill the indexes (webhook §7.3, §11.2, §12.3).

mod filled;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api_types::{
    AgentCard, AgentRuntime,
    names::{MANAGED_BY_WEBHOOK, SPIFFE_CSI_DRIVER, label},
};
use controller_kit::{
    scope::{Scope, api_in},
    watch::{
        StoreGauge, TroubleKind, WatchOptions, Watches, guarded_watch_stream, namespaces_of, watch_stream,
    },
};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, ServiceAccount},
    storage::v1::CSIDriver,
};
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};
use tokio::time::sleep;

pub use filled::Synced;
use filled::{Filled, Share};

use crate::caches::{
    Caches,
    namespaces::{NamespaceMap, relevant},
    targets::{Targeting, Targets},
};

/// How often the labels of a namespace are read in namespaced mode, where they cannot be watched
/// (packaging §7); up to a tenth more.
const NAMESPACE_POLL: Duration = Duration::from_mins(1);
/// First wait after a failed read.
const RETRY: Duration = Duration::from_secs(2);
/// The API server's version is read again after this long: it may have been upgraded.
const VERSION_POLL: Duration = Duration::from_mins(10);

/// A task of the process.
pub type Task = (&'static str, BoxFuture<'static, ()>);

/// What an event means for an index.
enum Step<K> {
    Begin,
    Put(K),
    Remove(K),
    Finish,
}

/// All tasks that fill `caches`, and the signal that all of them are filled.
pub fn tasks(client: &Client, scope: &Scope, watches: &Watches, caches: &Arc<Caches>) -> (Vec<Task>, Synced) {
    let cluster = Filled::new();
    let mut own = BTreeMap::new();
    let gauge = |kind: &str| Arc::new(Mutex::new(StoreGauge::new(&watches.metrics, kind)));
    let feeder = Feeder {
        client,
        watches,
        caches,
        runtimes: gauge("agentruntimes"),
        cards: gauge("agentcards"),
        accounts: gauge("serviceaccounts"),
        maps: gauge("configmaps"),
    };
    let mut tasks = Vec::new();
    for namespace in namespaces_of(scope) {
        let filled = match &namespace {
            None => cluster.clone(),
            Some(name) => {
                let filled = Filled::new();
                own.insert(name.clone(), filled.receiver());
                filled
            }
        };
        tasks.push(("watch agentruntimes", feeder.runtimes(namespace.clone(), filled.share())));
        tasks.push(("watch agentcards", feeder.cards(namespace.clone(), filled.share())));
        for which in NamespaceMap::ALL {
            tasks.push((which.name(), feeder.namespace_map(which, namespace.clone(), filled.share())));
        }
        tasks.push(("watch serviceaccounts", feeder.service_accounts(namespace.clone(), filled.share())));
        tasks.push(("watch configmaps", feeder.config_maps(namespace.clone(), filled.share())));
        match namespace {
            None => tasks.push(("watch namespaces", feeder.namespaces(filled.share()))),
            Some(name) => tasks.push(("poll namespace", feeder.poll_namespace(name, filled.share()))),
        }
    }
    if !scope.is_namespaced() {
        tasks.push(("watch csidrivers", feeder.csi_driver(cluster.share())));
    }
    tasks.push(("read version", feeder.version(cluster.share())));
    (tasks, Synced::new(cluster.receiver(), own))
}

struct Feeder<'a> {
    client: &'a Client,
    watches: &'a Watches,
    caches: &'a Arc<Caches>,
    runtimes: SharedGauge,
    cards: SharedGauge,
    accounts: SharedGauge,
    maps: SharedGauge,
}

/// The size of one index; with a list of namespaces several watches feed it.
type SharedGauge = Arc<Mutex<StoreGauge>>;

fn set(gauge: &SharedGauge, len: usize) {
    gauge.lock().unwrap_or_else(PoisonError::into_inner).set(len);
}

impl Feeder<'_> {
    fn runtimes(&self, namespace: Option<String>, share: Share) -> BoxFuture<'static, ()> {
        let options = WatchOptions::new("agentruntimes").optional_kind();
        let events = guarded_watch_stream::<AgentRuntime>(
            self.watches,
            self.client,
            namespace.as_deref(),
            watcher::Config::default(),
            options,
            |_| {},
        );
        let (caches, gauge) = (self.caches.clone(), self.runtimes.clone());
        Box::pin(targets(events, namespace, share, gauge, move |act| act(&caches.runtimes)))
    }

    fn cards(&self, namespace: Option<String>, share: Share) -> BoxFuture<'static, ()> {
        let options = WatchOptions::new("agentcards").optional_kind();
        let events = guarded_watch_stream::<AgentCard>(
            self.watches,
            self.client,
            namespace.as_deref(),
            watcher::Config::default(),
            options,
            |_| {},
        );
        let (caches, gauge) = (self.caches.clone(), self.cards.clone());
        Box::pin(targets(events, namespace, share, gauge, move |act| act(&caches.cards)))
    }

    fn namespace_map(
        &self,
        which: NamespaceMap,
        namespace: Option<String>,
        share: Share,
    ) -> BoxFuture<'static, ()> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", which.name()));
        let options = WatchOptions::new("configmaps").check(which.name());
        let events = watch_stream(
            self.watches,
            api_in::<ConfigMap>(self.client, namespace.as_deref()),
            config,
            options,
        );
        let caches = self.caches.clone();
        Box::pin(feed(events, share, move |step| match step {
            Step::Begin => caches.namespaces.begin_relist(which, namespace.as_deref()),
            Step::Finish => caches.namespaces.finish_relist(which, namespace.as_deref()),
            Step::Remove(map) => {
                caches.namespaces.remove_map(which, map.metadata.namespace.as_deref().unwrap_or_default());
            }
            Step::Put(map) => {
                let space = map.metadata.namespace.clone().unwrap_or_default();
                if let Some(error) = caches.namespaces.put_map(which, &space, map) {
                    tracing::warn!(k8s.namespace.name = space, configmap = which.name(), %error, "does not parse; Pods of this namespace are denied");
                }
            }
        }))
    }

    fn service_accounts(&self, namespace: Option<String>, share: Share) -> BoxFuture<'static, ()> {
        let options = WatchOptions::new("serviceaccounts");
        let api = api_in::<PartialObjectMeta<ServiceAccount>>(self.client, namespace.as_deref());
        let events = watch_stream(self.watches, api, managed(), options);
        let (caches, gauge) = (self.caches.clone(), self.accounts.clone());
        Box::pin(feed(events, share, move |step| {
            let accounts = &caches.service_accounts;
            match step {
                Step::Begin => accounts.begin_relist(namespace.as_deref()),
                Step::Finish => accounts.finish_relist(namespace.as_deref()),
                Step::Put(account) => with_key(&account.metadata, |ns, name| accounts.put(ns, name)),
                Step::Remove(account) => with_key(&account.metadata, |ns, name| accounts.remove(ns, name)),
            }
            set(&gauge, accounts.len());
        }))
    }

    fn config_maps(&self, namespace: Option<String>, share: Share) -> BoxFuture<'static, ()> {
        let options = WatchOptions::new("configmaps").check("managed configmaps");
        let api = api_in::<PartialObjectMeta<ConfigMap>>(self.client, namespace.as_deref());
        let events = watch_stream(self.watches, api, managed(), options);
        let (caches, gauge) = (self.caches.clone(), self.maps.clone());
        Box::pin(feed(events, share, move |step| {
            let maps = &caches.config_maps;
            match step {
                Step::Begin => maps.table.begin_relist(namespace.as_deref()),
                Step::Finish => drop(maps.table.finish_relist(namespace.as_deref())),
                Step::Put(map) => with_key(&map.metadata, |ns, name| maps.put(ns, name, &map.metadata)),
                Step::Remove(map) => with_key(&map.metadata, |ns, name| drop(maps.table.remove(ns, name))),
            }
            set(&gauge, maps.table.len());
        }))
    }

    fn namespaces(&self, share: Share) -> BoxFuture<'static, ()> {
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let options = WatchOptions::new("namespaces");
        let events = watch_stream(self.watches, api, watcher::Config::default(), options);
        let mut gauge = StoreGauge::new(&self.watches.metrics, "namespaces");
        let caches = self.caches.clone();
        Box::pin(feed(events, share, move |step| {
            let states = &caches.namespaces;
            match step {
                Step::Begin => states.labels.begin_relist(None),
                Step::Finish => drop(states.labels.finish_relist(None)),
                Step::Put(namespace) => {
                    let labels = relevant(namespace.metadata.labels.unwrap_or_default());
                    states.put_labels(namespace.metadata.name.as_deref().unwrap_or_default(), labels);
                }
                Step::Remove(namespace) => {
                    states.remove_labels(namespace.metadata.name.as_deref().unwrap_or_default());
                }
            }
            gauge.set(states.labels.len());
        }))
    }

    fn poll_namespace(&self, name: String, share: Share) -> BoxFuture<'static, ()> {
        let check = format!("namespace {name}");
        self.watches.readiness.register(check.clone(), "not read yet");
        let (readiness, caches) = (self.watches.readiness.clone(), self.caches.clone());
        let api = Api::<Namespace>::all(self.client.clone());
        Box::pin(async move {
            let mut wait = RETRY;
            loop {
                match api.get_metadata_opt(&name).await {
                    Ok(Some(namespace)) => {
                        caches
                            .namespaces
                            .put_labels(&name, relevant(namespace.metadata.labels.unwrap_or_default()));
                        readiness.set_ok(&check);
                        wait = NAMESPACE_POLL;
                    }
                    Ok(None) => {
                        caches.namespaces.remove_labels(&name);
                        readiness.set_degraded(&check, format!("namespace {name} does not exist"));
                        wait = (wait * 2).min(NAMESPACE_POLL);
                    }
                    Err(error) => {
                        readiness.set_degraded(&check, format!("cannot get namespace {name}: {error}"));
                        wait = (wait * 2).min(NAMESPACE_POLL);
                    }
                }
                // The labels are asked for again when a Pod needs them: nothing waits for this poll.
                share.done();
                sleep(wait.mul_f64(1.0 + f64::from(fastrand::u8(0..100)) / 1000.0)).await;
            }
        })
    }

    fn csi_driver(&self, share: Share) -> BoxFuture<'static, ()> {
        let api = Api::<PartialObjectMeta<CSIDriver>>::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("metadata.name={SPIFFE_CSI_DRIVER}"));
        // Where the right to see drivers is missing, SPIRE counts as absent and admission goes on.
        let refused = share.clone();
        let options = WatchOptions::new("csidrivers").degrade_when_refused().on_trouble(move |trouble| {
            if trouble.kind == TroubleKind::Forbidden {
                refused.done();
            }
        });
        let events = watch_stream(self.watches, api, config, options);
        let caches = self.caches.clone();
        let mut present = false;
        Box::pin(feed(events, share, move |step| match step {
            Step::Begin => present = false,
            Step::Put(_) => {
                present = true;
                caches.cluster.set_csi_driver(true);
            }
            Step::Remove(_) => caches.cluster.set_csi_driver(false),
            Step::Finish => caches.cluster.set_csi_driver(present),
        }))
    }

    fn version(&self, share: Share) -> BoxFuture<'static, ()> {
        let (client, caches) = (self.client.clone(), self.caches.clone());
        Box::pin(async move {
            loop {
                let wait = match client.apiserver_version().await {
                    Ok(info) => {
                        caches.cluster.set_version(&info.major, &info.minor);
                        share.done();
                        VERSION_POLL
                    }
                    Err(error) => {
                        tracing::debug!(%error, "reading the API server's version");
                        RETRY
                    }
                };
                sleep(wait).await;
            }
        })
    }
}

fn managed() -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={MANAGED_BY_WEBHOOK}", label::WEBHOOK_MANAGED_BY))
}

fn with_key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, act: impl FnOnce(&str, &str)) {
    if let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) {
        act(namespace, name);
    }
}

/// Translates watch events for an index; ends with the stream, which is never.
async fn feed<K>(
    mut events: impl Stream<Item = Event<K>> + Unpin,
    share: Share,
    mut apply: impl FnMut(Step<K>),
) {
    while let Some(event) = events.next().await {
        match event {
            Event::Init => apply(Step::Begin),
            Event::InitApply(object) | Event::Apply(object) => apply(Step::Put(object)),
            Event::Delete(object) => apply(Step::Remove(object)),
            Event::InitDone => {
                apply(Step::Finish);
                share.done();
            }
        }
    }
}

/// Feeds an index of targets. An object that cannot be decoded leaves the index.
async fn targets<K, P: 'static>(
    events: impl Stream<Item = Event<DeserializeGuard<K>>> + Unpin,
    namespace: Option<String>,
    share: Share,
    gauge: SharedGauge,
    with: impl Fn(&mut dyn FnMut(&Targets<P>)),
) where
    K: kube::Resource<DynamicType = ()> + Into<Targeting<P>>,
{
    feed(events, share, move |step| {
        let mut step = Some(step);
        with(&mut |index| {
            match step.take() {
                Some(Step::Begin) => index.begin_relist(namespace.as_deref()),
                Some(Step::Finish) => index.finish_relist(namespace.as_deref()),
                Some(Step::Put(DeserializeGuard(Ok(object)))) => {
                    let space = object.meta().namespace.clone().unwrap_or_default();
                    index.put(&space, object.into());
                }
                Some(Step::Put(gone) | Step::Remove(gone)) => {
                    with_key(kube::Resource::meta(&gone), |ns, name| index.remove(ns, name));
                }
                None => {}
            }
            set(&gauge, index.len());
        });
    })
    .await;
}
