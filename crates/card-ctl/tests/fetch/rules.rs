//! Each line of the hardening table of card §6.5, against real servers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::{CARD, Reply, Server, body, card, fetch, limits, read_head, request, response};
use card_ctl::fetch::{DenyList, Dial, FetchError, FetchLimits, Fetcher, Outcome, Phase, ProtocolProblem};
use rstest::rstest;

const NEW: &str = "GET /.well-known/agent-card.json HTTP/1.1";
const OLD: &str = "GET /.well-known/agent.json HTTP/1.1";

#[tokio::test]
async fn asks_for_the_card_and_says_who_it_is() {
    let server = Server::always(Reply::Write(card())).await;
    let answer = fetch(server.address).await.expect("a card");
    assert_eq!(body(&answer), CARD);
    assert_eq!((answer.attested, answer.validator), (None, None));
    let heads = server.heads();
    assert_eq!(heads.len(), 1);
    let mut lines: Vec<_> = heads[0].trim_end().lines().map(str::to_lowercase).collect();
    lines.sort();
    let agent = format!("user-agent: kagenti-card-ctl/{}", env!("CARGO_PKG_VERSION"));
    let mut wanted = vec![
        NEW.to_lowercase(),
        "accept: application/json".to_owned(),
        "host: echo.team1.svc.cluster.local:8000".to_owned(),
        agent,
    ];
    wanted.sort();
    assert_eq!(lines, wanted, "no cookies, no credentials, no Accept-Encoding");
}

#[tokio::test]
async fn the_legacy_path_is_asked_after_a_404_only() {
    let server = Server::start(|head, _| {
        Reply::Write(if head.starts_with(OLD) { card() } else { response("404 Not Found", &[], "nothing") })
    })
    .await;
    let answer = fetch(server.address).await.expect("a card");
    assert_eq!(body(&answer), CARD);
    assert_eq!(server.lines(), [NEW, OLD]);
    assert_eq!(server.connections(), 1, "both in one connection");
}

#[tokio::test]
async fn a_404_that_closes_costs_a_second_connection() {
    let missing = response("404 Not Found", &["Connection: close"], "");
    let server = Server::start(move |head, _| {
        if head.starts_with(OLD) { Reply::Write(card()) } else { Reply::Close(missing.clone()) }
    })
    .await;
    assert_eq!(body(&fetch(server.address).await.expect("a card")), CARD);
    assert_eq!(server.lines(), [NEW, OLD]);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_404_with_an_endless_page_does_not_hold_the_second_path_up() {
    let page = "x".repeat(1024 * 1024);
    let missing = response("404 Not Found", &[], &page);
    let server = Server::start(move |head, _| {
        if head.starts_with(OLD) { Reply::Write(card()) } else { Reply::Write(missing.clone()) }
    })
    .await;
    assert_eq!(body(&fetch(server.address).await.expect("a card")), CARD);
}

#[tokio::test]
async fn a_404_on_both_paths_is_a_failure() {
    let server = Server::always(Reply::Write(response("404 Not Found", &[], ""))).await;
    assert_eq!(fetch(server.address).await.expect_err("missing"), FetchError::Status(404));
    assert_eq!(server.lines(), [NEW, OLD]);
}

#[rstest]
#[case(500)]
#[case(403)]
#[case(410)]
#[case(204)]
#[case(206)]
#[tokio::test]
async fn other_statuses_end_it(#[case] status: u16) {
    let page = "<html>SECRET</html>".repeat(2000);
    let text = if status == 204 { String::new() } else { page };
    let server = Server::always(Reply::Write(response(&format!("{status} Whatever"), &[], &text))).await;
    let error = fetch(server.address).await.expect_err("no card");
    assert_eq!(error, FetchError::Status(status));
    assert!(!error.to_string().contains("SECRET"), "nothing is echoed");
    assert_eq!(server.lines(), [NEW], "the legacy path is not asked");
}

#[rstest]
#[case(300)]
#[case(301)]
#[case(302)]
#[case(303)]
#[case(307)]
#[case(308)]
#[tokio::test]
async fn redirects_are_not_followed(#[case] status: u16) {
    let trap = Server::always(Reply::Write(card())).await;
    let locations = [
        format!("http://{}/.well-known/agent-card.json", trap.address),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "/elsewhere".to_owned(),
    ];
    for location in locations {
        let header = format!("Location: {location}");
        let server =
            Server::always(Reply::Write(response(&format!("{status} Moved"), &[&header], "SECRET"))).await;
        let error = fetch(server.address).await.expect_err("refused");
        assert_eq!(error.to_string(), format!("redirect refused (status {status})"));
        assert_eq!(server.lines(), [NEW]);
    }
    assert_eq!(trap.connections(), 0, "its access log stays empty");
}

#[tokio::test]
async fn a_redirect_on_the_legacy_path_is_refused_too() {
    let server = Server::start(|head, _| {
        Reply::Write(if head.starts_with(OLD) {
            response("302 Found", &["Location: http://127.0.0.1:1/"], "")
        } else {
            response("404 Not Found", &[], "")
        })
    })
    .await;
    assert_eq!(fetch(server.address).await.expect_err("refused"), FetchError::Redirect(302));
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_no_card() {
    let server = Server::always(Reply::Write(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec())).await;
    assert_eq!(fetch(server.address).await.expect_err("no card"), FetchError::Redirect(304));
}

// ---- Size ------------------------------------------------------------------------------------------------

fn small() -> FetchLimits {
    FetchLimits { max_bytes: 64 * 1024, ..limits() }
}

#[tokio::test]
async fn two_mebibytes_are_too_large() {
    let server = Server::always(Reply::Write(response("200 OK", &[], &"x".repeat(2 * 1024 * 1024)))).await;
    let error = fetch(server.address).await.expect_err("too large");
    assert_eq!(error, FetchError::TooLarge(1_048_576));
    assert!(error.to_string().contains("larger than 1048576 bytes"));
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_without_the_body() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let server = Server::always(Reply::Silence(head)).await;
    let started = Instant::now();
    assert_eq!(fetch(server.address).await.expect_err("too large"), FetchError::TooLarge(1_048_576));
    assert!(started.elapsed() < limits().timeout / 2, "no wait for the body");
}

#[rstest]
#[case(64 * 1024, true)]
#[case(64 * 1024 + 1, false)]
#[tokio::test]
async fn the_limit_is_exact(#[case] length: usize, #[case] fine: bool) {
    let plain = Server::always(Reply::Write(response("200 OK", &[], &"x".repeat(length)))).await;
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    write!(chunked, "{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length)).expect("written");
    let chunked = Server::always(Reply::Write(chunked)).await;
    let mut closing = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    closing.extend(std::iter::repeat_n(b'x', length));
    let closing = Server::always(Reply::Close(closing)).await;
    for server in [plain, chunked, closing] {
        let result = Fetcher::new(small(), None).fetch(request(server.address)).await;
        match result {
            Ok(answer) => assert!(fine && body(&answer).len() == length),
            Err(error) => assert!(!fine && error == FetchError::TooLarge(64 * 1024), "{error}"),
        }
    }
}

#[tokio::test]
async fn endless_chunks_stop_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).into_bytes();
    let server = Server::always(Reply::Drip(head, chunk, Duration::ZERO)).await;
    let error = Fetcher::new(small(), None).fetch(request(server.address)).await.expect_err("too large");
    assert_eq!(error, FetchError::TooLarge(64 * 1024));
}

#[rstest]
#[case("Content-Encoding: gzip")]
#[case("Content-Encoding: br")]
#[case("Transfer-Encoding: gzip, chunked")]
#[tokio::test]
async fn compressed_answers_are_refused_unread(#[case] header: &str) {
    // What would be a bomb for whoever unpacks it: a member that claims gigabytes.
    let mut bomb = format!("HTTP/1.1 200 OK\r\n{header}\r\n");
    if !header.starts_with("Transfer") {
        bomb.push_str("Content-Length: 30\r\n");
    }
    bomb.push_str("\r\n\u{1f}");
    let server = Server::always(Reply::Silence(bomb.into_bytes())).await;
    let started = Instant::now();
    assert_eq!(fetch(server.address).await.expect_err("refused"), FetchError::Compressed);
    assert!(started.elapsed() < limits().timeout / 2, "the body is not waited for");
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_no_card() {
    let mut cut = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_vec();
    cut.extend_from_slice(CARD.as_bytes());
    let server = Server::always(Reply::Close(cut)).await;
    assert_eq!(fetch(server.address).await.expect_err("cut"), FetchError::Reset);
}

#[tokio::test]
async fn bytes_beyond_the_announced_length_are_not_read_as_anything() {
    let mut long = card();
    long.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG");
    let server = Server::always(Reply::Write(long)).await;
    let fetcher = Fetcher::new(limits(), None);
    for _ in 0..3 {
        let answer = fetcher.fetch(request(server.address)).await.expect("a card");
        assert_eq!(body(&answer), CARD, "a smuggled second response never answers the next request");
    }
}

#[tokio::test]
async fn a_length_stated_twice_is_not_http() {
    let twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}".to_vec();
    let server = Server::always(Reply::Write(twice)).await;
    let error = fetch(server.address).await.expect_err("refused");
    assert_eq!(error, FetchError::Protocol(ProtocolProblem::NotHttp));
}

// ---- Time ------------------------------------------------------------------------------------------------

/// One second for all.
fn hasty() -> FetchLimits {
    FetchLimits { timeout: Duration::from_secs(1), ..limits() }
}

/// Far more than a second, and as far from never.
const SOON: Duration = Duration::from_secs(10);

async fn times_out(reply: Reply, phase: Phase) {
    let server = Server::always(reply).await;
    let fetcher = Fetcher::new(hasty(), None);
    let ended = tokio::time::timeout(SOON, fetcher.fetch(request(server.address))).await;
    assert_eq!(ended.expect("an end").expect_err("slow"), FetchError::Timeout(phase));
}

#[tokio::test]
async fn an_endless_slow_body_ends() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    times_out(Reply::Drip(head, b"x".to_vec(), Duration::from_millis(20)), Phase::Body).await;
}

#[tokio::test]
async fn slow_headers_end() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    times_out(Reply::Drip(head, b"X-Slow: 1\r\n".to_vec(), Duration::from_millis(100)), Phase::Head).await;
}

#[tokio::test]
async fn silence_ends() {
    times_out(Reply::Silence(Vec::new()), Phase::Head).await;
}

#[tokio::test]
async fn a_connection_that_was_given_up_is_closed() {
    use tokio::io::AsyncReadExt;
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = async {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.write_all(answer).await.expect("written");
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await
        };
        let fetching = async { Fetcher::new(hasty(), None).fetch(request(address)).await };
        let (fetched, closed) = tokio::join!(fetching, async { tokio::time::timeout(SOON, serving).await });
        assert!(matches!(fetched.expect_err("slow"), FetchError::Timeout(_)));
        assert!(closed.is_ok(), "no socket stays behind");
    }
}

#[tokio::test]
async fn endless_interim_responses_end() {
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
    times_out(Reply::Drip(Vec::new(), interim, Duration::from_millis(10)), Phase::Head).await;
}

#[tokio::test]
async fn one_clock_runs_over_both_paths() {
    let limits = FetchLimits { timeout: Duration::from_secs(2), ..limits() };
    let mut seen = String::new();
    // A machine that stands still for a second shows nothing, so it has more than one try.
    for _ in 0..5 {
        let second = Arc::new(Mutex::new(None));
        let asked = second.clone();
        let server = Server::start(move |head, _| {
            if head.starts_with(OLD) {
                *asked.lock().expect("unpoisoned") = Some(Instant::now());
                Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"x".to_vec(), Duration::from_millis(20))
            } else {
                Reply::Later(response("404 Not Found", &[], ""), Duration::from_millis(1200))
            }
        })
        .await;
        let error =
            Fetcher::new(limits.clone(), None).fetch(request(server.address)).await.expect_err("slow");
        let took = second.lock().expect("unpoisoned").map(|asked| asked.elapsed());
        let both = server.lines() == [NEW, OLD] && error == FetchError::Timeout(Phase::Body);
        // With a clock of its own the second path would have all of the two seconds.
        if both && took.is_some_and(|took| took < limits.timeout) {
            return;
        }
        seen = format!("{error:?} {took:?} after the second path was asked: {:?}", server.lines());
    }
    panic!("{seen}");
}

// ---- Hostile HTTP ----------------------------------------------------------------------------------------

#[tokio::test]
async fn many_headers_are_too_large() {
    let flood = (0..500).fold(String::new(), |flood, n| flood + &format!("X-{n}: 1\r\n"));
    let server = Server::always(Reply::Write(format!("HTTP/1.1 200 OK\r\n{flood}\r\n").into_bytes())).await;
    let error = fetch(server.address).await.expect_err("flood");
    assert_eq!(error, FetchError::Protocol(ProtocolProblem::HeadTooLarge));
}

#[tokio::test]
async fn one_endless_header_is_too_large() {
    let start = b"HTTP/1.1 200 OK\r\nX-SECRET: ".to_vec();
    let server = Server::always(Reply::Drip(start, vec![b'x'; 16 * 1024], Duration::ZERO)).await;
    let error = fetch(server.address).await.expect_err("flood");
    assert_eq!(error, FetchError::Protocol(ProtocolProblem::HeadTooLarge));
}

#[rstest]
#[case(b"SECRET is not HTTP at all\r\n\r\n")]
#[case(b"HTTP/2.0 200 OK\r\n\r\n")]
#[case(b"HTTP/1.1 abc\r\n\r\n")]
#[case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
#[tokio::test]
async fn other_protocols_are_named_without_a_quote(#[case] bytes: &[u8]) {
    let server = Server::always(Reply::Close(bytes.to_vec())).await;
    let error = fetch(server.address).await.expect_err("no HTTP");
    assert_eq!(error, FetchError::Protocol(ProtocolProblem::NotHttp));
    assert!(!error.to_string().contains("SECRET"));
}

#[tokio::test]
async fn chunks_that_are_none() {
    let bad = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n".to_vec();
    let server = Server::always(Reply::Close(bad)).await;
    let error = fetch(server.address).await.expect_err("no chunk");
    assert!(matches!(error, FetchError::Protocol(_) | FetchError::Reset), "{error}");
    assert!(!error.to_string().contains("SECRET"));
}

#[tokio::test]
async fn a_reset_connection() {
    let server = Server::always(Reply::Reset(Vec::new())).await;
    assert_eq!(fetch(server.address).await.expect_err("reset"), FetchError::Reset);
    let started = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_vec();
    let server = Server::always(Reply::Reset(started)).await;
    assert_eq!(fetch(server.address).await.expect_err("reset"), FetchError::Reset);
    assert_eq!(server.connections(), 1, "a failed exchange is not repeated");
}

#[tokio::test]
async fn a_server_that_closes_without_a_word() {
    let server = Server::always(Reply::Close(Vec::new())).await;
    assert_eq!(fetch(server.address).await.expect_err("closed"), FetchError::Reset);
}

#[tokio::test]
async fn an_http_1_0_server_is_understood() {
    let old = format!("HTTP/1.0 200 OK\r\nServer: simple\r\n\r\n{CARD}");
    let server = Server::always(Reply::Close(old.into_bytes())).await;
    assert_eq!(body(&fetch(server.address).await.expect("a card")), CARD);
}

// ---- Addresses -------------------------------------------------------------------------------------------

/// A port on which nobody listens. It is bound while the socket lives, so that nobody else gets it.
fn dead() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port that refuses");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test]
async fn nobody_there() {
    let (_bound, address) = dead();
    assert_eq!(fetch(address).await.expect_err("refused"), FetchError::Refused);
}

/// Five minutes for a connection.
fn patient() -> FetchLimits {
    let long = Duration::from_secs(300);
    FetchLimits { connect_timeout: long, timeout: long, ..limits() }
}

/// The programs that lead a Service to its Pods are a moment behind the Pods' readiness, which is when a new agent is
/// asked for the first time.
#[tokio::test]
async fn a_service_that_leads_nowhere_yet_is_no_failure() {
    let (socket, address) = dead();
    let limits = patient();
    let asked = tokio::spawn(async move { Fetcher::new(limits, None).fetch(request(address)).await });
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!asked.is_finished(), "it tries again");
    let listener = socket.listen(8).expect("now it listens");
    let (mut stream, _) = listener.accept().await.expect("another try");
    // An answer that comes before the question is no answer.
    read_head(&mut stream).await.expect("a request");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &card()).await.expect("the card");
    assert_eq!(body(&asked.await.expect("a task").expect("a card")), CARD);
}

/// A first packet that is dropped says nothing about the next connection: the node may know the Service by then, and still
/// send the packets of the old connection nowhere.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_nobody_answers_gives_way_to_a_new_one() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(0).expect("a queue of one");
    let address = listener.local_addr().expect("an address");
    // While the queue is full the kernel drops what comes.
    let filler = tokio::net::TcpStream::connect(address).await.expect("the place in the queue");
    let limits = FetchLimits { connect_timeout: Duration::from_secs(6), ..patient() };
    let asked = tokio::spawn(async move { Fetcher::new(limits, None).fetch(request(address)).await });
    let first = asking(address.port()).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while asking(address.port()).await == first {
        assert!(Instant::now() < deadline, "it still waits for the first connection");
    }
    drop((filler, listener.accept().await.expect("the filler")));
    let another = tokio::time::timeout(Duration::from_secs(100), listener.accept()).await;
    let (mut stream, _) = another.expect("in time").expect("another try");
    read_head(&mut stream).await.expect("a request");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &card()).await.expect("the card");
    assert_eq!(body(&asked.await.expect("a task").expect("a card")), CARD);
}

/// The local ports of connections to a port that are not answered yet.
#[cfg(target_os = "linux")]
async fn asking(port: u16) -> Vec<String> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let to = format!("0100007F:{port:04X}");
    let waiting = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (from, peer, state) = (columns.next()?, columns.next()?, columns.next()?);
        (peer == to && state == "02").then(|| from.to_owned())
    };
    table.lines().filter_map(waiting).collect()
}

/// One in four slots may wait for that, so those that are gone do not hold up the others.
#[tokio::test]
async fn few_are_waited_for() {
    let fetcher = Fetcher::new(FetchLimits { concurrency: 8, per_namespace: 8, ..patient() }, None);
    let (_bound, address) = dead();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let fetcher = fetcher.clone();
        all.spawn(async move { fetcher.fetch(request(address)).await });
    }
    for _ in 0..38 {
        let answer = tokio::time::timeout(Duration::from_secs(100), all.join_next()).await;
        let answer = answer.expect("in time").expect("a task").expect("a result");
        assert_eq!(answer.expect_err("refused"), FetchError::Refused);
    }
    assert_eq!(fetcher.active(), 2);
}

#[tokio::test]
async fn who_failed_before_is_tried_once() {
    let (_bound, address) = dead();
    let request = card_ctl::fetch::FetchRequest { suspect: true, ..request(address) };
    let started = Instant::now();
    let error = Fetcher::new(patient(), None).fetch(request).await.expect_err("refused");
    assert_eq!(error, FetchError::Refused);
    assert!(started.elapsed() < Duration::from_secs(100));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let server = Server::always(Reply::Write(card())).await;
    let (_bound, refusing) = dead();
    let dial = Dial::Addresses(vec![refusing, server.address]);
    let request = card_ctl::fetch::FetchRequest { dial, ..request(server.address) };
    assert_eq!(body(&Fetcher::new(limits(), None).fetch(request).await.expect("a card")), CARD);
}

#[rstest]
#[case("127.0.0.1:80")]
#[case("[::1]:80")]
#[case("[::ffff:127.0.0.1]:80")]
#[case("169.254.169.254:80")]
#[case("[fe80::1]:80")]
#[case("0.0.0.0:80")]
#[tokio::test]
async fn denied_addresses_are_not_dialled(#[case] address: &str) {
    let fetcher = Fetcher::new(FetchLimits { deny: DenyList::default(), ..limits() }, None);
    let request = request(address.parse().expect("an address"));
    assert_eq!(fetcher.fetch(request).await.expect_err("denied"), FetchError::ForbiddenAddress);
}

#[tokio::test]
async fn the_deny_list_sees_what_a_name_resolves_to() {
    let server = Server::always(Reply::Write(card())).await;
    let named = card_ctl::fetch::FetchRequest {
        host: "localhost".to_owned(),
        port: server.address.port(),
        dial: Dial::Lookup,
        ..request(server.address)
    };
    let denying = Fetcher::new(FetchLimits { deny: DenyList::default(), ..limits() }, None);
    assert_eq!(denying.fetch(named.clone()).await.expect_err("denied"), FetchError::ForbiddenAddress);
    assert_eq!(server.connections(), 0);
    let allowing = Fetcher::new(limits(), None);
    assert_eq!(body(&allowing.fetch(named).await.expect("a card")), CARD, "dns mode works otherwise");
}

#[tokio::test]
async fn denied_addresses_are_passed_over() {
    let server = Server::always(Reply::Write(card())).await;
    let deny: DenyList = "169.254.0.0/16".parse().expect("a list");
    let dial = Dial::Addresses(vec!["169.254.169.254:80".parse().expect("an address"), server.address]);
    let fetcher = Fetcher::new(FetchLimits { deny, ..limits() }, None);
    let request = card_ctl::fetch::FetchRequest { dial, ..request(server.address) };
    assert_eq!(body(&fetcher.fetch(request).await.expect("a card")), CARD);
}

#[tokio::test]
async fn nothing_to_dial() {
    let fetcher = Fetcher::new(limits(), None);
    let request = card_ctl::fetch::FetchRequest {
        dial: Dial::Addresses(Vec::new()),
        ..request("127.0.0.1:1".parse().expect("an address"))
    };
    assert_eq!(fetcher.fetch(request).await.expect_err("nothing"), FetchError::NoAddress);
}

// ---- ETag and reuse --------------------------------------------------------------------------------------

fn tagged(head: &str) -> Reply {
    if head.to_lowercase().contains("if-none-match: \"v1\"") {
        Reply::Write(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec())
    } else {
        Reply::Write(response("200 OK", &["ETag: \"v1\""], CARD))
    }
}

#[tokio::test]
async fn an_unchanged_card_is_not_sent_again() {
    let server = Server::start(|head, _| tagged(head)).await;
    let fetcher = Fetcher::new(limits(), None);
    let first = fetcher.fetch(request(server.address)).await.expect("a card");
    let again =
        card_ctl::fetch::FetchRequest { validator: first.validator.clone(), ..request(server.address) };
    let second = fetcher.fetch(again.clone()).await.expect("unchanged");
    assert_eq!((second.outcome, &second.validator), (Outcome::NotModified, &first.validator));
    assert_eq!(server.connections(), 1, "the connection is used again");

    let elsewhere = card_ctl::fetch::FetchRequest { host: "other.team1.svc".to_owned(), ..again };
    let third = fetcher.fetch(elsewhere).await.expect("a card");
    assert_eq!(body(&third), CARD, "the tag of another host's document is not sent");
}

#[tokio::test]
async fn a_tag_belongs_to_its_path() {
    // The card moves to the new path, where by chance it has the tag that it had on the old one.
    let server = Server::start(|head, count| {
        if head.starts_with(OLD) || count >= 2 {
            tagged(head)
        } else {
            Reply::Write(response("404 Not Found", &[], ""))
        }
    })
    .await;
    let fetcher = Fetcher::new(limits(), None);
    let first = fetcher.fetch(request(server.address)).await.expect("a card");
    assert!(first.validator.is_some());
    let again = card_ctl::fetch::FetchRequest { validator: first.validator, ..request(server.address) };
    let second = fetcher.fetch(again).await.expect("a card");
    assert_eq!(body(&second), CARD, "read anew, not taken for unchanged");
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let server =
        Server::start(|_, count| if count == 1 { Reply::Close(Vec::new()) } else { Reply::Write(card()) })
            .await;
    let fetcher = Fetcher::new(limits(), None);
    for _ in 0..2 {
        assert_eq!(body(&fetcher.fetch(request(server.address)).await.expect("a card")), CARD);
    }
    assert_eq!((server.connections(), server.heads().len()), (2, 3));
}

#[tokio::test]
async fn a_kept_connection_serves_only_its_host() {
    let server = Server::always(Reply::Write(card())).await;
    let fetcher = Fetcher::new(limits(), None);
    fetcher.fetch(request(server.address)).await.expect("a card");
    let other = card_ctl::fetch::FetchRequest { host: "b.team1.svc".to_owned(), ..request(server.address) };
    fetcher.fetch(other).await.expect("a card");
    assert_eq!(server.connections(), 2);
}
