//! A small HTTP server that stands for an agent at the address of a fake Pod.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use local_cluster::Cluster;
use serde_json::Value;

/// What the server says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Further headers, each with its line end.
    pub headers: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with JSON.
    pub fn json(body: &Value) -> Self {
        Self { status: 200, headers: String::new(), body: body.to_string().into_bytes() }
    }

    /// A status without more to say.
    pub fn status(status: u16) -> Self {
        Self { status, headers: String::new(), body: b"nothing here".to_vec() }
    }
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head was complete.
    pub at: Instant,
    /// The `Host` header.
    pub host: String,
    /// The path.
    pub path: String,
}

type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A running server; it ends when the value is dropped.
pub struct AgentServer {
    address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl AgentServer {
    /// A server at a fresh address of the Pods' range.
    pub fn start(
        cluster: &Cluster,
        port: u16,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = cluster.listen(port)?;
        let address = listener.local_addr().context("its address")?;
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Arc::new(answers)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        listener.set_nonblocking(true).context("a socket that can be asked to stop")?;
        let (served, seen, ended) = (answers.clone(), requests.clone(), stop.clone());
        std::thread::spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (served, seen) = (served.clone(), seen.clone());
                        std::thread::spawn(move || {
                            let _ = serve(stream, &served, &seen);
                        });
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { address, answers, requests, stop })
    }

    /// A server with one card, at the present path.
    pub fn with_card(cluster: &Cluster, port: u16, card: Value) -> Result<Self> {
        Self::start(cluster, port, move |path| match path {
            "/.well-known/agent-card.json" => Answer::json(&card),
            _ => Answer::status(404),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it says something else.
    pub fn say(&self, answers: impl Fn(&str) -> Answer + Send + Sync + 'static) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    /// The paths that were asked for, in order.
    pub fn requests(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.path).collect()
    }

    /// All requests, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for AgentServer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, answers: &Mutex<Answers>, requests: &Mutex<Vec<Seen>>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend_from_slice(&byte);
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_host = |line: &&str| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("host:"));
    let host =
        text.lines().find(is_host).and_then(|line| line.get(5..)).unwrap_or_default().trim().to_owned();
    let seen = Seen { at: Instant::now(), host, path: path.clone() };
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Answer { status, headers, body } = answers(&path);
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}
