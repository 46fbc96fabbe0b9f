//! One exchange: both paths, the rules on status, size and encoding, and one wall clock (card §6.5).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, CONTENT_ENCODING, ETAG, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH, TRANSFER_ENCODING,
    USER_AGENT,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Connector};
use super::error::{FetchError, Phase, ProtocolProblem};
use super::pool::Pool;
use super::request::{FetchRequest, Fetched, Outcome, Validator};

/// Where A2A agents publish their card.
const CARD_PATH: &str = "/.well-known/agent-card.json";
/// Where they did before A2A 0.3; asked only after a 404 on the other.
const LEGACY_PATH: &str = "/.well-known/agent.json";
const AGENT: &str = concat!("kagenti-card-ctl/", env!("CARGO_PKG_VERSION"));
/// A body of a 404 up to this size is read to go on with the same connection.
const DRAINED: usize = 16 * 1024;
/// A longer ETag is not kept.
const MAX_ETAG: usize = 256;

/// Fetches one card within `limit`.
pub(super) async fn exchange(
    connector: &Connector,
    pool: &Pool,
    request: &FetchRequest,
    limit: Duration,
    max_bytes: usize,
) -> Result<Fetched, FetchError> {
    let started = Instant::now();
    let mut phase = Phase::Connect;
    let work = Exchange { connector, pool, request, max_bytes, phase: &mut phase }.run();
    match timeout(limit, work).await {
        Ok(Ok((outcome, validator, connection))) => {
            let attested = connection.attested().cloned();
            pool.keep(connection, &request.host);
            Ok(Fetched { outcome, validator, attested, took: started.elapsed() })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(FetchError::Timeout(phase)),
    }
}

struct Exchange<'a> {
    connector: &'a Connector,
    pool: &'a Pool,
    request: &'a FetchRequest,
    max_bytes: usize,
    phase: &'a mut Phase,
}

/// The answer to one request.
enum Reply {
    Card(Bytes, Option<Validator>),
    NotModified,
    /// 404; true when the connection may be used for the other path.
    NotFound(bool),
}

impl Exchange<'_> {
    async fn run(mut self) -> Result<(Outcome, Option<Validator>, Connection), FetchError> {
        let (reply, mut connection) = self.first_request().await?;
        let reply = match reply {
            Reply::NotFound(reusable) => {
                // Servers close after an error page, with or without a word about it.
                let same = if reusable {
                    self.ask(&mut connection, LEGACY_PATH).await
                } else {
                    Err(FetchError::Reset)
                };
                match same {
                    Err(FetchError::Reset) => {
                        connection = self.connector.connect(self.request, None, self.phase).await?;
                        self.ask(&mut connection, LEGACY_PATH).await?
                    }
                    reply => reply?,
                }
            }
            reply => reply,
        };
        match reply {
            Reply::Card(body, validator) => Ok((Outcome::Body(body), validator, connection)),
            Reply::NotModified => Ok((Outcome::NotModified, self.request.validator.clone(), connection)),
            Reply::NotFound(_) => Err(FetchError::Status(StatusCode::NOT_FOUND.as_u16())),
        }
    }

    /// The server may close a kept connection at any moment; then, and only then, the request is sent again.
    async fn first_request(&mut self) -> Result<(Reply, Connection), FetchError> {
        let mut connection = self.connector.connect(self.request, Some(self.pool), self.phase).await?;
        match self.ask(&mut connection, CARD_PATH).await {
            Err(FetchError::Reset) if connection.was_used() => {
                let mut fresh = self.connector.connect(self.request, None, self.phase).await?;
                Ok((self.ask(&mut fresh, CARD_PATH).await?, fresh))
            }
            reply => Ok((reply?, connection)),
        }
    }

    async fn ask(&mut self, connection: &mut Connection, path: &'static str) -> Result<Reply, FetchError> {
        *self.phase = Phase::Head;
        let peer = connection.attested().cloned();
        let known = self.request.validator.as_ref().filter(|known| {
            known.host == self.request.host
                && known.port == self.request.port
                && known.path == path
                && known.peer == peer
        });
        let request = self.head(path, known)?;
        let sender = connection.sender();
        sender.ready().await.map_err(|error| FetchError::of_http(&error))?;
        let response = sender.send_request(request).await.map_err(|error| FetchError::of_http(&error))?;
        *self.phase = Phase::Body;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {
                refuse_encodings(&head.headers)?;
                let body = read(body, self.max_bytes).await?;
                let validator = etag(&head.headers).map(|etag| Validator {
                    etag,
                    host: self.request.host.clone(),
                    port: self.request.port,
                    path,
                    peer,
                });
                Ok(Reply::Card(body, validator))
            }
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(Reply::NotModified),
            StatusCode::NOT_FOUND => Ok(Reply::NotFound(read(body, DRAINED).await.is_ok())),
            status if status.is_redirection() => Err(FetchError::Redirect(status.as_u16())),
            status => Err(FetchError::Status(status.as_u16())),
        }
    }

    fn head(
        &self,
        path: &'static str,
        known: Option<&Validator>,
    ) -> Result<Request<Empty<Bytes>>, FetchError> {
        let unusable = || FetchError::Protocol(ProtocolProblem::HostName);
        let host = HeaderValue::try_from(format!("{}:{}", self.request.host, self.request.port))
            .map_err(|_| unusable())?;
        let mut request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known.etag.as_str());
        }
        request.body(Empty::new()).map_err(|_| unusable())
    }
}

/// Anything but the plain bytes, with or without chunks, was not asked for.
fn refuse_encodings(headers: &HeaderMap) -> Result<(), FetchError> {
    let plain = |value: &HeaderValue, name: &str| {
        value.to_str().is_ok_and(|value| value.trim().is_empty() || value.trim().eq_ignore_ascii_case(name))
    };
    let contents = headers.get_all(CONTENT_ENCODING).iter().all(|value| plain(value, "identity"));
    let transfer = headers.get_all(TRANSFER_ENCODING).iter().all(|value| plain(value, "chunked"));
    if contents && transfer { Ok(()) } else { Err(FetchError::Compressed) }
}

/// The whole body, if it is at most `limit` bytes. No more than one piece beyond the limit is ever held.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, FetchError> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(FetchError::TooLarge(limit));
    }
    let mut read = BytesMut::with_capacity(announced.map_or(4096, |length| length as usize).min(64 * 1024));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::of_http(&error))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > limit {
                return Err(FetchError::TooLarge(limit));
            }
            read.extend_from_slice(data);
        }
    }
    Ok(read.freeze())
}

/// The one ETag of a response, if it can be sent back as it is.
fn etag(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(ETAG).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let opaque = value.strip_prefix("W/").unwrap_or(value);
    let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
    (quoted && value.len() <= MAX_ETAG && value.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
        .then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[], true)]
    #[case(&[("content-encoding", "identity")], true)]
    #[case(&[("content-encoding", "")], true)]
    #[case(&[("transfer-encoding", "chunked")], true)]
    #[case(&[("content-encoding", "gzip")], false)]
    #[case(&[("content-encoding", "identity, br")], false)]
    #[case(&[("transfer-encoding", "gzip, chunked")], false)]
    #[case(&[("content-encoding", "identity"), ("content-encoding", "deflate")], false)]
    fn encodings(#[case] headers: &[(&'static str, &'static str)], #[case] fine: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(refuse_encodings(&map).is_ok(), fine);
    }

    #[rstest]
    #[case(&["\"v1\""], true)]
    #[case(&["W/\"v1\""], true)]
    #[case(&["v1"], false)]
    #[case(&["\"a\"", "\"b\""], false)]
    #[case(&[], false)]
    fn etags(#[case] values: &[&'static str], #[case] kept: bool) {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(ETAG, HeaderValue::from_static(value));
        }
        assert_eq!(etag(&map).is_some(), kept);
        let long = format!("\"{}\"", "x".repeat(MAX_ETAG));
        map.insert(ETAG, HeaderValue::try_from(long).expect("a value"));
        assert_eq!(etag(&map), None);
    }
}
