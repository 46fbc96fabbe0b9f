//! A path below a base URL, made of encoded segments.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::base_url::BaseUrl;
use crate::error::CallError;

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is called on a server: an operation's name for metrics, a path and a query.
///
/// Each segment is percent-encoded, so `/`, `;` and `:` in a name stay in their segment. A segment that a URL library
/// or a server would resolve away (empty, `.`, `..`) makes the call fail before it is sent.
#[derive(Clone, Debug)]
pub struct Endpoint {
    operation: &'static str,
    path: String,
    query: String,
    unsafe_segment: bool,
}

impl Endpoint {
    /// An endpoint with an empty path; `operation` is a metric label from a closed set.
    pub fn new(operation: &'static str) -> Self {
        Self { operation, path: String::new(), query: String::new(), unsafe_segment: false }
    }

    /// Appends segments.
    #[must_use]
    pub fn segments<'a>(mut self, segments: impl IntoIterator<Item = &'a str>) -> Self {
        for segment in segments {
            self.unsafe_segment |= matches!(segment, "" | "." | "..");
            let _ = write!(self.path, "/{}", utf8_percent_encode(segment, ENCODED));
        }
        self
    }

    /// Appends a query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: &str) -> Self {
        let separator = if self.query.is_empty() { "" } else { "&" };
        let (key, value) = (utf8_percent_encode(key, ENCODED), utf8_percent_encode(value, ENCODED));
        let _ = write!(self.query, "{separator}{key}={value}");
        self
    }

    /// The operation's name.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The path as it is sent, without the base's own.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole URL. It is checked that the URL library changed nothing in the path.
    pub(crate) fn url(&self, base: &BaseUrl) -> Result<Url, CallError> {
        if self.unsafe_segment {
            return Err(CallError::Path);
        }
        let separator = if self.query.is_empty() { "" } else { "?" };
        let text = format!("{base}{}{separator}{}", self.path, self.query);
        let url = Url::parse(&text).map_err(|_| CallError::Path)?;
        if url.as_str() == text || (self.path.is_empty() && url.as_str().trim_end_matches('/') == text) {
            Ok(url)
        } else {
            Err(CallError::Path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn base() -> BaseUrl {
        BaseUrl::parse("http://h:8080/auth").expect("base")
    }

    #[test]
    fn names_stay_in_their_segment() {
        let url = Endpoint::new("x")
            .segments(["admin", "realms", "master;x=1", "a/b", "%2e%2e", "ü"])
            .query("clientId", "spiffe://d/ns/a&b")
            .query("n", "1")
            .url(&base())
            .expect("a URL");
        assert_eq!(
            url.as_str(),
            "http://h:8080/auth/admin/realms/master%3Bx%3D1/a%2Fb/%252e%252e/%C3%BC?clientId=spiffe%3A%2F%2Fd%2Fns%2Fa%26b&n=1"
        );
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("..")]
    fn segments_that_would_be_resolved_are_refused(#[case] segment: &str) {
        assert!(matches!(
            Endpoint::new("x").segments(["a", segment, "b"]).url(&base()),
            Err(CallError::Path)
        ));
    }

    #[test]
    fn the_base_itself() {
        assert_eq!(Endpoint::new("x").url(&base()).expect("a URL").as_str(), "http://h:8080/auth");
        let bare = BaseUrl::parse("http://h").expect("base");
        assert_eq!(Endpoint::new("x").url(&bare).expect("a URL").as_str(), "http://h/");
    }
}
