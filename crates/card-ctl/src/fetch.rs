//! Fetches agent cards from servers that may be hostile (card §6.5, §7).
//!
//! Nothing that a server says decides where a connection goes, how long it lasts, how much memory it takes or
//! what stands in a message: no redirects, no name lookups (but in the mode that asks for them), no proxies, no
//! compression, a deny list on the address that is really dialled, one wall clock for the whole exchange, and
//! errors without a single byte of the peer. Under mTLS the identity of the server is the result of one full
//! handshake; neither a resumed session nor a connection kept from an earlier fetch counts.
//!
//! A [`Fetcher`] runs a bounded number of exchanges at once and queues the rest fairly: namespaces take turns,
//! and agents that failed last time share half of the slots, so that they cannot keep the others waiting.

pub mod address;
mod connection;
mod deny;
mod error;
mod exchange;
mod fetcher;
mod peer;
mod pool;
mod queue;
mod request;

pub use deny::{DenyList, DenyListError};
pub use error::{FetchError, PeerProblem, Phase, ProtocolProblem};
pub use fetcher::{FetchLimits, Fetcher};
pub use request::{Dial, FetchRequest, Fetched, Outcome, PeerRule, Validator};
