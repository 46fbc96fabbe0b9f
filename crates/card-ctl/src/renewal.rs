//! Restarts that renew short-lived signatures (card §12). Pure.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    kinds::WorkloadKind,
    settings::{OnBundleChange, Restarts},
    workload::{Signer, Workload},
};

/// What the last evaluation of a card says about its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Valid, perhaps in its grace.
    Valid {
        /// `kid`.
        key_id: Option<String>,
        /// End of the certificate.
        not_after: Timestamp,
        /// The ID is in the operator's trust domain.
        own_domain: bool,
        /// Fingerprint of the bundle that it is valid under.
        under: Arc<str>,
        /// A process before this one knew this certificate already.
        inherited: bool,
    },
    /// The chain leads to no root of the bundle; it did before, or nobody remembers.
    Broken {
        /// `kid`.
        key_id: Option<String>,
        /// Fingerprint of the bundle that it is not valid under.
        under: Arc<str>,
    },
}

impl Renewal {
    /// The next state, from the last one and a chain that does not validate; `None` = never validated for this key.
    pub fn broken(
        before: Option<&Self>,
        stored_key: Option<&str>,
        key_id: &str,
        under: &Arc<str>,
    ) -> Option<Self> {
        let same = |known: &Option<String>| known.as_deref().unwrap_or_default() == key_id;
        let counts = match before {
            Some(Self::Valid { key_id: known, own_domain, .. }) => *own_domain && same(known),
            Some(Self::Broken { key_id: known, .. }) => same(known),
            // The process is new: the status tells of the last verdict, the bundle hash of the workload of the last
            // bundle under which it was valid.
            None => stored_key.is_none_or(|stored| stored == key_id),
        };
        counts.then(|| Self::Broken { key_id: Some(key_id.to_owned()), under: under.clone() })
    }

    /// The certificate was known to a process before this one: the status told of it when nobody had looked yet.
    pub fn inherits(before: Option<&Self>, stored: Option<Timestamp>, not_after: Timestamp) -> bool {
        match before {
            Some(Self::Valid { not_after: known, inherited, .. }) => *inherited && *known == not_after,
            Some(Self::Broken { .. }) => false,
            None => stored == Some(not_after),
        }
    }

    fn under(&self) -> &str {
        match self {
            Self::Valid { under, .. } | Self::Broken { under, .. } => under,
        }
    }
}

/// Why a workload is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The certificate expires.
    Expiry(Timestamp),
    /// The bundle does not hold its root any more.
    Bundle,
}

impl Cause {
    /// Label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expiry(_) => "expiry",
            Self::Bundle => "bundle",
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Write the fingerprint to the workload.
    pub refresh: bool,
    /// Restart it.
    pub restart: Option<Cause>,
    /// A restart is due, but not card-ctl's to make: tell.
    pub required: Option<Cause>,
    /// When time alone changes this.
    pub look_again: Option<Timestamp>,
}

/// The flags.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `--svid-expiry-grace-period`.
    pub grace: Duration,
    /// `--resign-on-bundle-change`.
    pub on_bundle_change: OnBundleChange,
    /// `--resign-restarts`.
    pub restarts: Restarts,
}

/// A time as it is written into annotations.
pub fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn same_instant(text: Option<&str>, time: Timestamp) -> bool {
    text.and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|known| known.as_second() == time.as_second())
}

/// Decides for one workload. `cards` are the live cards with something to renew.
pub fn decide(
    workload: &Workload,
    cards: &[Renewal],
    fingerprint: &str,
    rules: Rules,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    let Some(kind) = workload.key.workload_kind().filter(|_| !cards.is_empty()) else { return decision };
    let grace = SignedDuration::try_from(rules.grace).unwrap_or(SignedDuration::MAX);
    let triggered = workload.resign_trigger.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(at) = triggered.filter(|at| now.duration_since(*at) < grace) {
        decision.look_again = at.checked_add(grace).ok();
        return decision;
    }
    let mut cause = None;
    let ends = cards.iter().filter_map(|card| match card {
        Renewal::Valid { not_after, .. } => Some(*not_after),
        Renewal::Broken { .. } => None,
    });
    if let Some(earliest) = ends.min() {
        if earliest.duration_since(now) >= grace {
            decision.look_again = earliest.checked_sub(grace).ok();
        } else if !same_instant(workload.resign_leaf_expiry.as_deref(), earliest) {
            cause = Some(Cause::Expiry(earliest));
        }
    }
    // Cards that were not looked at again since the bundle changed say nothing about it.
    let current = cards.iter().all(|card| card.under() == fingerprint);
    let broken = cards.iter().any(|card| matches!(card, Renewal::Broken { .. }));
    match workload.bundle_hash.as_deref().filter(|hash| !hash.is_empty()) {
        _ if !current => {}
        Some(known) if known == fingerprint => {}
        // Of the previous operator, or none yet: nothing follows from it.
        Some(known) if !known.starts_with("v2:") => decision.refresh = true,
        None => decision.refresh = !broken,
        Some(_) => {
            decision.refresh = true;
            let wanted = match rules.on_bundle_change {
                OnBundleChange::Never => false,
                OnBundleChange::Always => true,
                OnBundleChange::Needed => broken,
            };
            if wanted {
                cause = cause.or(Some(Cause::Bundle));
            }
        }
    }
    let allowed = match rules.restarts {
        Restarts::Never => return decision,
        // Its controller does not restart Pods when the template changes.
        _ if kind == WorkloadKind::Sandbox => false,
        Restarts::Always => true,
        Restarts::SignerOnly if workload.signer == Signer::Sidecar => return decision,
        Restarts::SignerOnly => workload.signer == Signer::Init,
    };
    if allowed {
        decision.restart = cause;
    } else {
        decision.required = cause;
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::workload;
    use rstest::rstest;
    use serde_json::json;

    const RULES: Rules = Rules {
        grace: Duration::from_secs(1800),
        on_bundle_change: OnBundleChange::Needed,
        restarts: Restarts::SignerOnly,
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn valid(seconds: i64) -> Renewal {
        let not_after = now() + SignedDuration::from_secs(seconds);
        let (key_id, under) = (Some("k".into()), "v2:b".into());
        Renewal::Valid { key_id, not_after, own_domain: true, under, inherited: false }
    }

    fn broken() -> Renewal {
        Renewal::Broken { key_id: Some("k".into()), under: "v2:b".into() }
    }

    fn of(signer: Signer, hash: Option<&str>) -> Workload {
        Workload {
            signer,
            bundle_hash: hash.map(str::to_owned),
            ..workload(WorkloadKind::Deployment, json!({}))
        }
    }

    fn restart(workload: &Workload, cards: &[Renewal], rules: Rules) -> Option<&'static str> {
        decide(workload, cards, "v2:b", rules, now()).restart.map(Cause::label)
    }

    /// Card §12 step 2, and the annotation that stops a second restart for the same leaf.
    #[test]
    fn an_expiring_leaf_restarts_once() {
        let mut workload = of(Signer::Init, Some("v2:b"));
        assert_eq!(restart(&workload, &[valid(1801)], RULES), None);
        assert_eq!(restart(&workload, &[valid(1799)], RULES), Some("expiry"));
        assert_eq!(restart(&workload, &[valid(9999), valid(-5)], RULES), Some("expiry"));
        workload.resign_leaf_expiry = Some(stamp(now() + SignedDuration::from_secs(1799)));
        assert_eq!(restart(&workload, &[valid(1799)], RULES), None);
        workload.resign_leaf_expiry = None;
        workload.resign_trigger = Some(stamp(now() - SignedDuration::from_secs(1000)));
        assert_eq!(restart(&workload, &[valid(1799)], RULES), None, "a moment ago");
        workload.resign_trigger = Some("malformed".into());
        assert_eq!(restart(&workload, &[valid(1799)], RULES), Some("expiry"));
    }

    /// Card §12 steps 3 and 4.
    #[rstest]
    #[case::needed_and_valid(OnBundleChange::Needed, Some("v2:a"), valid(9999), None, true)]
    #[case::needed_and_broken(OnBundleChange::Needed, Some("v2:a"), broken(), Some("bundle"), true)]
    #[case::same_bundle(OnBundleChange::Needed, Some("v2:b"), broken(), None, false)]
    #[case::always(OnBundleChange::Always, Some("v2:a"), valid(9999), Some("bundle"), true)]
    #[case::never(OnBundleChange::Never, Some("v2:a"), broken(), None, true)]
    #[case::legacy(OnBundleChange::Always, Some("0123"), valid(9999), None, true)]
    #[case::legacy_broken(OnBundleChange::Needed, Some("0123"), broken(), None, true)]
    #[case::first(OnBundleChange::Always, None, valid(9999), None, true)]
    #[case::first_broken(OnBundleChange::Needed, None, broken(), None, false)]
    fn a_changed_bundle(
        #[case] on_bundle_change: OnBundleChange,
        #[case] hash: Option<&str>,
        #[case] card: Renewal,
        #[case] restart: Option<&str>,
        #[case] refresh: bool,
    ) {
        let workload = of(Signer::Init, hash);
        let decision = decide(&workload, &[card], "v2:b", Rules { on_bundle_change, ..RULES }, now());
        assert_eq!((decision.restart.map(Cause::label), decision.refresh), (restart, refresh));
    }

    /// A bundle that has just changed: the hash must not be refreshed by a verdict under the old one.
    #[test]
    fn a_verdict_under_an_older_bundle_says_nothing() {
        let mut old = valid(9999);
        if let Renewal::Valid { under, .. } = &mut old {
            *under = "v2:a".into();
        }
        let decision = decide(&of(Signer::Init, Some("v2:a")), &[old], "v2:b", RULES, now());
        assert_eq!((decision.refresh, decision.restart), (false, None));
    }

    #[rstest]
    #[case(Restarts::SignerOnly, Signer::Init, true, false)]
    #[case(Restarts::SignerOnly, Signer::None, false, true)]
    #[case(Restarts::SignerOnly, Signer::Sidecar, false, false)]
    #[case(Restarts::Always, Signer::None, true, false)]
    #[case(Restarts::Never, Signer::Init, false, false)]
    fn who_is_restarted(
        #[case] restarts: Restarts,
        #[case] signer: Signer,
        #[case] restart: bool,
        #[case] required: bool,
    ) {
        let decision =
            decide(&of(signer, Some("v2:b")), &[valid(1)], "v2:b", Rules { restarts, ..RULES }, now());
        assert_eq!((decision.restart.is_some(), decision.required.is_some()), (restart, required));
    }

    #[test]
    fn a_sandbox_is_never_restarted_and_nothing_to_renew_is_nothing() {
        let sandbox = Workload { signer: Signer::Init, ..workload(WorkloadKind::Sandbox, json!({})) };
        assert!(decide(&sandbox, &[valid(1)], "v2:b", RULES, now()).required.is_some());
        assert_eq!(decide(&of(Signer::Init, None), &[], "v2:b", RULES, now()), Decision::default());
    }

    /// Card §14.2, only on change: a restart of the process is none.
    #[test]
    fn a_certificate_is_inherited_from_the_status_of_before() {
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        assert!(Renewal::inherits(None, Some(at(5)), at(5)));
        assert!(!Renewal::inherits(None, Some(at(4)), at(5)), "another one");
        assert!(!Renewal::inherits(None, None, at(5)));
        assert!(!Renewal::inherits(Some(&valid(5)), Some(at(5)), at(5)), "this process wrote it");
        assert!(!Renewal::inherits(Some(&broken()), Some(at(5)), at(5)));
    }

    /// Card §12: "previously did for the same `kid`".
    #[test]
    fn a_chain_counts_as_broken_only_for_a_key_that_was_valid() {
        let key = |before: Option<&Renewal>, stored: Option<&str>, key: &str| {
            Renewal::broken(before, stored, key, &"v2:b".into()).is_some()
        };
        assert!(key(Some(&valid(1)), None, "k"));
        assert!(!key(Some(&valid(1)), None, "other"));
        assert!(key(Some(&broken()), None, "k"));
        let mut foreign = valid(1);
        if let Renewal::Valid { own_domain, .. } = &mut foreign {
            *own_domain = false;
        }
        assert!(!key(Some(&foreign), None, "k"));
        assert!(key(None, Some("k"), "k"));
        assert!(!key(None, Some("x"), "k"));
    }
}
