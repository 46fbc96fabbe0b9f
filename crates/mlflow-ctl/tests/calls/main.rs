//! Passes over one workload against a scripted API and a small MLflow: the exact calls, and zero of them when nothing
//! differs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "the support module serves two test programs")]

mod keeping;
mod leaving;
mod setup;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod trouble;
