//! Fetches, verifies and binds the AgentCards of workloads.

pub mod fetch;
pub mod offline;
