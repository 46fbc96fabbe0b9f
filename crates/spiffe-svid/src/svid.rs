//! One X.509-SVID with its key and the bundles it came with.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Why a chain and a key are no usable SVID. No variant holds any part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A file holds no PEM block of the kind wanted.
    #[error("{path} holds no {what} in PEM")]
    NoPem {
        /// The file.
        path: String,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The leaf cannot be parsed.
    #[error("the leaf is no X.509 certificate")]
    Leaf,
    /// The leaf does not carry exactly one URI name that starts with `spiffe://`.
    #[error("the leaf does not carry exactly one SPIFFE ID")]
    SpiffeId,
    /// The leaf's end of life is no representable time.
    #[error("the leaf's notAfter is not a representable time")]
    NotAfter,
    /// The key belongs to another certificate, for example because the two files were read in mid-rotation.
    #[error("the private key does not belong to the leaf certificate")]
    KeyMismatch,
}

enum KeyKind {
    Pkcs8,
    Sec1,
    Pkcs1,
}

/// A private key whose memory is cleared when it is dropped.
struct Key {
    kind: KeyKind,
    der: Zeroizing<Vec<u8>>,
}

/// An X.509-SVID: an identity, the chain that proves it, its private key, and who else may be believed.
pub struct Svid {
    id: String,
    chain: Vec<CertificateDer<'static>>,
    key: Key,
    bundles: BTreeMap<String, Vec<CertificateDer<'static>>>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Svid {
    /// Puts an SVID together. `bundles` maps a trust domain to its roots.
    ///
    /// The key must belong to the leaf, as far as its algorithm allows to tell; the leaf must carry exactly one
    /// SPIFFE ID. The chain itself is not validated: others do that, against their own roots.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        bundles: BTreeMap<String, Vec<CertificateDer<'static>>>,
    ) -> Result<Self, SvidError> {
        let leaf = chain.first().ok_or(SvidError::EmptyChain)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| SvidError::Leaf)?;
        let id = spiffe_id(&parsed).ok_or(SvidError::SpiffeId)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| SvidError::NotAfter);
        let not_before = time(parsed.validity().not_before.timestamp())?;
        let not_after = time(parsed.validity().not_after.timestamp())?;
        // ring knows no P-521: such a pair is taken as it is, a wrong one shows at the first signature.
        if let Ok(signing) = any_supported_type(key) {
            let pair = CertifiedKey::new(chain.clone(), signing);
            if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) =
                pair.keys_match()
            {
                return Err(SvidError::KeyMismatch);
            }
        }
        Ok(Self { id, chain, key: Key::copy_of(key), bundles, not_before, not_after })
    }

    /// The SPIFFE ID, as the certificate spells it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The certificate chain, leaf first, DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key; a view, so that no second copy outlives the SVID.
    pub fn key(&self) -> PrivateKeyDer<'_> {
        let der = self.key.der.as_slice();
        match self.key.kind {
            KeyKind::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            KeyKind::Sec1 => PrivateSec1KeyDer::from(der).into(),
            KeyKind::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
        }
    }

    /// The roots of a trust domain, DER; empty when the source named none for it.
    pub fn roots(&self, trust_domain: &str) -> &[CertificateDer<'static>] {
        self.bundles.get(trust_domain).map_or(&[], Vec::as_slice)
    }

    /// When the leaf begins to be valid.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// When the leaf ceases to be valid.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Key {
    fn copy_of(key: &PrivateKeyDer<'_>) -> Self {
        let kind = match key {
            PrivateKeyDer::Sec1(_) => KeyKind::Sec1,
            PrivateKeyDer::Pkcs1(_) => KeyKind::Pkcs1,
            _ => KeyKind::Pkcs8,
        };
        Self { kind, der: Zeroizing::new(key.secret_der().to_vec()) }
    }
}

/// The trust domain of a SPIFFE ID that came with an SVID.
pub(crate) fn trust_domain(id: &str) -> &str {
    id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

fn spiffe_id(leaf: &X509Certificate<'_>) -> Option<String> {
    let names = leaf.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let id = uris.next()?;
    (uris.next().is_none() && !trust_domain(id).is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn leaf(names: &[&str]) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|name| SanType::URI((*name).try_into().expect("ASCII"))).collect();
        (params.self_signed(&key).expect("a certificate").der().clone(), key)
    }

    fn made(names: &[&str]) -> Result<Svid, SvidError> {
        let (leaf, key) = leaf(names);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Svid::new(vec![leaf.clone()], &key, BTreeMap::from([("td".to_owned(), vec![leaf])]))
    }

    #[test]
    fn holds_what_it_was_made_from() {
        let svid = made(&["spiffe://td/ns/a/sa/b"]).expect("an SVID");
        assert_eq!(svid.id(), "spiffe://td/ns/a/sa/b");
        assert_eq!(svid.roots("td").len(), 1);
        assert!(svid.roots("other").is_empty());
        assert!(any_supported_type(&svid.key()).is_ok());
        assert!(svid.not_before() < svid.not_after());
    }

    #[test]
    fn names_its_owner_and_never_its_key() {
        let text = format!("{:?}", made(&["spiffe://td/a"]).expect("an SVID"));
        assert!(text.contains("spiffe://td/a") && !text.contains("key"), "{text}");
    }

    #[test]
    fn wants_exactly_one_spiffe_id() {
        for names in [&[][..], &["https://td/a"], &["spiffe:///a"], &["spiffe://td/a", "spiffe://td/b"]] {
            assert_eq!(made(names).expect_err("refused"), SvidError::SpiffeId, "{names:?}");
        }
    }

    #[test]
    fn wants_the_key_of_the_leaf() {
        let (leaf, _) = leaf(&["spiffe://td/a"]);
        let other = KeyPair::generate().expect("a key");
        let key = PrivatePkcs8KeyDer::from(other.serialize_der()).into();
        let error = Svid::new(vec![leaf], &key, BTreeMap::new()).expect_err("refused");
        assert_eq!(error, SvidError::KeyMismatch);
    }

    #[test]
    fn wants_a_certificate() {
        let key = PrivatePkcs8KeyDer::from(KeyPair::generate().expect("a key").serialize_der()).into();
        assert_eq!(Svid::new(Vec::new(), &key, BTreeMap::new()).expect_err("none"), SvidError::EmptyChain);
        let junk = vec![CertificateDer::from(vec![1, 2, 3])];
        assert_eq!(Svid::new(junk, &key, BTreeMap::new()).expect_err("junk"), SvidError::Leaf);
    }
}
