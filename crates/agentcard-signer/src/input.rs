//! The card to sign: a file, or what the agent of this Pod serves (card §16.1, §16.3).

use std::path::Path;
use std::time::Duration;

use agent_trust::Card;
use agent_trust::card::MAX_CARD_BYTES;
use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::http1::{self, HttpError};
use crate::settings::{LoopbackUrl, Settings};

/// How long the agent next door may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no card to sign. Holds nothing of the card.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {path}: {reason}")]
    File { path: String, reason: String },
    #[error("{path} is larger than {MAX_CARD_BYTES} bytes")]
    TooLarge { path: String },
    #[error("{from}: {reason}")]
    NotACard { from: String, reason: String },
    #[error("UNSIGNED_CARD_URL: {0}")]
    Http(#[from] HttpError),
    #[error("UNSIGNED_CARD_URL: no answer in {} s", PATIENCE.as_secs())]
    Slow,
    #[error("UNSIGNED_CARD_URL: the agent answered with status {0}")]
    Status(u16),
}

/// A document that may be signed.
#[derive(Debug)]
pub(crate) struct Unsigned {
    pub(crate) document: Vec<u8>,
    /// Tells cards apart, whatever signatures they carry: an agent may serve what was signed before.
    pub(crate) content: String,
    /// Taken from the agent itself, not from the file.
    pub(crate) live: bool,
}

/// The agent's own card if it answers. Otherwise the file, unless a live card was signed before: a skeleton must
/// not replace it.
pub(crate) async fn read(settings: &Settings, had_live: bool) -> Result<Unsigned, InputError> {
    let Some(url) = &settings.url else { return from_file(&settings.unsigned).await };
    match from_url(url).await {
        Err(error) if had_live => Err(error),
        Err(error) => from_file(&settings.unsigned).await.map_err(|_| error),
        card => card,
    }
}

async fn from_file(path: &Path) -> Result<Unsigned, InputError> {
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| InputError::File { path: shown.clone(), reason: error.to_string() };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut document = Vec::new();
    file.take(MAX_CARD_BYTES as u64 + 1).read_to_end(&mut document).await.map_err(failed)?;
    if document.len() > MAX_CARD_BYTES {
        return Err(InputError::TooLarge { path: shown });
    }
    checked(document, &shown, false)
}

async fn from_url(url: &LoopbackUrl) -> Result<Unsigned, InputError> {
    let (status, body) = tokio::time::timeout(PATIENCE, get(url)).await.map_err(|_| InputError::Slow)??;
    if status != StatusCode::OK {
        return Err(InputError::Status(status.as_u16()));
    }
    checked(body.to_vec(), "UNSIGNED_CARD_URL", true)
}

async fn get(url: &LoopbackUrl) -> Result<(StatusCode, Bytes), HttpError> {
    let request = Request::get(url.path.as_str())
        .header(HOST, url.address.to_string())
        .header(ACCEPT, "application/json")
        .body(Full::default())
        .map_err(|_| HttpError::Broken)?;
    let stream = TcpStream::connect(url.address).await.map_err(|_| HttpError::Connect)?;
    http1::exchange(stream, request, MAX_CARD_BYTES).await
}

fn checked(document: Vec<u8>, from: &str, live: bool) -> Result<Unsigned, InputError> {
    let card = Card::read(&document)
        .map_err(|error| InputError::NotACard { from: from.to_owned(), reason: error.to_string() })?;
    let content = card.content_id();
    Ok(Unsigned { document, content, live })
}
