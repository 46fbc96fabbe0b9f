//! Sockets at the addresses of fake Pods, for whatever stands for an agent in a test.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::Ipv4Net;

use crate::cluster::Cluster;

/// Addresses are handed out from here on, in the upper half of the range, where no Pod arrives.
const FIRST: u16 = 0xc000;
static NEXT: AtomicU16 = AtomicU16::new(FIRST);

impl Cluster {
    /// A fresh address of the Pods' range and a socket that listens there, made in the cluster's network
    /// namespace; it may be used in this one. Where nothing can answer there (without root) it is this machine's
    /// address and whatever port is free.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        if self.info().netns.is_none() {
            let address = machine_address().context("finding this machine's address")?;
            return TcpListener::bind((address, 0)).with_context(|| format!("listening at {address}"));
        }
        let range: Ipv4Net =
            self.info().pod_range.as_deref().context("the Pods have no addresses")?.parse()?;
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = Ipv4Addr::from_bits(range.network().to_bits() + offset);
        self.listen_at(SocketAddrV4::new(address, port))
    }

    /// A socket that listens at one address of the Pods' range.
    pub fn listen_at(&self, address: SocketAddrV4) -> Result<TcpListener> {
        let netns = self.info().netns.clone().context("answering at a Pod's address needs root")?;
        // A socket belongs to the namespace it was made in, wherever it is used; a thread that enters a namespace
        // stays there, so it is one that ends.
        let made = std::thread::spawn(move || {
            let file = File::open(&netns).with_context(|| format!("opening {}", netns.display()))?;
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering {}", netns.display()))?;
            TcpListener::bind(address).with_context(|| format!("listening at {address}"))
        });
        made.join().map_err(|_| anyhow!("the thread that makes a socket panicked"))?
    }
}

/// The address that this machine uses towards others. Connecting a datagram socket sends nothing.
pub fn machine_address() -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).context("this machine has no network")?;
    match socket.local_addr().context("its address")?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{address} is no IPv4 address"),
    }
}
