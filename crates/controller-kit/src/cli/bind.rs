//! Listen addresses in the form the flags of the suite use: `:8081`, `127.0.0.1:8081`, `0`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where a listener binds (runtime §19.1, packaging §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// `0`: no listener at all.
    Off,
    /// `:<port>`: every interface, IPv6 and IPv4. Port 0 lets the kernel choose.
    AllInterfaces(u16),
    /// `<ip>:<port>`: one address.
    Address(SocketAddr),
}

/// A listen address that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{value:?} is not a listen address: write :<port>, <ip>:<port>, [<ipv6>]:<port>, or 0 for no listener"
)]
pub struct BindParseError {
    /// The text that was given.
    pub value: String,
}

impl Bind {
    /// True when nothing is to be bound.
    pub fn is_off(self) -> bool {
        self == Self::Off
    }

    /// The port, unless nothing is to be bound.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Off => None,
            Self::AllInterfaces(port) => Some(port),
            Self::Address(address) => Some(address.port()),
        }
    }
}

impl FromStr for Bind {
    type Err = BindParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || BindParseError { value: text.to_owned() };
        let text = text.trim();
        if text == "0" {
            return Ok(Self::Off);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        // `u16::from_str` would also take a sign.
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let port: u16 = port.parse().map_err(|_| error())?;
        match host {
            "" => Ok(Self::AllInterfaces(port)),
            "localhost" => Ok(Self::Address((IpAddr::from(Ipv4Addr::LOCALHOST), port).into())),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("0"),
            Self::AllInterfaces(port) => write!(f, ":{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0", Bind::Off)]
    #[case(":8081", Bind::AllInterfaces(8081))]
    #[case(":0", Bind::AllInterfaces(0))]
    #[case("127.0.0.1:9443", Bind::Address(([127, 0, 0, 1], 9443).into()))]
    #[case("localhost:80", Bind::Address(([127, 0, 0, 1], 80).into()))]
    #[case("[::1]:80", Bind::Address("[::1]:80".parse().unwrap()))]
    fn the_forms_of_the_flags_are_read_and_written_back(#[case] text: &str, #[case] want: Bind) {
        let bind: Bind = text.parse().unwrap();
        assert_eq!(bind, want);
        assert_eq!(bind.to_string().parse::<Bind>().unwrap(), want);
    }

    #[rstest]
    #[case("")]
    #[case("8081")]
    #[case(":")]
    #[case(":+80")]
    #[case(":65536")]
    #[case("metrics:8443")]
    fn anything_else_is_refused_with_the_forms(#[case] text: &str) {
        let error = text.parse::<Bind>().unwrap_err().to_string();
        assert!(error.contains(":<port>"), "{error}");
    }
}
