//! What a Lease says, when it is free, and the bodies that change it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::LeaseTiming;

/// The parts of a Lease that an election looks at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) holder: String,
    pub(super) renewed: Option<Timestamp>,
    pub(super) duration: Option<Duration>,
    pub(super) transitions: i32,
    pub(super) resource_version: String,
}

impl From<&Lease> for Record {
    fn from(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.map(|time| time.0),
            duration: spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            transitions: spec.lease_transitions.unwrap_or(0),
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// The Lease as last seen, and since when it has looked like that by our own clock.
#[derive(Debug, Default)]
pub(super) struct Observation {
    seen: Option<(Record, Instant)>,
}

impl Observation {
    /// Takes note of a read. Any change restarts the wait, whatever times it names.
    pub(super) fn note(&mut self, record: Record, now: Instant) {
        if self.seen.as_ref().is_none_or(|(old, _)| *old != record) {
            self.seen = Some((record, now));
        }
    }

    /// When the Lease may be taken by `identity`: now, or at some time if it stays as it is.
    pub(super) fn free_at(&self, identity: &str, own: Duration) -> Option<Instant> {
        let (record, since) = self.seen.as_ref()?;
        // A Lease in our own name is that of an earlier container of this Pod, which is dead.
        if record.holder.is_empty() || record.holder == identity {
            return Some(*since);
        }
        Some(*since + record.duration.unwrap_or(own))
    }

    pub(super) fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |(record, _)| record.holder.as_str())
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(record, _)| record)
    }
}

/// A time as the API stores it: microseconds. What is read back compares equal.
pub(super) fn micros(now: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn text(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The Lease to create when there is none.
pub(super) fn created(name: &str, identity: &str, timing: LeaseTiming, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": timing.lease_duration.as_secs(),
            "acquireTime": text(now),
            "renewTime": text(now),
            "leaseTransitions": 0,
        },
    })
}

/// Takes a free Lease; a conflict means somebody was faster.
pub(super) fn taken(record: &Record, identity: &str, timing: LeaseTiming, now: Timestamp) -> Value {
    let moved = i32::from(record.holder != identity);
    json!({
        "metadata": {"resourceVersion": record.resource_version},
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": timing.lease_duration.as_secs(),
            "acquireTime": text(now),
            "renewTime": text(now),
            "leaseTransitions": record.transitions.saturating_add(moved),
        },
    })
}

/// Renews the Lease that this replica holds.
pub(super) fn renewed(resource_version: &str, identity: &str, now: Timestamp) -> Value {
    json!({
        "metadata": {"resourceVersion": resource_version},
        "spec": {"holderIdentity": identity, "renewTime": text(now)},
    })
}

/// Gives the Lease up in the way client-go does: no holder, and nobody need wait.
pub(super) fn released(resource_version: &str, now: Timestamp) -> Value {
    json!({
        "metadata": {"resourceVersion": resource_version},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": text(now)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Duration = Duration::from_secs(15);

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            renewed: None,
            duration: Some(Duration::from_secs(20)),
            transitions: 3,
            resource_version: version.to_owned(),
        }
    }

    /// Design §3: expiry is counted on the own clock from the last change seen.
    #[tokio::test(start_paused = true)]
    async fn a_lease_is_free_when_it_has_not_changed_for_its_duration() {
        let mut observation = Observation::default();
        let start = Instant::now();
        observation.note(record("a", "1"), start);
        assert_eq!(observation.free_at("b", OWN), Some(start + Duration::from_secs(20)));
        observation.note(record("a", "1"), start + Duration::from_secs(2));
        assert_eq!(
            observation.free_at("b", OWN),
            Some(start + Duration::from_secs(20)),
            "no change, no delay"
        );
        observation.note(record("a", "2"), start + Duration::from_secs(4));
        assert_eq!(observation.free_at("b", OWN), Some(start + Duration::from_secs(24)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_and_our_own_are_free_at_once() {
        let mut observation = Observation::default();
        assert_eq!(observation.free_at("b", OWN), None, "nothing seen yet");
        let now = Instant::now();
        observation.note(record("", "1"), now);
        assert_eq!(observation.free_at("b", OWN), Some(now));
        observation.note(record("b", "2"), now);
        assert_eq!(observation.free_at("b", OWN), Some(now));
    }

    #[test]
    fn transitions_count_changes_of_the_holder_only() {
        let now = Timestamp::UNIX_EPOCH;
        let timing = LeaseTiming::default();
        assert_eq!(taken(&record("a", "7"), "b", timing, now)["spec"]["leaseTransitions"], 4);
        assert_eq!(taken(&record("b", "7"), "b", timing, now)["spec"]["leaseTransitions"], 3);
        assert_eq!(taken(&record("a", "7"), "b", timing, now)["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn times_survive_a_round_trip() {
        let now = micros("2026-01-02T03:04:05.123456789Z".parse().unwrap());
        let body = renewed("1", "a", now);
        assert_eq!(body["spec"]["renewTime"], "2026-01-02T03:04:05.123456Z");
        assert_eq!(body["spec"]["renewTime"].as_str().unwrap().parse::<Timestamp>().unwrap(), now);
    }
}
