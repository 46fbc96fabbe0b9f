//! Leader election over a `coordination.k8s.io/v1` Lease (packaging §12, design §3).
//!
//! A replica that wants to lead reads the Lease every two seconds. It takes the Lease when nobody
//! holds it, or when it has not changed for its whole duration **by this process's own monotonic
//! clock**, so neither clock skew nor a suspended node makes two leaders. The leader renews every two
//! seconds; without a success for the renew deadline it counts as having lost: [`Leadership`] says so
//! to the writers by time alone, even when the renewing task hangs, and [`Election::run`] ends with
//! [`LeaseLost`], upon which the process exits. A released Lease is noticed within the next read.

mod election;
mod record;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use election::{Candidate, Election, LeaseLost};

/// Timing of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// Others may take the Lease when it has not changed for this long. Sent in whole seconds.
    pub lease_duration: Duration,
    /// The leader stops writing when its last successful renewal is this old.
    pub renew_deadline: Duration,
    /// How often the Lease is read and renewed.
    pub retry_period: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Settings that would let two replicas write at once.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "leader election: need retry period ({retry_period:?}) < renew deadline ({renew_deadline:?}) < lease duration \
     ({lease_duration:?}), and a lease duration of at least 1s"
)]
pub struct TimingError {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl LeaseTiming {
    /// Refuses an order of the three in which the Lease could be taken while its holder still writes.
    pub fn validate(self) -> Result<Self, TimingError> {
        let Self { lease_duration, renew_deadline, retry_period } = self;
        let sound = retry_period < renew_deadline
            && renew_deadline < lease_duration
            && lease_duration >= Duration::from_secs(1);
        if sound { Ok(self) } else { Err(TimingError { lease_duration, renew_deadline, retry_period }) }
    }
}

/// What this replica knows about holding the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// Somebody else leads, or nobody.
    No,
    /// This replica leads until then, unless it renews.
    Until(Instant),
    /// There is no election.
    Always,
}

/// Whether this replica may write. Clones are cheap; ask before every batch of writes.
///
/// "Leader" means two things at once: the Lease is held (or there is no election), and the
/// [legacy guard](crate::legacy_guard) is open. Only what may be written in spite of a running
/// predecessor (the webhook's CA) asks for [`Leadership::holds_lease`] alone.
#[derive(Clone, Debug)]
pub struct Leadership {
    holding: watch::Receiver<Holding>,
    guard_open: watch::Receiver<bool>,
}

impl Leadership {
    fn of(holding: watch::Receiver<Holding>) -> Self {
        // A receiver keeps the last value when its sender is gone.
        Self { holding, guard_open: watch::channel(true).1 }
    }

    /// Leadership without election; also for tests and tools.
    pub fn always() -> Self {
        Self::of(watch::channel(Holding::Always).1)
    }

    /// The same, under a [legacy guard](crate::legacy_guard) that is open while the value is true.
    #[must_use]
    pub fn with_guard(self, guard_open: watch::Receiver<bool>) -> Self {
        Self { guard_open, ..self }
    }

    /// True when this replica may write now.
    pub fn is_leader(&self) -> bool {
        self.holds_lease() && self.guard_is_open()
    }

    /// True when this replica holds the Lease, whatever the legacy guard says. False from the renew
    /// deadline on, without waiting for anybody to say so.
    pub fn holds_lease(&self) -> bool {
        match *self.holding.borrow() {
            Holding::No => false,
            Holding::Until(end) => Instant::now() < end,
            Holding::Always => true,
        }
    }

    /// False while a predecessor's Lease is alive in the namespace (packaging §12).
    pub fn guard_is_open(&self) -> bool {
        *self.guard_open.borrow()
    }

    /// Waits until this replica may write. Returns at once when it does.
    pub async fn wait_until_leader(&self) {
        loop {
            self.wait_until_lease().await;
            let mut guard = self.guard_open.clone();
            wait_for(&mut guard, |open| *open).await;
            if self.is_leader() {
                return;
            }
        }
    }

    /// Waits until this replica holds the Lease.
    pub async fn wait_until_lease(&self) {
        let mut holding = self.holding.clone();
        wait_for(&mut holding, |_| self.holds_lease()).await;
    }

    /// Waits until the legacy guard is open; for writers that need no Lease.
    pub async fn wait_until_guard_open(&self) {
        let mut guard = self.guard_open.clone();
        wait_for(&mut guard, |open| *open).await;
    }
}

/// Waits for a value; for ever when the sender is gone, because then nothing will change any more.
async fn wait_for<T>(receiver: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    if receiver.wait_for(wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(15, 10, 2, true)]
    #[case(10, 10, 2, false)]
    #[case(15, 2, 2, false)]
    #[case(15, 20, 2, false)]
    fn an_order_that_allows_two_writers_is_refused(
        #[case] lease: u64,
        #[case] renew: u64,
        #[case] retry: u64,
        #[case] sound: bool,
    ) {
        let timing = LeaseTiming {
            lease_duration: Duration::from_secs(lease),
            renew_deadline: Duration::from_secs(renew),
            retry_period: Duration::from_secs(retry),
        };
        assert_eq!(timing.validate().is_ok(), sound);
    }

    /// Packaging §12: the loss stops writes by time alone, also when nobody updates the state.
    #[tokio::test(start_paused = true)]
    async fn leadership_ends_at_its_deadline_by_itself() {
        let (sender, holding) = watch::channel(Holding::No);
        let leadership = Leadership::of(holding);
        assert!(!leadership.is_leader());
        sender.send_replace(Holding::Until(Instant::now() + Duration::from_secs(10)));
        assert!(leadership.is_leader());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!leadership.is_leader());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_waits_for_the_guard_too() {
        let (guard, guard_open) = watch::channel(false);
        let leadership = Leadership::always().with_guard(guard_open);
        assert!(leadership.holds_lease() && !leadership.is_leader());
        let waiting = leadership.clone();
        let task = tokio::spawn(async move { waiting.wait_until_leader().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!task.is_finished());
        guard.send_replace(true);
        task.await.unwrap();
        assert!(leadership.is_leader());
    }
}
