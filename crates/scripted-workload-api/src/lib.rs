//! A small Workload API for tests: gRPC by hand over HTTP/2, protobuf by hand, so that the client's library is not
//! checked against itself. The library that is tested and the components that use it see the same server.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "only tests use it, and a test that stops here has failed"
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the server answers to the next (or the open) call.
#[derive(Clone)]
pub enum Answer {
    /// One message of the stream.
    Message(Vec<u8>),
    /// `PERMISSION_DENIED`, as SPIRE says to a workload without registration.
    Refuse,
}

/// A certificate authority of one trust domain.
pub struct Issuer {
    domain: String,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Issuer {
    /// A new authority.
    pub fn new(domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");
        Self { domain: domain.to_owned(), ca }
    }

    /// Its own certificate.
    pub fn root(&self) -> CertificateDer<'static> {
        self.ca.der().clone()
    }

    /// A response with one SVID that lives for so many seconds from now on.
    pub fn answer(&self, path: &str, lifetime: i64) -> Answer {
        let id = format!("spiffe://{}{path}", self.domain);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri(&id)];
        let end = std::time::SystemTime::now() + Duration::from_secs(lifetime.unsigned_abs());
        params.not_after = end.into();
        let leaf = params.signed_by(&key, &self.ca).expect("a leaf");
        let mut svid = Vec::new();
        field(&mut svid, 1, id.as_bytes());
        field(&mut svid, 2, leaf.der());
        field(&mut svid, 3, &key.serialize_der());
        field(&mut svid, 4, self.ca.der());
        let mut response = Vec::new();
        field(&mut response, 1, &svid);
        let mut federated = Vec::new();
        field(&mut federated, 1, b"spiffe://friends.example");
        field(&mut federated, 2, self.ca.der());
        field(&mut response, 3, &federated);
        Answer::Message(response)
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// One length-delimited protobuf field.
pub fn field(into: &mut Vec<u8>, number: u8, value: &[u8]) {
    into.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        into.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(value);
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    without_header: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

/// A running server; it ends when the value is dropped.
pub struct Server {
    socket: PathBuf,
    directory: Option<TempDir>,
    answers: watch::Sender<Answer>,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts at a socket of its own.
    pub fn start(answer: Answer) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Self::start_at(&directory.path().join("api.sock"), answer);
        server.directory = Some(directory);
        server
    }

    /// Starts at this socket, which is made anew.
    pub fn start_at(socket: &Path, answer: Answer) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let answers = watch::Sender::new(answer);
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(listener, answers.subscribe(), seen.clone()));
        Self { socket: socket.to_owned(), directory: None, answers, seen, task }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends another answer into the open calls; later calls begin with it.
    pub fn push(&self, answer: Answer) {
        self.answers.send_replace(answer);
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits for so many connections.
    pub async fn until_connections(&self, count: usize) {
        let wait = async {
            while self.connections() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("a connection in time");
    }

    /// Every call was the right one and had the header that keeps web pages out.
    pub fn saw_only_the_mandatory_header(&self) -> bool {
        let paths = self.seen.paths.lock().expect("unpoisoned");
        !paths.is_empty()
            && paths.iter().all(|path| path == "/SpiffeWorkloadAPI/FetchX509SVID")
            && self.seen.without_header.load(Ordering::SeqCst) == 0
    }

    /// Ends all connections; the directory stays until it is dropped.
    pub async fn stop(mut self) -> Option<TempDir> {
        self.task.abort();
        let _ = (&mut self.task).await;
        let _ = std::fs::remove_file(&self.socket);
        self.directory.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, answers: watch::Receiver<Answer>, seen: Arc<Seen>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (answers, seen) = (answers.clone(), seen.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (answers, seen) = (answers.clone(), seen.clone());
                async move { Ok::<_, Infallible>(respond(&request, answers, &seen)) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Frames = futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

fn respond(
    request: &Request<Incoming>,
    answers: watch::Receiver<Answer>,
    seen: &Seen,
) -> Response<StreamBody<Frames>> {
    seen.paths.lock().expect("unpoisoned").push(request.uri().path().to_owned());
    if request.headers().get("workload.spiffe.io").is_none_or(|value| value != "true") {
        seen.without_header.fetch_add(1, Ordering::SeqCst);
    }
    let mut first = true;
    let frames = futures::stream::unfold(Some(answers), move |answers| {
        let wait = !std::mem::replace(&mut first, false);
        async move {
            let mut answers = answers?;
            if wait {
                answers.changed().await.ok()?;
            }
            let answer = answers.borrow_and_update().clone();
            Some(match answer {
                Answer::Message(message) => (Ok(Frame::data(framed(&message))), Some(answers)),
                Answer::Refuse => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("7"));
                    (Ok(Frame::trailers(trailers)), None)
                }
            })
        }
    });
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(frames.boxed()))
        .expect("a response")
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}
