//! What is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::base_url::BaseUrl;
use crate::endpoint::Endpoint;
use crate::secret::Secret;

/// Largest body of an answer unless the request says otherwise, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// One request; it can be sent several times. Bodies and credentials are overwritten in memory when it is dropped.
#[derive(Clone)]
pub struct Request {
    pub(crate) base: BaseUrl,
    pub(crate) endpoint: Endpoint,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) body_limit: usize,
    pub(crate) once: bool,
    /// A header value that HTTP does not allow; the call then fails.
    pub(crate) bad_header: bool,
}

impl Request {
    /// Any method.
    pub fn new(method: Method, base: &BaseUrl, endpoint: Endpoint) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Self {
            base: base.clone(),
            endpoint,
            method,
            headers,
            body: None,
            body_limit: BODY_LIMIT,
            once: false,
            bad_header: false,
        }
    }

    /// GET.
    pub fn get(base: &BaseUrl, endpoint: Endpoint) -> Self {
        Self::new(Method::GET, base, endpoint)
    }

    /// POST.
    pub fn post(base: &BaseUrl, endpoint: Endpoint) -> Self {
        Self::new(Method::POST, base, endpoint)
    }

    /// PUT.
    pub fn put(base: &BaseUrl, endpoint: Endpoint) -> Self {
        Self::new(Method::PUT, base, endpoint)
    }

    /// DELETE.
    pub fn delete(base: &BaseUrl, endpoint: Endpoint) -> Self {
        Self::new(Method::DELETE, base, endpoint)
    }

    /// Sets a header; a value that HTTP does not allow makes the call fail.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => self.bad_header = true,
        }
        self
    }

    /// `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Self {
        self.authorization("Bearer ", token.expose())
    }

    /// `Authorization: Basic`, with user and password form-encoded first as OAuth 2 wants it (RFC 6749 §2.3.1).
    #[must_use]
    pub fn basic(self, user: &str, password: &Secret) -> Self {
        let mut pair = Zeroizing::new(String::with_capacity(3 * (user.len() + password.expose().len()) + 1));
        pair.extend(byte_serialize(user.as_bytes()));
        pair.push(':');
        pair.extend(byte_serialize(password.expose().as_bytes()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        self.authorization("Basic ", &encoded)
    }

    fn authorization(mut self, scheme: &str, credentials: &str) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(scheme.len() + credentials.len()));
        text.extend_from_slice(scheme.as_bytes());
        text.extend_from_slice(credentials.as_bytes());
        match HeaderValue::from_maybe_shared(Bytes::from_owner(text)) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(AUTHORIZATION, value);
            }
            Err(_) => self.bad_header = true,
        }
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", Zeroizing::new(body.to_string().into_bytes()))
    }

    /// A form body.
    #[must_use]
    pub fn form<'a>(self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let fields: Vec<(&str, &str)> = fields.into_iter().collect();
        // Room for the worst encoding, so that no half-written copy is left behind by growing.
        let room = fields.iter().map(|(key, value)| 3 * (key.len() + value.len()) + 2).sum();
        let mut text = Zeroizing::new(String::with_capacity(room));
        for (key, value) in fields {
            if !text.is_empty() {
                text.push('&');
            }
            text.extend(byte_serialize(key.as_bytes()));
            text.push('=');
            text.extend(byte_serialize(value.as_bytes()));
        }
        let body = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
        self.body("application/x-www-form-urlencoded", body)
    }

    fn body(mut self, content_type: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = Some(Bytes::from_owner(body));
        self
    }

    /// The largest answer that is read, in bytes.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Sends it once, whatever the answer.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("base", &self.base)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::post(&BaseUrl::parse("http://h").expect("base"), Endpoint::new("token"))
    }

    #[test]
    fn secrets_are_not_shown() {
        let request = request().basic("id", &Secret::from("hunter2")).form([("password", "hunter2")]);
        let shown = format!("{request:?} {:?}", request.headers);
        assert!(!shown.contains("hunter2") && !shown.contains("aWQ6aHVudGVyMg"), "{shown}");
    }

    #[test]
    fn forms_and_basic_are_encoded() {
        let request =
            request().basic("spiffe://d/x", &Secret::from("a:b c")).form([("a", "1&2"), ("b", " ü")]);
        assert_eq!(request.body.as_deref(), Some(b"a=1%262&b=+%C3%BC".as_slice()));
        let value = request.headers.get(AUTHORIZATION).expect("header");
        let encoded = value.to_str().expect("text").strip_prefix("Basic ").expect("scheme");
        assert_eq!(STANDARD.decode(encoded).expect("base64"), b"spiffe%3A%2F%2Fd%2Fx:a%3Ab+c");
        assert!(value.is_sensitive());
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_noticed() {
        assert!(request().bearer(&Secret::from("a\nb")).bad_header);
        assert!(request().header(ACCEPT, "a\nb").bad_header);
        assert!(!request().bearer(&Secret::from("ab")).bad_header);
    }
}
