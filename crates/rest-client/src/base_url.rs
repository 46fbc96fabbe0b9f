//! Where a server is: a normal form that can be compared.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// The base URL of a server in normal form: scheme and host in lower case, no default port, no trailing slash.
///
/// Two texts that name the same scheme, host, port and path are equal. Requests are built from the normal form,
/// never from the text that somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl {
    text: String,
    host: Host<String>,
    port: Option<u16>,
    https: bool,
}

/// Why a text is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Nothing there.
    #[error("the URL is empty")]
    Empty,
    /// Not a URL, or without a host.
    #[error("this is not a URL: write e.g. https://keycloak.example.com or http://host:8080/prefix")]
    Malformed,
    /// Another scheme.
    #[error("the URL's scheme must be http or https")]
    Scheme,
    /// `user:password@` in it.
    #[error("the URL must not contain a user name or password")]
    UserInfo,
    /// `?` or `#` in it.
    #[error("the URL must not contain a query or fragment")]
    Extra,
}

impl BaseUrl {
    /// Reads a base URL; spaces around it and trailing slashes do not count.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BaseUrlError::Empty);
        }
        // The parser drops tabs and line breaks from the middle and takes `\` for `/`; a person who writes them
        // means something else than the parser.
        if text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '\\') {
            return Err(BaseUrlError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| BaseUrlError::Malformed)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(BaseUrlError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::Extra);
        }
        let host = url.host().ok_or(BaseUrlError::Malformed)?.to_owned();
        let authority = authority(&host, url.port());
        let text = format!("{}://{authority}{}", url.scheme(), url.path().trim_end_matches('/'));
        Ok(Self { text, host, port: url.port(), https })
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host without port; IPv6 in brackets.
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// Host and, unless it is the scheme's default, port: the value of the `Host` header.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Whether the host is loopback or a name that only the cluster's own DNS answers: `*.svc` or
    /// `*.svc.cluster.local`.
    pub fn is_local(&self) -> bool {
        match &self.host {
            Host::Domain(name) => {
                name == "localhost"
                    || [".svc", ".svc.cluster.local"]
                        .iter()
                        .any(|suffix| name.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()))
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => IpAddr::from(*address).to_canonical().is_loopback(),
        }
    }
}

fn authority(host: &Host<String>, port: Option<u16>) -> String {
    port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://keycloak-service.keycloak.svc:8080", "http://keycloak-service.keycloak.svc:8080")]
    #[case("  HTTPS://SSO.Example.com:443/ ", "https://sso.example.com")]
    #[case("http://h:80/auth//", "http://h/auth")]
    #[case("http://h/Auth", "http://h/Auth")]
    #[case("http://h/a/../b", "http://h/b")]
    #[case("http://[::1]:8080/", "http://[::1]:8080")]
    #[case("http://0x7f000001/", "http://127.0.0.1")]
    fn the_normal_form(#[case] text: &str, #[case] normal: &str) {
        let url = BaseUrl::parse(text).expect("a base URL");
        assert_eq!(url.as_str(), normal);
        assert_eq!(BaseUrl::parse(normal).as_ref(), Ok(&url), "the normal form of the normal form");
    }

    #[rstest]
    #[case("", BaseUrlError::Empty)]
    #[case("   ", BaseUrlError::Empty)]
    #[case("keycloak:8080", BaseUrlError::Scheme)]
    #[case("ftp://h", BaseUrlError::Scheme)]
    #[case("http://", BaseUrlError::Malformed)]
    #[case("//h", BaseUrlError::Malformed)]
    #[case("http://u@h", BaseUrlError::UserInfo)]
    #[case("http://trusted:8080@evil", BaseUrlError::UserInfo)]
    #[case("http://h?x", BaseUrlError::Extra)]
    #[case("http://h#x", BaseUrlError::Extra)]
    #[case("http://h\t.evil", BaseUrlError::Malformed)]
    #[case("http:\\\\h", BaseUrlError::Malformed)]
    fn what_is_no_base_url(#[case] text: &str, #[case] error: BaseUrlError) {
        assert_eq!(BaseUrl::parse(text), Err(error));
    }

    #[rstest]
    #[case("https://h", "http://h")]
    #[case("http://h", "http://h:8080")]
    #[case("http://h", "http://h/auth")]
    #[case("http://h", "http://h.")]
    #[case("http://h", "http://hh")]
    #[case("http://h/auth", "http://h/Auth")]
    fn other_servers(#[case] one: &str, #[case] other: &str) {
        assert_ne!(BaseUrl::parse(one), BaseUrl::parse(other));
    }

    #[rstest]
    #[case("http://keycloak.keycloak.svc:8080", true)]
    #[case("http://keycloak.keycloak.svc.cluster.local", true)]
    #[case("http://127.0.0.2:1", true)]
    #[case("http://[::1]", true)]
    #[case("http://[::ffff:127.0.0.1]", true)]
    #[case("http://localhost:1", true)]
    #[case("http://keycloak.keycloak", false)]
    #[case("http://svc", false)]
    #[case("http://.svc", false)]
    #[case("http://evilsvc", false)]
    #[case("http://a.svc.evil.com", false)]
    #[case("http://10.0.0.1", false)]
    fn local_hosts(#[case] text: &str, #[case] local: bool) {
        assert_eq!(BaseUrl::parse(text).is_ok_and(|url| url.is_local()), local);
    }
}
