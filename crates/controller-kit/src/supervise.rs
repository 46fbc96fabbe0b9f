//! The life of a process: its tasks, its signals, its end.
//!
//! A watch loop that ended silently is the worst failure a controller can have, so every task is
//! supervised: when one ends, fails or panics, the process ends with 1. SIGTERM ends it in order:
//! unready, no new work, running work finishes within the grace period, the lease is released, exit
//! 0. A second signal exits with 130 at once (packaging §12).

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::reconcile::panic_message;

/// What a task gives back. An error ends the process like a panic does.
pub type TaskResult = Result<(), Box<dyn StdError + Send + Sync>>;

/// How a task came to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub task: &'static str,
    /// Why the process cannot go on without it.
    pub cause: EndCause,
}

/// See [`Ended`].
#[derive(Debug)]
pub enum EndCause {
    /// A task that runs for ever returned.
    Returned,
    /// It failed.
    Failed(Box<dyn StdError + Send + Sync>),
    /// It panicked.
    Panicked(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            EndCause::Returned => write!(f, "task {} ended by itself", self.task),
            EndCause::Failed(error) => write!(f, "task {} failed: {error}", self.task),
            EndCause::Panicked(message) => write!(f, "task {} panicked: {message}", self.task),
        }
    }
}

/// Starts supervised tasks; clones share the list. Tasks may be started at any time.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<Vec<(&'static str, AbortHandle)>>>,
    ended: mpsc::Sender<Ended>,
    stop: CancellationToken,
}

/// The receiving end of [`Tasks`].
pub struct Supervisor {
    tasks: Tasks,
    ended: mpsc::Receiver<Ended>,
}

impl Supervisor {
    /// A supervisor whose tasks are told to stop by `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        // Only the first end matters; the process is on its way out after it.
        let (sender, ended) = mpsc::channel(8);
        let tasks = Tasks { tracker: TaskTracker::new(), running: Arc::default(), ended: sender, stop };
        Self { tasks, ended }
    }

    /// The handle to start tasks with.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Waits for the first task that ends without having been told to.
    pub async fn first_end(&mut self) -> Ended {
        match self.ended.recv().await {
            Some(ended) => ended,
            // Cannot happen: this struct holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Tells all tasks to stop, gives them `grace` to finish, and aborts the rest. Returns the names
    /// of those that had to be aborted.
    pub async fn stop(&self, grace: Duration) -> Vec<&'static str> {
        self.tasks.stop.cancel();
        self.tasks.tracker.close();
        if tokio::time::timeout(grace, self.tasks.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let running = self.tasks.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .filter(|(_, handle)| !handle.is_finished())
            .map(|(name, handle)| {
                handle.abort();
                *name
            })
            .collect()
    }
}

impl Tasks {
    /// Starts a task that runs until it is told to stop. If it ends before, for whatever reason, the
    /// process ends with 1.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        self.start(name, task, true);
    }

    /// Starts a task that has an end. Only its failure or panic ends the process.
    pub fn spawn_finite<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        self.start(name, task, false);
    }

    fn start<F>(&self, name: &'static str, task: F, endless: bool)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        let (ended, stop) = (self.ended.clone(), self.stop.clone());
        let handle = self.tracker.spawn(async move {
            let cause = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if !endless || stop.is_cancelled() => return,
                Ok(Ok(())) => EndCause::Returned,
                Ok(Err(error)) => EndCause::Failed(error),
                Err(panic) => EndCause::Panicked(panic_message(panic.as_ref())),
            };
            let end = Ended { task: name, cause };
            tracing::error!(task = name, "{end}");
            // A full queue already holds a reason to end.
            let _ = ended.try_send(end);
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name, handle.abort_handle()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> (Supervisor, CancellationToken) {
        let stop = CancellationToken::new();
        (Supervisor::new(stop.clone()), stop)
    }

    /// Style 2.7: the first task to end, for whatever reason, ends the process, and is named.
    #[tokio::test]
    async fn a_returned_failed_or_panicked_task_is_reported_by_name() {
        let (mut supervisor, _) = supervisor();
        supervisor.tasks().spawn("watch", async { Ok(()) });
        assert_eq!(supervisor.first_end().await.to_string(), "task watch ended by itself");
        supervisor.tasks().spawn("serve", async { Err("port taken".into()) });
        assert_eq!(supervisor.first_end().await.to_string(), "task serve failed: port taken");
        supervisor.tasks().spawn("work", async { panic!("boom") });
        assert_eq!(supervisor.first_end().await.to_string(), "task work panicked: boom");
    }

    #[tokio::test(start_paused = true)]
    async fn a_finite_task_may_end_and_a_stopped_task_too() {
        let (mut supervisor, stop) = supervisor();
        supervisor.tasks().spawn_finite("once", async { Ok(()) });
        let token = stop.clone();
        supervisor.tasks().spawn("loop", async move {
            token.cancelled().await;
            Ok(())
        });
        assert!(supervisor.stop(Duration::from_secs(1)).await.is_empty());
        assert!(stop.is_cancelled());
        assert!(supervisor.first_end().now_or_never().is_none());
    }

    /// Packaging §12: running work may finish, bounded by the grace period.
    #[tokio::test(start_paused = true)]
    async fn running_work_finishes_within_the_grace_and_the_rest_is_named() {
        let (supervisor, _) = supervisor();
        supervisor.tasks().spawn("quick", async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        });
        supervisor.tasks().spawn("stuck", std::future::pending());
        let start = tokio::time::Instant::now();
        assert_eq!(supervisor.stop(Duration::from_secs(8)).await, ["stuck"]);
        assert_eq!(start.elapsed(), Duration::from_secs(8));
    }
}
