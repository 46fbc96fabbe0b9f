//! Passes over one workload against a scripted API and a small MLflow: the exact calls, and zero of them when nothing
//! differs. [`tracking`] talks to MLflow alone.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod keeping;
mod leaving;
mod mlflow;
mod setup;
mod stage;
mod tenants;
mod tracking;
mod trouble;
