//! What one watch has told so far, and what its next item means.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

use super::{Target, Trouble, TroubleHook, TroubleKind, WatchOptions, Watches};
use crate::metrics::{Metrics, WatchErrorLabels};
use crate::readiness::Readiness;

/// A standing error is logged again after this long (packaging §7: at most once a minute).
const LOG_AGAIN: Duration = Duration::from_mins(1);

/// State of one watch between its events.
pub(super) struct Observed {
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
    logged: Option<(String, Instant)>,
}

impl Observed {
    pub(super) fn new(watches: &Watches, target: Target, options: WatchOptions) -> Self {
        let check: Option<Arc<str>> = options.check.as_ref().map(|name| match &target.namespace {
            Some(namespace) => format!("{name} in {namespace}").into(),
            None => name.as_str().into(),
        });
        if let Some(check) = &check {
            let group = options.check.as_deref().unwrap_or(options.kind);
            watches.readiness.register_in(group, check.to_string(), "first list not complete");
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
    pub(super) fn take<K: Resource>(&mut self, item: watcher::Result<Event<K>>) -> [Option<Event<K>>; 2] {
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
        if let Some(TroubleHook(hook)) = &self.options.on_trouble {
            hook(&trouble);
        }
        match trouble.kind {
            TroubleKind::Forbidden if self.options.degrade_when_refused => {
                self.report(&trouble, Readiness::set_degraded);
            }
            TroubleKind::Forbidden if self.target.namespace.is_some() => {
                self.report(&trouble, Readiness::set_partial);
            }
            TroubleKind::Forbidden | TroubleKind::Unauthorized | TroubleKind::NotServed => {
                self.report(&trouble, Readiness::set_failing);
            }
            // The store still holds the last state; a dropped connection is everyday life.
            _ if !self.synced => self.report(&trouble, Readiness::set_failing),
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

    fn report(&mut self, trouble: &Trouble, set: fn(&Readiness, &str, String)) {
        self.well = false;
        if let Some(check) = &self.check {
            set(&self.readiness, check, trouble.text.clone());
        }
    }

    fn log(&mut self, trouble: &Trouble, error: &watcher::Error) {
        let now = Instant::now();
        let known = |(text, at): &(String, Instant)| *text == trouble.text && now - *at < LOG_AGAIN;
        if self.logged.as_ref().is_some_and(known) {
            return;
        }
        self.logged = Some((trouble.text.clone(), now));
        if trouble.kind == TroubleKind::Expired {
            tracing::debug!(resource = %self.target.resource, "watch expired, listing again");
        } else {
            tracing::warn!(
                resource = %self.target.resource, reason = trouble.kind.label(),
                error = %crate::message::message_of(error), "{}", trouble.text
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
}
