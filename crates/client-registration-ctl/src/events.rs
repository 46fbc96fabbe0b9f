//! Events on workloads (client-registration §12): one per reason in ten minutes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use controller_kit::events::{EventRecorder, NewEvent};
use tokio::time::Instant;

use crate::{reason::Reason, workload::Workload};

/// An Event of the same reason about the same workload is not repeated sooner.
const PAUSE: Duration = Duration::from_secs(600);
/// What is being done, in Events.
const ACTION: &str = "RegisterClient";
/// Beyond this many, what was said long ago is forgotten.
const REMEMBERED: usize = 10_000;

/// Puts Events on workloads.
pub struct Announcer {
    recorder: EventRecorder,
    said: Mutex<HashMap<(String, &'static str), Instant>>,
}

impl Announcer {
    /// Nothing was said yet.
    pub fn new(recorder: EventRecorder) -> Self {
        Self { recorder, said: Mutex::default() }
    }

    /// Something was done.
    pub fn normal(&self, workload: &Workload, reason: &'static str, note: &str) {
        if self.is_news(&workload.uid, reason) {
            self.recorder.publish(&workload.reference(), NewEvent::normal(reason, ACTION, note));
        }
    }

    /// Somebody should look.
    pub fn warning(&self, workload: &Workload, reason: Reason, note: &str) {
        let reason = reason.as_str();
        if self.is_news(&workload.uid, reason) {
            self.recorder.publish(&workload.reference(), NewEvent::warning(reason, ACTION, note));
        }
    }

    fn is_news(&self, uid: &str, reason: &'static str) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED {
            said.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        }
        let key = (uid.to_owned(), reason);
        if said.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < PAUSE) {
            return false;
        }
        said.insert(key, now);
        true
    }
}
