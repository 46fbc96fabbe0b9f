//! Certificates and TLS servers for the tests of card §7.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use spiffe_svid::{SvidFiles, SvidSource};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{act, read_head};

pub(crate) const DOMAIN: &str = "example.org";

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What is special about a leaf.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    /// Validity from now, in seconds.
    pub(crate) life: std::ops::Range<i64>,
    pub(crate) is_ca: bool,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

pub(crate) fn leaf(id: &str) -> Leaf {
    Leaf { uris: vec![id.to_owned()], dns: Vec::new(), life: -60..3600, is_ca: false, usages: Vec::new() }
}

pub(crate) fn agent() -> Leaf {
    leaf("spiffe://example.org/ns/team1/sa/echo")
}

pub(crate) struct Pair {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

fn at(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - span } else { SystemTime::now() + span }
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, leaf: &Leaf) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let uris = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().expect("ASCII")));
        let dns = leaf.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().expect("ASCII")));
        params.subject_alt_names = uris.chain(dns).collect();
        params.is_ca =
            if leaf.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&leaf.usages);
        params.not_before = at(leaf.life.start).into();
        params.not_after = at(leaf.life.end).into();
        let certificate = params.signed_by(&key, &self.0).expect("a leaf");
        Pair { chain: vec![certificate.der().clone()], key }
    }
}

/// An SVID source for the client: its files are written, its task runs.
pub(crate) struct Client {
    pub(crate) source: SvidSource,
    directory: TempDir,
    stop: CancellationToken,
}

impl Client {
    /// The controller's own SVID by `ca`, believing `bundle`.
    pub(crate) async fn new(ca: &Ca, bundle: &[&Ca]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let files = SvidFiles::new(file("svid.pem"), file("key.pem"), Some(file("bundle.pem")))
            .with_poll(Duration::from_millis(20));
        let client = Self { source: SvidSource::files(files), directory, stop: CancellationToken::new() };
        client.write(ca, bundle);
        let (source, stop) = (client.source.clone(), client.stop.clone());
        tokio::spawn(async move { source.run(stop).await });
        client.until(|id| id == "spiffe://example.org/card-ctl").await;
        client
    }

    /// Writes an SVID and waits until it is in use.
    pub(crate) async fn rotate(&self, ca: &Ca, bundle: &[&Ca]) {
        let mut changed = self.source.changed();
        let leaf = self.write(ca, bundle);
        // The files change one by one, the certificate last.
        let arrived =
            changed.wait_for(|svid| svid.as_ref().is_some_and(|svid| svid.chain().first() == Some(&leaf)));
        tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("in time").expect("open");
    }

    /// Writes an SVID; its certificate.
    fn write(&self, ca: &Ca, bundle: &[&Ca]) -> CertificateDer<'static> {
        let pair = ca.issue(&leaf("spiffe://example.org/card-ctl"));
        let write = |name: &str, text: String| {
            std::fs::write(self.directory.path().join(name), text).expect("written");
        };
        write("bundle.pem", bundle.iter().map(|ca| ca.pem()).collect());
        write("key.pem", pair.key.serialize_pem());
        write("svid.pem", pem(&pair.chain));
        pair.chain.first().expect("a leaf").clone()
    }

    async fn until(&self, wanted: impl Fn(&str) -> bool) {
        let mut changed = self.source.changed();
        let arrived = changed.wait_for(|svid| svid.as_ref().is_some_and(|svid| wanted(svid.id())));
        tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("in time").expect("open");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn pem(chain: &[CertificateDer<'static>]) -> String {
    use base64::Engine as _;
    let encoded = |der: &CertificateDer<'_>| base64::engine::general_purpose::STANDARD.encode(der);
    let block = |der| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", encoded(der));
    chain.iter().map(block).collect()
}

/// A TLS server that demands a client certificate and serves the card.
pub(crate) struct TlsServer {
    pub(crate) address: std::net::SocketAddr,
    /// Handshakes that were completed, and those of them that were full ones.
    pub(crate) handshakes: Arc<AtomicUsize>,
    pub(crate) full_handshakes: Arc<AtomicUsize>,
    /// The server name that the client asked for last.
    pub(crate) sni: Arc<std::sync::Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl TlsServer {
    pub(crate) async fn start(pair: &Pair, clients: &Ca) -> Self {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.key.serialize_der()));
        Self::with_config(config(clients).with_single_cert(pair.chain.clone(), key).expect("a pair")).await
    }

    /// A server with the certificate of one pair and the key of another.
    pub(crate) async fn impostor(certificate: &Pair, key: &Pair, clients: &Ca) -> Self {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
        let stolen = rustls::sign::CertifiedKey::new(certificate.chain.clone(), signing);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
        Self::with_config(config(clients).with_cert_resolver(resolver)).await
    }

    pub(crate) async fn with_config(mut config: ServerConfig) -> Self {
        // Eager to resume: the client must not want to.
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(32);
        config.send_tls13_tickets = 4;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (handshakes, full_handshakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let sni = Arc::new(std::sync::Mutex::new(None));
        let counters = (handshakes.clone(), full_handshakes.clone(), sni.clone());
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, (all, full, sni)) = (acceptor.clone(), counters.clone());
                open.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    all.fetch_add(1, Ordering::SeqCst);
                    let (_, connection) = stream.get_ref();
                    *sni.lock().expect("unpoisoned") = connection.server_name().map(str::to_owned);
                    if connection.handshake_kind() != Some(rustls::HandshakeKind::Resumed) {
                        full.fetch_add(1, Ordering::SeqCst);
                    }
                    while read_head(&mut stream).await.is_some() {
                        let reply = super::response("200 OK", &["ETag: \"v1\""], super::CARD);
                        if !act(&mut stream, super::Reply::Write(reply)).await {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, handshakes, full_handshakes, sni, task }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(clients: &Ca) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    versions(clients, rustls::ALL_VERSIONS)
}

pub(crate) fn versions(
    clients: &Ca,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(clients.der()).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("a verifier");
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(verifier)
}
