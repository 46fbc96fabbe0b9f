//! `kubectl kagenti`: what an administrator does beside Helm (packaging §4, §16).
//!
//! `values convert` turns a values file of the previous chart into one of this chart. It decides by the table that the chart's
//! own render check reads, `charts/kagenti-operator/files/legacy-values.yaml`, so the two agree; it calls nobody.

pub mod cli;
pub mod convert;
pub mod document;
mod flags;
pub mod set;
pub mod table;
mod tree;
