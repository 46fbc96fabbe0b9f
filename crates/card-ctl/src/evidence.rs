//! What one look at an agent's document gave: the card, who signed it, who served it. Pure.

use std::sync::Arc;

use agent_trust::SpiffeId;
use api_types::{CardSource, SignatureProfile};
use jiff::Timestamp;

/// Outcome of the signature check.
#[derive(Clone, Debug, PartialEq)]
pub enum Signature {
    /// Signatures are not looked at.
    NotEvaluated,
    /// They could not be checked: no bundle, or no trust domain.
    Unavailable(String),
    /// At least one is valid.
    Valid {
        /// `kid` of the verified header.
        key_id: Option<String>,
        /// SPIFFE ID of the signing certificate.
        spiffe_id: SpiffeId,
        /// Which payload it covered.
        profile: SignatureProfile,
        /// End of the certificate's life.
        not_after: Timestamp,
        /// It has ended, but counts a while longer (card §8.4).
        expired: bool,
        /// Members the signature does not cover, as JSON pointers.
        unsigned: Vec<String>,
    },
    /// None is valid.
    Invalid {
        /// Each signature's reason, at most 1024 characters.
        details: String,
        /// `kid` of a signature that failed only because its chain does not lead to the bundle (card §12).
        chain_of: Option<String>,
    },
}

impl Signature {
    /// True for a valid one.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. })
    }
}

/// Everything a status needs to know of a document. Shared by all cards of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Where the document came from.
    pub source: CardSource,
    /// SPIFFE ID of the TLS peer.
    pub attested: Option<SpiffeId>,
    /// SHA-256 of the card as fetched (card §6.8).
    pub card_id: String,
    /// The card to store as JSON of AgentCardData, with the Service's address (card §6.7).
    pub card: Arc<str>,
    /// The whole card was too big, `card` is a stump of it; the size in bytes.
    pub too_large: Option<usize>,
    /// The address the card itself names.
    pub advertised_url: Option<String>,
    /// Required members that are missing.
    pub missing: Vec<String>,
    /// The signature check.
    pub signature: Signature,
    /// Fingerprint of the bundle that the signature was checked against.
    pub under: Option<Arc<str>>,
    /// When time alone changes the outcome.
    pub recheck_at: Option<Timestamp>,
}
