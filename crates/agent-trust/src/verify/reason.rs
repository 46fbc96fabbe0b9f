//! The closed set of reasons (card §8.3, §14.3).

use std::fmt;

/// Why a signature or card is verified or not. The texts are metric labels and part of the output of `card-ctl verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// The signature passed.
    Ok,
    /// The signature passed; its certificate is expired but inside the grace period.
    OkExpired,
    /// The card has no signature.
    NoSignature,
    /// The card has more than [`MAX_SIGNATURES`](super::MAX_SIGNATURES) signatures.
    TooManySignatures,
    /// The document is not a card at all.
    InvalidCard,
    /// The protected header is not strict base64url of a JSON object, or has `crit` or `b64`.
    HeaderInvalid,
    /// The header has no certificates.
    NoX5c,
    /// The algorithm is not one of the nine, or does not fit the key.
    AlgRejected,
    /// `x5c` is not an array of certificates in standard base64.
    ParseError,
    /// No path leads from the certificate to an authority of the bundle.
    ChainInvalid,
    /// The certificate may not sign documents.
    LeafInvalid,
    /// The certificate is expired beyond what the policy allows.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate does not carry exactly one SPIFFE ID.
    SanInvalid,
    /// The authority speaks for another trust domain than the SPIFFE ID's.
    TrustDomain,
    /// The key is of a kind or size that is not accepted.
    KeyPolicy,
    /// The signature is not one over any payload of the card.
    JwsInvalid,
}

impl ReasonCode {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OkExpired => "ok_expired",
            Self::NoSignature => "no_signature",
            Self::TooManySignatures => "too_many_signatures",
            Self::InvalidCard => "invalid_card",
            Self::HeaderInvalid => "header_invalid",
            Self::NoX5c => "no_x5c",
            Self::AlgRejected => "alg_rejected",
            Self::ParseError => "parse_error",
            Self::ChainInvalid => "chain_invalid",
            Self::LeafInvalid => "leaf_invalid",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::SanInvalid => "san_invalid",
            Self::TrustDomain => "trust_domain",
            Self::KeyPolicy => "key_policy",
            Self::JwsInvalid => "jws_invalid",
        }
    }

    /// True for the two codes that mean "verified".
    pub fn is_ok(self) -> bool {
        matches!(self, Self::Ok | Self::OkExpired)
    }

    /// The code in words, for verdicts that concern the whole card.
    pub(super) fn explain(self) -> &'static str {
        match self {
            Self::NoSignature => "the card has no signature",
            Self::TooManySignatures => "the card has more than 8 signatures",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
