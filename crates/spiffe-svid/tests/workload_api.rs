//! An SVID over a real unix socket, from a Workload API written independently of the client's library.

#![allow(clippy::expect_used, reason = "test code")]

use std::time::Duration;

use scripted_workload_api::{Answer, Issuer, Server};
use spiffe_svid::{SvidSource, WorkloadApi};
use tokio_util::sync::CancellationToken;

fn source(sockets: &[&std::path::Path]) -> (SvidSource, CancellationToken) {
    let addresses = sockets.iter().map(|socket| format!("unix://{}", socket.display()));
    let source = SvidSource::workload_api(WorkloadApi::new(addresses).expect("legal addresses"));
    let stop = CancellationToken::new();
    let (running, stopped) = (source.clone(), stop.clone());
    tokio::spawn(async move { running.run(stopped).await });
    (source, stop)
}

async fn until_id(source: &SvidSource, wanted: &str) {
    let mut changed = source.changed();
    let arrived = changed.wait_for(|svid| svid.as_ref().is_some_and(|svid| svid.id() == wanted));
    tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("in time").expect("open");
}

#[tokio::test]
async fn hands_out_the_first_svid_with_its_bundles() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/ns/team1/sa/a", 3600));
    let (source, _stop) = source(&[server.socket()]);
    assert!(!source.obtained_once() && source.current().is_none(), "nothing before the first answer");
    until_id(&source, "spiffe://example.org/ns/team1/sa/a").await;
    let svid = source.current().expect("an SVID");
    assert_eq!(svid.chain().len(), 1);
    assert_eq!(svid.roots("example.org"), [issuer.root()]);
    assert_eq!(svid.roots("friends.example").len(), 1, "federated bundles are kept");
    assert!(source.obtained_once());
    assert!(server.saw_only_the_mandatory_header(), "workload.spiffe.io: true is in every request");
}

#[tokio::test]
async fn uses_each_rotated_svid() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/a", 3600));
    let (source, _stop) = source(&[server.socket()]);
    until_id(&source, "spiffe://example.org/a").await;
    server.push(issuer.answer("/b", 3600));
    until_id(&source, "spiffe://example.org/b").await;
    assert_eq!(server.connections(), 1, "a rotation needs no new connection");
}

#[tokio::test]
async fn waits_for_a_socket_that_appears_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("late.sock");
    let (source, _stop) = source(&[&socket]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(source.current().is_none());
    let issuer = Issuer::new("example.org");
    let _server = Server::start_at(&socket, issuer.answer("/a", 3600));
    until_id(&source, "spiffe://example.org/a").await;
}

#[tokio::test]
async fn keeps_the_svid_while_the_server_is_away_and_comes_back() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/a", 3600));
    let socket = server.socket().to_owned();
    let (source, _stop) = source(&[&socket]);
    until_id(&source, "spiffe://example.org/a").await;
    let directory = server.stop().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(source.current().is_some(), "the SVID is still valid");
    let _server = Server::start_at(&socket, issuer.answer("/b", 3600));
    until_id(&source, "spiffe://example.org/b").await;
    drop(directory);
}

#[tokio::test]
async fn tries_the_sockets_in_order() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/a", 3600));
    let missing = server.socket().with_file_name("missing.sock");
    let (source, _stop) = source(&[&missing, server.socket()]);
    until_id(&source, "spiffe://example.org/a").await;
}

#[tokio::test]
async fn an_expired_svid_is_not_handed_out() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/a", 5));
    let (source, _stop) = source(&[server.socket()]);
    until_id(&source, "spiffe://example.org/a").await;
    assert!(source.current().is_some());
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert!(source.current().is_none());
    assert!(source.obtained_once(), "that one was obtained does not change");
}

#[tokio::test]
async fn survives_refusals_and_nonsense() {
    let issuer = Issuer::new("example.org");
    for bad in [Answer::Refuse, Answer::Message(b"\xff\xff nonsense".to_vec())] {
        let server = Server::start(bad);
        let (source, _stop) = source(&[server.socket()]);
        server.until_connections(1).await;
        assert!(source.current().is_none() && !source.obtained_once());
        server.push(issuer.answer("/a", 3600));
        until_id(&source, "spiffe://example.org/a").await;
    }
}

#[tokio::test]
async fn stops_when_told() {
    let issuer = Issuer::new("example.org");
    let server = Server::start(issuer.answer("/a", 3600));
    let api = WorkloadApi::new([server.socket().to_str().expect("UTF-8")]).expect("legal");
    let source = SvidSource::workload_api(api);
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), source.run(stop)).await.expect("returns at once");
}
