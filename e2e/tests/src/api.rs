//! Requests to the API server (or to another HTTPS server) whose answers are looked at as they are on the wire.

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Texts of the `Warning` headers.
    pub warnings: Vec<String>,
    /// The body; a JSON string when it is not JSON.
    pub body: Value,
}

impl Reply {
    /// The body of a successful answer; else an error with the server's message.
    pub fn ok(self) -> Result<Value> {
        if self.status >= 400 {
            bail!("{} {}", self.status, self.message());
        }
        Ok(self.body)
    }

    /// The server's message, or the whole body when there is none.
    pub fn message(&self) -> String {
        match self.body.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => self.body.to_string(),
        }
    }
}

/// Media type of JSON merge patches.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of server-side apply.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Sends one request. Errors only when there is no answer.
pub async fn call(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    body: Option<&Value>,
) -> Result<Reply> {
    let bytes = body.map(serde_json::to_vec).transpose().context("writing a request")?.unwrap_or_default();
    send(client, method, path, content, bytes).await
}

/// Sends one request with a body that need not be JSON.
pub async fn send(client: &Client, method: &str, path: &str, content: &str, body: Vec<u8>) -> Result<Reply> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content)
        .header("accept", "application/json")
        .body(Body::from(body))
        .with_context(|| format!("{method} {path}"))?;
    let response = client.send(request).await.with_context(|| format!("{method} {path}"))?;
    let status = response.status().as_u16();
    let headers = response.headers().get_all("warning").into_iter();
    let warnings = headers.filter_map(|value| value.to_str().ok().map(warning_text)).collect();
    let bytes =
        response.into_body().collect_bytes().await.with_context(|| format!("reading {method} {path}"))?;
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Ok(Reply { status, warnings, body })
}

/// The text of `299 - "text"`.
fn warning_text(header: &str) -> String {
    let quoted = header.split_once('"').map_or(header, |(_, rest)| rest);
    quoted.trim_end_matches('"').replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::warning_text;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning_text(r#"299 - "the kind \"X\" is unknown""#), r#"the kind "X" is unknown"#);
    }
}
