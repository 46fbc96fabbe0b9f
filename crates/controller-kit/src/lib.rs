//! The process contract of the suite (packaging §12), written once for every component.
//!
//! A component is a `main` that parses its [flags](cli), calls [`process::Process::start`], spawns
//! its controllers on the result and ends with [`process::Process::run`]. Everything a cluster
//! operator relies on is here and the same in every binary: probes and metrics doors, logs, leader
//! election, the namespaces that may be looked at, what happens on SIGTERM and when a task dies.
//!
//! Beside the process there is the [skeleton of a controller](controller) and what it is filled with:
//! [watches](watch) that survive and explain themselves, [indexes](index) of what they have seen,
//! [writes](apply) that happen only when something differs, [Events](events) once,
//! [back-off](backoff), the [limiter] of rollouts. Nothing here knows about agents.

pub mod apply;
pub mod authz;
pub mod backoff;
pub mod bucket;
pub mod cli;
pub mod client;
pub mod commands;
pub mod controller;
pub mod events;
pub mod index;
pub mod lean;
pub mod lease;
pub mod legacy_guard;
pub mod limiter;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod metrics_door;
pub mod probes;
pub mod process;
pub mod queue;
pub mod readiness;
pub mod reconcile;
pub mod retire;
pub mod scope;
pub mod selftest;
pub mod serve;
pub mod sources;
pub mod supervise;
pub mod surroundings;
pub mod telemetry;
pub mod template;
pub mod tls;
pub mod trust_domain;
pub mod version;
pub mod watch;
pub mod workload;
