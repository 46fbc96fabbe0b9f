//! Verified fetch (card §7): who is believed, and who never is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::server::tls::{Ca, Client, DOMAIN, Leaf, TlsServer, agent, leaf, versions};
use crate::server::{CARD, Reply, Server, body, card, limits, request};
use agent_trust::spiffe::TrustDomain;
use card_ctl::fetch::{FetchError, FetchRequest, Fetched, Fetcher, Outcome, PeerProblem, PeerRule};
use rcgen::ExtendedKeyUsagePurpose;
use rstest::rstest;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt;

fn attested(address: std::net::SocketAddr) -> FetchRequest {
    let trust_domain = TrustDomain::configured(DOMAIN).expect("a trust domain");
    FetchRequest { tls: Some(PeerRule { trust_domain }), ..request(address) }
}

/// Fetches from a server whose leaf `leaf` is by our CA.
async fn fetch_from(leaf: &Leaf) -> Result<Fetched, FetchError> {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let server = TlsServer::start(&ca.issue(leaf), &ca).await;
    Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(server.address)).await
}

fn untrusted(result: Result<Fetched, FetchError>) -> PeerProblem {
    match result {
        Err(FetchError::PeerUntrusted(problem)) => problem,
        other => panic!("not a verdict on the peer: {other:?}"),
    }
}

#[tokio::test]
async fn a_workload_of_the_trust_domain_is_attested() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let server = TlsServer::start(&ca.issue(&agent()), &ca).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    let answer = fetcher.fetch(attested(server.address)).await.expect("a card");
    assert_eq!(body(&answer), CARD);
    let id = answer.attested.expect("an identity");
    assert_eq!(id.as_str(), "spiffe://example.org/ns/team1/sa/echo");
    let sni = server.sni.lock().expect("unpoisoned").clone();
    assert_eq!(sni.as_deref(), Some("echo.team1.svc.cluster.local"));
}

#[rstest]
#[case::dns_names_beside_the_id(Leaf { dns: vec!["other.example".to_owned()], ..agent() })]
#[case::for_servers_only(Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..agent() })]
#[case::usage_is_not_looked_at(Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..agent() })]
#[tokio::test]
async fn leaves_as_issuers_make_them(#[case] leaf: Leaf) {
    assert!(fetch_from(&leaf).await.expect("a card").attested.is_some());
}

#[rstest]
#[case::expired(Leaf { life: -7200..-3600, ..agent() }, PeerProblem::Expired)]
#[case::not_yet(Leaf { life: 3600..7200, ..agent() }, PeerProblem::NotYetValid)]
#[case::two_ids(
    Leaf { uris: vec!["spiffe://example.org/a".to_owned(), "spiffe://example.org/b".to_owned()], ..agent() },
    PeerProblem::SpiffeId
)]
#[case::an_id_and_another_uri(
    Leaf { uris: vec!["spiffe://example.org/a".to_owned(), "https://example.org/".to_owned()], ..agent() },
    PeerProblem::SpiffeId
)]
#[case::no_uri(
    Leaf { uris: Vec::new(), dns: vec!["echo.team1.svc.cluster.local".to_owned()], ..agent() },
    PeerProblem::SpiffeId
)]
#[case::no_path(leaf("spiffe://example.org"), PeerProblem::SpiffeId)]
#[case::not_spiffe(leaf("https://example.org/ns/team1/sa/echo"), PeerProblem::SpiffeId)]
#[case::dots(leaf("spiffe://example.org/ns/../sa"), PeerProblem::SpiffeId)]
#[case::other_domain(leaf("spiffe://other.org/ns/team1/sa/echo"), PeerProblem::TrustDomain)]
#[case::domain_as_prefix(leaf("spiffe://example.org.evil/ns/team1/sa/echo"), PeerProblem::TrustDomain)]
#[case::a_ca(Leaf { is_ca: true, ..agent() }, PeerProblem::NotALeaf)]
#[tokio::test]
async fn leaves_that_are_refused(#[case] leaf: Leaf, #[case] problem: PeerProblem) {
    let error = fetch_from(&leaf).await;
    assert_eq!(untrusted(error), problem);
}

#[tokio::test]
async fn a_leaf_of_another_authority_is_refused() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let client = Client::new(&ca, &[&ca]).await;
    let server = TlsServer::start(&foreign.issue(&agent()), &ca).await;
    let result = Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(server.address)).await;
    assert_eq!(untrusted(result), PeerProblem::Chain);
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 0, "no request was sent");
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_refused() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let (victim, thief) = (ca.issue(&agent()), ca.issue(&leaf("spiffe://example.org/thief")));
    let server = TlsServer::impostor(&victim, &thief, &ca).await;
    let result = Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(server.address)).await;
    assert_eq!(untrusted(result), PeerProblem::Proof);
}

#[tokio::test]
async fn tls_1_2_is_enough() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let pair = ca.issue(&agent());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.key.serialize_der()));
    let config = versions(&ca, &[&rustls::version::TLS12]).with_single_cert(pair.chain, key).expect("a pair");
    let server = TlsServer::with_config(config).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    for _ in 0..2 {
        let answer = fetcher.fetch(attested(server.address)).await.expect("a card");
        assert!(answer.attested.is_some());
    }
    assert_eq!(server.full_handshakes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn tls_1_1_is_not() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    // The first bytes of a ServerHello of TLS 1.1, whatever the client offered.
    let mut hello = vec![22, 3, 2, 0, 49, 2, 0, 0, 45, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0xc0, 0x13, 0, 0, 5, 0xff, 1, 0, 1, 0]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut client_hello = [0; 1024];
        let _ = stream.read(&mut client_hello).await;
        let _ = stream.write_all(&hello).await;
        let _ = stream.read(&mut client_hello).await;
    });
    let result = Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(address)).await;
    assert_eq!(result.expect_err("refused"), FetchError::Handshake);
}

#[tokio::test]
async fn a_plain_server_on_the_tls_port_gives_no_card() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.expect("a client");
        let _ = stream.write_all(&card()).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let result = Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(address)).await;
    assert_eq!(result.expect_err("refused"), FetchError::Handshake);
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_no_verdict_on_it() {
    let (ca, others) = (Ca::new(), Ca::new());
    let client = Client::new(&ca, &[&ca]).await;
    let server = TlsServer::start(&ca.issue(&agent()), &others).await;
    let result = Fetcher::new(limits(), Some(client.source.clone())).fetch(attested(server.address)).await;
    let error = result.expect_err("refused");
    assert!(matches!(error, FetchError::Handshake | FetchError::Reset), "{error:?}");
}

#[tokio::test]
async fn every_fetch_is_one_full_handshake() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let server = TlsServer::start(&ca.issue(&agent()), &ca).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    for _ in 0..3 {
        fetcher.fetch(attested(server.address)).await.expect("a card");
    }
    let (all, full) =
        (server.handshakes.load(Ordering::SeqCst), server.full_handshakes.load(Ordering::SeqCst));
    assert_eq!((all, full), (3, 3), "no kept connection and no resumed session speaks for anybody");
}

#[tokio::test]
async fn a_bundle_that_changed_counts_from_the_next_handshake_on() {
    let (old, new) = (Ca::new(), Ca::new());
    let client = Client::new(&old, &[&old]).await;
    let server = TlsServer::start(&old.issue(&agent()), &old).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    fetcher.fetch(attested(server.address)).await.expect("a card");
    client.rotate(&new, &[&new]).await;
    let result = fetcher.fetch(attested(server.address)).await;
    assert_eq!(untrusted(result), PeerProblem::Chain, "the old authority is believed no more");
    let renewed = TlsServer::start(&new.issue(&agent()), &new).await;
    fetcher.fetch(attested(renewed.address)).await.expect("the new one is, and our new SVID is shown");
}

#[tokio::test]
async fn a_304_speaks_only_for_the_identity_that_served_the_card() {
    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    let server = TlsServer::start(&ca.issue(&agent()), &ca).await;
    let first = fetcher.fetch(attested(server.address)).await.expect("a card");
    assert!(first.validator.is_some());
    let other = TlsServer::start(&ca.issue(&leaf("spiffe://example.org/other")), &ca).await;
    let request = FetchRequest { validator: first.validator, ..attested(other.address) };
    let second = fetcher.fetch(request).await.expect("a card");
    assert!(matches!(second.outcome, Outcome::Body(_)));
}

#[tokio::test]
async fn without_an_svid_nothing_is_dialled() {
    let server = Server::always(Reply::Write(card())).await;
    let without_source = Fetcher::new(limits(), None);
    let error = without_source.fetch(attested(server.address)).await.expect_err("no SVID");
    assert_eq!(error, FetchError::NoSvid);

    let ca = Ca::new();
    let client = Client::new(&ca, &[&ca]).await;
    let fetcher = Fetcher::new(limits(), Some(client.source.clone()));
    let other = TrustDomain::configured("other.org").expect("a trust domain");
    let request = FetchRequest { tls: Some(PeerRule { trust_domain: other }), ..request(server.address) };
    let error = fetcher.fetch(request).await.expect_err("no bundle of that domain");
    assert_eq!(error, FetchError::NoSvid, "an infrastructure error, no verdict on the peer");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.connections(), 0);
}
