//! SPIFFE IDs and trust domains (card §8.5).

use std::fmt;
use std::str::FromStr;

/// Longest SPIFFE ID in bytes (card §8.5).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain in bytes (card §8.5).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// A text that is not a SPIFFE ID or trust domain (card §8.5). Never repeats the text: it may be a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than [`MAX_ID_BYTES`].
    #[error("the SPIFFE ID is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// Does not start with `spiffe://` in lower case.
    #[error("a SPIFFE ID starts with spiffe:// in lower case")]
    Scheme,
    /// The trust domain is not `[a-z0-9._-]{1,255}`.
    #[error("a trust domain has 1 to 255 characters out of a-z, 0-9, '.', '_' and '-'")]
    TrustDomain,
    /// There is no path, an empty or dotted segment, or a character outside `[A-Za-z0-9._-]`.
    #[error(
        "the path of a SPIFFE ID has one or more segments of A-Z, a-z, 0-9, '.', '_' and '-', none of them empty, '.' or '..'"
    )]
    Path,
}

/// A trust domain in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Reads what an operator or user configured: lower-cased first (card §8.5).
    pub fn configured(text: &str) -> Result<Self, SpiffeError> {
        Self::exact(&text.to_ascii_lowercase())
    }

    /// Reads a trust domain that must already be in lower case, as in a certificate.
    pub fn exact(text: &str) -> Result<Self, SpiffeError> {
        let legal = (1..=MAX_TRUST_DOMAIN_BYTES).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if legal { Ok(Self(text.to_owned())) } else { Err(SpiffeError::TrustDomain) }
    }

    /// The trust domain of a URI that a certificate authority carries: `spiffe://<trust domain>`, with or without path.
    pub fn of_authority(uri: &str) -> Result<Self, SpiffeError> {
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        if rest.contains('/') { SpiffeId::parse(uri).map(|id| id.trust_domain) } else { Self::exact(rest) }
    }

    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::configured(text)
    }
}

/// The SPIFFE ID of a workload: trust domain and a path that is not empty (card §8.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Reads an ID exactly as a certificate must carry it; nothing is normalised.
    pub fn parse(uri: &str) -> Result<Self, SpiffeError> {
        if uri.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong);
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::Path)?;
        let trust_domain = TrustDomain::exact(domain)?;
        if !path.split('/').all(is_segment) {
            return Err(SpiffeError::Path);
        }
        Ok(Self { text: uri.to_owned(), trust_domain })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, never empty.
    pub fn path(&self) -> &str {
        self.text.get(SCHEME.len() + self.trust_domain.as_str().len()..).unwrap_or_default()
    }
}

fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_id() {
        let id = SpiffeId::parse("spiffe://dev.cluster.local/ns/demo/sa/echo").expect("valid");
        assert_eq!(id.trust_domain().as_str(), "dev.cluster.local");
        assert_eq!(id.path(), "/ns/demo/sa/echo");
        assert_eq!(id.to_string(), "spiffe://dev.cluster.local/ns/demo/sa/echo");
    }

    #[test]
    fn refused_ids() {
        for bad in [
            "",
            "spiffe:/a/b",
            "spiffe://user@a/b",
            "spiffe://a/b%2f",
            "spiffe://a/b/",
            "spiffe://a/é",
            "spiffe://é/a",
            " spiffe://a/b",
            "spiffe://a/b\n",
            "spiffe://a/b\0",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?}");
        }
        let fits = format!("spiffe://a/{}", "b".repeat(MAX_ID_BYTES - "spiffe://a/".len()));
        assert!(SpiffeId::parse(&fits).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{fits}b")), Err(SpiffeError::TooLong));
    }

    #[test]
    fn configured_domains_are_lower_cased() {
        assert_eq!(TrustDomain::configured("Dev.Example").expect("valid").as_str(), "dev.example");
        assert!(TrustDomain::exact("Dev.Example").is_err());
        assert!(TrustDomain::configured("a/b").is_err());
    }

    #[test]
    fn authorities_may_have_no_path() {
        assert_eq!(TrustDomain::of_authority("spiffe://a.b").expect("valid").as_str(), "a.b");
        assert_eq!(TrustDomain::of_authority("spiffe://a.b/ca").expect("valid").as_str(), "a.b");
        for bad in ["spiffe://", "spiffe://a/", "https://a", "spiffe://A", "spiffe://a?x"] {
            assert!(TrustDomain::of_authority(bad).is_err(), "{bad}");
        }
    }
}
