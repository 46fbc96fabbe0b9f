//! Free TCP ports on loopback that stay free until they are used.
//!
//! A port that was bound and closed again may be taken by the next outgoing connection or by a second
//! cluster. So ports come from below the ephemeral range, and a lock file per port keeps other clusters
//! away from it for as long as the lease lives.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};

use crate::workdir::{base_dir, unique};

/// First port handed out; well-known programs rarely live above it.
const FIRST: u16 = 20_000;
/// How many ports there are; the ephemeral range of Linux starts at 32768.
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1 that no other local cluster uses while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Leases a free port.
    pub fn lease() -> Result<Self> {
        let dir = base_dir()?.join(".ports");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let start = unique() % u32::from(COUNT);
        for step in 0..u32::from(COUNT) {
            let number = FIRST + ((start + step) % u32::from(COUNT)) as u16;
            let Ok(lock) = File::create(dir.join(number.to_string())) else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free TCP port on 127.0.0.1 from {FIRST} to {}; end some programs", FIRST + COUNT - 1)
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_unique_while_they_live() {
        let ports: Vec<Port> = (0..50).map(|_| Port::lease().expect("a port")).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        for number in numbers {
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).expect("free to use");
        }
    }
}
