//! Why there is no answer.

use std::time::Duration;

/// A call that got no HTTP answer. Texts hold neither URL, header nor body.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The server failed too often; nothing was sent.
    // Without the time, which would be another one whenever somebody writes this into a condition.
    #[error("the server failed repeatedly ({cause}), so it is left alone for a while")]
    Circuit {
        /// When the circuit lets a probe through.
        retry_in: Duration,
        /// What opened it.
        cause: String,
        /// Whether that was a failed TLS handshake.
        tls: bool,
    },
    /// No whole answer in time.
    #[error("no answer within the time limit")]
    Timeout,
    /// No connection: name not found, refused, unreachable.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The TLS handshake failed; usually the server's certificate.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The body is larger than the limit in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came back is not HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A path segment is empty, `.` or `..`.
    #[error("a part of the request path is empty or a dot segment")]
    Path,
    /// The request cannot be sent as it is.
    #[error("the request cannot be built: {0}")]
    Request(String),
}

impl CallError {
    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Circuit { .. } | Self::Timeout | Self::Connect(_) | Self::Broken(_))
    }

    /// True for a failed TLS handshake, now or when the circuit opened.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Circuit { tls: true, .. })
    }

    /// A word from a closed set, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Circuit { .. } => "circuit",
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::TooLarge(_) => "too_large",
            Self::Broken(_) => "broken",
            Self::Path => "path",
            Self::Request(_) => "request",
        }
    }

    /// What a library error means. Its own text may hold the URL and is not used; the innermost cause's is.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if let Some(tls) = find_tls(error) {
            return Self::Tls(tls);
        }
        if error.is_timeout() {
            return Self::Timeout;
        }
        let cause = innermost(error);
        if error.is_connect() {
            Self::Connect(cause)
        } else if error.is_builder() {
            Self::Request(cause)
        } else {
            Self::Broken(cause)
        }
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // The source of an I/O error that wraps another is the other's source: it would be skipped.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

fn find_tls(error: &reqwest::Error) -> Option<String> {
    chain(error).find_map(|error| error.downcast_ref::<rustls::Error>()).map(ToString::to_string)
}

fn innermost(error: &reqwest::Error) -> String {
    let text = chain(error).skip(1).last().map_or_else(|| "unknown cause".to_owned(), ToString::to_string);
    crate::quote::bounded(&text, crate::quote::LIMIT)
}
