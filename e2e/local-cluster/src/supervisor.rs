//! The process that owns every other process of a cluster.
//!
//! A cluster must not outlive its user, however that one ends. So one supervisor process (`local-cluster
//! up`) holds the control plane and every component started for a test as its own children. It ends them
//! when it is told to, on a signal, and when its standard input closes, which the kernel does even after a
//! `kill -9` of the test or demo that started it. Every child in turn runs through [`shim`], which asks the
//! kernel to kill it when the supervisor dies, so a `kill -9` of the supervisor leaves nothing either.
//!
//! [`link`] is the library's end of the conversation ([`protocol`], JSON lines), [`server`] the other.

pub mod children;
pub mod link;
pub mod protocol;
pub mod server;
pub mod shim;
