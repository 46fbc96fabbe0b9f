//! Nothing is written while Existing's controller is alive in the same namespace.
//!
//! During an upgrade the old operator may still run. Two controllers with different hash rules would
//! roll every workload back and forth, so as long as its Lease is renewed no component writes
//! anything but its own Lease, Events and the webhook CA, and `/readyz` names the Lease
//! (packaging §12, runtime §21). The Lease is looked at for the whole life of the process: somebody
//! may roll back.

use std::time::Duration;

pub use api_types::names::LEGACY_LEASE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::apply::is_forbidden;
use crate::readiness::Readiness;

/// Name of the readiness check.
const CHECK: &str = "legacy-operator";
/// Looks while the guard is open. Somebody who starts the old operator again is seen this late.
const CALM: Duration = Duration::from_secs(10);
/// Looks while it is closed.
const ALERT: Duration = Duration::from_secs(2);
/// Duration of a Lease that names none: the default of leader election.
const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// How wrong the old operator's clock may be before its Lease is taken for a dead one at first sight.
const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// What one look at the Lease means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    /// Alive, held by this replica of the old operator.
    Closed(String),
}

/// What was seen so far. Pure: both clocks come in as arguments.
#[derive(Debug, Default)]
struct Memory {
    renewed: Option<Timestamp>,
    /// When the Lease was last seen to change; `None` while it has looked dead since the first look.
    alive_since: Option<Instant>,
    looked: bool,
}

impl Memory {
    fn judge(&mut self, spec: Option<&LeaseSpec>, now: Instant, wall: Timestamp) -> Verdict {
        let first = !std::mem::replace(&mut self.looked, true);
        let Some(spec) = spec else { return self.gone() };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let Some(renewed) = spec.renew_time.as_ref().map(|time| time.0) else { return self.gone() };
        if holder.is_empty() {
            return self.gone();
        }
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_DURATION, Duration::from_secs);
        let changed = self.renewed.replace(renewed) != Some(renewed);
        if changed {
            let age = wall.duration_since(renewed);
            let long_dead = SignedDuration::try_from(duration + CLOCK_SKEW).is_ok_and(|limit| age > limit);
            // Only the first sight is judged by the wall clock; later every change is a sign of life.
            self.alive_since = (!(first && long_dead)).then_some(now);
        }
        match self.alive_since {
            Some(since) if now.saturating_duration_since(since) < duration => {
                Verdict::Closed(holder.to_owned())
            }
            _ => Verdict::Open,
        }
    }

    fn gone(&mut self) -> Verdict {
        self.renewed = None;
        self.alive_since = None;
        Verdict::Open
    }
}

/// The task that looks at the Lease.
pub struct LegacyGuard {
    api: Api<Lease>,
    namespace: String,
    open: watch::Sender<bool>,
    readiness: Readiness,
}

impl LegacyGuard {
    /// A guard that is closed until the first look. The receiver is true while it is open.
    pub fn new(client: Client, namespace: &str, readiness: Readiness) -> (Self, watch::Receiver<bool>) {
        let (open, receiver) = watch::channel(false);
        readiness.register(CHECK, format!("Lease {namespace}/{LEGACY_LEASE} not looked at yet"));
        let guard = Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            open,
            readiness,
        };
        (guard, receiver)
    }

    /// Looks for ever.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            let calm = self.look(&mut memory).await;
            sleep(if calm { CALM } else { ALERT }).await;
        }
    }

    async fn look(&self, memory: &mut Memory) -> bool {
        let name = format!("{}/{LEGACY_LEASE}", self.namespace);
        match timeout(CALM, self.api.get_opt(LEGACY_LEASE)).await {
            Ok(Ok(lease)) => {
                let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
                match memory.judge(spec, Instant::now(), Timestamp::now()) {
                    Verdict::Open => {
                        if !self.open.send_replace(true) {
                            tracing::debug!(lease = %name, "no other operator is running");
                        }
                        self.readiness.set_ok(CHECK);
                        true
                    }
                    Verdict::Closed(holder) => {
                        let reason = format!(
                            "Lease {name} is renewed by {holder}: the operator this suite replaces is still running; \
                             uninstall it or scale it to 0"
                        );
                        if self.open.send_replace(false)
                            || memory.alive_since.is_some_and(|s| s.elapsed() < ALERT)
                        {
                            tracing::warn!(lease = %name, %holder, "another operator is running, nothing is written");
                        }
                        self.readiness.set_failing(CHECK, reason);
                        false
                    }
                }
            }
            Ok(Err(error)) if is_forbidden(&error) => {
                // Whether the old operator runs cannot be known, and writing beside it would do harm.
                self.open.send_replace(false);
                self.readiness.set_failing(
                    CHECK,
                    format!("not allowed to get Lease {name}: grant get on leases with that resourceName"),
                );
                false
            }
            Ok(Err(error)) => {
                tracing::debug!(lease = %name, error = %crate::message::message_of(&error), "cannot read the lease");
                false
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(renewed: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some("old-0".to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }

    fn closed() -> Verdict {
        Verdict::Closed("old-0".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn no_lease_no_holder_or_a_long_dead_one_is_open() {
        let (now, wall) = (Instant::now(), Timestamp::now());
        assert_eq!(Memory::default().judge(None, now, wall), Verdict::Open);
        let released = LeaseSpec { holder_identity: Some(String::new()), ..spec(wall) };
        assert_eq!(Memory::default().judge(Some(&released), now, wall), Verdict::Open);
        let dead = spec(wall - SignedDuration::from_hours(1));
        assert_eq!(Memory::default().judge(Some(&dead), now, wall), Verdict::Open);
    }

    /// Packaging §12: closed while renewed within its duration; expiry by our own clock.
    #[tokio::test(start_paused = true)]
    async fn a_fresh_lease_closes_until_its_duration_passed_without_change() {
        let (start, wall) = (Instant::now(), Timestamp::now());
        let mut memory = Memory::default();
        assert_eq!(memory.judge(Some(&spec(wall)), start, wall), closed());
        assert_eq!(memory.judge(Some(&spec(wall)), start + 14 * SECOND, wall), closed());
        let renewed = spec(wall + SignedDuration::from_secs(10));
        assert_eq!(memory.judge(Some(&renewed), start + 14 * SECOND, wall), closed());
        assert_eq!(memory.judge(Some(&renewed), start + 28 * SECOND, wall), closed());
        assert_eq!(memory.judge(Some(&renewed), start + 29 * SECOND, wall), Verdict::Open);
    }

    /// A dead Lease that begins to move again (a roll-back) closes, whatever its own times say.
    #[tokio::test(start_paused = true)]
    async fn any_later_change_is_a_sign_of_life() {
        let (start, wall) = (Instant::now(), Timestamp::now());
        let old = wall - SignedDuration::from_hours(1);
        let mut memory = Memory::default();
        assert_eq!(memory.judge(Some(&spec(old)), start, wall), Verdict::Open);
        let moved = spec(old + SignedDuration::from_secs(2));
        assert_eq!(memory.judge(Some(&moved), start + 2 * SECOND, wall), closed());
        assert_eq!(memory.judge(None, start + 3 * SECOND, wall), Verdict::Open);
    }

    /// A clock that is wrong by less than a minute does not open the guard at first sight.
    #[tokio::test(start_paused = true)]
    async fn a_slow_clock_of_the_old_operator_is_allowed_for() {
        let (start, wall) = (Instant::now(), Timestamp::now());
        let behind = spec(wall - SignedDuration::from_secs(40));
        assert_eq!(Memory::default().judge(Some(&behind), start, wall), closed());
    }
}
