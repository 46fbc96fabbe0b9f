//! The node suite: the images of the suite and its chart, installed by real Helm on a node with kubelet, containers and
//! routed Services. It needs root and a few Debian packages, which it installs itself, so `cargo test` only compiles it.
//!
//! `just e2e-node` runs it; `cargo test -p e2e --test node -- --ignored node_services` runs one test.

#![allow(clippy::indexing_slicing, reason = "a test says what it expects, and panics otherwise")]

mod certificates;
mod chart;
mod definitions;
mod drain;
mod failover;
mod images;
mod install;
mod installed;
mod kustomize;
mod load;
mod migration;
mod network;
mod node;
mod outage;
mod release;
mod releases;
mod selftest;
mod serving;
mod split;
mod tenant;
mod traffic;
mod uninstall;
mod upgrade;
