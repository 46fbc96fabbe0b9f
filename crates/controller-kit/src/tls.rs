//! Serving certificates: read from files by content, or self-signed; replaced while serving.
//!
//! Secret volumes change by swapping a symlink, so watching a file's inode misses it, and key and
//! certificate may be read at different moments. Here both files are polled by content, loaded
//! together, checked to belong together and to be valid now, and swapped in one step; on any error
//! the old pair keeps serving (packaging §8).

mod files;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair as RcgenKeyPair, KeyUsagePurpose};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use files::{CertFiles, DEFAULT_POLL};

/// Why a certificate cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// No certificate or key in the PEM, or an unreadable one.
    #[error("the {what} is not usable: {reason}")]
    Malformed {
        /// `certificate` or `key`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("certificate and key do not belong together")]
    Mismatch,
    /// Too early or too late.
    #[error("the certificate is valid from {not_before} to {not_after}, and now it is {now}")]
    NotValidNow {
        /// Start of validity.
        not_before: Timestamp,
        /// End of validity.
        not_after: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
    /// The certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

/// A checked pair of certificate chain and key.
#[derive(Clone)]
pub struct KeyPair {
    certified: Arc<CertifiedKey>,
    /// Start of the leaf's validity.
    pub not_before: Timestamp,
    /// End of the leaf's validity.
    pub not_after: Timestamp,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("KeyPair")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Reads a PEM chain (leaf first, served whole) and its PEM key, and checks that they belong
    /// together and that the leaf is valid at `now`.
    pub fn from_pem(chain: &[u8], key: &[u8], now: Timestamp) -> Result<Self, TlsError> {
        let malformed = |what| {
            move |error: rustls_pki_types::pem::Error| TlsError::Malformed { what, reason: error.to_string() }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(malformed("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(malformed("key"))?;
        let leaf = chain.first().ok_or_else(|| TlsError::Malformed {
            what: "certificate",
            reason: "there is none in the PEM".to_owned(),
        })?;
        let (not_before, not_after) = validity(leaf)?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
            other => TlsError::Malformed { what: "key", reason: other.to_string() },
        })?;
        if now < not_before || now > not_after {
            return Err(TlsError::NotValidNow { not_before, not_after, now });
        }
        Ok(Self { certified: Arc::new(certified), not_before, not_after })
    }

    /// The certificate chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), TlsError> {
    let malformed = |reason: String| TlsError::Malformed { what: "certificate", reason };
    let (_, leaf) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| malformed(error.to_string()))?;
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| malformed(error.to_string()))
    };
    Ok((time(leaf.validity().not_before)?, time(leaf.validity().not_after)?))
}

/// The certificate a server serves now; may be empty, may be replaced at any time. Clones share it.
#[derive(Clone, Default)]
pub struct ServingCert {
    current: Arc<ArcSwapOption<KeyPair>>,
}

impl fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServingCert").field(&self.current()).finish()
    }
}

impl ServingCert {
    /// No certificate yet: handshakes fail until there is one.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Serves `pair` from the next handshake on.
    pub fn set(&self, pair: KeyPair) {
        self.current.store(Some(Arc::new(pair)));
    }

    /// What is served now.
    pub fn current(&self) -> Option<Arc<KeyPair>> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|pair| Arc::clone(&pair.certified))
    }
}

/// TLS 1.2 and 1.3 with `cert`; HTTP/1.1 only, unless `http2` (packaging §8).
pub fn server_config(cert: ServingCert, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Generate(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(cert));
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// A self-signed serving certificate for `names` (host names or IP addresses): PEM certificate and
/// PEM key. Valid from an hour ago, so that a caller with a slow clock accepts it.
pub fn self_signed(names: Vec<String>, lifetime: SignedDuration) -> Result<(String, String), TlsError> {
    let generate = |error: rcgen::Error| TlsError::Generate(error.to_string());
    let common = names.first().cloned().unwrap_or_else(|| "localhost".to_owned());
    let mut params = CertificateParams::new(names).map_err(generate)?;
    let now = Timestamp::now();
    params.not_before = asn1(now - SignedDuration::from_hours(1))?.to_datetime();
    params.not_after = asn1(now + lifetime)?.to_datetime();
    params.distinguished_name.push(DnType::CommonName, common);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = RcgenKeyPair::generate().map_err(generate)?;
    let certificate = params.self_signed(&key).map_err(generate)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn asn1(at: Timestamp) -> Result<x509_parser::time::ASN1Time, TlsError> {
    x509_parser::time::ASN1Time::from_timestamp(at.as_second())
        .map_err(|error| TlsError::Generate(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn pem(lifetime: SignedDuration) -> (String, String) {
        self_signed(vec!["metrics.example".to_owned(), "127.0.0.1".to_owned()], lifetime).unwrap()
    }

    #[test]
    fn a_self_signed_pair_is_served_and_says_how_long_it_lasts() {
        let (cert, key) = pem(HOUR * 24);
        let now = Timestamp::now();
        let pair = KeyPair::from_pem(cert.as_bytes(), key.as_bytes(), now).unwrap();
        let left = pair.not_after.duration_since(now);
        assert!(left > HOUR * 23 && left <= HOUR * 24, "{left:?}");
        assert!(pair.not_before < now);
        let serving = ServingCert::empty();
        assert!(serving.current().is_none());
        serving.set(pair);
        assert!(serving.current().is_some());
        assert_eq!(server_config(serving.clone(), false).unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
        assert_eq!(server_config(serving, true).unwrap().alpn_protocols.len(), 2);
    }

    /// Packaging §8: key and certificate belong together, and the leaf is valid now.
    #[test]
    fn a_foreign_key_or_an_expired_leaf_is_refused() {
        let (cert, key) = pem(HOUR);
        let (_, other) = pem(HOUR);
        let now = Timestamp::now();
        let pair = |key: &str, now| KeyPair::from_pem(cert.as_bytes(), key.as_bytes(), now).map(|_| ());
        assert_eq!(pair(&key, now), Ok(()));
        assert_eq!(pair(&other, now), Err(TlsError::Mismatch));
        assert!(matches!(pair(&key, now + HOUR * 2), Err(TlsError::NotValidNow { .. })));
        assert!(matches!(pair(&key, now - HOUR * 2), Err(TlsError::NotValidNow { .. })));
        assert!(matches!(pair("", now), Err(TlsError::Malformed { what: "key", .. })));
    }

    #[test]
    fn the_debug_form_shows_no_key() {
        let (cert, key) = pem(HOUR);
        let pair = KeyPair::from_pem(cert.as_bytes(), key.as_bytes(), Timestamp::now()).unwrap();
        assert!(format!("{pair:?}").starts_with("KeyPair { not_before"));
        assert!(!format!("{pair:?}").contains("certified"));
    }
}
