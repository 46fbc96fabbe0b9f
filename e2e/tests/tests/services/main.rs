//! The services suite: acceptance scenarios of client registration and experiment tracking on a real Keycloak and a
//! real MLflow. It needs Java and Python beside what the other suites need, so `cargo test` only compiles it.
//!
//! `just e2e-services` runs it; `cargo test -p e2e --test services -- --ignored client_01` runs one test.

#![allow(clippy::indexing_slicing, reason = "a test says what it expects, and panics otherwise")]

mod client;
mod demo;
mod guides;
mod mlflow;
mod servers;
