//! Issuing and inspecting X.509 certificates. Pure but for the random keys.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The PEM text holds no certificate.
    #[error("no certificate in the PEM text")]
    NoCertificate,
    /// The PEM text is broken.
    #[error("reading the {0} PEM text")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// The certificate is not valid DER.
    #[error("decoding the certificate: {0}")]
    Decode(String),
    /// A validity bound lies outside the supported range of dates.
    #[error("the certificate's validity is out of range")]
    Validity,
    /// Certificate and private key are not of one pair, or the key type is not supported.
    #[error("certificate and private key do not belong together")]
    Pair(#[source] rustls::Error),
    /// The authority's key is not the one in its certificate.
    #[error("the authority's certificate and private key do not belong together")]
    AuthorityPair,
    /// Signing failed.
    #[error("issuing a certificate")]
    Issue(#[source] rcgen::Error),
}

/// A certificate with what decisions need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
    names: BTreeSet<String>,
}

impl Certificate {
    /// Reads one DER certificate.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, PkiError> {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&der)
            .map_err(|e| PkiError::Decode(e.to_string()))?;
        let bound = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|_| PkiError::Validity)
        };
        let not_before = bound(parsed.validity().not_before)?;
        let not_after = bound(parsed.validity().not_after)?;
        let mut names = BTreeSet::new();
        if let Ok(Some(san)) = parsed.subject_alternative_name() {
            for name in &san.value.general_names {
                match name {
                    GeneralName::DNSName(dns) => {
                        names.insert((*dns).to_owned());
                    }
                    GeneralName::IPAddress(bytes) => {
                        if let Some(ip) = ip_of(bytes) {
                            names.insert(ip.to_string());
                        }
                    }
                    _ => {}
                }
            }
        }
        drop(parsed);
        Ok(Self { der, not_before, not_after, names })
    }

    /// Reads every certificate of a PEM text, in order.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, PkiError> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(der.map_err(|e| PkiError::Pem("certificate", e))?))
            .collect()
    }

    /// The encoded certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Start of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Subject alternative names: DNS names and addresses in text form.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether `now` lies inside the validity.
    pub fn valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Length of the validity.
    pub fn lifetime(&self) -> SignedDuration {
        self.not_after.duration_since(self.not_before)
    }

    /// PEM text of this certificate.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }

    /// Whether `issuer` signed this certificate, or is this very certificate (a self-signed leaf
    /// that is its own authority, as a self-signed issuer of cert-manager makes them).
    pub fn issued_by(&self, issuer: &Self) -> bool {
        if self.der == issuer.der {
            return true;
        }
        let Ok((_, own)) = x509_parser::certificate::X509Certificate::from_der(&self.der) else {
            return false;
        };
        let Ok((_, other)) = x509_parser::certificate::X509Certificate::from_der(&issuer.der) else {
            return false;
        };
        own.issuer() == other.subject() && own.verify_signature(Some(other.public_key())).is_ok()
    }
}

/// PEM text of several certificates, in the given order.
pub fn pem_of<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    certificates.into_iter().map(Certificate::pem).collect()
}

/// Reads chain and key, checks that they belong together and returns the end-entity certificate.
pub fn leaf_of_pair(chain: &[u8], key: &[u8]) -> Result<Certificate, PkiError> {
    let chain = Certificate::all_from_pem(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| PkiError::Pem("private key", e))?;
    let provider = rustls::crypto::ring::default_provider();
    let ders = chain.iter().map(|c| c.der.clone()).collect();
    CertifiedKey::from_der(ders, key, &provider).map_err(PkiError::Pair)?;
    chain.into_iter().next().ok_or(PkiError::NoCertificate)
}

/// A certificate authority with its private key.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A fresh leaf, as it goes into the Secret.
pub struct Issued {
    /// PEM of the leaf.
    pub certificate: String,
    /// PEM of its private key.
    pub key: String,
}

impl Authority {
    /// Makes a new self-signed ECDSA P-256 authority, valid from (a little before) `now`.
    pub fn generate(now: Timestamp, lifetime: SignedDuration) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Issue)?;
        let mut params = CertificateParams::default();
        // Two authorities in one bundle must differ in name, or a verifier that selects by
        // subject alone could try the wrong key.
        let tag = hex::encode(Sha256::digest(key.subject_public_key_info()));
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authbridge-webhook CA {}", tag.get(..12).unwrap_or(&tag)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, lifetime, None)?;
        let certificate = params.self_signed(&key).map_err(PkiError::Issue)?;
        Ok(Self { certificate: Certificate::from_der(certificate.der().clone())?, key })
    }

    /// Reads an authority and checks that certificate and key belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, PkiError> {
        let certificate =
            Certificate::all_from_pem(certificate)?.into_iter().next().ok_or(PkiError::NoCertificate)?;
        let key = std::str::from_utf8(key)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or(PkiError::AuthorityPair)?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&certificate.der)
            .map_err(|e| PkiError::Decode(e.to_string()))?;
        if parsed.public_key().raw != key.subject_public_key_info().as_slice() || !parsed.is_ca() {
            return Err(PkiError::AuthorityPair);
        }
        Ok(Self { certificate, key })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// PEM text of the private key, for the authority's Secret only.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Issues a serving leaf for `names`; it never outlives the authority.
    pub fn issue(
        &self,
        names: &BTreeSet<String>,
        now: Timestamp,
        lifetime: SignedDuration,
    ) -> Result<Issued, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Issue)?;
        let mut params =
            CertificateParams::new(names.iter().cloned().collect::<Vec<_>>()).map_err(PkiError::Issue)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "authbridge-webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, lifetime, Some(self.certificate.not_after))?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, &self.key).map_err(PkiError::Issue)?;
        let certificate = params.signed_by(&key, &issuer).map_err(PkiError::Issue)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Valid from a tenth of the lifetime, at most 5 minutes, before `now`: the clock of an API server
/// may be behind ours.
fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: SignedDuration,
    bound: Option<Timestamp>,
) -> Result<(), PkiError> {
    let back = (lifetime / 10).min(SignedDuration::from_mins(5));
    let start = now.checked_sub(back).map_err(|_| PkiError::Validity)?;
    let mut end = now.checked_add(lifetime).map_err(|_| PkiError::Validity)?;
    if let Some(bound) = bound {
        end = end.min(bound);
    }
    let at = |t: Timestamp| -> Result<_, PkiError> {
        let seconds = u64::try_from(t.as_second()).map_err(|_| PkiError::Validity)?;
        Ok(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
    };
    params.not_before = at(start)?;
    params.not_after = at(end)?;
    Ok(())
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeSet<String> {
        ["hook.ns.svc".to_owned(), "127.0.0.1".to_owned()].into()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_leaf_belongs_to_its_authority_only() {
        let life = SignedDuration::from_hours(24);
        let one = Authority::generate(now(), life).unwrap();
        let two = Authority::generate(now(), life).unwrap();
        let issued = one.issue(&names(), now(), life).unwrap();
        let leaf = leaf_of_pair(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap();
        assert_eq!(leaf.names(), &names());
        assert!(leaf.issued_by(one.certificate()));
        assert!(!leaf.issued_by(two.certificate()));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let one = Authority::generate(now(), SignedDuration::from_mins(6)).unwrap();
        let issued = one.issue(&names(), now(), SignedDuration::from_hours(2)).unwrap();
        let leaf = leaf_of_pair(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap();
        assert_eq!(leaf.not_after(), one.certificate().not_after());
    }

    #[test]
    fn a_key_of_another_pair_is_refused() {
        let one = Authority::generate(now(), SignedDuration::from_hours(1)).unwrap();
        let a = one.issue(&names(), now(), SignedDuration::from_hours(1)).unwrap();
        let b = one.issue(&names(), now(), SignedDuration::from_hours(1)).unwrap();
        let crossed = leaf_of_pair(a.certificate.as_bytes(), b.key.as_bytes());
        assert!(matches!(crossed, Err(PkiError::Pair(_))));
        let text = one.certificate().pem();
        assert!(Authority::from_pem(text.as_bytes(), b.key.as_bytes()).is_err());
        assert!(Authority::from_pem(text.as_bytes(), one.key_pem().as_bytes()).is_ok());
    }

    #[test]
    fn pem_survives_a_round_trip() {
        let one = Authority::generate(now(), SignedDuration::from_hours(1)).unwrap();
        let two = Authority::generate(now(), SignedDuration::from_hours(1)).unwrap();
        let text = pem_of([one.certificate(), two.certificate()]);
        let back = Certificate::all_from_pem(text.as_bytes()).unwrap();
        assert_eq!(back, [one.certificate().clone(), two.certificate().clone()]);
    }
}
