//! A real Kubernetes control plane on this machine, for the demo, the tests and the benchmarks.
//!
//! [`Cluster::start`] finds or builds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
//! kwok, starts them on loopback with fake nodes and returns a handle. Everything runs below one supervisor
//! process ([`supervisor`]), so nothing is left behind however the caller ends.

pub mod access;
mod cluster;
pub mod components;
mod control_plane;
mod network;
mod options;
pub mod ports;
pub mod programs;
pub mod supervisor;
pub mod terminal;
pub mod up;
mod wait;
mod workdir;

pub use cluster::Cluster;
pub use options::{ClusterOptions, Profile};
pub use wait::wait_for;
