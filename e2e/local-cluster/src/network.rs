//! Addresses of the fake Pods.
//!
//! Every cluster leases a range of its own, so that two clusters never hand out the same address. The API
//! refuses loopback addresses in EndpointSlices, so whatever stands for an agent needs another one: as root
//! a network namespace is made in which the whole range is local, and a process started in it answers at
//! the address of any Pod. Without root Pods have addresses too, but nothing answers there.
//!
//! A real node ([`crate::node`]) lives in such a namespace: its bridge, its iptables rules and its ports are nobody else's,
//! and go with it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;

use crate::options::ClusterOptions;
use crate::workdir::base_dir;

/// Second octets of the ranges `10.<n>.0.0/16`: above what kind, minikube and docker use by default.
const RANGES: std::ops::Range<u8> = 130..194;
/// File in a cluster's directory that says which range it uses, for the one who cleans up after it.
const RECORD: &str = "pod-range";
/// Service addresses where nothing routes them.
const UNROUTED_SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);

/// The range of one cluster's Pods, and the namespace in which it is local.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    octet: u8,
    range: Ipv4Net,
    addresses: bool,
    real_node: bool,
    netns: Option<PathBuf>,
    _lock: File,
}

impl PodNetwork {
    /// Leases a range for the cluster with this directory. If Pods are to have addresses they get them from it, and
    /// root gets a namespace in which they answer.
    pub(crate) fn lease(dir: &Path, options: &ClusterOptions) -> Result<Self> {
        let addresses = options.pod_addresses;
        let locks = base_dir()?.join(".ranges");
        fs::create_dir_all(&locks).with_context(|| format!("creating {}", locks.display()))?;
        for octet in RANGES {
            let Ok(lock) = File::create(locks.join(octet.to_string())) else { continue };
            // A namespace of this name without a lock belongs to a cluster with another TMPDIR.
            if lock.try_lock().is_err() || netns_path(octet).exists() {
                continue;
            }
            let range = Ipv4Net::new(Ipv4Addr::new(10, octet, 0, 0), 16).context("a Pod range")?;
            fs::write(dir.join(RECORD), octet.to_string()).context("recording the Pod range")?;
            let real_node = options.real_node;
            let mut network = Self { octet, range, addresses, real_node, netns: None, _lock: lock };
            if real_node {
                network
                    .bring_up()
                    .inspect_err(|_| take_down_range(octet))
                    .context("making the node's network")?;
                network.netns = Some(netns_path(octet));
            } else if addresses && nix::unistd::Uid::effective().is_root() {
                match network.bring_up() {
                    Ok(()) => network.netns = Some(netns_path(octet)),
                    // Root in a container without the right to do so: the cluster works without.
                    Err(_) => take_down_range(octet),
                }
            }
            network.addresses &= network.netns.is_some() || !options.only_reachable_addresses;
            return Ok(network);
        }
        bail!("all {} Pod ranges are in use; stop some local clusters", RANGES.len())
    }

    /// The whole range.
    pub(crate) fn range(&self) -> Ipv4Net {
        self.range
    }

    /// Addresses of Pods on the real node: the lower half of the range.
    pub(crate) fn node_pods(&self) -> String {
        format!("10.{}.0.0/17", self.octet)
    }

    /// Addresses of Services. A real node routes them, so every cluster has its own: a part of the upper half.
    pub(crate) fn services(&self) -> Ipv4Net {
        let own = Ipv4Net::new(Ipv4Addr::new(10, self.octet, 128, 0), 18);
        own.ok().filter(|_| self.real_node).unwrap_or(UNROUTED_SERVICES)
    }

    /// The nth Service address; the first one is the Service `default/kubernetes`.
    pub(crate) fn service(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.services().network().to_bits() + n)
    }

    /// Whether kwok gives Pods addresses.
    pub(crate) fn hands_out_addresses(&self) -> bool {
        self.addresses
    }

    /// The network namespace in which the range is local.
    pub(crate) fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }

    /// Address of the real node and of every fake one, at the end of the range, where no Pod arrives.
    pub(crate) fn node_address(&self) -> Ipv4Addr {
        self.nth_last(2)
    }

    /// Address under which the API server is announced.
    pub(crate) fn api_address(&self) -> Ipv4Addr {
        self.nth_last(3)
    }

    fn nth_last(&self, count: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.broadcast().to_bits() - count)
    }

    /// A veth pair into a new namespace, and a route for the range on each side. The pair's own addresses
    /// lie outside the range, or answers to this side would never leave the namespace.
    fn bring_up(&self) -> Result<()> {
        let Self { octet, range, .. } = self;
        let (netns, link) = (netns_name(*octet), link_name(*octet));
        ip(&["netns", "add", &netns], "")?;
        let mut outside = format!(
            "link add {link} type veth peer name eth0 netns {netns}\n\
             address add 169.254.{octet}.1/30 dev {link}\n\
             link set {link} up\n"
        );
        let mut inside = format!(
            "link set lo up\n\
             address add 169.254.{octet}.2/30 dev eth0\n\
             link set eth0 up\n\
             route add default via 169.254.{octet}.1\n"
        );
        if self.real_node {
            // The API server listens on this side; the node's Pods and Services are all on the other.
            let _ = writeln!(outside, "address add {}/32 dev {link}", self.api_address());
            let _ = writeln!(inside, "address add {}/32 dev eth0", self.node_address());
        } else {
            let _ = writeln!(inside, "route add local {range} dev lo");
        }
        ip(&["-batch", "-"], &outside)?;
        ip(&["-netns", &netns, "-batch", "-"], &inside)?;
        ip(&["route", "add", &range.to_string(), "via", &format!("169.254.{octet}.2"), "dev", &link], "")
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        if self.netns.is_some() {
            take_down_range(self.octet);
        }
    }
}

/// Takes down what the network of a dead cluster with this directory left behind.
pub(crate) fn take_down(dir: &Path) {
    let recorded = fs::read_to_string(dir.join(RECORD)).ok().and_then(|text| text.trim().parse().ok());
    if let Some(octet) = recorded.filter(|octet| RANGES.contains(octet) && netns_path(*octet).exists()) {
        // The range may have a new owner by now, who then holds its lock.
        let lock = base_dir().and_then(|base| Ok(File::open(base.join(".ranges").join(octet.to_string()))?));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            take_down_range(octet);
        }
    }
}

fn take_down_range(octet: u8) {
    // The link first: the kernel takes its routes and the other end with it at once.
    let _ = ip(&["link", "delete", &link_name(octet)], "");
    let _ = ip(&["netns", "delete", &netns_name(octet)], "");
}

fn netns_name(octet: u8) -> String {
    format!("kagenti-lc-{octet}")
}

fn netns_path(octet: u8) -> PathBuf {
    Path::new("/run/netns").join(netns_name(octet))
}

fn link_name(octet: u8) -> String {
    format!("kagenti-lc{octet}")
}

/// Runs `ip` with lines on its standard input.
fn ip(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip`; install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("writing to `ip`")?;
    }
    let output = child.wait_with_output().context("waiting for `ip`")?;
    if !output.status.success() {
        bail!("`ip {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_different_ranges() {
        let dir = tempfile::tempdir().expect("a directory");
        let bare = ClusterOptions { pod_addresses: false, ..ClusterOptions::default() };
        let one = PodNetwork::lease(dir.path(), &bare).expect("a range");
        let two = PodNetwork::lease(dir.path(), &bare).expect("another");
        assert_ne!(one.range(), two.range());
        assert!(one.range().contains(&one.node_address()));
        assert_ne!(one.node_address(), one.api_address());
    }

    #[test]
    fn pods_services_and_the_machines_own_addresses_do_not_overlap() {
        let dir = tempfile::tempdir().expect("a directory");
        let bare = ClusterOptions { pod_addresses: false, ..ClusterOptions::default() };
        let mut network = PodNetwork::lease(dir.path(), &bare).expect("a range");
        assert_eq!(network.services(), UNROUTED_SERVICES);
        network.real_node = true;
        let pods: Ipv4Net = network.node_pods().parse().expect("a range");
        let services = network.services();
        assert!(network.range().contains(&pods) && network.range().contains(&services));
        assert!(!pods.contains(&services) && !services.contains(&pods));
        assert!(services.contains(&network.service(10)));
        for own in [network.node_address(), network.api_address()] {
            assert!(!pods.contains(&own) && !services.contains(&own), "{own}");
        }
    }
}
