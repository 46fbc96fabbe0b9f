//! What the certificate writer does next: a pure decision over what it sees (packaging §8).
//!
//! The authority Secret holds the newest authority, the serving Secret the leaf and the authority
//! that signed it. When the two differ a change of authority is under way: both are in the
//! bundle, and only after the overlap has passed with both published does the leaf change. A
//! crash between two steps leaves a state from which the same decision goes on.

use jiff::{SignedDuration, Timestamp};

use super::{
    pki::{Authority, Certificate},
    secrets::Serving,
};
use std::collections::BTreeSet;

/// Lifetimes of what the writer issues; flags `--webhook-ca-lifetime`, `--webhook-cert-lifetime`,
/// `--webhook-ca-overlap`.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an authority; it is replaced when a fifth is left (5 years: 1 year).
    pub authority: SignedDuration,
    /// Of a leaf; it is renewed after two thirds.
    pub leaf: SignedDuration,
    /// How long old and new authority are published together before the leaf changes.
    pub overlap: SignedDuration,
}

/// Everything the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The authority Secret's content, if usable.
    pub authority: Option<&'a Authority>,
    /// The serving Secret's content, if usable.
    pub serving: Option<&'a Serving>,
    /// The last usable serving content this process has seen.
    pub remembered: Option<&'a Serving>,
    /// Since when every configuration has carried the whole wanted bundle without a break.
    pub published_since: Option<Timestamp>,
    /// Subject alternative names the leaf must have.
    pub names: &'a BTreeSet<String>,
    /// Wall-clock time.
    pub now: Timestamp,
}

/// One step of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Everything is as it should be.
    Rest,
    /// Write a new authority into the authority Secret.
    NewAuthority,
    /// The serving Secret is gone or damaged, what it held is still good: write it back.
    Restore,
    /// Issue a leaf from the authority and write the serving Secret.
    Issue,
    /// No leaf of an old authority is alive any more: take the old ones off the serving Secret.
    DropPrevious,
}

/// The certificates that must be in `caBundle`: the leaf's authority, the newest one, and old
/// ones whose leaves may still be served; each once, in that order.
pub fn wanted_bundle<'a>(
    authority: Option<&'a Authority>,
    serving: Option<&'a Serving>,
    now: Timestamp,
) -> Vec<&'a Certificate> {
    let mut wanted: Vec<&Certificate> = Vec::new();
    let own = serving.map(|s| &s.authority);
    let old = serving.filter(|s| s.previous_alive(now)).map_or(&[][..], |s| &s.previous);
    for certificate in own.into_iter().chain(authority.map(Authority::certificate)).chain(old) {
        if !wanted.contains(&certificate) {
            wanted.push(certificate);
        }
    }
    wanted
}

/// Whether a serving content may be served: in time and for the right names.
pub fn usable(serving: &Serving, names: &BTreeSet<String>, now: Timestamp) -> bool {
    let leaf = &serving.leaf;
    leaf.valid_at(now) && names.is_subset(leaf.names())
}

/// Decides the next step. Idempotent: carrying a step out and deciding again leads to
/// [`Action::Rest`] in at most three steps, save for the overlap's wait.
pub fn decide(sight: &Sight<'_>, lifetimes: &Lifetimes) -> Action {
    let now = sight.now;
    let Some(authority) = sight.authority.filter(|a| a.certificate().valid_at(now)) else {
        return Action::NewAuthority;
    };
    let Some(serving) = sight.serving.filter(|s| usable(s, sight.names, now)) else {
        let restorable = sight.remembered.is_some_and(|s| usable(s, sight.names, now));
        return if restorable { Action::Restore } else { Action::Issue };
    };
    if serving.authority == *authority.certificate() {
        let left = authority.certificate().not_after().duration_since(now);
        // Four overlaps: also an authority made under other flags leaves time for the change.
        if due(authority.certificate(), lifetimes.authority, 5, now) || left <= lifetimes.overlap * 4 {
            return Action::NewAuthority;
        }
        if due(&serving.leaf, lifetimes.leaf, 3, now) {
            return Action::Issue;
        }
    } else if let Some(since) = sight.published_since {
        // A leaf that is about to end cannot wait for the whole overlap.
        let ends = serving.leaf.not_after().duration_since(now) <= serving.leaf.lifetime() / 10;
        if ends || now.duration_since(since) >= lifetimes.overlap {
            return Action::Issue;
        }
    }
    if !serving.previous.is_empty() && !serving.previous_alive(now) {
        return Action::DropPrevious;
    }
    Action::Rest
}

/// Due when only one part of `parts` of its validity is left, or when it was issued for longer
/// than is now asked for.
fn due(certificate: &Certificate, lifetime: SignedDuration, parts: i32, now: Timestamp) -> bool {
    let left = certificate.not_after().duration_since(now);
    left <= certificate.lifetime() / parts || left > lifetime
}

/// How much validity `/readyz` demands: an hour, or a tenth of the leaf's lifetime when that is
/// less (decision 30).
pub fn readiness_margin(leaf: &Certificate) -> SignedDuration {
    (leaf.lifetime() / 10).min(SignedDuration::from_hours(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::secrets::Serving;

    const DAY: SignedDuration = SignedDuration::from_hours(24);
    const LIFETIMES: Lifetimes = Lifetimes {
        authority: SignedDuration::from_hours(43_800),
        leaf: SignedDuration::from_hours(2160),
        overlap: SignedDuration::from_mins(5),
    };

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn names() -> BTreeSet<String> {
        ["hook.ns.svc".to_owned()].into()
    }

    fn leaf_of(authority: &Authority, now: Timestamp) -> Serving {
        Serving::issue(authority, None, &names(), now, LIFETIMES.leaf).unwrap()
    }

    fn authority(now: Timestamp) -> Authority {
        Authority::generate(now, LIFETIMES.authority).unwrap()
    }

    fn sight<'a>(
        authority: Option<&'a Authority>,
        serving: Option<&'a Serving>,
        names: &'a BTreeSet<String>,
        now: Timestamp,
    ) -> Sight<'a> {
        Sight { authority, serving, remembered: None, published_since: None, names, now }
    }

    #[test]
    fn a_bare_start_makes_authority_then_leaf_then_rests() {
        let names = names();
        let ca = authority(start());
        let leaf = leaf_of(&ca, start());
        assert_eq!(decide(&sight(None, None, &names, start()), &LIFETIMES), Action::NewAuthority);
        assert_eq!(decide(&sight(Some(&ca), None, &names, start()), &LIFETIMES), Action::Issue);
        let settled = sight(Some(&ca), Some(&leaf), &names, start());
        assert_eq!(decide(&settled, &LIFETIMES), Action::Rest);
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds() {
        let names = names();
        let ca = authority(start());
        let leaf = leaf_of(&ca, start());
        for (after, want) in [(DAY * 59, Action::Rest), (DAY * 61, Action::Issue)] {
            let now = start() + after;
            let seen = sight(Some(&ca), Some(&leaf), &names, now);
            assert_eq!(decide(&seen, &LIFETIMES), want, "{after}");
        }
    }

    #[test]
    fn an_authority_is_replaced_a_year_before_its_end() {
        let names = names();
        let ca = authority(start());
        for (after, want) in [(DAY * 1400, Action::Rest), (DAY * 1465, Action::NewAuthority)] {
            let now = start() + after;
            let leaf = leaf_of(&ca, now);
            let seen = sight(Some(&ca), Some(&leaf), &names, now);
            assert_eq!(decide(&seen, &LIFETIMES), want, "{after}");
        }
    }

    #[test]
    fn the_leaf_changes_authority_only_after_the_published_overlap() {
        let names = names();
        let (old, new) = (authority(start()), authority(start()));
        let leaf = leaf_of(&old, start());
        let now = start() + SignedDuration::from_mins(20);
        let mut seen = sight(Some(&new), Some(&leaf), &names, now);
        assert_eq!(decide(&seen, &LIFETIMES), Action::Rest, "not published");
        seen.published_since = Some(now - SignedDuration::from_mins(4));
        assert_eq!(decide(&seen, &LIFETIMES), Action::Rest, "published, too short");
        seen.published_since = Some(now - SignedDuration::from_mins(5));
        assert_eq!(decide(&seen, &LIFETIMES), Action::Issue);
        seen.now = leaf.leaf.not_after() - SignedDuration::from_mins(1);
        seen.published_since = Some(seen.now);
        assert_eq!(decide(&seen, &LIFETIMES), Action::Issue, "the leaf ends before the overlap does");
        let bundle = wanted_bundle(Some(&new), Some(&leaf), now);
        assert_eq!(bundle, [old.certificate(), new.certificate()]);
    }

    #[test]
    fn the_old_authority_leaves_the_bundle_with_its_last_leaf() {
        let names = names();
        let (old, new) = (authority(start()), authority(start()));
        let before = leaf_of(&old, start());
        let after = Serving::issue(&new, Some(&before), &names, start(), LIFETIMES.leaf).unwrap();
        let last = before.leaf.not_after();
        let just_before = last - SignedDuration::from_secs(1);
        assert_eq!(wanted_bundle(Some(&new), Some(&after), just_before).len(), 2);
        assert_eq!(wanted_bundle(Some(&new), Some(&after), last).len(), 1);
        let renewed = Serving::issue(&new, Some(&after), &names, just_before, LIFETIMES.leaf).unwrap();
        let seen = sight(Some(&new), Some(&renewed), &names, last);
        assert_eq!(decide(&seen, &LIFETIMES), Action::DropPrevious);
    }

    #[test]
    fn a_lost_secret_is_written_back_as_it_was() {
        let names = names();
        let ca = authority(start());
        let leaf = leaf_of(&ca, start());
        let mut seen = sight(Some(&ca), None, &names, start());
        seen.remembered = Some(&leaf);
        assert_eq!(decide(&seen, &LIFETIMES), Action::Restore);
        seen.now = leaf.leaf.not_after();
        assert_eq!(decide(&seen, &LIFETIMES), Action::Issue, "expired meanwhile");
    }

    #[test]
    fn a_leaf_for_other_names_is_not_usable() {
        let ca = authority(start());
        let leaf = leaf_of(&ca, start());
        let other: BTreeSet<String> = ["other.ns.svc".to_owned()].into();
        let seen = sight(Some(&ca), Some(&leaf), &other, start());
        assert_eq!(decide(&seen, &LIFETIMES), Action::Issue);
    }

    #[test]
    fn a_shorter_lifetime_flag_takes_effect() {
        let names = names();
        let ca = authority(start());
        let leaf = leaf_of(&ca, start());
        let short = Lifetimes { leaf: DAY, ..LIFETIMES };
        let seen = sight(Some(&ca), Some(&leaf), &names, start());
        assert_eq!(decide(&seen, &short), Action::Issue);
    }

    #[test]
    fn the_readiness_margin_shrinks_with_the_lifetime() {
        let ca = Authority::generate(start(), SignedDuration::from_mins(100)).unwrap();
        assert!(readiness_margin(ca.certificate()) <= SignedDuration::from_mins(11));
        let long = authority(start());
        assert_eq!(readiness_margin(long.certificate()), SignedDuration::from_hours(1));
    }
}
