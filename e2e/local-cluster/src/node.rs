//! One real node: kubelet, containerd, kube-proxy and CoreDNS beside the control plane, so that Pods run in containers
//! and Services lead to them. Needs root on Linux.
//!
//! Everything of the node lives in namespaces of its own. The *network* namespace holds its interfaces, iptables rules and
//! ports; one address of it is the node's, the API server listens at one of the machine's side of the link. The *mount*
//! namespace hides `/run`, `/var/lib` and `/var/log` behind directories of the cluster, so that containerd, runc, kubelet
//! and CNI plugins keep their usual paths and never meet those of another one on this machine. The *process* namespace has
//! [`init`] as its first process: when that ends, the kernel ends all others, containers included. What lies outside
//! are cgroups below one name, and they go when the node has ended, or when the next cluster starts.
//!
//! Pods are connected by the CNI plugin `ptp`: each by a link of its own, so that every packet passes the node's rules and no
//! kernel needs `br_netfilter`.

pub(crate) mod addons;
mod cgroup;
pub(crate) mod files;
pub(crate) mod images;
pub mod init;
pub mod preflight;

use std::path::Path;

/// How the supervisor knows it among the programs of the control plane.
pub(crate) const PROGRAM: &str = "node";
/// Its name in the API.
pub const NAME: &str = "node-1";

/// Takes down what the node of a cluster with this directory left behind: nothing but empty cgroups.
pub(crate) fn take_down(dir: &Path) {
    cgroup::remove(&cgroup::name(dir));
}
