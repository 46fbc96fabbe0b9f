//! Addresses that are never dialled (card §6.5).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// Loopback, link-local (cloud metadata services among them), unspecified and multicast, IPv4 and IPv6.
const DEFAULT: &[&str] = &[
    "127.0.0.0/8",
    "169.254.0.0/16",
    "0.0.0.0/8",
    "224.0.0.0/4",
    "::1/128",
    "fe80::/10",
    "::/128",
    "ff00::/8",
];

/// The value of `--fetch-deny-cidrs`: a comma-separated list of address ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyList {
    ranges: Vec<IpNet>,
}

/// A range that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address range: write a list such as 169.254.0.0/16,fe80::/10")]
pub struct DenyListError {
    /// The entry, cut to 100 characters.
    pub text: String,
}

impl DenyList {
    /// Denies nothing; for tests against servers on this machine.
    pub fn empty() -> Self {
        Self { ranges: Vec::new() }
    }

    /// True when the address, or an IPv4 address that it stands for, lies in a range of the list.
    pub fn denies(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let inside = |address: IpAddr| self.ranges.iter().any(|range| range.contains(&address));
        let embedded = match address {
            IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        inside(address) || embedded.is_some_and(inside)
    }
}

/// The IPv4 address behind `::a.b.c.d` and NAT64's `64:ff9b::a.b.c.d`; a translator would dial it for us.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = address.segments();
    let compatible = prefix == [0; 6] && high != 0;
    let nat64 = prefix == [0x64, 0xff9b, 0, 0, 0, 0];
    (compatible || nat64).then(|| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

impl Default for DenyList {
    fn default() -> Self {
        Self { ranges: DEFAULT.iter().filter_map(|range| range.parse().ok()).collect() }
    }
}

impl FromStr for DenyList {
    type Err = DenyListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let single = || entry.parse::<IpAddr>().map(IpNet::from);
                entry
                    .parse::<IpNet>()
                    .or_else(|_| single())
                    .map_err(|_| DenyListError { text: entry.chars().take(100).collect() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ranges })
    }
}

impl fmt::Display for DenyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1", true)]
    #[case("127.8.8.8", true)]
    #[case("169.254.169.254", true)]
    #[case("0.0.0.0", true)]
    #[case("224.0.0.251", true)]
    #[case("::1", true)]
    #[case("::", true)]
    #[case("fe80::1", true)]
    #[case("ff02::1", true)]
    #[case("::ffff:169.254.169.254", true)]
    #[case("::ffff:127.0.0.1", true)]
    #[case("::169.254.169.254", true)]
    #[case("64:ff9b::169.254.169.254", true)]
    #[case("10.0.0.1", false)]
    #[case("192.168.1.1", false)]
    #[case("100.64.0.1", false)]
    #[case("fd00::1", false)]
    #[case("64:ff9b::10.0.0.1", false)]
    #[case("::ffff:10.0.0.1", false)]
    fn default_list(#[case] address: &str, #[case] denied: bool) {
        assert_eq!(DenyList::default().denies(address.parse().expect("an address")), denied);
    }

    #[test]
    fn every_default_range_is_in_force() {
        assert_eq!(DenyList::default().to_string().split(',').count(), DEFAULT.len());
    }

    #[test]
    fn reads_lists_and_single_addresses() {
        let list: DenyList = " 10.0.0.0/8, 192.168.1.1 ,fd00::/8,".parse().expect("a list");
        assert_eq!(list.to_string(), "10.0.0.0/8,192.168.1.1/32,fd00::/8");
        assert!(list.denies("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!list.denies("127.0.0.1".parse().expect("an address")), "a list replaces the default");
        assert_eq!("".parse::<DenyList>(), Ok(DenyList::empty()));
        let error = "10.0.0.0/33".parse::<DenyList>().expect_err("no range").to_string();
        assert!(error.contains("10.0.0.0/33"), "{error}");
    }
}
