//! The serving certificate: where it comes from, how it changes without a failed admission, and
//! how the API server learns which authority to trust (packaging §8).
//!
//! Two modes. *Files*: a directory is read again by content. *Self-managed*: one replica, the lease holder, writes two Secrets and the `caBundle` of the configurations
//! ([`manager`]); every replica reads the serving Secret through a watch ([`views`]) and swaps
//! the certificate in memory ([`serving`]). What to write next is a pure decision ([`plan`]).

pub mod bundle;
pub mod manager;
pub mod pki;
pub mod plan;
pub mod secrets;
pub mod serving;
pub mod views;
