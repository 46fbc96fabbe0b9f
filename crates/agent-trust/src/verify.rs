//! The decision "verified" (card §8): is a card signed by a workload of a trust domain we know?

mod algorithm;
mod header;
mod judge;
mod policy;
mod reason;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use crate::bundle::TrustBundle;
use crate::card::Card;
use crate::certificate::instant;
use crate::crypto::PublicKey;
use crate::profile::{Profile, unsigned_members};
use crate::spiffe::SpiffeId;
use judge::{Judge, Pass};

pub use policy::{LeafExpiry, Policy, UnknownLeafExpiry};
pub use reason::ReasonCode;

pub(crate) use algorithm::{Algorithm, Family};

/// Most signatures that a card may carry (card §8.3 step 1).
pub const MAX_SIGNATURES: usize = 8;
/// Most certificates in an `x5c` (card §8.3 step 4).
pub const MAX_CHAIN: usize = 3;
/// Longest text of [`Verification::details`] in bytes (card §2.2).
pub const MAX_DETAILS: usize = 1024;

/// What became of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureOutcome {
    /// The code of card §8.3, `ok` or `ok_expired`.
    pub reason: ReasonCode,
    /// The reason in words. Holds nothing that a peer wrote but a well-formed SPIFFE ID.
    pub message: String,
    /// `kid` of the header, at most 64 printable characters, if the header was read so far.
    pub key_id: Option<String>,
}

/// The verdict over a card (card §8.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// A signature passed every step. Nothing else means "verified".
    pub verified: bool,
    /// `ok` or `ok_expired` when verified, else the code of the first signature or of the card.
    pub reason: ReasonCode,
    /// The payload that the chosen signature covers.
    pub profile: Option<Profile>,
    /// Who signed.
    pub spiffe_id: Option<SpiffeId>,
    /// `kid` of the chosen signature's header; informational.
    pub key_id: Option<String>,
    /// Start of validity of the signing certificate.
    pub not_before: Option<Timestamp>,
    /// End of validity of the signing certificate.
    pub not_after: Option<Timestamp>,
    /// The signing certificate is expired, but inside the grace period.
    pub expired: bool,
    /// JSON pointers of members with content that the signature does not cover, at most 32.
    pub unsigned_members: Vec<String>,
    /// The card as read from the very bytes that verified: all that may be shown of it (card §6.7). Has no signatures.
    pub payload: Option<Card>,
    /// One entry per signature that was tried, in order.
    pub signatures: Vec<SignatureOutcome>,
    /// The next instant at which time alone may change the verdict (card §8.7).
    pub recheck_at: Option<Timestamp>,
}

impl Verification {
    fn refused(reason: ReasonCode) -> Self {
        Self {
            verified: false,
            reason,
            profile: None,
            spiffe_id: None,
            key_id: None,
            not_before: None,
            not_after: None,
            expired: false,
            unsigned_members: Vec::new(),
            payload: None,
            signatures: Vec::new(),
            recheck_at: None,
        }
    }

    /// The verdict in words for `status.signatureVerificationDetails`: at most [`MAX_DETAILS`] bytes.
    pub fn details(&self) -> String {
        let mut text = match (&self.spiffe_id, self.profile) {
            (Some(id), Some(profile)) if self.verified => {
                let expired = self.not_after.filter(|_| self.expired).map_or_else(String::new, |end| {
                    format!("; the certificate is expired since {end}, accepted within the grace period")
                });
                format!("signed by {id} (profile {profile}){expired}")
            }
            _ if self.signatures.is_empty() => self.reason.explain().to_owned(),
            _ => {
                let each: Vec<String> = (1..)
                    .zip(&self.signatures)
                    .map(|(n, one)| format!("signature {n}: {} ({})", one.message, one.reason))
                    .collect();
                each.join("; ")
            }
        };
        if text.len() > MAX_DETAILS {
            text.truncate(text.floor_char_boundary(MAX_DETAILS - '…'.len_utf8()));
            text.push('…');
        }
        text
    }
}

/// True when a signature is valid for the certificate in its own header. Says nothing about that certificate.
pub(crate) fn is_own_signature(protected: Option<&str>, payload: &[u8], signature: &str) -> bool {
    let Ok(header) = header::object(protected).and_then(|object| header::read(&object)) else { return false };
    let (Ok(key), Some(signature)) = (PublicKey::load(&header.leaf.key), header::base64url(signature)) else {
        return false;
    };
    let input = format!("{}.{}", protected.unwrap_or_default(), URL_SAFE_NO_PAD.encode(payload));
    header.algorithm.fits(&key) && header.algorithm.verifies(&key, input.as_bytes(), &signature)
}

/// Decides whether `card` is signed by a workload that `bundle` vouches for, at `now` (card §8.3).
///
/// Signatures are tried in order; the first one whose payload covers the whole card wins, else the first that passes
/// (card §8.2). Costs at most 8 signatures of 3 certificates each; nothing is remembered between calls.
pub fn verify(card: &Card, bundle: &TrustBundle, policy: &Policy, now: Timestamp) -> Verification {
    match card.signatures().len() {
        0 => return Verification::refused(ReasonCode::NoSignature),
        1..=MAX_SIGNATURES => {}
        _ => return Verification::refused(ReasonCode::TooManySignatures),
    }
    let mut judge = Judge::new(card, bundle, policy, now);
    let mut outcomes = Vec::new();
    let mut chosen: Option<(Pass, Vec<String>)> = None;
    for signature in card.signatures() {
        let judged = judge.judge(signature);
        outcomes.push(judged.outcome());
        if let Ok(pass) = judged.result {
            let unsigned = unsigned_members(card.value(), pass.profile);
            let complete = unsigned.is_empty();
            if complete || chosen.is_none() {
                chosen = Some((pass, unsigned));
            }
            if complete {
                break;
            }
        }
    }
    let recheck_at = judge.next_boundary();
    let first = outcomes.first().map_or(ReasonCode::NoSignature, |outcome| outcome.reason);
    match chosen {
        None => Verification { signatures: outcomes, recheck_at, ..Verification::refused(first) },
        Some((pass, unsigned_members)) => Verification {
            verified: true,
            reason: if pass.expired { ReasonCode::OkExpired } else { ReasonCode::Ok },
            profile: Some(pass.profile),
            spiffe_id: Some(pass.spiffe_id),
            key_id: pass.key_id,
            not_before: Some(instant(pass.not_before)),
            not_after: Some(instant(pass.not_after)),
            expired: pass.expired,
            unsigned_members,
            payload: Some(pass.payload),
            signatures: outcomes,
            recheck_at,
        },
    }
}
