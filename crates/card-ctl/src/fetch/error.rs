//! Why a fetch failed: a closed set, in words that hold nothing a peer sent (card §6.5).

/// How far an exchange had come when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looking up the name (only with `--fetch-dial=dns`).
    Lookup,
    /// Waiting for the TCP connection.
    Connect,
    /// In the TLS handshake.
    Handshake,
    /// Waiting for the response's head.
    Head,
    /// Reading the response's body.
    Body,
}

/// What is wrong with the certificate of a TLS peer (card §7). Definitive: no retry makes it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    /// It showed none.
    #[error("it presented no certificate")]
    NoCertificate,
    /// It cannot be parsed or breaks a rule of X.509.
    #[error("its certificate is malformed")]
    Malformed,
    /// It does not lead to a root of the trust domain.
    #[error("its certificate does not chain to the trust bundle")]
    Chain,
    /// It is an authority's, or may not be used for TLS.
    #[error("its certificate is not one of a workload")]
    NotALeaf,
    /// Its certificate has expired.
    #[error("its certificate has expired")]
    Expired,
    /// Its certificate is not valid yet.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// Not exactly one URI name that is a SPIFFE ID with a path.
    #[error("its certificate does not carry exactly one SPIFFE ID")]
    SpiffeId,
    /// A SPIFFE ID of another trust domain.
    #[error("its SPIFFE ID belongs to another trust domain")]
    TrustDomain,
    /// It does not hold the key of the certificate that it presented.
    #[error("it did not prove that it holds its certificate's key")]
    Proof,
}

/// How a response broke HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolProblem {
    /// No HTTP/1 response.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    /// More or longer header lines than are read.
    #[error("the response's header section is too large")]
    HeadTooLarge,
    /// The name of the Service is no legal host name.
    #[error("the service name is not usable as a host name")]
    HostName,
    /// The name cannot be looked up (only with `--fetch-dial=dns`).
    #[error("the service name cannot be resolved")]
    Lookup,
}

/// Why a fetch failed. The text is short, has no control characters and holds no byte of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A 3xx answer; where it pointed to is neither kept nor shown.
    #[error("redirect refused (status {0})")]
    Redirect(u16),
    /// Any other status but 200; for 404, both paths gave it.
    #[error("the agent answered with status {0}")]
    Status(u16),
    /// The body is larger than so many bytes. The document is at fault, not the transport.
    #[error("the agent card is larger than {0} bytes")]
    TooLarge(usize),
    /// A body in a content or transfer coding that nobody asked for.
    #[error("the response is compressed or encoded, which was not asked for")]
    Compressed,
    /// The exchange took too long.
    #[error("timed out {}", .0.while_doing())]
    Timeout(Phase),
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// No way to the address.
    #[error("the address is unreachable")]
    Unreachable,
    /// The connection ended in mid-exchange.
    #[error("the connection was closed before the response was complete")]
    Reset,
    /// Every address is on the deny list.
    #[error("the service's address is in --fetch-deny-cidrs")]
    ForbiddenAddress,
    /// There is no address to dial.
    #[error("the service has no address to dial")]
    NoAddress,
    /// The TLS peer is not who it must be.
    #[error("the TLS peer is not trusted: {0}")]
    PeerUntrusted(PeerProblem),
    /// TLS failed without a verdict on the peer, for example over its version.
    #[error("the TLS handshake failed (TLS 1.2 or newer and a client certificate are needed)")]
    Handshake,
    /// This process has no SVID, or its source names no roots for the trust domain.
    #[error("no SVID: the source of this controller's own identity has none that is valid, or no bundle")]
    NoSvid,
    /// Not a conversation in HTTP/1.1.
    #[error("{0}")]
    Protocol(ProtocolProblem),
    /// Too many fetches are waiting.
    #[error("too many fetches are waiting")]
    QueueFull,
    /// The process is ending.
    #[error("the fetcher stopped")]
    Stopped,
}

impl FetchError {
    /// True when no connection came about: the agent may be starting.
    pub fn is_nobody_listening(&self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable | Self::Timeout(Phase::Connect))
    }

    /// A label value for metrics, from a closed set.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Compressed => "compressed",
            Self::Timeout(_) => "timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::ForbiddenAddress => "forbidden_address",
            Self::NoAddress => "no_address",
            Self::PeerUntrusted(_) => "peer_untrusted",
            Self::Handshake => "handshake",
            Self::NoSvid => "no_svid",
            Self::Protocol(_) => "protocol",
            Self::QueueFull => "queue_full",
            Self::Stopped => "stopped",
        }
    }

    /// From connecting a socket.
    pub(super) fn of_connect(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::TimedOut => Self::Timeout(Phase::Connect),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Self::Reset,
            _ => Self::Unreachable,
        }
    }

    /// From hyper. Only its classes are looked at: its texts may quote the peer.
    pub(super) fn of_http(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::Protocol(ProtocolProblem::HeadTooLarge);
        }
        if error.is_parse() {
            return Self::Protocol(ProtocolProblem::NotHttp);
        }
        // What is left ends the connection: closed, canceled, incomplete, or an I/O error under it. A TLS alert
        // arrives here too, because under TLS 1.3 the server judges our certificate after the handshake.
        match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
            Some(io) if tls_error(io).is_some() => Self::Handshake,
            // A chunk header or trailer that is none.
            Some(io) if io.kind() == std::io::ErrorKind::InvalidInput => {
                Self::Protocol(ProtocolProblem::NotHttp)
            }
            Some(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                Self::Protocol(ProtocolProblem::NotHttp)
            }
            _ => Self::Reset,
        }
    }
}

/// The TLS error inside an I/O error.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Phase {
    fn while_doing(self) -> &'static str {
        match self {
            Self::Lookup => "looking up the service name",
            Self::Connect => "connecting",
            Self::Handshake => "in the TLS handshake",
            Self::Head => "waiting for the response",
            Self::Body => "reading the response",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_clean() {
        let all = [
            FetchError::Redirect(302),
            FetchError::TooLarge(1_048_576),
            FetchError::Timeout(Phase::Body),
            FetchError::PeerUntrusted(PeerProblem::Proof),
            FetchError::Protocol(ProtocolProblem::HeadTooLarge),
        ];
        for error in all {
            let text = error.to_string();
            assert!(text.len() <= 200 && !text.contains(char::is_control), "{text}");
        }
        assert_eq!(FetchError::Redirect(302).to_string(), "redirect refused (status 302)");
        assert_eq!(FetchError::TooLarge(7).to_string(), "the agent card is larger than 7 bytes");
    }

    #[test]
    fn connect_errors_have_classes() {
        use std::io::{Error, ErrorKind};
        let class = |kind: ErrorKind| FetchError::of_connect(&Error::from(kind));
        assert_eq!(class(ErrorKind::ConnectionRefused), FetchError::Refused);
        assert_eq!(class(ErrorKind::TimedOut), FetchError::Timeout(Phase::Connect));
        assert_eq!(class(ErrorKind::HostUnreachable), FetchError::Unreachable);
        assert_eq!(class(ErrorKind::PermissionDenied), FetchError::Unreachable);
    }
}
