//! One connection: chosen address, TCP, TLS if asked for, HTTP/1.1 (card §6.5, §7).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_trust::spiffe::SpiffeId;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use spiffe_svid::{Svid, SvidSource};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::error::{FetchError, PeerProblem, Phase, ProtocolProblem, tls_error};
use super::fetcher::FetchLimits;
use super::peer::{self, PeerVerifier};
use super::pool::Pool;
use super::request::{Dial, FetchRequest, PeerRule};

/// A connection ends when it is this old, whatever is under way (card §6.5).
const LIFETIME: Duration = Duration::from_secs(30);
/// Longest head of a response.
const MAX_HEAD: usize = 32 * 1024;
/// Most header lines of a response.
const MAX_HEADERS: usize = 100;
/// Addresses tried in one fetch.
const MAX_ADDRESSES: usize = 3;
/// Until the second try at an agent that refuses; then half as long again each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// One in so many slots may be spent on that.
const RETRYING: usize = 4;
/// So many connections share the time for one when nobody answers.
const SILENT: u32 = 3;

/// An HTTP/1.1 connection to a known address. Dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    address: SocketAddr,
    attested: Option<SpiffeId>,
    reusable_until: Instant,
    used: bool,
    /// Moves the bytes. Ends with the connection, so that a peer that holds still costs no socket afterwards.
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn sender(&mut self) -> &mut SendRequest<Empty<Bytes>> {
        &mut self.sender
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who the TLS peer is; `None` on plain connections.
    pub(super) fn attested(&self) -> Option<&SpiffeId> {
        self.attested.as_ref()
    }

    /// True when an earlier fetch has used it: the server may have closed it since.
    pub(super) fn was_used(&self) -> bool {
        self.used
    }

    pub(super) fn mark_used(&mut self) {
        self.used = true;
    }

    /// Open, and young enough to last through one more exchange.
    pub(super) fn is_reusable(&self, now: Instant) -> bool {
        now < self.reusable_until && !self.sender.is_closed()
    }
}

/// Makes connections.
pub(super) struct Connector {
    limits: FetchLimits,
    svids: Option<SvidSource>,
    provider: Arc<CryptoProvider>,
    /// Who may try a refused connection again.
    retries: Semaphore,
    /// The signing key of the SVID that was used last: parsing a key costs more than a handshake.
    key: Mutex<Option<(Arc<Svid>, Arc<CertifiedKey>)>>,
}

impl Connector {
    pub(super) fn new(limits: FetchLimits, svids: Option<SvidSource>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let retries = Semaphore::new((limits.concurrency / RETRYING).max(1));
        Self { limits, svids, provider, retries, key: Mutex::new(None) }
    }

    /// A kept or new connection for the request. `phase` follows what is being waited for.
    ///
    /// One that is refused, or not answered, is tried again for as long as a connection may take, unless the last fetch failed
    /// too: a node learns a moment later than this process that a Service has an endpoint.
    pub(super) async fn connect(
        &self,
        request: &FetchRequest,
        pool: Option<&Pool>,
        phase: &mut Phase,
    ) -> Result<Connection, FetchError> {
        // Asked before anything is dialled: without an identity no byte leaves (card §7).
        let identity = request.tls.as_ref().map(|rule| self.identity(rule)).transpose()?;
        let addresses = self.addresses(request, phase).await?;
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut turn = None;
        loop {
            let result =
                self.connect_to(&addresses, request, identity.as_ref(), pool, phase, &mut turn).await;
            let refused = matches!(result, Err(FetchError::Refused));
            if !refused || request.suspect || started.elapsed() + pause > self.limits.connect_timeout {
                return result;
            }
            if !self.may_retry(&mut turn) {
                return result;
            }
            sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
    }

    /// Only so many slots are for waiting: a thousand agents that are gone must not hold up the others.
    fn may_retry<'a>(&'a self, turn: &mut Option<SemaphorePermit<'a>>) -> bool {
        if turn.is_none() {
            *turn = self.retries.try_acquire().ok();
        }
        turn.is_some()
    }

    /// A TCP connection. What was sent before the node knew the Service is lost, and so is all that follows on the same
    /// connection: silence is answered with a new one.
    async fn dial<'a>(
        &'a self,
        address: SocketAddr,
        suspect: bool,
        turn: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<TcpStream, FetchError> {
        let limit = self.limits.connect_timeout;
        let (end, silence) = (Instant::now() + limit, limit / SILENT);
        let mut attempt = std::pin::pin!(TcpStream::connect(address));
        while !suspect && end.saturating_duration_since(Instant::now()) > silence {
            match timeout(silence, &mut attempt).await {
                Ok(result) => return result.map_err(|error| FetchError::of_connect(&error)),
                Err(_) if self.may_retry(turn) => attempt.set(TcpStream::connect(address)),
                Err(_) => break,
            }
        }
        match timeout_at(end, attempt).await {
            Ok(result) => result.map_err(|error| FetchError::of_connect(&error)),
            Err(_) => Err(FetchError::Timeout(Phase::Connect)),
        }
    }

    /// The first of the addresses that answers.
    async fn connect_to<'a>(
        &'a self,
        addresses: &[SocketAddr],
        request: &FetchRequest,
        identity: Option<&Identity>,
        pool: Option<&Pool>,
        phase: &mut Phase,
        turn: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Connection, FetchError> {
        let mut last = FetchError::NoAddress;
        for &address in addresses {
            let kept = pool.filter(|_| request.tls.is_none()).and_then(|p| p.take(address, &request.host));
            if let Some(kept) = kept {
                return Ok(kept);
            }
            *phase = Phase::Connect;
            let born = Instant::now();
            let stream = match self.dial(address, request.suspect, turn).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            // Small requests and responses: waiting to fill a packet only costs time.
            let _ = stream.set_nodelay(true);
            return match identity {
                None => self.speak_http(stream, address, born, None).await,
                Some(identity) => {
                    *phase = Phase::Handshake;
                    let (stream, id) = identity.shake_hands(stream, &request.host).await?;
                    self.speak_http(stream, address, born, Some(id)).await
                }
            };
        }
        Err(last)
    }

    /// The addresses that may be dialled. The deny list is applied here, to the very values that are dialled,
    /// so that no later look-up can change them.
    async fn addresses(
        &self,
        request: &FetchRequest,
        phase: &mut Phase,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let found = match &request.dial {
            Dial::Addresses(addresses) => addresses.clone(),
            Dial::Lookup => {
                *phase = Phase::Lookup;
                tokio::net::lookup_host((request.host.as_str(), request.port))
                    .await
                    .map_err(|_| FetchError::Protocol(ProtocolProblem::Lookup))?
                    .collect()
            }
        };
        if found.is_empty() {
            return Err(FetchError::NoAddress);
        }
        let allowed: Vec<_> = found
            .into_iter()
            .filter(|address| !self.limits.deny.denies(address.ip()))
            .take(MAX_ADDRESSES)
            .collect();
        if allowed.is_empty() { Err(FetchError::ForbiddenAddress) } else { Ok(allowed) }
    }

    async fn speak_http<S>(
        &self,
        stream: S,
        address: SocketAddr,
        born: Instant,
        attested: Option<SpiffeId>,
    ) -> Result<Connection, FetchError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| FetchError::of_http(&error))?;
        let lifetime = LIFETIME.max(self.limits.timeout);
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = timeout(lifetime, driver).await;
        }));
        let reusable_until = born + lifetime.saturating_sub(self.limits.timeout);
        Ok(Connection { sender, address, attested, reusable_until, used: false, _driver: driver })
    }

    /// What this process shows and believes in the next handshake: the SVID and bundle of this moment.
    fn identity(&self, rule: &PeerRule) -> Result<Identity, FetchError> {
        let svid = self.svids.as_ref().and_then(SvidSource::current).ok_or(FetchError::NoSvid)?;
        let roots = svid.roots(rule.trust_domain.as_str());
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier =
            PeerVerifier::new(roots, rule.trust_domain.clone(), algorithms).ok_or(FetchError::NoSvid)?;
        let verifier = Arc::new(verifier);
        let key = self.signing_key(&svid).ok_or(FetchError::NoSvid)?;
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| FetchError::Handshake)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        // A resumed session would skip the check of the certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity { config: Arc::new(config), verifier })
    }

    fn signing_key(&self, svid: &Arc<Svid>) -> Option<Arc<CertifiedKey>> {
        let mut cached = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, key)) = cached.as_ref()
            && Arc::ptr_eq(of, svid)
        {
            return Some(key.clone());
        }
        let signing = rustls::crypto::ring::sign::any_supported_type(&svid.key()).ok()?;
        let key = Arc::new(CertifiedKey::new(svid.chain().to_vec(), signing));
        *cached = Some((svid.clone(), key.clone()));
        Some(key)
    }
}

/// Both sides of one handshake: the own certificate, and the judge of the other one.
struct Identity {
    config: Arc<ClientConfig>,
    verifier: Arc<PeerVerifier>,
}

impl Identity {
    async fn shake_hands(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, SpiffeId), FetchError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| FetchError::Protocol(ProtocolProblem::HostName))?;
        let stream = tokio_rustls::TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await
            .map_err(|error| match tls_error(&error) {
                Some(tls) => peer::verdict(tls).map_or(FetchError::Handshake, FetchError::PeerUntrusted),
                None => FetchError::Reset,
            })?;
        // Without a verdict there is no identity, and without an identity no fetch.
        let id = self.verifier.accepted().ok_or(FetchError::PeerUntrusted(PeerProblem::NoCertificate))?;
        Ok((stream, id.clone()))
    }
}
