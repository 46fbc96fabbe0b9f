//! The nine signature algorithms (card §8.1).

use crate::certificate::{Curve, Hash, Key};
use crate::crypto::{PublicKey, RsaPadding};

/// A JWS algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Algorithm {
    /// Its name in the header.
    pub(crate) name: &'static str,
    /// How the signature is made.
    pub(crate) family: Family,
    /// What is signed.
    pub(crate) hash: Hash,
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Rsa(RsaPadding),
    Ecdsa(Curve),
}

const fn algorithm(name: &'static str, family: Family, hash: Hash) -> Algorithm {
    Algorithm { name, family, hash }
}

impl Algorithm {
    /// All that are accepted.
    pub(crate) const ALL: [Self; 9] = [
        algorithm("RS256", Family::Rsa(RsaPadding::Pkcs1), Hash::Sha256),
        algorithm("RS384", Family::Rsa(RsaPadding::Pkcs1), Hash::Sha384),
        algorithm("RS512", Family::Rsa(RsaPadding::Pkcs1), Hash::Sha512),
        algorithm("PS256", Family::Rsa(RsaPadding::Pss), Hash::Sha256),
        algorithm("PS384", Family::Rsa(RsaPadding::Pss), Hash::Sha384),
        algorithm("PS512", Family::Rsa(RsaPadding::Pss), Hash::Sha512),
        algorithm("ES256", Family::Ecdsa(Curve::P256), Hash::Sha256),
        algorithm("ES384", Family::Ecdsa(Curve::P384), Hash::Sha384),
        algorithm("ES512", Family::Ecdsa(Curve::P521), Hash::Sha512),
    ];

    /// The algorithm of a name, case-sensitive.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name == name)
    }

    /// The algorithm a signer uses with a key (card §16.2).
    pub(crate) fn for_key(key: &Key) -> Option<Self> {
        Self::named(match key {
            Key::Rsa { .. } => "RS256",
            Key::Ec { curve: Curve::P256, .. } => "ES256",
            Key::Ec { curve: Curve::P384, .. } => "ES384",
            Key::Ec { curve: Curve::P521, .. } => "ES512",
            Key::Other => return None,
        })
    }

    /// True when a key is of the kind, and on the curve, that the algorithm names.
    pub(crate) fn fits(self, key: &PublicKey) -> bool {
        match (self.family, key) {
            (Family::Rsa(_), PublicKey::Rsa(_)) => true,
            (Family::Ecdsa(wanted), PublicKey::Ec(curve, _)) => wanted == *curve,
            _ => false,
        }
    }

    /// Checks a signature. ECDSA comes as R||S; DER is accepted too.
    pub(crate) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match self.family {
            Family::Rsa(padding) => key.verify_rsa(padding, self.hash, message, signature),
            Family::Ecdsa(_) => {
                key.verify_ecdsa_raw(self.hash, message, signature)
                    || key.verify_ecdsa_der(self.hash, message, signature)
            }
        }
    }
}
