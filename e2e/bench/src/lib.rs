//! Benchmarks on a real control plane, [`install`] on a real node too: each prints one table with the figure, what must
//! hold and what we aim for, and answers whether everything that must hold did.

pub mod admission;
mod calls;
pub mod cards;
pub mod enrol;
pub mod idle;
pub mod install;
mod latency;
pub mod netpol;
pub mod registration;
mod report;
mod scene;
pub mod tracking;
pub mod verify;
