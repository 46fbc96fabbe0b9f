//! A real Kubernetes control plane on this machine, for the demo, the tests and the benchmarks.
//!
//! [`Cluster::start`] finds or builds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
//! kwok, starts them on loopback with fake nodes and returns a handle. Everything runs below one supervisor
//! process ([`supervisor`]), so nothing is left behind however the caller ends.

pub mod access;
mod audit;
mod cluster;
mod component;
pub mod components;
mod control_plane;
mod faults;
pub mod http;
mod manifests;
mod network;
mod options;
pub mod ports;
pub mod programs;
mod registration;
mod relay;
pub mod supervisor;
pub mod terminal;
pub mod up;
mod usage;
mod wait;
mod workdir;

pub use audit::{ApiRequest, Audit, Counts, Mark};
pub use cluster::Cluster;
pub use component::{Component, ComponentOptions, RbacMode, Rights, RightsEdit};
pub use faults::ControlledProgram;
pub use options::{ClusterOptions, Profile};
pub use relay::Relay;
pub use supervisor::protocol::{ClusterInfo, Exit, Signal};
pub use usage::Usage;
pub use wait::wait_for;
