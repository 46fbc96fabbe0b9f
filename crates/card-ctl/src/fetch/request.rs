//! What is asked of the fetcher, and what it answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_trust::spiffe::{SpiffeId, TrustDomain};
use bytes::Bytes;

/// Where the connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// To the first of these that takes it; chosen by [`super::address::choose`]. Nothing is looked up.
    Addresses(Vec<SocketAddr>),
    /// To what the name of the request resolves to at that moment (`--fetch-dial=dns`).
    Lookup,
}

/// The demand that the server is a workload of a trust domain (card §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// The operator's trust domain.
    pub trust_domain: TrustDomain,
}

/// One card to fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Whose turn it is: fetches of one namespace share its slots.
    pub namespace: Arc<str>,
    /// DNS name of the Service; it stands in the Host header and, under TLS, in the SNI.
    pub host: String,
    /// Port of the Service, for the Host header.
    pub port: u16,
    /// Where to connect to.
    pub dial: Dial,
    /// Plain HTTP without it.
    pub tls: Option<PeerRule>,
    /// That of the last answer; asks for 304 if nothing has changed.
    pub validator: Option<Validator>,
    /// The last attempt at this agent failed. Such fetches take at most half of the slots.
    pub suspect: bool,
}

/// A card, or the news that the last one still holds.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What came.
    pub outcome: Outcome,
    /// To be handed in with the next request for the same card.
    pub validator: Option<Validator>,
    /// Who answered; present iff mTLS was asked for.
    pub attested: Option<SpiffeId>,
    /// Time of the exchange, without the time in the queue.
    pub took: Duration,
}

/// The body, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes of a complete 200 response, within the limit, otherwise unexamined.
    Body(Bytes),
    /// 304: the document that the validator came with is still the present one.
    NotModified,
}

/// The ETag of a document, bound to where it came from, so that it never vouches for another document: a
/// server that answers 304 must be the one (host, port, path and identity) that served the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    pub(super) etag: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: &'static str,
    pub(super) peer: Option<SpiffeId>,
}
