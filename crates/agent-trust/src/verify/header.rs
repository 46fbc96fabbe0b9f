//! The protected header of a signature (card §8.1, §8.3 steps 2 to 4).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{Algorithm, MAX_CHAIN, ReasonCode};
use crate::certificate::Certificate;
use crate::json::{self, Value};

/// Longest `kid` that is passed on, in characters.
const MAX_KEY_ID: usize = 64;

/// A header, not yet trusted. `jku`, `jwk` and `x5u` are never looked at.
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) leaf: Certificate,
    pub(super) others: Vec<Certificate>,
}

/// A step that failed, with the reason in words.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: ReasonCode,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Decodes base64url strictly: no padding, no whitespace, no stray bits.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Step 2: the JSON object of the header.
pub(super) fn object(protected: Option<&str>) -> Result<Value, Fault> {
    let invalid = |message: &str| Fault::new(ReasonCode::HeaderInvalid, message);
    let protected = protected.ok_or_else(|| invalid("the protected header is missing"))?;
    let bytes =
        base64url(protected).ok_or_else(|| invalid("the protected header is not strict base64url"))?;
    let header = json::parse(&bytes).map_err(|error| invalid(&format!("the protected header: {error}")))?;
    let members = header.members().ok_or_else(|| invalid("the protected header is not a JSON object"))?;
    // Present with any value, null among them: what we do not understand must not be passed over.
    for name in ["crit", "b64"] {
        if members.iter().any(|(own, _)| own == name) {
            return Err(invalid(&format!(
                "the protected header has the member {name}, which is not supported"
            )));
        }
    }
    Ok(header)
}

/// `kid`, reduced to printable ASCII: it is informational and a signer's text.
pub(super) fn key_id(header: &Value) -> Option<String> {
    let text: String =
        header.get("kid")?.as_str()?.chars().filter(char::is_ascii_graphic).take(MAX_KEY_ID).collect();
    (!text.is_empty()).then_some(text)
}

/// Steps 3 and 4: algorithm and certificates.
pub(super) fn read(header: &Value) -> Result<Header, Fault> {
    let parse_error = |message: String| Fault::new(ReasonCode::ParseError, message);
    let entries = match header.get("x5c") {
        None => &[],
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(_) => return Err(parse_error("x5c is not an array".to_owned())),
    };
    if entries.is_empty() {
        return Err(Fault::new(ReasonCode::NoX5c, "the protected header has no x5c certificates"));
    }
    let algorithm =
        header.get("alg").and_then(Value::as_str).and_then(Algorithm::named).ok_or_else(|| {
            let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name).collect();
            Fault::new(ReasonCode::AlgRejected, format!("alg is not one of {}", names.join(", ")))
        })?;
    let mut chain = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let der = entry.as_str().and_then(|text| STANDARD.decode(text).ok());
        let der = der.ok_or_else(|| parse_error(format!("x5c entry {n} is not standard base64")))?;
        let certificate =
            Certificate::read(&der).map_err(|error| parse_error(format!("x5c entry {n}: {error}")))?;
        // Only the count of the surplus matters.
        if chain.len() <= MAX_CHAIN {
            chain.push(certificate);
        }
    }
    if chain.len() > MAX_CHAIN {
        return Err(Fault::new(
            ReasonCode::ChainInvalid,
            format!("chain too deep: {} certificates, at most {MAX_CHAIN} are accepted", entries.len()),
        ));
    }
    let leaf = chain.remove(0);
    Ok(Header { algorithm, leaf, others: chain })
}
