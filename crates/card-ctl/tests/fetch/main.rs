//! Fetches of cards from servers on loopback that behave as a test says.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that stops here has failed"
)]

mod queue;
mod rules;
mod server;
mod verified;
