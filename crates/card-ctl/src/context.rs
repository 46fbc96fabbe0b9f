//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_trust::TrustDomain;
use controller_kit::{
    controller::{Common, Handles},
    limiter::RolloutLimiter,
    memory::Memory,
    watch::Undecodable,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::discovery::ApiResource;
use spiffe_svid::SvidSource;
use tokio::sync::{Notify, mpsc};

use crate::{
    fetch::{FetchLimits, Fetcher},
    index::{Indexes, ObjectKey},
    kinds::TargetKey,
    metrics::OwnMetrics,
    observation::Observations,
    pace::Pace,
    renewal::Renewal,
    settings::Settings,
    source::Verified,
    sources::Source,
    trust::Trust,
    unlabelled::Unlabelled,
    verdict::Mechanisms,
    workload::Workload,
};

/// How long everything is looked at for the first time after the start.
const SETTLING: Duration = Duration::from_secs(120);
/// A process that takes over is there within this time. What happened just before its start it tells, although the one
/// before it may have told it, too.
const HANDOVER: SignedDuration = SignedDuration::from_mins(10);

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Make, label and restart (card §5, §11, §12).
    Workload(TargetKey),
    /// Work out the status of a card (card §6).
    Card(ObjectKey),
    /// Fill `status.card` of an AgentRuntime (card §18).
    Runtime(ObjectKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(key) => key.fmt(f),
            Self::Card(key) => write!(f, "AgentCard {key}"),
            Self::Runtime(key) => write!(f, "AgentRuntime {key}"),
        }
    }
}

/// Handles and memories of the process; what every controller has is reached through `Deref`.
pub struct Context {
    common: Common<Key, Source>,
    /// Flags of this component.
    pub settings: Settings,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Tokens for restarts nobody asked for (card §12, runtime §20).
    pub limiter: RolloutLimiter<TargetKey>,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// What was last read of each agent.
    pub observations: Observations,
    /// ConfigMaps without label that were looked for.
    pub unlabelled: Unlabelled,
    /// Opens connections.
    pub fetcher: Fetcher,
    /// Where this controller's own identity comes from.
    pub svids: Option<SvidSource>,
    /// Trust domain and bundle.
    pub trust: Trust,
    /// What the last evaluation of a card says about renewing its signature.
    pub renewals: Memory<ObjectKey, Renewal>,
    /// When a card last had a positive verdict.
    pub verified_at: Memory<ObjectKey, Timestamp>,
    /// How fast the status of a card is written.
    pub paces: Memory<ObjectKey, Pace>,
    /// When a template was last patched.
    pub template_patched: Memory<TargetKey, tokio::time::Instant>,
    /// Since when a workload waits for its turn to change its template.
    pub asked: Memory<TargetKey, Timestamp>,
    /// How often the garbage collector was waited for.
    pub waited: Memory<TargetKey, u32>,
    /// Conditions of events that are said once: the last text by object and reason.
    pub said: Memory<(ObjectKey, &'static str), String>,
    /// Why the ConfigMap with a workload's card may not be read.
    pub refused: Memory<TargetKey, String>,
    /// Agents of other kinds, as they were last read.
    pub strangers: Memory<TargetKey, Arc<Workload>>,
    /// Resources of those kinds, by apiVersion and kind.
    pub kinds: Memory<(String, String), ApiResource>,
    /// AgentCards that this build cannot read.
    pub undecodable: Memory<ObjectKey, Undecodable>,
    /// A Service without address is used: its endpoints are needed.
    pub want_slices: Notify,
    slices_wanted: AtomicBool,
    fetches: mpsc::UnboundedSender<TargetKey>,
    started: tokio::time::Instant,
    started_at: Timestamp,
}

impl Deref for Context {
    type Target = Common<Key, Source>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

/// The other end of [`Context::fetch`].
pub type FetchOrders = mpsc::UnboundedReceiver<TargetKey>;

impl Context {
    /// A context without anything in its indexes.
    pub fn new(mut handles: Handles, settings: Settings, svids: Option<SvidSource>) -> (Self, FetchOrders) {
        let index = Arc::new(Indexes::default());
        // The burst of a limiter that is slower than its burst would be the whole storm.
        let limiter = RolloutLimiter::new(settings.resign_qps, 20);
        handles.events = handles.events.reporting_as(api_types::card::REPORTING_CONTROLLER);
        let metrics = OwnMetrics::register(&handles.metrics, &limiter, index.clone());
        let limits = FetchLimits {
            timeout: settings.fetch_timeout,
            connect_timeout: settings.fetch_connect_timeout,
            concurrency: usize::from(settings.fetch_concurrency),
            max_bytes: usize::try_from(settings.fetch_max_bytes).unwrap_or(usize::MAX),
            // Every workload waits at most once, so their number is the bound.
            queue: 1_000_000,
            deny: settings.fetch_deny_cidrs.clone(),
            ..FetchLimits::default()
        };
        let domain = TrustDomain::configured(&settings.spire_trust_domain).ok();
        let (fetches, orders) = mpsc::unbounded_channel();
        let context = Self {
            started_at: (handles.clock)(),
            common: Common::new(handles, "agentcard"),
            index,
            limiter,
            metrics,
            observations: Observations::default(),
            unlabelled: Unlabelled::default(),
            fetcher: Fetcher::new(limits, svids.clone()),
            svids,
            trust: Trust::new(domain, settings.policy(), settings.require_a2a_signature),
            renewals: Memory::default(),
            verified_at: Memory::default(),
            paces: Memory::default(),
            template_patched: Memory::default(),
            asked: Memory::default(),
            waited: Memory::default(),
            said: Memory::default(),
            refused: Memory::default(),
            strangers: Memory::default(),
            kinds: Memory::default(),
            undecodable: Memory::default(),
            started: tokio::time::Instant::now(),
            want_slices: Notify::new(),
            slices_wanted: AtomicBool::new(false),
            fetches,
            settings,
        };
        (context, orders)
    }

    /// Verified fetch, as it is now (card §7).
    pub fn verified_fetch(&self) -> Verified {
        let enabled = self.settings.enable_verified_fetch;
        let obtained = self.svids.as_ref().is_some_and(SvidSource::obtained_once);
        let must = self.settings.svid_files() || self.settings.verified_fetch_required;
        Verified { enabled, active: enabled && (obtained || must) }
    }

    /// The mechanisms that count for every card.
    pub fn mechanisms(&self) -> Mechanisms {
        Mechanisms {
            mtls: self.verified_fetch().active,
            signature: self.settings.require_a2a_signature,
            audit: self.settings.signature_audit_mode,
        }
    }

    /// The process has just started, and looks at everything for the first time.
    pub fn is_settling(&self) -> bool {
        self.started.elapsed() < SETTLING
    }

    /// A process before this one was there at that time, and told what there was to tell.
    pub fn was_told(&self, at: Timestamp) -> bool {
        self.started_at.duration_since(at) > HANDOVER
    }

    /// When the process started, by the wall clock.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// An agent, of whatever kind.
    pub fn workload(&self, target: &TargetKey) -> Option<Arc<Workload>> {
        self.index.workloads.get(target).or_else(|| self.strangers.get(target))
    }

    /// A card of the workload has the verdict `mTLSVerified` (card §7).
    pub fn held(&self, target: &TargetKey) -> bool {
        self.index.cards.linked(target).iter().any(|card| crate::card::is_held(card))
    }

    /// A card targets a workload that is no agent any more: what is left of its marks goes (card §11.3).
    pub fn stray(&self, workload: &Workload) {
        let marked =
            !workload.states.is_empty() || workload.has_verified_label() || workload.has_legacy_state;
        if marked && workload.key.workload_kind().is_some() {
            self.wake_workload(workload.key.clone(), Duration::ZERO);
        }
    }

    /// Drops what is remembered about a workload that is gone.
    pub fn forget_workload(&self, key: &TargetKey) {
        self.leave_queue(key);
        self.observations.forget(key);
        self.unlabelled.forget(key);
        self.refused.remove(key);
        self.template_patched.remove(key);
        self.waited.remove(key);
        self.strangers.remove(key);
        self.no_news(
            &ObjectKey::new(key.namespace.clone(), key.to_string()),
            crate::events::TARGET_REF_CONFLICT,
        );
        let name = ObjectKey::new(key.namespace.clone(), key.name.clone());
        self.no_news(&name, crate::events::UNUSABLE_CONFIG_MAP);
    }

    /// Gives up the turn to change a template.
    pub fn leave_queue(&self, key: &TargetKey) {
        self.limiter.forget(key);
        self.asked.remove(key);
    }

    /// Asks for a look at a card.
    pub fn wake_card(&self, key: ObjectKey, after: Duration) {
        self.queue.add(Key::Card(key), after);
    }

    /// Asks for a look at a workload.
    pub fn wake_workload(&self, key: TargetKey, after: Duration) {
        self.queue.add(Key::Workload(key), after);
    }

    /// Asks for a look at everything that depends on what an agent serves.
    pub fn wake_readers(&self, target: &TargetKey, after: Duration) {
        for card in self.index.cards.linked(target) {
            self.wake_card(card.key.clone(), after);
        }
        for runtime in self.index.runtimes.linked(target) {
            self.queue.add(Key::Runtime(runtime.key.clone()), after);
        }
    }

    /// Asks for a look at every card, spread over a time that grows with their number.
    pub fn wake_all_cards(&self) {
        let keys = self.index.cards.keys();
        let spread = Duration::from_millis(u64::try_from(keys.len()).unwrap_or(u64::MAX).min(10_000));
        for key in keys {
            self.wake_card(key, spread.mul_f64(fastrand::f64()));
        }
    }

    /// Orders a fetch that was due then, unless one is under way.
    pub fn fetch(&self, target: &TargetKey, due: tokio::time::Instant) {
        if self.observations.begin(target, due) && self.fetches.send(target.clone()).is_err() {
            self.observations.abandon(target);
        }
    }

    /// Notes that EndpointSlices are needed; the first time starts their watch.
    pub fn need_slices(&self) {
        if !self.slices_wanted.swap(true, Ordering::AcqRel) {
            self.want_slices.notify_one();
        }
    }

    /// EndpointSlices are needed.
    pub fn needs_slices(&self) -> bool {
        self.slices_wanted.load(Ordering::Acquire)
    }

    /// True the first time, and whenever the text is another one than before, for an object and a reason.
    pub fn news(&self, object: &ObjectKey, reason: &'static str, text: &str) -> bool {
        self.said.insert((object.clone(), reason), text.to_owned()).as_deref() != Some(text)
    }

    /// Forgets that something was said, so that it is said again when it happens again.
    pub fn no_news(&self, object: &ObjectKey, reason: &'static str) {
        self.said.remove(&(object.clone(), reason));
    }

    /// Brings the metrics of fetches, trust bundle and SVID up to date; done now and then only.
    pub fn count(&self) {
        self.metrics.fetch_queue.set(i64::try_from(self.fetcher.waiting()).unwrap_or(i64::MAX));
        if let Some(loaded) = self.trust.known().loaded {
            self.metrics.bundle_age.set(i64::try_from(loaded.elapsed().as_secs()).unwrap_or(i64::MAX));
        }
        if let Some(source) = &self.svids {
            let svid = source.current();
            self.metrics.svid_ready.set(i64::from(svid.is_some()));
            self.metrics.svid_not_after.set(svid.map_or(0, |svid| svid.not_after().as_second()));
        }
    }

    /// Drops what is remembered about a card that is gone.
    pub fn forget_card(&self, key: &ObjectKey) {
        self.succeeded(&Key::Card(key.clone()));
        self.renewals.remove(key);
        self.verified_at.remove(key);
        self.paces.remove(key);
        self.undecodable.remove(key);
        for reason in crate::events::ONCE {
            self.no_news(key, reason);
        }
    }
}

/// A reference to a workload, for events.
pub fn workload_reference(workload: &Workload) -> ObjectReference {
    ObjectReference {
        api_version: Some(workload.api_version.clone()),
        kind: Some(workload.key.kind.clone()),
        namespace: Some(workload.key.namespace.clone()),
        name: Some(workload.key.name.clone()),
        uid: Some(workload.uid.clone()),
        ..ObjectReference::default()
    }
}
