//! Raw signature checks with OpenSSL: the nine algorithms of card §8.1 and those of certificates.
//!
//! Keys come in as the numbers that [`certificate`](crate::certificate) read, so OpenSSL parses nothing of a peer's but
//! signatures and points.

use std::sync::LazyLock;

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::md::{Md, MdRef};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::RsaPssSaltlen;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::certificate::{Certificate, Curve, Hash, Key, SignedWith};

/// Accepted RSA moduli in bits (card §8.3 step 10).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest accepted RSA exponent in bytes; larger ones only cost time.
const MAX_EXPONENT_BYTES: usize = 4;

static P256: LazyLock<Option<EcGroup>> =
    LazyLock::new(|| EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).ok());
static P384: LazyLock<Option<EcGroup>> = LazyLock::new(|| EcGroup::from_curve_name(Nid::SECP384R1).ok());
static P521: LazyLock<Option<EcGroup>> = LazyLock::new(|| EcGroup::from_curve_name(Nid::SECP521R1).ok());

/// A key that is not RSA of 2048 to 8192 bits or on P-256, P-384 or P-521 (card §8.3 step 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "keys must be RSA of 2048 to 8192 bits with an odd exponent from 3 to 2^32, or on P-256, P-384 or P-521"
)]
pub(crate) struct KeyRefused;

/// A public key that may check signatures.
pub(crate) enum PublicKey {
    Rsa(PKey<Public>),
    Ec(Curve, EcKey<Public>),
}

/// How an RSA signature is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RsaPadding {
    Pkcs1,
    /// Salt as long as the hash.
    Pss,
}

impl PublicKey {
    /// Judges and loads a key.
    pub(crate) fn load(key: &Key) -> Result<Self, KeyRefused> {
        match key {
            Key::Rsa { modulus, exponent } => {
                let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
                let fine = RSA_BITS.contains(&bit_length(modulus))
                    && odd(modulus)
                    && odd(exponent)
                    && exponent.len() <= MAX_EXPONENT_BYTES
                    && exponent.as_slice() != [1];
                if !fine {
                    return Err(KeyRefused);
                }
                load_rsa(modulus, exponent).map(Self::Rsa).map_err(|_| KeyRefused)
            }
            Key::Ec { curve, point } => {
                load_ec(*curve, point).map(|key| Self::Ec(*curve, key)).ok_or(KeyRefused)
            }
            Key::Other => Err(KeyRefused),
        }
    }

    /// Checks an RSA signature; false for a key of another kind.
    pub(crate) fn verify_rsa(
        &self,
        padding: RsaPadding,
        hash: Hash,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        match self {
            Self::Rsa(key) => rsa_verifies(key, padding, hash, message, signature).unwrap_or(false),
            Self::Ec(..) => false,
        }
    }

    /// Checks an ECDSA signature in DER; false for a key of another kind or an encoding that is not DER.
    pub(crate) fn verify_ecdsa_der(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let Ok(parsed) = EcdsaSig::from_der(signature) else { return false };
        parsed.to_der().is_ok_and(|der| der == signature) && self.verify_ecdsa(hash, message, &parsed)
    }

    /// Checks an ECDSA signature R||S of twice the curve's size; false for a key of another kind or another length.
    pub(crate) fn verify_ecdsa_raw(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let Self::Ec(curve, _) = self else { return false };
        if signature.len() != 2 * curve.coordinate_bytes() {
            return false;
        }
        let parsed = signature.split_at_checked(curve.coordinate_bytes()).and_then(|(r, s)| {
            EcdsaSig::from_private_components(BigNum::from_slice(r).ok()?, BigNum::from_slice(s).ok()?).ok()
        });
        parsed.is_some_and(|parsed| self.verify_ecdsa(hash, message, &parsed))
    }

    fn verify_ecdsa(&self, hash: Hash, message: &[u8], signature: &EcdsaSig) -> bool {
        match self {
            // An error is a signature that cannot be one, for example with r = 0.
            Self::Ec(_, key) => signature.verify(&digest(hash, message), key).unwrap_or(false),
            Self::Rsa(_) => false,
        }
    }

    /// True when `subject` was signed with the private half of this key, by an algorithm that we accept.
    pub(crate) fn issued(&self, subject: &Certificate) -> bool {
        match subject.signed_with {
            Some(SignedWith::Rsa(hash)) => {
                self.verify_rsa(RsaPadding::Pkcs1, hash, subject.signed(), &subject.signature)
            }
            Some(SignedWith::Ecdsa(hash)) => {
                self.verify_ecdsa_der(hash, subject.signed(), &subject.signature)
            }
            None => false,
        }
    }

    /// The key as OpenSSL's generic one.
    pub(crate) fn into_pkey(self) -> Result<PKey<Public>, ErrorStack> {
        match self {
            Self::Rsa(key) => Ok(key),
            Self::Ec(_, key) => PKey::from_ec_key(key),
        }
    }
}

/// Hashes a message.
pub(crate) fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    }
}

/// OpenSSL's name of a hash.
pub(crate) fn md(hash: Hash) -> &'static MdRef {
    match hash {
        Hash::Sha256 => Md::sha256(),
        Hash::Sha384 => Md::sha384(),
        Hash::Sha512 => Md::sha512(),
    }
}

fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn load_rsa(modulus: &[u8], exponent: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    PKey::from_rsa(Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?)
}

/// Loading the point checks that it is on the curve; the curves have cofactor 1, so that suffices.
fn load_ec(curve: Curve, point: &[u8]) -> Option<EcKey<Public>> {
    let group = match curve {
        Curve::P256 => P256.as_ref(),
        Curve::P384 => P384.as_ref(),
        Curve::P521 => P521.as_ref(),
    }?;
    let mut context = BigNumContext::new().ok()?;
    let point = EcPoint::from_bytes(group, point, &mut context).ok()?;
    EcKey::from_public_key(group, &point).ok()
}

fn rsa_verifies(
    key: &PKey<Public>,
    padding: RsaPadding,
    hash: Hash,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, ErrorStack> {
    let mut context = PkeyCtx::new(key)?;
    context.verify_init()?;
    match padding {
        RsaPadding::Pkcs1 => context.set_rsa_padding(Padding::PKCS1)?,
        RsaPadding::Pss => context.set_rsa_padding(Padding::PKCS1_PSS)?,
    }
    context.set_signature_md(md(hash))?;
    if padding == RsaPadding::Pss {
        context.set_rsa_mgf1_md(md(hash))?;
        context.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    context.verify(&digest(hash, message), signature)
}
