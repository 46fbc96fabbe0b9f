//! A small HTTP server that stands for an agent at the address of a fake Pod, in the clear or with a SPIFFE identity.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use local_cluster::Cluster;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
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
    /// The client's leaf certificate, DER; none in the clear.
    pub client: Option<Vec<u8>>,
}

type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;
type Tls = Arc<Mutex<Arc<ServerConfig>>>;

/// A running server; it ends when the value is dropped.
pub struct AgentServer {
    address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    tls: Option<Tls>,
    requests: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl AgentServer {
    /// A server at a fresh address of the Pods' range, or at this machine's where nothing can answer there.
    pub fn start(
        cluster: &Cluster,
        port: u16,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::on(cluster.listen(port)?, None, answers)
    }

    /// A server at a certain address of that range, such as a Pod's.
    pub fn start_at(
        cluster: &Cluster,
        address: SocketAddrV4,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::on(cluster.listen_at(address)?, None, answers)
    }

    /// A server that speaks TLS.
    pub fn start_tls(
        cluster: &Cluster,
        port: u16,
        tls: Arc<ServerConfig>,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::on(cluster.listen(port)?, Some(Arc::new(Mutex::new(tls))), answers)
    }

    /// Another server, in the clear, at another port of the same address.
    pub fn beside(
        &self,
        cluster: &Cluster,
        port: u16,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        match self.address {
            SocketAddr::V4(own) => Self::start_at(cluster, SocketAddrV4::new(*own.ip(), port), answers),
            SocketAddr::V6(own) => bail!("{own} is no address of the Pods' range"),
        }
    }

    fn on(
        listener: TcpListener,
        tls: Option<Tls>,
        answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = listener.local_addr().context("its address")?;
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Arc::new(answers)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        listener.set_nonblocking(true).context("a socket that can be asked to stop")?;
        let (served, seen, ended, secured) = (answers.clone(), requests.clone(), stop.clone(), tls.clone());
        std::thread::spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (served, seen) = (served.clone(), seen.clone());
                        let tls = secured.as_ref().map(|tls| locked(tls).clone());
                        std::thread::spawn(move || {
                            let _ = connection(stream, tls, &served, &seen);
                        });
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { address, answers, tls, requests, stop })
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
        *locked(&self.answers) = Arc::new(answers);
    }

    /// From now on it has another identity. Nothing happens to one in the clear.
    pub fn present(&self, identity: Arc<ServerConfig>) {
        if let Some(tls) = &self.tls {
            *locked(tls) = identity;
        }
    }

    /// The paths that were asked for, in order.
    pub fn requests(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.path).collect()
    }

    /// When each host was asked for since then, in order.
    pub fn times_by_host(&self, since: Instant) -> BTreeMap<String, Vec<Instant>> {
        let mut by_host: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
        for request in locked(&self.requests).iter().filter(|request| request.at > since) {
            by_host.entry(request.host.clone()).or_default().push(request.at);
        }
        by_host
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        locked(&self.requests).len()
    }

    /// All requests, in order.
    pub fn seen(&self) -> Vec<Seen> {
        locked(&self.requests).clone()
    }
}

impl Drop for AgentServer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connection(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    answers: &Mutex<Answers>,
    requests: &Mutex<Vec<Seen>>,
) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let Some(tls) = tls else { return serve(&mut stream, None, answers, requests) };
    let mut connection = ServerConnection::new(tls)?;
    connection.complete_io(&mut stream)?;
    let client = connection.peer_certificates().and_then(|chain| Some(chain.first()?.to_vec()));
    let mut stream = StreamOwned::new(connection, stream);
    serve(&mut stream, client, answers, requests)?;
    stream.conn.send_close_notify();
    stream.flush().context("ending the session")
}

fn serve(
    stream: &mut (impl Read + Write),
    client: Option<Vec<u8>>,
    answers: &Mutex<Answers>,
    requests: &Mutex<Vec<Seen>>,
) -> Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    // One request per connection, and none has a body.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        head.extend(piece.iter().take(length));
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_host = |line: &&str| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("host:"));
    let host =
        text.lines().find(is_host).and_then(|line| line.get(5..)).unwrap_or_default().trim().to_owned();
    locked(requests).push(Seen { at: Instant::now(), host, path: path.clone(), client });
    let answers = locked(answers).clone();
    let Answer { status, headers, body } = answers(&path);
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.flush()?;
    Ok(())
}
