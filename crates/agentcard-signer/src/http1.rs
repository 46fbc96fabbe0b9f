//! One request over one connection, bounded in size. The caller bounds the time.

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a request failed. Holds nothing that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nobody took the connection.
    #[error("cannot connect")]
    Connect,
    /// TLS failed: the certificate is not by the cluster's CA, or not for this address.
    #[error("the TLS handshake failed")]
    Tls,
    /// The exchange broke off, or it was no HTTP.
    #[error("the exchange broke off")]
    Broken,
    /// The answer is larger than so many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Sends the request and reads the answer, at most `limit` bytes of it.
pub(crate) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| HttpError::Broken)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|_| HttpError::Broken)?;
        let status = response.status();
        let mut body = response.into_body();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| HttpError::Broken)?;
            if let Some(data) = frame.data_ref() {
                if read.len() + data.len() > limit {
                    return Err(HttpError::TooLarge(limit));
                }
                read.extend_from_slice(data);
            }
        }
        Ok((status, read.freeze()))
    };
    tokio::pin!(answer);
    // The connection is driven from here: no task of its own outlives the request.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
