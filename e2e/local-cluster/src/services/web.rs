//! Plain HTTP requests to the servers, whose answers are looked at as they are on the wire.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// No answer within this time is a failure of the test.
const LIMIT: Duration = Duration::from_secs(60);

/// One request under construction.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; a JSON string when it is not JSON, null when there is none.
    pub body: Value,
}

impl Call {
    /// A request without body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::POST, url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Authorizes by a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// Authorizes by user and password.
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.header(AUTHORIZATION.as_str(), &format!("Basic {text}"))
    }

    /// With a body of JSON.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header(CONTENT_TYPE.as_str(), "application/json")
    }

    /// With a form.
    #[must_use]
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        self.body = pairs.join("&").into_bytes();
        self.header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
    }

    /// Sends it. Errors only when there is no answer.
    pub async fn send(self) -> Result<Reply> {
        let what = format!("{} {}", self.method, self.url);
        let mut request = Request::builder().method(self.method).uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).with_context(|| what.clone())?;
        let exchange = async {
            // One connection per request: callers live in different async runtimes.
            let client: Client<HttpConnector, Full<Bytes>> =
                Client::builder(TokioExecutor::new()).build_http();
            let response = client.request(request).await.with_context(|| what.clone())?;
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.with_context(|| format!("reading {what}"))?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            let body = if bytes.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
            };
            anyhow::Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("{what}: no answer in {LIMIT:?}"))?
    }

    /// Sends it and returns the body of a successful answer.
    pub async fn ok(self) -> Result<Value> {
        let what = format!("{} {}", self.method, self.url);
        let reply = self.send().await?;
        if !(200..300).contains(&reply.status) {
            bail!("{what}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }
}

impl Reply {
    /// The body of a successful answer; else an error with what the server said.
    pub fn ok_or(self, what: &str) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "{what}: {} {}", self.status, self.body);
        Ok(self.body)
    }
}

/// The text at a JSON pointer, empty when there is none.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The array at a JSON pointer, empty when there is none.
pub(super) fn items<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Percent-encoding of everything but letters, digits, `-`, `.` and `_`.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn ids_are_encoded_as_a_whole() {
        assert_eq!(encoded("spiffe://a.b/ns/x"), "spiffe%3A%2F%2Fa.b%2Fns%2Fx");
        assert_eq!(encoded("a b+é"), "a%20b%2B%C3%A9");
    }
}
