//! Passes over one AgentRuntime against a scripted API: the exact calls, and zero of them when nothing differs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unnecessary_wraps,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod deletion;
mod enrolment;
mod sandbox;
mod stage;
mod trouble;
mod unenroll;
