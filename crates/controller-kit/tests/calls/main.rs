//! What the kit asks of an API server, call by call, against one that is scripted.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test that stops here has failed"
)]

mod api_server;
mod authz;
mod lease;
mod legacy_guard;
mod selftest;
mod watch;
mod writes;
