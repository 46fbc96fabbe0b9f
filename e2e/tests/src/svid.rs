//! Identities as SPIRE hands them out, by an authority that each test makes for itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

use scripted_workload_api::{Answer, field};

/// Longer than any test.
const LIFETIME: Duration = Duration::from_hours(2);

/// A certificate authority of one trust domain.
pub struct Authority {
    domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// An X.509-SVID with its key.
pub struct Identity {
    id: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// The three files from which card-ctl takes its own SVID.
pub struct SvidDirectory(TempDir);

fn uri(text: &str) -> Result<SanType> {
    Ok(SanType::URI(text.try_into().with_context(|| format!("{text:?} as a name"))?))
}

/// Parameters that are valid now, whatever the clocks of the machine do in the next minutes.
fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_mins(5)).into();
    parameters.not_after = (now + LIFETIME).into();
    parameters
}

impl Authority {
    /// A new authority of a trust domain.
    pub fn new(domain: &str) -> Result<Self> {
        let mut root = parameters();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        root.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
        Ok(Self { domain: domain.to_owned(), issuer })
    }

    /// An identity with this path (`/ns/a/sa/b`) in the authority's trust domain.
    pub fn issue(&self, path: &str) -> Result<Identity> {
        self.issue_id(&format!("spiffe://{}{path}", self.domain))
    }

    /// An identity with any SPIFFE ID, even one of another trust domain.
    pub fn issue_id(&self, id: &str) -> Result<Identity> {
        let mut leaf = parameters();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.subject_alt_names = vec![uri(id)?];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        Ok(Identity { id: id.to_owned(), certificate, key })
    }

    /// The root in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// What the Workload API says about an identity of this authority (card §7).
    pub fn answer(&self, identity: &Identity) -> Answer {
        let mut svid = Vec::new();
        field(&mut svid, 1, identity.id.as_bytes());
        field(&mut svid, 2, identity.certificate.der());
        field(&mut svid, 3, &identity.key.serialize_der());
        field(&mut svid, 4, self.issuer.der());
        let mut response = Vec::new();
        field(&mut response, 1, &svid);
        Answer::Message(response)
    }
}

impl Identity {
    /// The SPIFFE ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The leaf certificate, which tells a renewed identity from its predecessor.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// A TLS server with this identity that demands a client certificate by one of `clients`.
    pub fn server(&self, clients: &[&Authority]) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in clients {
            roots.add(authority.issuer.der().clone()).context("the clients' root")?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.leaf().clone()], key)?;
        Ok(Arc::new(config))
    }
}

impl SvidDirectory {
    /// An empty directory: the SVID is not there yet.
    pub fn new() -> Result<Self> {
        tempfile::tempdir().map(Self).context("a directory for the SVID")
    }

    /// Writes an SVID and the roots to believe. The certificate comes last: until then the old one does not fit the
    /// new key, and nobody takes half of it.
    pub fn write(&self, identity: &Identity, roots: &[&Authority]) -> Result<()> {
        let write = |name: &str, text: String| {
            std::fs::write(self.0.path().join(name), text).with_context(|| format!("writing {name}"))
        };
        write("bundle.pem", roots.iter().map(|root| root.pem()).collect())?;
        write("key.pem", identity.key.serialize_pem())?;
        write("svid.pem", identity.certificate.pem())
    }

    /// The flags of card-ctl that name the files.
    pub fn flags(&self) -> [String; 3] {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        [
            format!("--svid-cert-file={}", path("svid.pem")),
            format!("--svid-key-file={}", path("key.pem")),
            format!("--svid-bundle-file={}", path("bundle.pem")),
        ]
    }
}
