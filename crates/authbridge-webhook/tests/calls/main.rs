//! What the webhook asks of an API server, call by call, against one that is scripted.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod api_server;
mod certificates;
mod pods;
mod sweeper;
mod validators;
mod writes;
