//! Bounded concurrency with shedding (webhook §18): so many calls run, so many wait, the rest is
//! answered at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// How many calls of one endpoint may run and wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls being decided.
    pub running: usize,
    /// Calls waiting for their turn.
    pub waiting: usize,
}

/// The door of one endpoint.
#[derive(Debug)]
pub struct AdmissionGate {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: Limits,
}

/// Why a call was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Too many calls wait already.
    QueueFull,
    /// The call's time ran out while it waited.
    WaitedTooLong,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AdmissionGate {
    /// A gate with these limits.
    pub fn new(limits: Limits) -> Self {
        Self { running: Arc::new(Semaphore::new(limits.running)), waiting: AtomicUsize::new(0), limits }
    }

    /// Waits for a turn until `deadline`, or says at once that there is no room.
    pub async fn enter(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Shed> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Shed::QueueFull);
        }
        let _waiting = Waiting(&self.waiting);
        match timeout_at(deadline, self.running.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Shed::WaitedTooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_running_and_waiting_calls_are_shed_at_once() {
        let gate = Arc::new(AdmissionGate::new(Limits { running: 1, waiting: 1 }));
        let deadline = Instant::now() + Duration::from_secs(8);
        let first = gate.enter(deadline).await.unwrap();
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(deadline).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let before = Instant::now();
        assert_eq!(gate.enter(deadline).await.err(), Some(Shed::QueueFull));
        assert_eq!(before, Instant::now(), "no waiting");
        drop(first);
        assert_eq!(second.await.unwrap(), Ok(()));
        assert!(gate.enter(deadline).await.is_ok(), "room again");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_deadline() {
        let gate = AdmissionGate::new(Limits { running: 1, waiting: 1 });
        let deadline = Instant::now() + Duration::from_secs(8);
        let _first = gate.enter(deadline).await.unwrap();
        assert_eq!(gate.enter(deadline).await.err(), Some(Shed::WaitedTooLong));
        assert_eq!(Instant::now(), deadline);
    }
}
