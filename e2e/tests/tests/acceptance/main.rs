//! Acceptance: one test per numbered scenario of the chapters, named by chapter and number, on a real control plane.
//!
//! `cargo test -p e2e --test acceptance runtime_01` runs one of them. Scenarios that cannot run yet are listed, with
//! the reason, in `docs/coverage.md`.

#![allow(clippy::indexing_slicing, reason = "a test says what it expects, and panics otherwise")]

mod card;
mod contract;
mod faults;
mod netpol;
mod plugin;
mod runtime;
mod samples;
mod schema;
mod signer;
mod split;
mod webhook;
