//! An A2A agent card as a peer serves it (card §2.3, §6.6).

mod envelope;
pub(crate) mod members;
mod required;

use sha2::{Digest, Sha256};

use crate::json::{self, JsonError, Value};
use crate::profile::{Profile, payload};

pub use envelope::Envelope;
use members::{CARD, Fields, Kind, WrongKind};

/// Largest document that [`Card::read`] accepts, in bytes. A fetcher has its own limit (card §6.5).
pub const MAX_CARD_BYTES: usize = 1024 * 1024;

/// A document that is not a card (card §6.6). Messages hold no text of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The document is larger than the limit.
    #[error("the document is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The document is not strict JSON.
    #[error("the document is not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// The document is not a JSON object.
    #[error("the document is not a JSON object")]
    NotAnObject,
    /// A known member has the wrong type.
    #[error("{pointer} must be {expected}")]
    WrongType {
        /// JSON pointer of the member; `*` stands for a name that the card chose.
        pointer: String,
        /// What it must be.
        expected: &'static str,
    },
}

impl From<WrongKind> for CardError {
    fn from(wrong: WrongKind) -> Self {
        Self::WrongType { pointer: wrong.pointer, expected: wrong.expected }
    }
}

/// A card that was read strictly: every known member has its type, no name occurs twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    value: Value,
    envelope: Option<Envelope>,
}

impl Card {
    /// Reads a document of at most [`MAX_CARD_BYTES`]: strict JSON, the SignedAgentCard envelope, known members of the
    /// right type; `null` counts as absent, unknown members are kept (card §6.6).
    pub fn read(document: &[u8]) -> Result<Self, CardError> {
        Self::read_within(document, MAX_CARD_BYTES)
    }

    /// [`Card::read`] with a limit of `max_bytes`.
    pub fn read_within(document: &[u8], max_bytes: usize) -> Result<Self, CardError> {
        if document.len() > max_bytes {
            return Err(CardError::TooLarge { limit: max_bytes });
        }
        let (value, envelope) = envelope::unwrap(json::parse(document)?, document);
        if value.members().is_none() {
            return Err(CardError::NotAnObject);
        }
        members::check(&value, &Kind::Object(CARD))?;
        Ok(Self { value, envelope })
    }

    /// The card itself, without its envelope.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The envelope, if the document was a SignedAgentCard.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// The name of the agent.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// The description of the agent.
    pub fn description(&self) -> Option<&str> {
        self.text("description")
    }

    /// The version of the agent.
    pub fn version(&self) -> Option<&str> {
        self.text("version")
    }

    /// The address the card gives for itself: `url`, else that of the first of `supportedInterfaces` (card §6.7).
    pub fn advertised_url(&self) -> Option<&str> {
        self.text("url")
            .or_else(|| self.value.get("supportedInterfaces")?.elements()?.first()?.get("url")?.as_str())
    }

    /// The A2A version: `1.0` with `supportedInterfaces`, else what `protocolVersion` says, else `0.2` (card §2.3).
    pub fn protocol_version(&self) -> &str {
        if self.value.get("supportedInterfaces").is_some() {
            return "1.0";
        }
        self.text("protocolVersion").filter(|version| !version.is_empty()).unwrap_or("0.2")
    }

    /// The skills, each an object.
    pub fn skills(&self) -> &[Value] {
        self.list("skills")
    }

    /// The entries of `signatures`, each an object whose `protected` and `signature`, where present, are strings.
    pub fn signatures(&self) -> &[Value] {
        self.list("signatures")
    }

    /// JSON pointers of members that the card's A2A version requires and that are absent (card §2.3, §6.6), at most 32.
    pub fn missing_required(&self) -> Vec<String> {
        required::missing(self)
    }

    /// What changes exactly when the content does: SHA-256, 64 hex, of the `jcs` payload. Signatures do not count
    /// (card §6.8, `cardId`).
    pub fn content_id(&self) -> String {
        hex(&Sha256::digest(payload(&self.value, Profile::Jcs)))
    }

    /// The members that are stored (card §2.3), as JSON for `AgentCardData`. A signature without `protected` or
    /// `signature` is left out: the stored schema requires both.
    pub fn stored(&self) -> serde_json::Value {
        let mut stored = members::reduce(&self.value, &Kind::Object(CARD), Fields::Known);
        if let Value::Object(members) = &mut stored {
            for (_, member) in members.iter_mut().filter(|(name, _)| name == "signatures") {
                if let Value::Array(signatures) = member {
                    signatures.retain(|one| one.get("protected").is_some() && one.get("signature").is_some());
                }
            }
        }
        serde_json::Value::from(&stored)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }

    fn list(&self, name: &str) -> &[Value] {
        self.value.get(name).and_then(Value::elements).unwrap_or_default()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn card(text: &str) -> Card {
        Card::read(text.as_bytes()).expect("a card")
    }

    #[rstest]
    #[case("[]", "the document is not a JSON object")]
    #[case("null", "the document is not a JSON object")]
    #[case(r#"{"name":1}"#, "/name must be a string")]
    #[case(r#"{"skills":{}}"#, "/skills must be an array")]
    #[case(r#"{"skills":[null]}"#, "/skills/0 must be an object")]
    #[case(r#"{"skills":[{"id":"a"},{"tags":["x",2]}]}"#, "/skills/1/tags/1 must be a string")]
    #[case(r#"{"capabilities":{"streaming":"yes"}}"#, "/capabilities/streaming must be true or false")]
    #[case(
        r#"{"capabilities":{"extensions":[{"params":[]}]}}"#,
        "/capabilities/extensions/0/params must be an object"
    )]
    #[case(r#"{"securitySchemes":{"SECRET":[]}}"#, "/securitySchemes/* must be an object")]
    #[case(r#"{"signatures":[{"protected":7}]}"#, "/signatures/0/protected must be a string")]
    #[case(r#"{"signatures":{}}"#, "/signatures must be an array")]
    fn wrong_types(#[case] text: &str, #[case] message: &str) {
        assert_eq!(Card::read(text.as_bytes()).expect_err("must be refused").to_string(), message);
    }

    #[test]
    fn null_is_absent_and_names_match_exactly() {
        let card = card(r#"{"name":null,"Name":"other","url":null,"skills":null}"#);
        assert_eq!((card.name(), card.advertised_url(), card.skills().len()), (None, None, 0));
        assert_eq!(card.stored(), serde_json::json!({}));
    }

    #[rstest]
    #[case(r#"{"url":"http://a"}"#, "0.2", Some("http://a"))]
    #[case(r#"{"protocolVersion":"0.3.0","url":"http://a"}"#, "0.3.0", Some("http://a"))]
    #[case(
        r#"{"protocolVersion":"0.3.0","supportedInterfaces":[{"url":"http://b"}]}"#,
        "1.0",
        Some("http://b")
    )]
    #[case(r#"{"supportedInterfaces":[]}"#, "1.0", None)]
    fn versions(#[case] text: &str, #[case] version: &str, #[case] url: Option<&str>) {
        assert_eq!(card(text).protocol_version(), version);
        assert_eq!(card(text).advertised_url(), url);
    }

    #[test]
    fn stored_keeps_known_members_only() {
        let card = card(
            r#"{"name":"n","x":1,"skills":[{"id":"a","y":2,"tags":["t"]}],"provider":{"organization":"o","z":1},
               "securitySchemes":{"k":{"type":"http","extra":[1]}},
               "capabilities":{"extensions":[{"params":{"deep":{"n":null,"i":9007199254740993,"f":1.5}}}]},
               "signatures":[{"protected":"p"},{"protected":"p","signature":"s","header":{"h":1},"q":1}]}"#,
        );
        assert_eq!(
            card.stored(),
            serde_json::json!({
                "name": "n", "skills": [{"id": "a", "tags": ["t"]}], "provider": {"organization": "o"},
                "securitySchemes": {"k": {"type": "http", "extra": [1]}},
                "capabilities": {"extensions": [{"params": {"deep": {"n": null, "i": 9_007_199_254_740_993_i64, "f": 1.5}}}]},
                "signatures": [{"protected": "p", "signature": "s", "header": {"h": 1}}],
            })
        );
    }

    #[test]
    fn content_id_ignores_signatures_and_order() {
        let one = card(r#"{"name":"n","url":"u"}"#).content_id();
        assert_eq!(one, card(r#"{"url":"u","signatures":[{"protected":"p"}],"name":"n"}"#).content_id());
        assert_ne!(one, card(r#"{"url":"v","name":"n"}"#).content_id());
        assert_eq!(one.len(), 64);
    }
}
