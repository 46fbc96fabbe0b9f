//! `kubectl kagenti`: what an administrator does beside Helm (packaging §4, §15, §16).
//!
//! `values convert` turns a values file of the previous chart into one of this chart. It decides by the table that the chart's
//! own render check reads, `charts/kagenti-operator/files/legacy-values.yaml`, so the two agree; it calls nobody.
//!
//! The other commands talk to the cluster of the user's kubeconfig, with the user's rights and no others. Each collects facts,
//! judges them without a cluster, and prints: what could not be asked is an answer of its own, never taken for fine.

mod check;
pub mod cli;
mod cluster;
pub mod convert;
pub mod document;
mod flags;
mod installation;
mod print;
pub mod set;
pub mod table;
mod tree;
mod uninstall;
mod values;
mod version;
