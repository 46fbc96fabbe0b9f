//! A2A documents, canonical payloads, SPIFFE IDs, trust bundles and the verification of signed agent cards.
//!
//! Everything a peer or tenant may have written comes in here: cards, headers, certificates, bundles. So nothing here
//! does I/O or reads a clock, nothing panics on any input, recursion is bounded, and messages never repeat a peer's text.
//! What decides "verified" is in the feature `verify`, the only part of the suite that links OpenSSL.

pub mod card;
pub mod json;
pub mod profile;
pub mod spiffe;

pub use card::{Card, CardError};
pub use profile::Profile;
pub use spiffe::{SpiffeId, TrustDomain};
