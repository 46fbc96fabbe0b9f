//! The loop that takes, renews and releases a Lease.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::record::{self, Observation, Record};
use super::{Holding, Leadership, LeaseTiming};
use crate::apply::{is_conflict, is_forbidden, is_not_found};
use crate::metrics::{Metrics, NameLabel};
use crate::readiness::Readiness;

/// Name of the readiness check: only a missing right makes it fail, never being a follower.
const CHECK: &str = "lease";
/// A release that takes longer is left to expire.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// This replica led and does not any more. The process must exit (packaging §12).
#[derive(Debug, thiserror::Error)]
#[error("the lease {lease} is lost: {reason}")]
pub struct LeaseLost {
    lease: String,
    reason: String,
}

/// Who wants to hold which Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of this replica, different from that of every other one.
    pub identity: String,
    /// Timing; see [`LeaseTiming::validate`].
    pub timing: LeaseTiming,
}

impl Candidate {
    /// Enters the election: the first value takes part in it when it is [run](Election::run), the
    /// second one says whether this replica leads. `leader_election_master_status{name}` and the
    /// readiness check `lease` follow.
    pub fn stand(self, client: Client, metrics: &Metrics, readiness: Readiness) -> (Election, Leadership) {
        let Self { namespace, name, identity, timing } = self;
        let (holding, receiver) = watch::channel(Holding::No);
        let gauge = metrics.leader.get_or_create_owned(&NameLabel { name: name.clone() });
        let election = Election {
            api: Api::namespaced(client, &namespace),
            label: format!("{namespace}/{name}"),
            name,
            identity,
            timing,
            holding,
            readiness,
            gauge,
            complained: String::new(),
        };
        (election, Leadership::of(receiver))
    }
}

/// A candidate's part in the election of one Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    label: String,
    identity: String,
    timing: LeaseTiming,
    holding: watch::Sender<Holding>,
    readiness: Readiness,
    gauge: Gauge,
    complained: String,
}

/// The Lease as this replica last wrote it.
struct Held {
    resource_version: String,
    valid_until: Instant,
    /// Renew times of writes that may have arrived without an answer.
    attempted: Vec<Timestamp>,
}

/// Outcome of one attempt to renew.
enum Renewal {
    Done,
    /// Try again at once: the server has our earlier write.
    Again,
    /// Not reached, or an error that may pass.
    Failed,
    Lost(String),
}

impl Election {
    /// Takes part until `release` is cancelled, then gives the Lease up if it is held.
    ///
    /// # Errors
    /// [`LeaseLost`] when the Lease was held and is not any more, at the latest at the renew deadline.
    pub async fn run(mut self, release: CancellationToken) -> Result<(), LeaseLost> {
        let Some(held) = release.run_until_cancelled(self.acquire()).await else { return Ok(()) };
        self.gauge.set(1);
        tracing::info!(lease = %self.label, holder = %self.identity, "lease acquired");
        let result = self.lead(held, &release).await;
        self.holding.send_replace(Holding::No);
        self.gauge.set(0);
        result
    }

    /// Waits as a follower until the Lease is ours.
    async fn acquire(&mut self) -> Held {
        let mut observation = Observation::default();
        loop {
            let started = Instant::now();
            if let Some(held) = self.try_acquire(&mut observation).await {
                return held;
            }
            // Slightly less than the period, so that the sum of period, duration and a request stays
            // within the promised failover time.
            let period = self.timing.retry_period.mul_f64(0.8 + fastrand::f64() * 0.2);
            let mut next = started + period;
            if let Some(free) = observation.free_at(&self.identity, self.timing.lease_duration) {
                let now = Instant::now();
                // Free already and still not ours: somebody else was faster, or the write failed.
                next = if free > now { next.min(free) } else { next };
            }
            sleep_until(next).await;
        }
    }

    async fn try_acquire(&mut self, observation: &mut Observation) -> Option<Held> {
        let read = timeout(self.timing.renew_deadline, self.api.get_opt(&self.name)).await;
        let lease = match read {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => return self.complain("read", &error),
            Err(_) => return self.complain_text("reading the lease took too long"),
        };
        self.content();
        let sent = Instant::now();
        let now = record::micros(Timestamp::now());
        let Some(lease) = lease else {
            let body = record::created(&self.name, &self.identity, self.timing, now);
            return self.create(body, sent, now).await;
        };
        let before = observation.holder().to_owned();
        observation.note(Record::from(&lease), sent);
        let holder = observation.holder();
        if holder != before && !holder.is_empty() && holder != self.identity {
            tracing::info!(lease = %self.label, %holder, "waiting for the lease");
        }
        if observation.free_at(&self.identity, self.timing.lease_duration).is_none_or(|free| free > sent) {
            return None;
        }
        let record = observation.record()?;
        let body = record::taken(record, &self.identity, self.timing, now);
        match timeout(self.timing.retry_period, self.patch(&body)).await {
            Ok(Ok(lease)) => Some(self.hold(&lease, sent, now)),
            // Somebody was faster; the next read shows who.
            Ok(Err(error)) if is_conflict(&error) || is_not_found(&error) => None,
            Ok(Err(error)) => self.complain("patch", &error),
            Err(_) => self.complain_text("taking the lease took too long"),
        }
    }

    async fn create(&mut self, body: serde_json::Value, sent: Instant, now: Timestamp) -> Option<Held> {
        let lease: Lease = match serde_json::from_value(body) {
            Ok(lease) => lease,
            Err(error) => return self.complain_text(&format!("cannot build the lease: {error}")),
        };
        match timeout(self.timing.retry_period, self.api.create(&PostParams::default(), &lease)).await {
            Ok(Ok(lease)) => Some(self.hold(&lease, sent, now)),
            Ok(Err(error)) if is_conflict(&error) => None,
            Ok(Err(error)) => self.complain("create", &error),
            Err(_) => self.complain_text("creating the lease took too long"),
        }
    }

    fn hold(&mut self, lease: &Lease, sent: Instant, now: Timestamp) -> Held {
        // Counted from before the request was sent: the server may have stored it right then.
        let valid_until = sent + self.timing.renew_deadline;
        self.holding.send_replace(Holding::Until(valid_until));
        self.content();
        Held {
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
            valid_until,
            attempted: vec![now],
        }
    }

    async fn lead(&mut self, mut held: Held, release: &CancellationToken) -> Result<(), LeaseLost> {
        let mut next = Instant::now() + self.timing.retry_period;
        loop {
            if release.run_until_cancelled(sleep_until(next.min(held.valid_until))).await.is_none() {
                self.release(&held).await;
                return Ok(());
            }
            let started = Instant::now();
            if started >= held.valid_until {
                let reason = format!("not renewed for {:?}", self.timing.renew_deadline);
                return Err(self.lost(reason));
            }
            // A renewal in progress is not cut off by the release: the release needs its result.
            match self.renew(&mut held).await {
                Renewal::Done | Renewal::Failed => next = started + self.timing.retry_period,
                Renewal::Again => next = Instant::now(),
                Renewal::Lost(reason) => return Err(self.lost(reason)),
            }
        }
    }

    async fn renew(&mut self, held: &mut Held) -> Renewal {
        let sent = Instant::now();
        let now = record::micros(Timestamp::now());
        held.attempted.push(now);
        let body = record::renewed(&held.resource_version, &self.identity, now);
        // Half the deadline, so that one stuck request leaves room for another.
        let limit = held.valid_until.min(sent + self.timing.renew_deadline / 2);
        match timeout_at(limit, self.patch(&body)).await {
            Ok(Ok(lease)) => {
                *held = self.hold(&lease, sent, now);
                Renewal::Done
            }
            Ok(Err(error)) if is_conflict(&error) => self.who_holds(held, limit).await,
            Ok(Err(error)) if is_not_found(&error) => {
                // Deleted by hand. Nobody has it, so making it anew is as good as renewing.
                let body = record::created(&self.name, &self.identity, self.timing, now);
                match timeout_at(limit, self.create(body, sent, now)).await {
                    Ok(Some(new)) => {
                        *held = new;
                        Renewal::Done
                    }
                    _ => Renewal::Failed,
                }
            }
            Ok(Err(error)) => {
                self.complain::<()>("patch", &error);
                Renewal::Failed
            }
            Err(_) => {
                self.complain_text::<()>("renewing the lease took too long");
                Renewal::Failed
            }
        }
    }

    /// After a conflict: was it an earlier write of ours whose answer got lost, or somebody else?
    async fn who_holds(&mut self, held: &mut Held, limit: Instant) -> Renewal {
        let lease = match timeout_at(limit, self.api.get(&self.name)).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => {
                self.complain::<()>("get", &error);
                return Renewal::Failed;
            }
            Err(_) => return Renewal::Failed,
        };
        let record = Record::from(&lease);
        if record.holder != self.identity {
            let holder = if record.holder.is_empty() { "nobody" } else { &record.holder };
            return Renewal::Lost(format!("it is now held by {holder}"));
        }
        if record.renewed.is_none_or(|time| !held.attempted.contains(&time)) {
            // Ours by name, but the change is not. An edit by hand (a label) leaves the time alone and
            // is found in `attempted`; another time means another process with our name.
            return Renewal::Lost(format!(
                "another process renews it as {}; give each replica its own POD_NAME",
                self.identity
            ));
        }
        held.resource_version = record.resource_version;
        Renewal::Again
    }

    async fn release(&self, held: &Held) {
        let body = record::released(&held.resource_version, record::micros(Timestamp::now()));
        match timeout(RELEASE_TIMEOUT, self.patch(&body)).await {
            Ok(Ok(_)) => tracing::info!(lease = %self.label, "lease released"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.label, error = %crate::message::message_of(&error), "lease not released; it expires by itself");
            }
            Err(_) => tracing::warn!(lease = %self.label, "lease not released in time; it expires by itself"),
        }
    }

    async fn patch(&self, body: &serde_json::Value) -> kube::Result<Lease> {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(body)).await
    }

    fn lost(&self, reason: String) -> LeaseLost {
        LeaseLost { lease: self.label.clone(), reason }
    }

    /// Logs a failure once until something else happens; a missing right also shows in `/readyz`.
    fn complain<T>(&mut self, verb: &str, error: &kube::Error) -> Option<T> {
        if is_forbidden(error) {
            let reason = format!(
                "not allowed to {verb} Lease {}: grant create on leases and get, update, patch on that name",
                self.label
            );
            self.readiness.set_failing(CHECK, &reason);
            return self.complain_text(&reason);
        }
        self.complain_text(&format!("cannot {verb} the lease: {error}"))
    }

    fn complain_text<T>(&mut self, text: &str) -> Option<T> {
        if self.complained != text {
            tracing::warn!(lease = %self.label, "{text}");
            text.clone_into(&mut self.complained);
        }
        None
    }

    /// The API server answered as it should.
    fn content(&mut self) {
        self.complained.clear();
        self.readiness.set_ok(CHECK);
    }
}
