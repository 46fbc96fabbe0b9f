//! The identity of a TLS peer by its X.509-SVID (card §7).

use jiff::Timestamp;

use crate::bundle::{Root, TrustBundle};
use crate::certificate::Certificate;
use crate::path::{self, PathFault};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Most certificates that a peer may present, its own among them.
pub const MAX_PEER_CHAIN: usize = 5;

/// A TLS peer that is not trusted (card §7, `PeerUntrusted`). Holds nothing that the peer wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A certificate cannot be read.
    #[error("the peer's certificate {number} is not well formed")]
    Malformed {
        /// Its place in the chain, from 0.
        number: usize,
    },
    /// More than [`MAX_PEER_CHAIN`] certificates.
    #[error("the peer presents more than {MAX_PEER_CHAIN} certificates")]
    ChainTooLong,
    /// The peer's certificate is not valid now.
    #[error("the peer's certificate is not valid now: it is valid from {not_before} to {not_after}")]
    NotValidNow {
        /// Start of its validity.
        not_before: Timestamp,
        /// End of its validity.
        not_after: Timestamp,
    },
    /// The peer presents an authority's certificate, or one whose key usage excludes TLS.
    #[error("the peer's certificate is one of an authority, or its key usage does not allow TLS")]
    NotALeaf,
    /// The peer does not carry exactly one SPIFFE ID.
    #[error("the peer has no single SPIFFE ID: {0}")]
    NoSpiffeId(String),
    /// The peer is of another trust domain.
    #[error("the peer is not a member of trust domain {expected}")]
    ForeignDomain {
        /// The trust domain it should be of.
        expected: TrustDomain,
    },
    /// No path leads to an authority of the trust domain.
    #[error("the peer's certificate chain does not lead to the trust domain's authorities: {0}")]
    Chain(String),
}

/// Checks the chain that a TLS peer presented, leaf first: it must lead to an authority that `bundle` lists for
/// `domain`, be valid at `now` without tolerance, and its leaf must carry exactly one URI name, a SPIFFE ID of `domain`
/// (card §7). Host names do not matter. The handshake itself must still prove that the peer has the leaf's key.
pub fn identify(
    chain: &[&[u8]],
    bundle: &TrustBundle,
    domain: &TrustDomain,
    now: Timestamp,
) -> Result<SpiffeId, PeerError> {
    if chain.len() > MAX_PEER_CHAIN {
        return Err(PeerError::ChainTooLong);
    }
    let mut certificates = Vec::with_capacity(chain.len());
    for (number, der) in chain.iter().enumerate() {
        certificates.push(Certificate::read(der).map_err(|_| PeerError::Malformed { number })?);
    }
    let (leaf, others) = certificates.split_first().ok_or(PeerError::Malformed { number: 0 })?;
    let at = now.as_second();
    if !(leaf.not_before..=leaf.not_after).contains(&at) {
        return Err(PeerError::NotValidNow { not_before: leaf.not_before(), not_after: leaf.not_after() });
    }
    if !path::is_leaf(leaf) {
        return Err(PeerError::NotALeaf);
    }
    let id = leaf.spiffe_id().map_err(|error| PeerError::NoSpiffeId(error.to_string()))?;
    if id.trust_domain() != domain {
        return Err(PeerError::ForeignDomain { expected: domain.clone() });
    }
    let roots: Vec<&Root> =
        bundle.authorities().iter().filter(|root| root.domain.as_ref() == Some(domain)).collect();
    path::find(leaf, others, &roots, at).map_err(|fault: PathFault| PeerError::Chain(fault.to_string()))?;
    Ok(id)
}
