//! What the trust crate promises, from outside: the vectors, hostile cards, mutations, signing, TLS peers.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_in_result,
    reason = "helpers of tests"
)]

mod bundles;
mod fixtures;
mod hostile;
mod mint;
mod mutation;
mod peers;
mod properties;
mod signing;
mod vectors;
