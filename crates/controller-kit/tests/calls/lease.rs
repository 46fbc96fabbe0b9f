//! Leader election against a Lease in memory, with paused time (packaging §12, design §3).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api_server::{Answer, Call, client, failure};
use controller_kit::lease::{Candidate, Leadership, LeaseTiming};
use controller_kit::metrics::Metrics;
use controller_kit::readiness::Readiness;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const UP: u8 = 0;
const DOWN: u8 = 1;
const HANGING: u8 = 2;
const FORBIDDEN: u8 = 3;
/// The write arrives, its answer does not.
const LOSES_ANSWERS: u8 = 4;

/// The one Lease of the test, with the API server's rules for resource versions.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
    version: Mutex<u64>,
}

impl Server {
    fn handle(&self, call: &Call) -> Answer {
        let mut lease = self.lease.lock().unwrap();
        let stored = |lease: &mut Option<Value>, mut value: Value| {
            let mut version = self.version.lock().unwrap();
            *version += 1;
            value["metadata"]["resourceVersion"] = version.to_string().into();
            *lease = Some(value.clone());
            value
        };
        match (&call.method, lease.clone()) {
            (&Method::GET, Some(lease)) => Answer::Json(200, lease),
            (&Method::POST, None) => {
                let created = stored(&mut lease, call.body.clone());
                Answer::Json(201, created)
            }
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists"),
            (&Method::PATCH, Some(mut current)) => {
                assert_eq!(call.content_type, "application/merge-patch+json");
                let wanted = &call.body["metadata"]["resourceVersion"];
                assert!(wanted.is_string(), "every write of a lease needs a precondition: {}", call.body);
                if *wanted != current["metadata"]["resourceVersion"] {
                    return failure(409, "Conflict");
                }
                for (key, value) in call.body["spec"].as_object().unwrap() {
                    current["spec"][key] = value.clone();
                }
                Answer::Json(200, stored(&mut lease, current))
            }
            (_, None) => failure(404, "NotFound"),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        lease
            .as_ref()
            .map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        let mut lease = self.lease.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        edit(lease);
        lease["metadata"]["resourceVersion"] = version.to_string().into();
    }
}

/// One replica with its own connection.
struct Replica {
    link: Arc<AtomicU8>,
    leadership: Leadership,
    release: CancellationToken,
    readiness: Readiness,
    metrics: Metrics,
    task: JoinHandle<Result<(), String>>,
}

impl Replica {
    fn start(server: &Arc<Server>, name: &str) -> Self {
        let link = Arc::new(AtomicU8::new(UP));
        let (state, server) = (Arc::clone(&link), Arc::clone(server));
        let (client, _) = client(move |call| match state.load(Ordering::Relaxed) {
            UP => server.handle(call),
            DOWN => Answer::Broken,
            HANGING => Answer::Silence,
            FORBIDDEN => failure(403, "Forbidden"),
            LOSES_ANSWERS => {
                server.handle(call);
                state.store(UP, Ordering::Relaxed);
                Answer::Broken
            }
            other => panic!("{other}"),
        });
        let (metrics, readiness, release) =
            (Metrics::new("test"), Readiness::new(), CancellationToken::new());
        let candidate = Candidate {
            namespace: "kagenti-system".to_owned(),
            name: "runtime-ctl.kagenti.dev".to_owned(),
            identity: name.to_owned(),
            timing: LeaseTiming::default(),
        };
        let (election, leadership) = candidate.stand(client, &metrics, readiness.clone());
        let token = release.clone();
        let task = tokio::spawn(async move { election.run(token).await.map_err(|lost| lost.to_string()) });
        Self { link, leadership, release, readiness, metrics, task }
    }

    fn link(&self, state: u8) {
        self.link.store(state, Ordering::Relaxed);
    }

    fn leads(&self) -> bool {
        self.leadership.is_leader()
    }

    async fn lead(&self) -> Duration {
        let start = Instant::now();
        self.leadership.wait_until_leader().await;
        start.elapsed()
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A first replica leads at once; a second one follows, warm and ready, and never writes.
#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_follows() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    assert!(a.lead().await < secs(1));
    let b = Replica::start(&server, "b");
    for _ in 0..120 {
        sleep(secs(1)).await;
        assert!(a.leads() && !b.leads());
    }
    assert_eq!(server.holder(), "a");
    assert!(b.readiness.is_ready(), "not being leader does not make unready");
    let text = a.metrics.openmetrics().unwrap();
    assert!(text.contains("leader_election_master_status{name=\"runtime-ctl.kagenti.dev\"} 1"), "{text}");
    assert_eq!(server.lease.lock().unwrap().as_ref().unwrap()["spec"]["leaseTransitions"], 0);
}

/// Scenario 18: SIGTERM moves the lease within 3 s.
#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_within_three_seconds() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    let b = Replica::start(&server, "b");
    sleep(secs(7)).await;
    a.release.cancel();
    assert_eq!(a.task.await.unwrap(), Ok(()));
    assert!(!a.leadership.is_leader());
    let took = b.lead().await;
    assert!(took < secs(3), "{took:?}");
    assert_eq!(server.holder(), "b");
    assert_eq!(server.lease.lock().unwrap().as_ref().unwrap()["spec"]["leaseTransitions"], 1);
}

/// Scenario 18: SIGKILL of the leader moves the lease within 17 s, and never before 15 s.
#[tokio::test(start_paused = true)]
async fn a_dead_leaders_lease_is_taken_within_seventeen_seconds() {
    for phase in [100, 700, 1300, 1900] {
        let server = Arc::new(Server::default());
        let a = Replica::start(&server, "a");
        a.lead().await;
        let b = Replica::start(&server, "b");
        sleep(secs(10) + Duration::from_millis(phase)).await;
        a.task.abort();
        let took = b.lead().await;
        assert!(took <= secs(17), "{took:?}");
        assert!(took > secs(12), "the old leader may have written until its deadline: {took:?}");
    }
}

/// Design §3: a leader that cannot renew stops writing at the renew deadline, before anybody else can
/// lead, and is told that it lost.
#[tokio::test(start_paused = true)]
async fn a_cut_off_leader_stops_before_the_next_one_starts() {
    for link in [DOWN, HANGING, FORBIDDEN] {
        let server = Arc::new(Server::default());
        let a = Replica::start(&server, "a");
        a.lead().await;
        let b = Replica::start(&server, "b");
        sleep(secs(9)).await;
        a.link(link);
        let cut = Instant::now();
        let mut stopped = None;
        while !b.leads() {
            assert!(!(a.leads() && b.leads()), "two leaders");
            if !a.leads() {
                stopped.get_or_insert(cut.elapsed());
            }
            sleep(Duration::from_millis(50)).await;
            assert!(cut.elapsed() < secs(20));
        }
        let stopped = stopped.expect("the old leader stopped first");
        assert!(stopped <= secs(10), "{stopped:?}");
        assert!(cut.elapsed() >= stopped + secs(3), "a gap between the two");
        let lost = a.task.await.unwrap().unwrap_err();
        assert!(
            lost.contains("kagenti-system/runtime-ctl.kagenti.dev is lost: not renewed for 10s"),
            "{lost}"
        );
    }
}

/// The end is told within a second of the deadline (packaging §12: exit 1 within 1 s).
#[tokio::test(start_paused = true)]
async fn the_loss_is_told_at_the_deadline() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    sleep(secs(5)).await;
    a.link(HANGING);
    while a.leads() {
        sleep(Duration::from_millis(20)).await;
    }
    let start = Instant::now();
    a.task.await.unwrap().unwrap_err();
    assert!(start.elapsed() < secs(1), "{:?}", start.elapsed());
}

/// A short outage of the API server costs nothing.
#[tokio::test(start_paused = true)]
async fn a_short_outage_does_not_end_the_leadership() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    for link in [DOWN, HANGING] {
        sleep(secs(5)).await;
        a.link(link);
        sleep(secs(4)).await;
        a.link(UP);
        for _ in 0..20 {
            assert!(a.leads(), "{link}");
            sleep(secs(1)).await;
        }
    }
}

/// A renewal whose answer was lost is our own, not somebody else's.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_recognised() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    for _ in 0..5 {
        a.link(LOSES_ANSWERS);
        sleep(secs(6)).await;
        assert!(a.leads());
    }
    assert!(!a.task.is_finished());
}

/// Somebody edits a label: a conflict, but not a loss. Somebody takes it: a loss, at the next renewal.
#[tokio::test(start_paused = true)]
async fn an_edit_is_survived_and_a_theft_is_not() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    server.edit(|lease| lease["metadata"]["labels"] = json!({"x": "y"}));
    sleep(secs(5)).await;
    assert!(a.leads());
    server.edit(|lease| lease["spec"]["holderIdentity"] = "thief".into());
    sleep(Duration::from_millis(2100)).await;
    assert!(!a.leads());
    assert!(a.task.await.unwrap().unwrap_err().contains("held by thief"));
}

/// Two processes with one POD_NAME: the one that finds a foreign renewal gives up.
#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_same_name_is_found_out() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    sleep(Duration::from_millis(700)).await;
    let twin = Replica::start(&server, "a");
    sleep(secs(5)).await;
    assert!(!(a.leads() && twin.leads()), "two leaders");
    assert!(a.task.await.unwrap().unwrap_err().contains("POD_NAME"));
    assert!(twin.leads());
}

/// A Lease deleted by hand is made anew without a break.
#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_made_anew() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    *server.lease.lock().unwrap() = None;
    for _ in 0..10 {
        sleep(secs(1)).await;
        assert!(a.leads());
    }
    assert_eq!(server.holder(), "a");
}

/// Design §3: the other machine's clock does not matter; only changes count.
#[tokio::test(start_paused = true)]
async fn the_times_in_the_lease_are_not_believed() {
    for year in ["1999", "2099"] {
        let server = Arc::new(Server::default());
        *server.lease.lock().unwrap() = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "runtime-ctl.kagenti.dev", "resourceVersion": "1"},
            "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "renewTime": format!("{year}-01-01T00:00:00.000000Z")},
        }));
        let a = Replica::start(&server, "a");
        let took = a.lead().await;
        assert!((secs(15)..secs(17)).contains(&took), "{took:?}");
    }
}

/// A missing right is named, and heals; a follower without API server keeps trying.
#[tokio::test(start_paused = true)]
async fn a_candidate_without_rights_or_server_waits_and_says_so() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.link(FORBIDDEN);
    sleep(secs(30)).await;
    assert!(!a.leads() && !a.task.is_finished());
    let report = a.readiness.report();
    assert!(!report.ready);
    assert!(report.checks[0].reason.contains("grant create on leases"), "{report:?}");
    a.link(DOWN);
    sleep(secs(60)).await;
    assert!(!a.task.is_finished());
    a.link(UP);
    assert!(a.lead().await <= secs(3));
    assert!(a.readiness.is_ready());
}

/// A follower that is told to stop leaves the Lease alone.
#[tokio::test(start_paused = true)]
async fn a_follower_releases_nothing() {
    let server = Arc::new(Server::default());
    let a = Replica::start(&server, "a");
    a.lead().await;
    let b = Replica::start(&server, "b");
    sleep(secs(3)).await;
    b.release.cancel();
    assert_eq!(b.task.await.unwrap(), Ok(()));
    assert_eq!(server.holder(), "a");
}
