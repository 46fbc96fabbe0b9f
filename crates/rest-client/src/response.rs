//! An HTTP answer, read whole.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::quote;

/// Any HTTP answer, also a refusal. Its body may hold secrets: the memory is overwritten when it is dropped.
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl Response {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap, body: Zeroizing<Vec<u8>>) -> Self {
        Self { status, headers, body }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// True for 200-299.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// A header that is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON; `None` when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as one clean line of at most 256 characters. Only for refusals: it may quote anything.
    pub fn quoted(&self) -> String {
        // A long body is cut before it is looked at; 4 bytes hold any character.
        let head = self.body.get(..quote::LIMIT * 8).unwrap_or(&self.body);
        quote::bounded(&String::from_utf8_lossy(head), quote::LIMIT)
    }

    /// `Retry-After`, in seconds or as a date.
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.header(RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn response(headers: HeaderMap, body: &str) -> Response {
        Response::new(StatusCode::SERVICE_UNAVAILABLE, headers, Zeroizing::new(body.as_bytes().to_vec()))
    }

    #[rstest]
    #[case("7", Some(7))]
    #[case(" 0 ", Some(0))]
    #[case("Thu, 01 Jan 1970 00:01:40 GMT", Some(90))]
    #[case("Thu, 01 Jan 1970 00:00:01 GMT", None)]
    #[case("soon", None)]
    fn retry_after(#[case] text: &str, #[case] seconds: Option<u64>) {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("header"))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(response(headers, "").retry_after(now), seconds.map(Duration::from_secs));
    }

    #[test]
    fn debug_shows_no_body() {
        let shown = format!("{:?}", response(HeaderMap::new(), "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(response(HeaderMap::new(), &"x".repeat(9_999)).quoted().chars().count(), 256);
    }
}
