//! An X.509 certificate reduced to what trust decisions need, read strictly (card §8.3).
//!
//! The frame is read by `x509-parser`; the extensions that decide something are read here, where a malformed or
//! repeated one is an error instead of "absent".

mod der;
#[cfg(feature = "verify")]
mod leaf;
pub(crate) mod names;

use std::ops::Range;

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser as _;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::card::hex;
use crate::spiffe::TrustDomain;
use der::{Der, tag};
use names::{Constraints, Name};

#[cfg(feature = "verify")]
pub(crate) use leaf::{SanError, instant};

/// The encodings of the object identifiers we know, without tag and length.
mod oid {
    pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
    pub(super) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    pub(super) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
    pub(super) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
    pub(super) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    pub(super) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    pub(super) const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    pub(super) const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    pub(super) const RSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
    pub(super) const RSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d];
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    pub(super) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    pub(super) const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
}

/// The context tag of a certificate's version.
const VERSION: u8 = 0xa0;

/// Bytes that are not one well-formed DER certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed certificate: {0}")]
pub struct CertificateError(&'static str);

/// A hash function of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A NIST curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Length of a coordinate in bytes.
    pub(crate) fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// How a certificate is signed; algorithms that we do not accept are `None` in [`Certificate::signed_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignedWith {
    Rsa(Hash),
    Ecdsa(Hash),
}

/// A public key, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// An uncompressed point.
    Ec { curve: Curve, point: Vec<u8> },
    /// Anything else.
    Other,
}

/// The bits of keyUsage that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) digital_signature: bool,
    pub(crate) key_cert_sign: bool,
    pub(crate) crl_sign: bool,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    /// Where in the DER the part is that the issuer signed.
    signed: Range<usize>,
    pub(crate) signed_with: Option<SignedWith>,
    pub(crate) signature: Vec<u8>,
    pub(crate) key: Key,
    /// DER of the subject's name.
    pub(crate) subject: Vec<u8>,
    /// DER of the issuer's name.
    pub(crate) issuer: Vec<u8>,
    /// First second of validity, Unix time.
    pub(crate) not_before: i64,
    /// Last second of validity, Unix time.
    pub(crate) not_after: i64,
    /// `CA:TRUE`
    pub(crate) is_ca: bool,
    /// Most certificates between this one and the leaf.
    pub(crate) path_length: Option<u64>,
    pub(crate) key_usage: Option<KeyUsage>,
    /// Subject alternative names.
    pub(crate) alt_names: Vec<Name>,
    pub(crate) constraints: Option<Constraints>,
    /// Carries a critical extension that we do not process.
    pub(crate) unknown_critical: bool,
}

impl Certificate {
    /// Reads exactly one DER certificate.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, CertificateError> {
        let malformed = CertificateError("DER");
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, parsed) = parser.parse(bytes).map_err(|_| malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError("data after the certificate"));
        }
        let frame = Frame::read(bytes).ok_or(malformed)?;
        let mut certificate = Self {
            der: bytes.to_vec(),
            signed: frame.signed,
            signed_with: signed_with(&parsed),
            signature: frame.signature.to_vec(),
            key: read_key(parsed.public_key())?,
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_ca: false,
            path_length: None,
            key_usage: None,
            alt_names: Vec::new(),
            constraints: None,
            unknown_critical: false,
        };
        certificate.read_extensions(&parsed)?;
        Ok(certificate)
    }

    fn read_extensions(&mut self, parsed: &X509Certificate<'_>) -> Result<(), CertificateError> {
        let mut seen: Vec<&[u8]> = Vec::new();
        for extension in parsed.extensions() {
            let id = extension.oid.as_bytes();
            if seen.contains(&id) {
                return Err(CertificateError("an extension occurs twice"));
            }
            seen.push(id);
            let value = extension.value;
            match id {
                oid::BASIC_CONSTRAINTS => (self.is_ca, self.path_length) = basic_constraints(value)?,
                oid::KEY_USAGE => self.key_usage = Some(key_usage(value)?),
                oid::SUBJECT_ALT_NAME => {
                    self.alt_names =
                        names::alt_names(value).ok_or(CertificateError("subject alternative names"))?;
                }
                oid::NAME_CONSTRAINTS => {
                    self.constraints =
                        Some(names::constraints(value).ok_or(CertificateError("name constraints"))?);
                }
                // Not judged: SPIRE leaves vary in the first (card §8.3), the others only help to find a path.
                oid::EXTENDED_KEY_USAGE | oid::SUBJECT_KEY_ID | oid::AUTHORITY_KEY_ID => {}
                _ => self.unknown_critical |= extension.critical,
            }
        }
        Ok(())
    }

    /// SHA-256 of the DER, 64 hex.
    pub(crate) fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    /// The trust domain that an authority states: that of its `spiffe://` URI names, if they agree (card §4.3).
    pub(crate) fn stated_trust_domain(&self) -> Option<TrustDomain> {
        let mut domains =
            self.alt_names.iter().filter_map(Name::uri).filter(|uri| uri.starts_with(b"spiffe://")).map(
                |uri| std::str::from_utf8(uri).ok().and_then(|text| TrustDomain::of_authority(text).ok()),
            );
        let first = domains.next()??;
        domains.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// True when it has a `spiffe://` URI name at all, readable or not.
    pub(crate) fn names_a_trust_domain(&self) -> bool {
        self.alt_names.iter().filter_map(Name::uri).any(|uri| uri.starts_with(b"spiffe://"))
    }
}

/// The outermost elements. They are not signed, so nothing in them may vary: the algorithm must repeat, byte for byte,
/// the one inside the signed part.
struct Frame<'a> {
    signed: Range<usize>,
    signature: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let content = Der::new(bytes).only(tag::SEQUENCE)?;
        let mut outer = Der::new(content);
        let mut inside = Der::new(outer.take(tag::SEQUENCE)?);
        let start = bytes.len() - content.len();
        let signed = start..bytes.len() - outer.left();
        inside.optional(VERSION)?;
        inside.take(tag::INTEGER)?;
        let repeated = outer.take(tag::SEQUENCE)? == inside.take(tag::SEQUENCE)?;
        let (unused, signature) = outer.only(tag::BIT_STRING)?.split_first()?;
        (repeated && *unused == 0).then_some(Self { signed, signature })
    }
}

fn bits<'a>(bits: &'a x509_parser::asn1_rs::BitString<'_>) -> Result<&'a [u8], CertificateError> {
    if bits.unused_bits != 0 {
        return Err(CertificateError("a bit string that is not whole bytes"));
    }
    Ok(&bits.data)
}

fn signed_with(parsed: &X509Certificate<'_>) -> Option<SignedWith> {
    Some(match parsed.signature_algorithm.algorithm.as_bytes() {
        oid::RSA_SHA256 => SignedWith::Rsa(Hash::Sha256),
        oid::RSA_SHA384 => SignedWith::Rsa(Hash::Sha384),
        oid::RSA_SHA512 => SignedWith::Rsa(Hash::Sha512),
        oid::ECDSA_SHA256 => SignedWith::Ecdsa(Hash::Sha256),
        oid::ECDSA_SHA384 => SignedWith::Ecdsa(Hash::Sha384),
        oid::ECDSA_SHA512 => SignedWith::Ecdsa(Hash::Sha512),
        _ => return None,
    })
}

fn read_key(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, CertificateError> {
    let data = bits(&info.subject_public_key)?;
    match info.algorithm.algorithm.as_bytes() {
        oid::RSA => {
            let malformed = CertificateError("RSA key");
            let mut whole = Der::new(data);
            let mut key = Der::new(whole.only(tag::SEQUENCE).ok_or(malformed)?);
            let modulus = key.take(tag::INTEGER).and_then(der::unsigned).ok_or(malformed)?;
            let exponent = key.only(tag::INTEGER).and_then(der::unsigned).ok_or(malformed)?;
            Ok(Key::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
        }
        oid::EC => {
            // Named curves only; anything else is a key we do not accept.
            let named = info.algorithm.parameters.as_ref().filter(|any| any.tag().0 == u32::from(tag::OID));
            let curve = match named.map(|any| any.data) {
                Some(oid::P256) => Curve::P256,
                Some(oid::P384) => Curve::P384,
                Some(oid::P521) => Curve::P521,
                _ => return Ok(Key::Other),
            };
            let uncompressed = data.first() == Some(&4) && data.len() == 1 + 2 * curve.coordinate_bytes();
            Ok(if uncompressed { Key::Ec { curve, point: data.to_vec() } } else { Key::Other })
        }
        _ => Ok(Key::Other),
    }
}

fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u64>), CertificateError> {
    let malformed = CertificateError("basic constraints");
    let mut fields = Der::new(Der::new(value).only(tag::SEQUENCE).ok_or(malformed)?);
    let ca = match fields.optional(tag::BOOLEAN).ok_or(malformed)? {
        Some([0xff]) => true,
        // DER leaves the default out, but some issuers write it.
        None | Some([0]) => false,
        Some(_) => return Err(malformed),
    };
    let length = match fields.optional(tag::INTEGER).ok_or(malformed)? {
        None => None,
        Some(bytes) => {
            let bytes = der::unsigned(bytes).filter(|bytes| bytes.len() <= 4).ok_or(malformed)?;
            Some(bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte)))
        }
    };
    if !fields.is_empty() {
        return Err(malformed);
    }
    Ok((ca, length))
}

fn key_usage(value: &[u8]) -> Result<KeyUsage, CertificateError> {
    let malformed = CertificateError("key usage");
    let content = Der::new(value).only(tag::BIT_STRING).ok_or(malformed)?;
    let (unused, bytes) = content.split_first().ok_or(malformed)?;
    if *unused > 7 {
        return Err(malformed);
    }
    let first = bytes.first().copied().unwrap_or(0);
    Ok(KeyUsage {
        digital_signature: first & 0x80 != 0,
        key_cert_sign: first & 0x04 != 0,
        crl_sign: first & 0x02 != 0,
    })
}
