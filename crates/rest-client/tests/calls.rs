//! Calls against a real server on loopback: what is sent, what is repeated, what is refused.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Response as HttpResponse, header};
use rest_client::ca::CaFile;
use rest_client::options::{BreakerLimits, ClientOptions, Observer, Rate, RetryPolicy};
use rest_client::{BaseUrl, CallError, Endpoint, Request, RestClient, Secret};
use tokio::net::TcpListener;

/// Status, a header as `name: value`, and body.
type Line = (u16, &'static str, &'static str);

/// Answers by a script, the last line for ever, and remembers the request lines.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Line>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn answer(State(script): State<Script>, request: HttpRequest) -> HttpResponse<Body> {
    script.seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    let mut answers = script.answers.lock().unwrap();
    let (status, extra, body) =
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().copied().unwrap() };
    let mut response = HttpResponse::builder().status(status);
    if let Some((name, value)) = extra.split_once(": ") {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

async fn serve(answers: &[Line]) -> (BaseUrl, Script) {
    let script =
        Script { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), ..Script::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let app = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (base, script)
}

fn options() -> ClientOptions {
    let delays = vec![Duration::from_millis(1); 3];
    ClientOptions {
        retry: RetryPolicy { delays, ..RetryPolicy::default() },
        ..ClientOptions::new("rest-client/test")
    }
}

fn client() -> RestClient {
    RestClient::new(options(), None).unwrap()
}

fn get(base: &BaseUrl) -> Request {
    Request::get(base, Endpoint::new("x").segments(["a"]))
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (other, stranger) = serve(&[(200, "", "")]).await;
    let location: &'static str = Box::leak(format!("location: {other}/stolen").into_boxed_str());
    let (base, _) = serve(&[(307, location, "")]).await;
    let response = client().send(&get(&base).bearer(&Secret::from("token"))).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(response.header(header::LOCATION), Some(location.trim_start_matches("location: ")));
    assert_eq!(stranger.count(), 0);
}

#[tokio::test]
async fn transient_answers_are_repeated_and_the_last_one_is_given_back() {
    let (base, script) = serve(&[(503, "", ""), (429, "retry-after: 0", ""), (200, "", "[1]")]).await;
    let response = client().send(&get(&base)).await.unwrap();
    assert_eq!(response.json::<Vec<u32>>(), Some(vec![1]));
    assert_eq!(script.count(), 3);

    let (base, script) = serve(&[(500, "", " {\"error\":\n\"x\"} ")]).await;
    let response = client().send(&get(&base)).await.unwrap();
    assert_eq!((response.status(), response.quoted().as_str()), (500, "{\"error\": \"x\"}"));
    assert_eq!(script.count(), 4, "one try and three repetitions");
    client().send(&get(&base).once()).await.unwrap();
    assert_eq!(script.count(), 5);

    let (base, script) = serve(&[(404, "", "")]).await;
    assert_eq!(client().send(&get(&base)).await.unwrap().status(), 404);
    assert_eq!(script.count(), 1, "a definite answer is not repeated");
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read() {
    let (base, _) = serve(&[(200, "", "0123456789")]).await;
    let small = client().send(&get(&base).body_limit(9)).await;
    assert!(matches!(small, Err(CallError::TooLarge(9))), "{small:?}");
    assert_eq!(client().send(&get(&base).body_limit(10)).await.unwrap().body(), b"0123456789");
}

#[tokio::test]
async fn a_server_that_never_answers_ends_in_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let client =
        RestClient::new(ClientOptions { attempt: Duration::from_millis(50), ..options() }, None).unwrap();
    let answer = client.send(&get(&base).once()).await;
    assert!(matches!(answer, Err(CallError::Timeout)), "{answer:?}");
    drop(listener);
}

/// Closed ports answer at once, so the count below needs no clock.
#[tokio::test]
async fn a_dead_server_is_left_alone_after_five_failures() {
    #[derive(Default)]
    struct Count {
        attempts: Mutex<u32>,
        opened: Mutex<Vec<bool>>,
    }
    impl Observer for Count {
        fn attempt(&self, _: &'static str, outcome: &str, _: Duration) {
            assert_eq!(outcome, "connect");
            *self.attempts.lock().unwrap() += 1;
        }
        fn circuit(&self, _: &BaseUrl, open: bool) {
            self.opened.lock().unwrap().push(open);
        }
    }
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let base = BaseUrl::parse(&format!("http://{}", socket.local_addr().unwrap())).unwrap();
    let count = Arc::new(Count::default());
    let client = RestClient::new(ClientOptions { observer: count.clone(), ..options() }, None).unwrap();
    for _ in 0..20 {
        client.send(&get(&base)).await.unwrap_err();
    }
    assert_eq!(*count.attempts.lock().unwrap(), 5);
    assert_eq!(*count.opened.lock().unwrap(), [true]);
    let error = client.send(&get(&base)).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Circuit { cause, tls: false, .. } if cause.starts_with("cannot connect"))
    );
    assert!(error.is_transient());
    assert!(client.circuit_open(&base).is_some());
    drop(socket);
}

#[tokio::test]
async fn an_answering_server_counts_once_per_call() {
    let (base, script) = serve(&[(500, "", "")]).await;
    let client = client();
    for _ in 0..4 {
        assert!(client.send(&get(&base)).await.is_ok());
    }
    assert_eq!(script.count(), 16);
    assert!(client.circuit_open(&base).is_none());
    client.send(&get(&base)).await.unwrap();
    assert!(client.circuit_open(&base).is_some());
}

#[tokio::test]
async fn the_circuit_closes_again() {
    let (base, script) = serve(&[(500, "", ""), (200, "", "")]).await;
    let breaker = BreakerLimits { failures: 1, open: Duration::from_millis(30), ..BreakerLimits::default() };
    let client = RestClient::new(ClientOptions { breaker, ..options() }, None).unwrap();
    client.send(&get(&base).once()).await.unwrap();
    while matches!(client.send(&get(&base).once()).await, Err(CallError::Circuit { .. })) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(client.circuit_open(&base).is_none());
    assert_eq!(script.count(), 2);
}

#[tokio::test]
async fn nothing_is_sent_to_a_path_that_would_be_resolved() {
    let (base, script) = serve(&[(200, "", "")]).await;
    let request = Request::get(&base, Endpoint::new("x").segments(["admin", "realms", "..", "master"]));
    assert!(matches!(client().send(&request).await, Err(CallError::Path)));
    assert_eq!(script.count(), 0);
}

#[tokio::test]
async fn the_rate_holds() {
    let (base, script) = serve(&[(200, "", "")]).await;
    let rate = Rate { qps: 50.0, burst: 1 };
    let client = RestClient::new(ClientOptions { rate, ..options() }, None).unwrap();
    let started = std::time::Instant::now();
    for _ in 0..6 {
        client.send(&get(&base)).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(95), "{:?}", started.elapsed());
    assert_eq!(script.count(), 6);
}

mod tls {
    use rcgen::{CertificateParams, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// A CA's certificate in PEM and a server on loopback whose certificate it signed.
    async fn server() -> (String, BaseUrl) {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = BaseUrl::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut buffer = [0; 4096];
                    if stream.read(&mut buffer).await? > 0 {
                        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await?;
                        stream.shutdown().await?;
                    }
                    Ok::<_, std::io::Error>(ErrorKind::Other)
                });
            }
        });
        (ca, base)
    }

    #[tokio::test]
    async fn a_stranger_is_refused_and_a_new_ca_file_is_picked_up() {
        let (ca, base) = server().await;
        let (other_ca, _) = server().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, other_ca).unwrap();
        let breaker = BreakerLimits { failures: u32::MAX, ..BreakerLimits::default() };
        let file = CaFile::load(&path).unwrap();
        let client = RestClient::new(ClientOptions { breaker, ..options() }, Some(file)).unwrap();
        let error = client.send(&get(&base)).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Tls(text) if text.contains("invalid peer certificate")),
            "{error:?}"
        );
        assert!(error.is_tls() && !error.is_transient());

        let watching = client.clone();
        let watch = tokio::spawn(async move { watching.watch_ca(Duration::from_millis(5)).await });
        std::fs::write(&path, "not a certificate").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(client.send(&get(&base)).await.unwrap_err().is_tls(), "the old file stays in use");
        let next = directory.path().join("next");
        std::fs::write(&next, ca).unwrap();
        std::fs::rename(&next, &path).unwrap();
        while client.send(&get(&base)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        watch.abort();
    }
}
