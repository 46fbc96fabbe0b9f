//! An API server in memory, for tests of one pass: objects live in a map, every call is recorded, and a call can be
//! told to fail. It knows no schema and no rules of admission; those are tested against a real API server.
//!
//! [`client`] is the transport alone: a function answers.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "only tests use it, and a test that stops here has failed"
)]

mod path;
mod server;
mod transport;

pub use server::{ScriptedApi, merge, pair};
pub use transport::{Call, Calls, Reply, client, lines, refusal};
