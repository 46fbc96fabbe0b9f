//! The HTTP server's end and its limits, over real sockets (packaging §10, §12).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that stops here has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use controller_kit::cli::Bind;
use controller_kit::serve::{Listener, Peer, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const ANY: Bind = Bind::AllInterfaces(0);

fn router() -> Router {
    let slow = |seconds: f64| async move {
        sleep(Duration::from_secs_f64(seconds)).await;
        "done"
    };
    Router::new()
        .route("/slow", get(move || slow(0.5)))
        .route("/endless", get(move || slow(600.0)))
        .route("/peer", get(|Extension(peer): Extension<Peer>| async move { peer.is_local().to_string() }))
}

async fn serve(server: Server) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = Listener::bind("test", ANY).await.unwrap().expect("not off");
    let mut address = listener.address();
    address.set_ip([127, 0, 0, 1].into());
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.run(listener, router(), stop.clone()));
    (address, stop, task)
}

async fn request(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await;
    String::from_utf8(text).unwrap()
}

/// Scenario 19: what is in flight at SIGTERM is answered; nothing new is taken.
#[tokio::test]
async fn requests_in_flight_are_answered_after_the_stop() {
    let (address, stop, task) = serve(Server::small()).await;
    let slow = request(address, "/slow").await;
    let idle = TcpStream::connect(address).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    stop.cancel();
    let text = answer(slow).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{text}");
    timeout(Duration::from_secs(3), task).await.expect("an idle connection holds nothing up").unwrap();
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}

/// A caller that keeps connections would be about to send its next request when they are closed at the end, and Go
/// does not send it again: while the process is leaving each connection ends with its answer, and new ones are served.
#[tokio::test]
async fn connections_of_a_leaving_server_end_with_their_answer() {
    async fn head(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET /peer HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"true") {
            text.push(timeout(Duration::from_secs(5), stream.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(text).unwrap()
    }
    let leaving = CancellationToken::new();
    let (address, stop, task) = serve(Server { leaving: leaving.clone(), ..Server::small() }).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        assert!(!head(&mut kept).await.contains("connection: close"));
    }
    leaving.cancel();
    for mut stream in [kept, TcpStream::connect(address).await.unwrap()] {
        assert!(head(&mut stream).await.contains("connection: close"));
        assert_eq!(timeout(Duration::from_secs(5), stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    }
    stop.cancel();
    task.await.unwrap();
}

/// The drain is bounded: a request that never ends is cut off.
#[tokio::test]
async fn an_endless_request_is_cut_off_after_the_drain() {
    let (address, stop, task) = serve(Server { drain: Duration::from_millis(300), ..Server::small() }).await;
    let endless = request(address, "/endless").await;
    sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    stop.cancel();
    timeout(Duration::from_secs(3), task).await.expect("bounded").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer(endless).await, "");
}

/// No unbounded queue: connections beyond the limit wait until one is free.
#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let (address, stop, task) = serve(Server { max_connections: 1, ..Server::small() }).await;
    let first = request(address, "/slow").await;
    sleep(Duration::from_millis(100)).await;
    let mut second = request(address, "/peer").await;
    let mut byte = [0; 1];
    let waiting = timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(waiting.is_err(), "served beside the first one");
    drop(first);
    assert_eq!(timeout(Duration::from_secs(5), second.read(&mut byte)).await.unwrap().unwrap(), 1);
    stop.cancel();
    task.await.unwrap();
}

/// `:port` takes IPv4 callers, and says who they are also over an IPv6 socket.
#[tokio::test]
async fn every_interface_takes_ipv4_callers() {
    let (address, stop, task) = serve(Server::small()).await;
    let stream = request(address, "/peer").await;
    sleep(Duration::from_millis(100)).await;
    stop.cancel();
    assert!(answer(stream).await.ends_with("true"));
    task.await.unwrap();
    assert!(Listener::bind("test", Bind::Off).await.unwrap().is_none());
}

/// A port that is taken is an error that names listener and address, not a silent fallback.
#[tokio::test]
async fn a_taken_port_is_named() {
    let listener = Listener::bind("test", ANY).await.unwrap().expect("not off");
    let port = listener.address().port();
    let error = Listener::bind("probes", Bind::AllInterfaces(port)).await.err().expect("taken").to_string();
    assert!(error.contains(&format!("cannot listen on :{port} for probes")), "{error}");
}
