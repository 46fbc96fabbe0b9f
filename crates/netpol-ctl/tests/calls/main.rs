//! Passes against a scripted API: the exact calls, and zero of them when nothing differs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod cleanup;
mod names;
mod policies;
mod stage;
mod trouble;
