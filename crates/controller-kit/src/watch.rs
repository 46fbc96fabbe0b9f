//! Watches that survive everything and say what is wrong with them.
//!
//! [`watch_stream`] is kube's watcher with back-off, plus what the suite promises about it: errors
//! are counted, logged once per distinct reason, a missing right is named with verb and resource in
//! `/readyz`, an absent CRD is waited for, and readiness follows the first complete list
//! (packaging §7, §12, runtime §2.7). [`guarded_watch_stream`] also survives objects that cannot be
//! decoded. [`reflect`] feeds a kube store, [`Projection`] a store of one's own.

mod errors;
mod projection;
mod reflect;

use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as kube_watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::metrics::{KindLabel, Metrics, WatchErrorLabels};
use crate::readiness::Readiness;
use crate::scope::Scope;

pub use errors::{Target, Trouble, TroubleKind};
pub use projection::{Change, Key, Projection};
pub use reflect::{StoreGauge, reflect, reflect_guarded};

/// First and longest wait between attempts (packaging §7: first 1 s, at most 60 s). The cap is lower
/// so that an API server that comes back is noticed soon.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A watch that works for this long starts again with the first wait.
const CALM: Duration = Duration::from_mins(1);
/// A standing error is logged again after this long (packaging §7: at most once a minute).
const LOG_AGAIN: Duration = Duration::from_mins(1);

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
    /// A missing right only degrades readiness once any list was complete or another namespace works;
    /// for servers that must go on serving the other namespaces (packaging §7).
    pub degrade_when_refused: bool,
}

impl WatchOptions {
    /// A watch that must work, with a readiness check named like its kind.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, check: Some(kind.to_owned()), optional_kind: false, degrade_when_refused: false }
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

    /// A missing right in one namespace does not make the process unready.
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
    let source = kube_watcher(api, config).backoff(backoff());
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
    let api: Api<DeserializeGuard<K>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
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

/// One stream over every namespace of `scope`. Events of different namespaces interleave, so their
/// list markers do too: consume it with a [`Projection`] per namespace, or watch namespaces apart
/// when a kube store is fed.
pub fn namespaces_of(scope: &Scope) -> Vec<Option<String>> {
    match scope {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
    }
}

fn backoff() -> impl Backoff {
    ResetTimerBackoff::new(Retry { next: FIRST_RETRY }, CALM)
}

/// Doubles from the first to the last wait, with up to a tenth of jitter on top.
struct Retry {
    next: Duration,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.next;
        self.next = (delay * 2).min(LAST_RETRY);
        Some(delay.mul_f64(1.0 + fastrand::f64() * 0.1))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.next = FIRST_RETRY;
    }
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
    let mut watch = Observed::new(watches, target, options);
    source.flat_map(move |item| stream::iter(watch.take(item).into_iter().flatten())).boxed()
}

/// State of one watch between its events.
struct Observed {
    metrics: Metrics,
    readiness: Readiness,
    target: Target,
    options: WatchOptions,
    check: Option<Arc<str>>,
    /// The first list is complete.
    synced: bool,
    /// The check is ok.
    well: bool,
    /// The kind is absent and the consumer was told so.
    absent: bool,
    logged: Option<(String, tokio::time::Instant)>,
}

impl Observed {
    fn new(watches: &Watches, target: Target, options: WatchOptions) -> Self {
        let check: Option<Arc<str>> = options.check.as_ref().map(|name| match &target.namespace {
            Some(namespace) => format!("{name} in {namespace}").into(),
            None => name.as_str().into(),
        });
        if let Some(check) = &check {
            watches.readiness.register(check.to_string(), "first list not complete");
        }
        Self {
            metrics: watches.metrics.clone(),
            readiness: watches.readiness.clone(),
            target,
            options,
            check,
            synced: false,
            well: false,
            absent: false,
            logged: None,
        }
    }

    /// What to hand on for one item of the watcher.
    fn take<K: Resource>(&mut self, item: watcher::Result<Event<K>>) -> [Option<Event<K>>; 2] {
        match item {
            Ok(event) => {
                let event = event.modify(|object| object.managed_fields_mut().clear());
                match event {
                    // A list that only begins says nothing yet.
                    Event::Init => {}
                    Event::InitDone => {
                        self.absent = false;
                        self.synced = true;
                        self.recovered();
                    }
                    _ if self.synced => self.recovered(),
                    _ => {}
                }
                [Some(event), None]
            }
            Err(error) => self.trouble(&error),
        }
    }

    fn trouble<K>(&mut self, error: &watcher::Error) -> [Option<Event<K>>; 2] {
        let trouble = Trouble::of(error, &self.target);
        let labels = WatchErrorLabels { kind: self.options.kind.to_owned(), reason: trouble.kind.label() };
        self.metrics.watch_errors.get_or_create(&labels).inc();
        if trouble.kind == TroubleKind::NotServed && self.options.optional_kind {
            return self.not_served();
        }
        self.log(&trouble, error);
        match trouble.kind {
            TroubleKind::Forbidden if self.options.degrade_when_refused => self.report(&trouble, true),
            TroubleKind::Forbidden | TroubleKind::Unauthorized | TroubleKind::NotServed => {
                self.report(&trouble, false);
            }
            // The store still holds the last state; a dropped connection is everyday life.
            _ if !self.synced => self.report(&trouble, false),
            _ => {}
        }
        [None, None]
    }

    /// An optional kind that is not there is an empty list, told once.
    fn not_served<K>(&mut self) -> [Option<Event<K>>; 2] {
        self.recovered();
        if std::mem::replace(&mut self.absent, true) {
            return [None, None];
        }
        tracing::info!(resource = %self.target.resource, "kind is not served; waiting for it to appear");
        self.synced = true;
        [Some(Event::Init), Some(Event::InitDone)]
    }

    fn recovered(&mut self) {
        self.logged = None;
        if !std::mem::replace(&mut self.well, true) {
            if let Some(check) = &self.check {
                self.readiness.set_ok(check);
            }
            tracing::debug!(resource = %self.target.resource, namespace = ?self.target.namespace, "watch works");
        }
    }

    fn report(&mut self, trouble: &Trouble, degrade: bool) {
        self.well = false;
        let Some(check) = &self.check else { return };
        if degrade {
            self.readiness.set_degraded(check, &*trouble.text);
        } else {
            self.readiness.set_failing(check, &*trouble.text);
        }
    }

    fn log(&mut self, trouble: &Trouble, error: &watcher::Error) {
        let now = tokio::time::Instant::now();
        let known =
            |(text, at): &(String, tokio::time::Instant)| *text == trouble.text && now - *at < LOG_AGAIN;
        if self.logged.as_ref().is_some_and(known) {
            return;
        }
        self.logged = Some((trouble.text.clone(), now));
        if trouble.kind == TroubleKind::Expired {
            tracing::debug!(resource = %self.target.resource, "watch expired, listing again");
        } else {
            tracing::warn!(
                resource = %self.target.resource, reason = trouble.kind.label(),
                error = error as &dyn StdError, "{}", trouble.text
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::CheckState;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::Status;

    fn observed(options: WatchOptions) -> (Watches, Observed) {
        let watches = Watches { metrics: Metrics::new("test"), readiness: Readiness::new() };
        let target = Target::new("/api/v1/namespaces/team1/configmaps", None);
        let observed = Observed::new(&watches, target, options);
        (watches, observed)
    }

    fn refused(code: u16, reason: &str) -> watcher::Result<Event<ConfigMap>> {
        let status = Status::failure("no", reason).with_code(code).boxed();
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
    }

    fn state(watches: &Watches) -> (CheckState, String) {
        let report = watches.readiness.report();
        (report.checks[0].state, report.checks[0].reason.clone())
    }

    /// Packaging §7: the missing right is named with verb, resource and namespace, and heals.
    #[tokio::test]
    async fn a_missing_right_is_named_in_readyz_and_heals() {
        let (watches, mut watch) = observed(WatchOptions::new("configmaps"));
        watch.take(refused(403, "Forbidden"));
        let (state_before, reason) = state(&watches);
        assert_eq!(state_before, CheckState::Failing);
        assert!(
            reason.contains("list") && reason.contains("configmaps") && reason.contains("team1"),
            "{reason}"
        );
        watch.take::<ConfigMap>(Ok(Event::Init));
        assert_eq!(state(&watches).0, CheckState::Failing, "an opened list proves nothing");
        watch.take::<ConfigMap>(Ok(Event::InitDone));
        assert_eq!(state(&watches).0, CheckState::Ok);
        watch.take(refused(403, "Forbidden"));
        assert_eq!(state(&watches).0, CheckState::Failing, "a right that is taken away is named again");
        let labels = WatchErrorLabels { kind: "configmaps".to_owned(), reason: "forbidden" };
        assert_eq!(watches.metrics.watch_errors.get_or_create(&labels).get(), 2);
    }

    #[tokio::test]
    async fn a_lost_connection_after_the_first_list_keeps_the_process_ready() {
        let (watches, mut watch) = observed(WatchOptions::new("configmaps"));
        watch.take(refused(500, "InternalError"));
        assert_eq!(state(&watches).0, CheckState::Failing);
        watch.take::<ConfigMap>(Ok(Event::InitDone));
        watch.take(refused(500, "InternalError"));
        assert_eq!(state(&watches).0, CheckState::Ok);
    }

    #[tokio::test]
    async fn a_refused_namespace_can_be_a_degradation() {
        let (watches, mut watch) = observed(WatchOptions::new("configmaps").degrade_when_refused());
        watch.take(refused(403, "Forbidden"));
        assert_eq!(state(&watches).0, CheckState::Degraded);
    }

    /// Runtime §7.4: a kind that is not served is an empty list, told once, and looked for again.
    #[tokio::test]
    async fn an_absent_optional_kind_is_an_empty_list() {
        let (watches, mut watch) = observed(WatchOptions::new("configmaps").optional_kind());
        let events = watch.take(refused(404, "NotFound"));
        assert!(matches!(events, [Some(Event::Init), Some(Event::InitDone)]));
        assert_eq!(state(&watches).0, CheckState::Ok);
        assert!(matches!(watch.take(refused(404, "NotFound")), [None, None]));
        // It appears, then its CRD is deleted: the consumer must be emptied again.
        watch.take::<ConfigMap>(Ok(Event::InitDone));
        assert!(matches!(watch.take(refused(404, "NotFound")), [Some(Event::Init), Some(Event::InitDone)]));
    }

    #[tokio::test]
    async fn an_absent_required_kind_is_waited_for_and_named() {
        let (watches, mut watch) = observed(WatchOptions::new("configmaps"));
        assert!(matches!(watch.take(refused(404, "NotFound")), [None, None]));
        let (state, reason) = state(&watches);
        assert_eq!(state, CheckState::Failing);
        assert!(reason.contains("not served"), "{reason}");
    }

    #[tokio::test]
    async fn managed_fields_never_reach_the_consumer() {
        let (_, mut watch) = observed(WatchOptions::new("configmaps"));
        let mut object = ConfigMap::default();
        object.metadata.managed_fields =
            Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry::default()]);
        let [Some(Event::Apply(object)), None] = watch.take(Ok(Event::Apply(object))) else {
            panic!("one event")
        };
        assert!(object.metadata.managed_fields.unwrap_or_default().is_empty());
    }

    #[test]
    fn retries_start_at_one_second_and_stay_below_a_minute() {
        let delays: Vec<_> = Retry { next: FIRST_RETRY }.take(20).collect();
        assert!(delays[0] >= Duration::from_secs(1) && delays[0] < Duration::from_millis(1200));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_mins(1)));
    }
}
