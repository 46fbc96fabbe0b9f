//! What is remembered of each workload between passes; it goes with the workload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rest_client::BaseUrl;
use tokio::time::Instant;

use crate::{
    conditions::State,
    rollout::Guard,
    tracking::{Pace, Problem},
    workload::{Workload, WorkloadKey},
};

/// First and longest wait after a transient failure (MLflow §5.3).
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Looks at what somebody has to change.
const PERMANENT: Duration = Duration::from_secs(1800);
const PERMANENT_SLOW: Duration = Duration::from_secs(300);
/// One Event per workload and code in this time (MLflow §10).
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// Which experiment a workload is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// On this server.
    pub server: BaseUrl,
    /// In its namespace's workspace.
    pub workspaces: bool,
    /// Of this name.
    pub name: String,
}

/// An experiment that a workload has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub identity: Identity,
    /// Its id.
    pub id: String,
    /// When to look whether it is still there; `None` = never.
    pub verify_at: Option<Instant>,
}

/// A failure that is waited out: until then, nothing is asked again unless the workload or the server changes.
#[derive(Clone, Debug)]
pub struct Hold {
    workload: Arc<Workload>,
    server: BaseUrl,
    /// What went wrong.
    pub problem: Problem,
    until: Instant,
}

/// Everything about one workload.
#[derive(Debug, Default)]
pub struct Track {
    uid: Box<str>,
    /// Its experiment.
    pub known: Option<Known>,
    /// What it waits for.
    pub hold: Option<Hold>,
    failures: u32,
    /// Writes.
    pub guard: Guard,
    /// Since when it is un-enrolled.
    pub leaving_since: Option<Instant>,
    /// The generation of which everything was said.
    pub said: Option<i64>,
    events: Vec<(&'static str, Instant)>,
    /// Its experiment was lost and the new one is not written yet.
    pub lost: bool,
    /// How it is counted.
    pub state: Option<State>,
}

impl Track {
    /// The failure that is waited out, and for how long.
    pub fn held(&self, workload: &Workload, server: &BaseUrl, now: Instant) -> Option<(Problem, Duration)> {
        let hold = self.hold.as_ref()?;
        let same = hold.server == *server && hold.workload.same_for_us(workload);
        (same && now < hold.until).then(|| (hold.problem.clone(), hold.until - now))
    }

    /// Notes a failure; says when to try again.
    pub fn failed(
        &mut self,
        workload: &Arc<Workload>,
        server: &BaseUrl,
        problem: &Problem,
        now: Instant,
    ) -> Duration {
        let delay = match problem.code.pace() {
            Pace::Permanent => jittered(PERMANENT),
            Pace::PermanentSlow => jittered(PERMANENT_SLOW),
            Pace::Transient => {
                let step = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LAST_RETRY);
                self.failures = self.failures.saturating_add(1);
                jittered(step)
            }
        };
        let (workload, server) = (workload.clone(), server.clone());
        self.hold = Some(Hold { workload, server, problem: problem.clone(), until: now + delay });
        delay
    }

    /// The server did what it was asked.
    pub fn succeeded(&mut self) {
        self.hold = None;
        self.failures = 0;
    }

    /// True when an Event with this code is due; it counts as said.
    pub fn say(&mut self, code: &'static str, now: Instant) -> bool {
        self.events.retain(|(_, at)| now - *at < SAY_AGAIN);
        let first = self.events.iter().all(|(said, _)| *said != code);
        if first {
            self.events.push((code, now));
        }
        first
    }
}

fn jittered(delay: Duration) -> Duration {
    controller_kit::backoff::jitter(delay, 0.2)
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tracks(Mutex<HashMap<WorkloadKey, Track>>);

impl Tracks {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Track>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the memory of a workload; an earlier life of the same name is forgotten.
    pub fn with<T>(&self, workload: &Workload, work: impl FnOnce(&mut Track) -> T) -> T {
        let mut tracks = self.lock();
        let track = tracks.entry(workload.key.clone()).or_default();
        if track.uid != workload.uid {
            *track = Track { uid: workload.uid.clone(), ..Track::default() };
        }
        work(track)
    }

    /// Forgets a workload.
    pub fn forget(&self, key: &WorkloadKey) {
        self.lock().remove(key);
    }

    /// Everything that waits for a server is due now; these are the keys.
    pub fn release_holds(&self) -> Vec<WorkloadKey> {
        let mut tracks = self.lock();
        let held = tracks.iter_mut().filter_map(|(key, track)| track.hold.take().map(|_| key.clone()));
        held.collect()
    }

    /// One workload that waits for a failing server, to find out whether it answers again.
    pub fn release_one(&self) -> Option<WorkloadKey> {
        let mut tracks = self.lock();
        let transient = |hold: &Hold| hold.problem.code.pace() == Pace::Transient;
        // The one that waits longest for its turn: an order that does not starve anybody.
        let (key, track) = tracks
            .iter_mut()
            .filter(|(_, track)| track.hold.as_ref().is_some_and(transient))
            .max_by_key(|(_, track)| track.hold.as_ref().map(|hold| hold.until))?;
        track.hold = None;
        Some(key.clone())
    }

    /// Number of workloads by state.
    pub fn count(&self, state: State) -> usize {
        self.lock().values().filter(|track| track.state == Some(state)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, tracking::Code, workload::tests::workload};
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]
    fn agent(metadata: serde_json::Value) -> Arc<Workload> {
        Arc::new(workload(WorkloadKind::Deployment, json!({ "metadata": metadata })))
    }

    fn server(name: &str) -> BaseUrl {
        BaseUrl::parse(&format!("http://{name}")).unwrap()
    }

    /// MLflow §5.3: 5 s, doubling, at most 5 min, give or take a fifth.
    #[tokio::test(start_paused = true)]
    async fn transient_failures_back_off() {
        let mut track = Track::default();
        let problem = Problem::new(Code::ServerUnavailable, "x");
        let (agent, server) = (agent(json!({})), server("m"));
        for want in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
            let delay = track.failed(&agent, &server, &problem, Instant::now()).as_secs_f64();
            assert!((want * 0.8..=want * 1.2).contains(&delay), "{delay} for {want}");
        }
        track.succeeded();
        assert!(track.failed(&agent, &server, &problem, Instant::now()) <= Duration::from_secs(6));
    }

    /// Nothing is asked again before its time, unless workload or server changed.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_held_until_something_changes() {
        let mut track = Track::default();
        let problem = Problem::new(Code::InvalidRequest, "x");
        let before = agent(json!({"resourceVersion": "1"}));
        track.failed(&before, &server("m"), &problem, Instant::now());
        let now = Instant::now();
        assert!(track.held(&agent(json!({"resourceVersion": "2"})), &server("m"), now).is_some());
        assert!(track.held(&agent(json!({"generation": 2})), &server("m"), now).is_none());
        assert!(track.held(&before, &server("n"), now).is_none());
        tokio::time::advance(Duration::from_secs(2200)).await;
        assert!(track.held(&before, &server("m"), Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_per_code_in_ten_minutes() {
        let mut track = Track::default();
        assert!(track.say("a", Instant::now()) && track.say("b", Instant::now()));
        assert!(!track.say("a", Instant::now()));
        tokio::time::advance(SAY_AGAIN).await;
        assert!(track.say("a", Instant::now()));
    }

    #[tokio::test]
    async fn an_earlier_life_is_forgotten() {
        let tracks = Tracks::default();
        tracks.with(&agent(json!({"uid": "1"})), |track| track.said = Some(3));
        assert_eq!(tracks.with(&agent(json!({"uid": "1"})), |track| track.said), Some(3));
        assert_eq!(tracks.with(&agent(json!({"uid": "2"})), |track| track.said), None);
    }

    #[tokio::test]
    async fn only_what_waits_for_the_server_is_released() {
        let tracks = Tracks::default();
        for (name, code) in [("a", Code::InvalidRequest), ("b", Code::ServerUnavailable)] {
            let agent = agent(json!({ "name": name }));
            tracks.with(&agent, |track| {
                track.failed(&agent, &server("m"), &Problem::new(code, "x"), Instant::now())
            });
        }
        assert_eq!(tracks.release_one().map(|key| key.name).as_deref(), Some("b"));
        assert_eq!(tracks.release_one(), None);
        assert_eq!(tracks.release_holds().len(), 1);
    }
}
