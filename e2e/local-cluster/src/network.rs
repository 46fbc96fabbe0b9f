//! Addresses of the fake Pods.
//!
//! Every cluster leases a range of its own, so that two clusters never hand out the same address.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;

use crate::workdir::base_dir;

/// Second octets of the ranges `10.<n>.0.0/16`: above what kind, minikube and docker use by default.
const RANGES: std::ops::Range<u8> = 130..194;

/// The range of one cluster's Pods.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    range: Ipv4Net,
    addresses: bool,
    netns: Option<PathBuf>,
    _lock: File,
}

impl PodNetwork {
    /// Leases a range; Pods get addresses from it. `dir` is the directory of the cluster.
    pub(crate) fn lease(_dir: &Path) -> Result<Self> {
        Self::new(true)
    }

    /// Leases a range for the API server's and the nodes' addresses; Pods get none.
    pub(crate) fn without_addresses() -> Result<Self> {
        Self::new(false)
    }

    fn new(addresses: bool) -> Result<Self> {
        let dir = base_dir()?.join(".ranges");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for octet in RANGES {
            let Ok(lock) = File::create(dir.join(octet.to_string())) else { continue };
            if lock.try_lock().is_ok() {
                let range = Ipv4Net::new(Ipv4Addr::new(10, octet, 0, 0), 16).context("a Pod range")?;
                return Ok(Self { range, addresses, netns: None, _lock: lock });
            }
        }
        bail!("all {} Pod ranges are in use; stop some local clusters", RANGES.len())
    }

    /// The whole range.
    pub(crate) fn range(&self) -> Ipv4Net {
        self.range
    }

    /// Whether kwok gives Pods addresses.
    pub(crate) fn hands_out_addresses(&self) -> bool {
        self.addresses
    }

    /// The network namespace in which the range is local.
    pub(crate) fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }

    /// Address of every fake node, at the end of the range, where no Pod arrives.
    pub(crate) fn node_address(&self) -> Ipv4Addr {
        self.from_end(2)
    }

    /// Address under which the API server is announced.
    pub(crate) fn api_address(&self) -> Ipv4Addr {
        self.from_end(3)
    }

    fn from_end(&self, count: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.broadcast().to_bits() - count)
    }
}

/// Takes down what the network of a dead cluster with this directory left behind.
pub(crate) fn take_down(_dir: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_different_ranges() {
        let (one, two) = (PodNetwork::new(true).expect("a range"), PodNetwork::new(true).expect("another"));
        assert_ne!(one.range(), two.range());
        assert!(one.range().contains(&one.node_address()));
        assert_ne!(one.node_address(), one.api_address());
    }
}
