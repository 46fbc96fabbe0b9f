//! Dead agents cost their own slots, nobody else's time (card §6.5, §19).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::server::{Reply, Server, card, limits, request};
use card_ctl::fetch::{FetchError, FetchLimits, FetchRequest, Fetcher};
use tokio::task::JoinSet;

/// What a dead agent takes; who has to wait for one takes longer than half of it.
const PATIENCE: Duration = Duration::from_secs(20);

fn slow() -> FetchLimits {
    FetchLimits { timeout: PATIENCE, ..limits() }
}

fn of(namespace: &str, suspect: bool, address: SocketAddr) -> FetchRequest {
    FetchRequest { namespace: namespace.into(), suspect, ..request(address) }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect(what);
}

#[tokio::test]
async fn two_hundred_dead_agents_do_not_delay_a_healthy_one() {
    let dead = Server::always(Reply::Silence(Vec::new())).await;
    let healthy = Server::always(Reply::Write(card())).await;
    let fetcher = Fetcher::new(slow(), None);
    let mut crowd = JoinSet::new();
    for number in 0..200 {
        let (fetcher, request) = (fetcher.clone(), of(&format!("dead{}", number % 10), false, dead.address));
        crowd.spawn(async move { fetcher.fetch(request).await });
    }
    let all = || fetcher.active() == 40 && fetcher.waiting() == 160;
    until("four to be under way in each of ten namespaces, and the others to wait", all).await;
    let started = Instant::now();
    fetcher.fetch(of("alive", false, healthy.address)).await.expect("a card");
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    assert!(dead.connections() <= 40, "the others wait in the queue, not in connections");
}

#[tokio::test]
async fn known_dead_agents_leave_room_in_their_own_namespace() {
    let dead = Server::always(Reply::Silence(Vec::new())).await;
    let healthy = Server::always(Reply::Write(card())).await;
    let fetcher = Fetcher::new(slow(), None);
    let mut crowd = JoinSet::new();
    for number in 0..200 {
        let (fetcher, request) = (fetcher.clone(), of(&format!("team{}", number % 50), true, dead.address));
        crowd.spawn(async move { fetcher.fetch(request).await });
    }
    until("the suspects are under way", || fetcher.active() == 32).await;
    let started = Instant::now();
    for number in 0..50 {
        fetcher.fetch(of(&format!("team{number}"), false, healthy.address)).await.expect("a card");
    }
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn agents_that_fall_silent_together_stand_back() {
    let dead = Server::always(Reply::Silence(Vec::new())).await;
    let healthy = Server::always(Reply::Write(card())).await;
    let long = Duration::from_secs(6);
    let fetcher = Fetcher::new(FetchLimits { timeout: long, ..limits() }, None);
    let started = Instant::now();
    let mut crowd = JoinSet::new();
    // All slots there are, and all of namespace `team0`.
    for number in 0..64 {
        let (fetcher, request) = (fetcher.clone(), of(&format!("team{}", number % 16), false, dead.address));
        crowd.spawn(async move { fetcher.fetch(request).await });
    }
    until("they are under way", || fetcher.active() == 64).await;
    for namespace in ["team0", "alive"] {
        fetcher.fetch(of(namespace, false, healthy.address)).await.expect("a card");
    }
    assert!(started.elapsed() < long, "{:?}", started.elapsed());
    // They are not given up: each gets its time, and says so in the end.
    assert!(fetcher.active() >= 32, "{} of them are under way", fetcher.active());
    let ended = crowd.join_next().await.expect("one of them").expect("no panic");
    assert!(matches!(ended, Err(FetchError::Timeout(_))), "{ended:?}");
}

#[tokio::test]
async fn everything_queued_is_served_in_the_end() {
    let server = Server::always(Reply::Write(card())).await;
    let fetcher = Fetcher::new(FetchLimits { concurrency: 3, per_namespace: 2, ..limits() }, None);
    let mut crowd = JoinSet::new();
    for number in 0..300 {
        let request = of(&format!("team{}", number % 7), number % 5 == 0, server.address);
        let fetcher = fetcher.clone();
        crowd.spawn(async move { fetcher.fetch(request).await });
    }
    while let Some(result) = crowd.join_next().await {
        result.expect("no panic").expect("a card");
    }
    assert_eq!((fetcher.waiting(), fetcher.active()), (0, 0));
    assert!(server.connections() <= 10, "{} connections for 300 fetches", server.connections());
}

#[tokio::test]
async fn giving_up_gives_the_slot_back() {
    let dead = Server::always(Reply::Silence(Vec::new())).await;
    let healthy = Server::always(Reply::Write(card())).await;
    let limits = FetchLimits { concurrency: 1, timeout: Duration::from_secs(30), ..limits() };
    let fetcher = Fetcher::new(limits, None);
    let (running, request) = (fetcher.clone(), of("a", false, dead.address));
    let hanging = tokio::spawn(async move { running.fetch(request).await });
    until("it hangs", || fetcher.active() == 1).await;
    hanging.abort();
    let started = Instant::now();
    fetcher.fetch(of("b", false, healthy.address)).await.expect("a card");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

/// However many wait: the end of the process is no deep recursion.
#[test]
fn the_runtime_may_end_while_many_wait() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dead = Server::always(Reply::Silence(Vec::new())).await;
        let fetcher = Fetcher::new(limits(), None);
        for number in 0..5_000 {
            let (fetcher, request) =
                (fetcher.clone(), of(&format!("n{}", number % 100), false, dead.address));
            tokio::spawn(async move { fetcher.fetch(request).await });
        }
        until("they wait", || fetcher.waiting() > 4_000).await;
    });
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let dead = Server::always(Reply::Silence(Vec::new())).await;
    let fetcher = Fetcher::new(FetchLimits { concurrency: 1, queue: 1, ..slow() }, None);
    let mut crowd = JoinSet::new();
    for _ in 0..2 {
        let (fetcher, request) = (fetcher.clone(), of("a", false, dead.address));
        crowd.spawn(async move { fetcher.fetch(request).await });
    }
    until("one runs and one waits", || (fetcher.active(), fetcher.waiting()) == (1, 1)).await;
    let error = fetcher.fetch(of("a", false, dead.address)).await.expect_err("full");
    assert_eq!(error, FetchError::QueueFull);
}
