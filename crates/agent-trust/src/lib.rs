//! A2A documents, canonical payloads, SPIFFE IDs, trust bundles and the verification of signed agent cards.
//!
//! Everything a peer or tenant may have written comes in here: cards, headers, certificates, bundles. So nothing here
//! does I/O or reads a clock, nothing panics on any input, recursion is bounded, and messages never repeat a peer's text.
//! What decides "verified" is in the feature `verify`, the only part of the suite that links OpenSSL.

pub mod binding;
pub mod bundle;
pub mod card;
mod certificate;
#[cfg(feature = "verify")]
mod crypto;
pub mod json;
#[cfg(feature = "verify")]
mod path;
#[cfg(feature = "verify")]
pub mod peer;
pub mod profile;
#[cfg(feature = "verify")]
pub mod sign;
pub mod spiffe;
#[cfg(feature = "verify")]
pub mod verify;

pub use bundle::{BundleError, TrustBundle};
pub use card::{Card, CardError};
pub use certificate::CertificateError;
pub use profile::Profile;
pub use spiffe::{SpiffeId, TrustDomain};
