//! What this replica admitted in the last ten seconds: bridges the time until the store shows it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api_types::{TargetRef, duplicates::same_target};
use tokio::time::Instant;

/// How long an admission is remembered (README decision 27).
const FOR: Duration = Duration::from_secs(10);
/// Most admissions remembered; the oldest go first.
const LIMIT: usize = 10_000;

#[derive(Debug)]
struct Admitted {
    at: Instant,
    namespace: String,
    name: String,
    target: TargetRef,
}

/// Recent admissions of one kind.
#[derive(Debug, Default)]
pub struct Recent {
    admitted: Mutex<VecDeque<Admitted>>,
}

impl Recent {
    /// Remembers an admitted object. One whose name the API server generates has none yet and
    /// cannot be confirmed later, so it is not kept.
    pub fn remember(&self, namespace: &str, name: &str, target: &TargetRef) {
        if name.is_empty() {
            return;
        }
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut admitted);
        if admitted.len() >= LIMIT {
            admitted.pop_front();
        }
        admitted.push_back(Admitted {
            at: Instant::now(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            target: target.clone(),
        });
    }

    /// Names of recent objects with this target.
    pub fn claiming(&self, namespace: &str, target: &TargetRef) -> Vec<String> {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut admitted);
        admitted
            .iter()
            .filter(|one| one.namespace == namespace && same_target(&one.target, target))
            .map(|one| one.name.clone())
            .collect()
    }
}

fn drop_old(admitted: &mut VecDeque<Admitted>) {
    while admitted.front().is_some_and(|one| one.at.elapsed() >= FOR) {
        admitted.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(api_version: &str) -> TargetRef {
        TargetRef { api_version: api_version.into(), kind: "Deployment".into(), name: "w".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_admission_is_remembered_for_ten_seconds() {
        let recent = Recent::default();
        recent.remember("ns", "a", &target("apps/v1"));
        recent.remember("ns", "", &target("apps/v1"));
        assert_eq!(recent.claiming("ns", &target("apps/v2")), ["a"], "the version does not count");
        assert!(recent.claiming("other", &target("apps/v1")).is_empty());
        tokio::time::advance(FOR).await;
        assert!(recent.claiming("ns", &target("apps/v1")).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let recent = Recent::default();
        for n in 0..=LIMIT {
            recent.remember("ns", &n.to_string(), &target("apps/v1"));
        }
        let names = recent.claiming("ns", &target("apps/v1"));
        assert_eq!((names.len(), names[0].as_str()), (LIMIT, "1"));
    }
}
