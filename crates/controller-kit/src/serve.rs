//! Listeners and HTTP servers of a process: probes, metrics, admission.
//!
//! One accept loop for all of them: bounded connections, time limits on handshake and request head,
//! TLS from a certificate that can change while the server runs, and an end in order: no new
//! connections, requests in flight are answered within the drain time.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::cli::Bind;

/// Longest TLS handshake (packaging §8).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for the head of the next request, unless the server says otherwise.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound and listens.
pub struct Listener {
    name: &'static str,
    tcp: TcpListener,
    address: SocketAddr,
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {bind} for {name}: {source}")]
pub struct BindError {
    name: &'static str,
    bind: Bind,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Binds `bind`, and logs the address with the listener's name: with port 0 that line is how the
    /// port is found out. `None` when it is off. `:port` takes every interface, IPv6 and IPv4, or
    /// IPv4 alone where there is no IPv6.
    pub async fn bind(name: &'static str, bind: Bind) -> Result<Option<Self>, BindError> {
        let tcp = match bind {
            Bind::Off => return Ok(None),
            Bind::Address(address) => TcpListener::bind(address).await,
            Bind::AllInterfaces(port) => {
                match TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).await {
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port)).await
                    }
                    result => result,
                }
            }
        };
        let tcp = tcp.map_err(|source| BindError { name, bind, source })?;
        let address = tcp.local_addr().map_err(|source| BindError { name, bind, source })?;
        tracing::info!(listener = name, %address, "listening");
        Ok(Some(Self { name, tcp, address }))
    }

    /// The address that is bound, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The caller's address, in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// True for a caller on this machine, also over an IPv6 socket.
    pub fn is_local(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

/// How a server behaves.
#[derive(Clone)]
pub struct Server {
    /// TLS settings; `None` = plain HTTP. See [`crate::tls::server_config`].
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Also speak HTTP/2.
    pub http2: bool,
    /// Connections at the same time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Longest wait for the head of the next request; an idle connection is closed then. A server whose
    /// clients keep connections must wait longer than they do: a connection that is closed while a
    /// request is on its way fails that request.
    pub idle: Duration,
    /// How long requests in flight may take after the stop.
    pub drain: Duration,
    /// Cancelled when the process begins to leave, a while before the stop (packaging §10): from then on each HTTP/1.1
    /// connection ends with its answer. One that a client keeps may get its next request in the moment of the stop,
    /// and a client that had sent half of it does not send it again.
    pub leaving: CancellationToken,
}

impl Server {
    /// Plain HTTP/1.1 for a few callers.
    pub fn small() -> Self {
        Self {
            tls: None,
            http2: false,
            max_connections: 64,
            idle: REQUEST_HEAD,
            drain: Duration::from_secs(2),
            leaving: CancellationToken::new(),
        }
    }

    /// Serves `router` on `listener` until `stop`, then drains.
    pub async fn run(self, listener: Listener, router: Router, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
        let connections = TaskTracker::new();
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        let builder = Arc::new(self.builder());
        // The outer token ends the intake, this one the connections that are left after the drain.
        let kill = CancellationToken::new();
        loop {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.tcp.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = listener.name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (builder, acceptor, router) = (Arc::clone(&builder), acceptor.clone(), router.clone());
            let (end, kill, name) = (End::new(&self.leaving, &stop), kill.clone(), listener.name);
            connections.spawn(async move {
                let work = connection(&builder, acceptor, stream, Peer(peer), router, end);
                if let Some(Err(error)) = kill.run_until_cancelled(work).await {
                    // Clients that go away or do not trust us; nothing to repair on this side.
                    tracing::debug!(listener = name, %peer, error, "connection ended");
                }
                drop(permit);
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(self.drain, connections.wait()).await.is_err() {
            kill.cancel();
            connections.wait().await;
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.idle);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
        if self.http2 { builder } else { builder.http1_only() }
    }
}

/// How a connection comes to its end.
#[derive(Clone)]
struct End {
    leaving: CancellationToken,
    stop: CancellationToken,
}

impl End {
    fn new(leaving: &CancellationToken, stop: &CancellationToken) -> Self {
        Self { leaving: leaving.clone(), stop: stop.clone() }
    }
}

async fn connection(
    builder: &auto::Builder<TokioExecutor>,
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    peer: Peer,
    router: Router,
    end: End,
) -> Result<(), String> {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return requests(builder, stream, peer, router, end).await };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(builder, stream, peer, router, end).await,
        Ok(Err(error)) => Err(format!("TLS handshake: {error}")),
        Err(_) => Err(format!("no TLS handshake within {HANDSHAKE:?}")),
    }
}

async fn requests<I>(
    builder: &auto::Builder<TokioExecutor>,
    stream: I,
    peer: Peer,
    router: Router,
    end: End,
) -> Result<(), String>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let End { leaving, stop } = end;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        // HTTP/2 has no such header, and tells its clients in time by itself.
        let last = leaving.is_cancelled() && request.version() <= Version::HTTP_11;
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let mut answer = answer.await?;
            if last {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    result.map_err(|error| error.to_string())
}
