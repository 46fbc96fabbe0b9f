//! Servers on loopback that behave as a test says, down to the byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use card_ctl::fetch::{DenyList, Dial, FetchError, FetchLimits, FetchRequest, Fetched, Fetcher, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) mod tls;

/// What a server does after it has read the head of a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Write, then wait for the next request.
    Write(Vec<u8>),
    /// Write, then close.
    Close(Vec<u8>),
    /// Write, then break the connection with a TCP reset.
    Reset(Vec<u8>),
    /// Write, then say nothing more.
    Silence(Vec<u8>),
    /// Pause, write, then wait for the next request.
    Later(Vec<u8>, Duration),
    /// Write the first part, then the second one again and again, with a pause between.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

pub(crate) const CARD: &str = r#"{"name":"echo","version":"1"}"#;

/// A complete response with the usual head.
pub(crate) fn response(status: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    format!("{head}\r\n{body}").into_bytes()
}

pub(crate) fn card() -> Vec<u8> {
    response("200 OK", &["Content-Type: application/json"], CARD)
}

/// A TCP server on loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers each request by `script`, which sees its head and how many came before it.
    pub(crate) async fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, count, script) = (requests.clone(), connections.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (log, script) = (log.clone(), script.clone());
                open.spawn(async move { converse(stream, &log, &*script).await });
            }
        });
        Self { address, requests, connections, task }
    }

    /// The same answer to every request.
    pub(crate) async fn always(reply: Reply) -> Self {
        Self::start(move |_, _| reply.clone()).await
    }

    /// The request lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.requests.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The head of the next request; `None` when the client is gone.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn converse(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str, usize) -> Reply + Send + Sync),
) {
    while let Some(head) = read_head(&mut stream).await {
        let before = {
            let mut log = log.lock().expect("unpoisoned");
            log.push(head.clone());
            log.len() - 1
        };
        match script(&head, before) {
            Reply::Reset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = stream.set_zero_linger();
                return;
            }
            reply => {
                if !act(&mut stream, reply).await {
                    return;
                }
            }
        }
    }
}

/// Carries a reply out; true when the connection goes on.
pub(crate) async fn act<S: AsyncWrite + Unpin>(stream: &mut S, reply: Reply) -> bool {
    match reply {
        Reply::Write(bytes) => stream.write_all(&bytes).await.is_ok(),
        Reply::Later(bytes, pause) => {
            tokio::time::sleep(pause).await;
            stream.write_all(&bytes).await.is_ok()
        }
        Reply::Close(bytes) | Reply::Reset(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Reply::Silence(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Reply::Drip(first, then, pause) => {
            let mut alive = stream.write_all(&first).await.is_ok();
            while alive {
                tokio::time::sleep(pause).await;
                alive = stream.write_all(&then).await.is_ok();
            }
            false
        }
    }
}

/// Limits for tests: nothing is denied (the servers are on loopback), and more time than a busy machine needs.
pub(crate) fn limits() -> FetchLimits {
    FetchLimits {
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_millis(500),
        deny: DenyList::empty(),
        ..FetchLimits::default()
    }
}

pub(crate) fn request(address: SocketAddr) -> FetchRequest {
    FetchRequest {
        namespace: "team1".into(),
        host: "echo.team1.svc.cluster.local".to_owned(),
        port: 8000,
        dial: Dial::Addresses(vec![address]),
        tls: None,
        validator: None,
        suspect: false,
    }
}

pub(crate) async fn fetch(address: SocketAddr) -> Result<Fetched, FetchError> {
    Fetcher::new(limits(), None).fetch(request(address)).await
}

pub(crate) fn body(fetched: &Fetched) -> &str {
    match &fetched.outcome {
        Outcome::Body(body) => std::str::from_utf8(body).expect("UTF-8"),
        Outcome::NotModified => panic!("not modified"),
    }
}
