//! Watches that survive everything and say what is wrong with them.
//!
//! [`watch_stream`] is kube's watcher with back-off, plus what the suite promises about it: errors
//! are counted, logged once per distinct reason, a missing right is named with verb and resource in
//! `/readyz`, an absent CRD is waited for, and readiness follows the first complete list
//! (packaging §7, §12, runtime §2.7). [`guarded_watch_stream`] also survives objects that cannot be
//! decoded. [`feed`] says what the events mean for an [index](crate::index); an [`OptionalKind`] is watched while it
//! is served.

mod errors;
mod feed;
mod gauge;
mod key;
mod observed;
mod optional;
mod presence;
mod served;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::watcher as kube_watcher;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::metrics::{KindLabel, Metrics};
use crate::readiness::Readiness;
use crate::scope::{Scope, api_in};

pub use errors::{Target, Trouble, TroubleKind};
pub use feed::{Listing, Step, feed, pages};
pub use gauge::StoreGauge;
pub use key::Key;
pub use optional::OptionalKind;
pub use presence::Presence;
pub use served::serves;

/// First and longest wait between attempts (packaging §7: first 1 s, at most 60 s).
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Longest wait while nobody answers: asking costs nobody anything, and a server that comes back is to be noticed
/// at once, because the stores are behind until then.
const LAST_CONNECT: Duration = Duration::from_secs(5);
/// A watch that did not fail for this long starts again with the first wait.
const CALM: Duration = Duration::from_mins(1);

/// What every watch of a process reports to.
#[derive(Clone)]
pub struct Watches {
    /// Where errors and objects are counted.
    pub metrics: Metrics,
    /// Where the state of each watch is shown.
    pub readiness: Readiness,
}

/// How one watch is named and how important it is.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Metric label `kind`: the plural of the resource.
    pub kind: &'static str,
    /// Name of the readiness check; the namespace is appended for namespaced watches. `None` = no
    /// check.
    pub check: Option<String>,
    /// A missing kind (404) counts as an empty one: the stream delivers an empty list, the check is
    /// ok, and the watch starts when the kind appears. Without, it is an error that is waited out.
    pub optional_kind: bool,
    /// A missing right never makes the process unready; for sources it can do without.
    pub degrade_when_refused: bool,
    /// Told about every failed list or watch, for consumers that decide by it.
    pub on_trouble: Option<TroubleHook>,
}

/// What [`WatchOptions::on_trouble`] calls.
#[derive(Clone)]
pub struct TroubleHook(Arc<dyn Fn(&Trouble) + Send + Sync>);

impl Debug for TroubleHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TroubleHook")
    }
}

impl WatchOptions {
    /// A watch that must work, with a readiness check named like its kind.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            check: Some(kind.to_owned()),
            optional_kind: false,
            degrade_when_refused: false,
            on_trouble: None,
        }
    }

    /// Another name for the readiness check, when one kind is watched twice.
    #[must_use]
    pub fn check(mut self, name: impl Into<String>) -> Self {
        self.check = Some(name.into());
        self
    }

    /// No readiness check.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.check = None;
        self
    }

    /// The kind may be absent from the cluster.
    #[must_use]
    pub fn optional_kind(mut self) -> Self {
        self.optional_kind = true;
        self
    }

    /// Calls `hook` for every failed list or watch, before it is waited out. "Nothing there" and "cannot be
    /// read" are different things to a consumer that acts on absence.
    #[must_use]
    pub fn on_trouble(mut self, hook: impl Fn(&Trouble) + Send + Sync + 'static) -> Self {
        self.on_trouble = Some(TroubleHook(Arc::new(hook)));
        self
    }

    /// A missing right never makes the process unready, for sources it can do without. A source that it
    /// needs does not want this: refused in one namespace of several it is named and the others work,
    /// refused everywhere the process is not ready (packaging §7).
    #[must_use]
    pub fn degrade_when_refused(mut self) -> Self {
        self.degrade_when_refused = true;
        self
    }
}

/// An object that the API server holds and this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// What is wrong, with the field where serde knows it.
    pub error: String,
}

/// Watches what `api` and `config` select, for ever. Managed fields are dropped before anything
/// else sees the object. The stream ends only when it is dropped.
pub fn watch_stream<K>(
    watches: &Watches,
    api: Api<K>,
    config: watcher::Config,
    options: WatchOptions,
) -> BoxStream<'static, Event<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let target = Target::new(api.resource_url(), config.field_selector.as_deref());
    let source = paused_after_errors(kube_watcher(api, config), target.clone());
    observe(watches, target, options, source)
}

/// As [`watch_stream`], for a kind whose stored objects may not parse: a bad one is counted in
/// `kagenti_undecodable_objects_total{kind}`, reported to `on_bad` once per version, and the rest of
/// the list goes on. `namespace` `None` = all.
pub fn guarded_watch_stream<K>(
    watches: &Watches,
    client: &Client,
    namespace: Option<&str>,
    config: watcher::Config,
    options: WatchOptions,
    on_bad: impl Fn(Undecodable) + Send + 'static,
) -> BoxStream<'static, Event<DeserializeGuard<K>>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let api = api_in::<DeserializeGuard<K>>(client, namespace);
    let counter =
        watches.metrics.undecodable_objects.get_or_create_owned(&KindLabel { kind: options.kind.to_owned() });
    let kind = options.kind;
    watch_stream(watches, api, config, options)
        .inspect(move |event| {
            let (Event::Apply(DeserializeGuard(Err(bad))) | Event::InitApply(DeserializeGuard(Err(bad)))) =
                event
            else {
                return;
            };
            counter.inc();
            let bad = Undecodable {
                namespace: bad.metadata.namespace.clone().unwrap_or_default(),
                name: bad.metadata.name.clone().unwrap_or_default(),
                uid: bad.metadata.uid.clone().unwrap_or_default(),
                generation: bad.metadata.generation,
                error: bad.error.clone(),
            };
            tracing::warn!(
                kind, k8s.namespace.name = %bad.namespace, name = %bad.name, error = %bad.error,
                "object cannot be read and is left out"
            );
            on_bad(bad);
        })
        .boxed()
}

/// The namespaces to watch one by one; `None` = a single watch of the whole cluster. Lists of different
/// namespaces complete at different times, so each says for itself what is gone.
pub fn namespaces_of(scope: &Scope) -> Vec<Option<String>> {
    match scope {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
    }
}

/// How long to wait after a failure: doubles from the first to the last wait, with up to a tenth of jitter on top, and
/// starts again when nothing failed for a while or when it is another failure than before.
///
/// kube's own back-off is reset with every event, and the watcher emits one before each list it tries, so it would
/// never get past the first wait while lists are refused.
struct Retry {
    next: Duration,
    last: Option<(TroubleKind, Instant)>,
}

impl Retry {
    fn new() -> Self {
        Self { next: FIRST_RETRY, last: None }
    }

    fn after(&mut self, trouble: TroubleKind) -> Duration {
        let now = Instant::now();
        let same = |(kind, at): (TroubleKind, Instant)| kind == trouble && now - at <= CALM;
        if !self.last.replace((trouble, now)).is_some_and(same) {
            self.next = FIRST_RETRY;
        }
        let longest = if trouble == TroubleKind::Connection { LAST_CONNECT } else { LAST_RETRY };
        let delay = self.next.min(longest);
        self.next = (delay * 2).min(LAST_RETRY);
        delay.mul_f64(1.0 + fastrand::f64() * 0.1)
    }
}

/// The watcher tries again as soon as it is asked for more; after an error it is asked later.
fn paused_after_errors<K: Send + 'static>(
    source: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    target: Target,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static {
    let start = (source.boxed(), Retry::new(), None);
    stream::unfold((start, target), |((mut source, mut retry, pause), target)| async move {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let item = source.next().await?;
        let pause = item.as_ref().err().map(|error| retry.after(Trouble::of(error, &target).kind));
        Some((item, ((source, retry, pause), target)))
    })
}

fn observe<K>(
    watches: &Watches,
    target: Target,
    options: WatchOptions,
    source: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> BoxStream<'static, Event<K>>
where
    K: Resource + Send + 'static,
{
    let mut watch = observed::Observed::new(watches, target, options);
    source.flat_map(move |item| stream::iter(watch.take(item).into_iter().flatten())).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_start_at_one_second_stay_below_a_minute_and_calm_down() {
        let mut retry = Retry::new();
        let mut delays = Vec::new();
        for _ in 0..20 {
            let delay = retry.after(TroubleKind::Forbidden);
            delays.push(delay);
            tokio::time::advance(delay).await;
        }
        assert!(delays[0] >= Duration::from_secs(1) && delays[0] < Duration::from_millis(1200));
        assert!(delays[19] >= LAST_RETRY && delays[19] <= Duration::from_mins(1));
        tokio::time::advance(CALM * 2).await;
        assert!(retry.after(TroubleKind::Forbidden) < Duration::from_millis(1200));
    }

    /// A server that restarts: refused connections, then a refusal until its caches are filled.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_is_noticed_soon() {
        let mut retry = Retry::new();
        for _ in 0..20 {
            let delay = retry.after(TroubleKind::Connection);
            assert!(delay < LAST_CONNECT.mul_f64(1.2), "{delay:?}");
            tokio::time::advance(delay).await;
        }
        assert!(retry.after(TroubleKind::Forbidden) < Duration::from_millis(1200), "another failure");
    }
}
