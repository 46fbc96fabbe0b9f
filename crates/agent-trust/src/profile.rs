//! The four canonical payloads a signature may cover (card §8.2).

mod legacy;
mod presence;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::json::{self, Value};

pub use legacy::unsigned_members;

/// The member that no payload covers.
const SIGNATURES: &str = "signatures";
/// Most members that [`unsigned_members`] lists (card §2.2).
pub const MAX_UNSIGNED_MEMBERS: usize = 32;

/// A way to turn a card into the bytes that are signed (card §8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The field set and escaping that the first generation of signers and verifiers knows.
    Legacy,
    /// All members, every empty value dropped, RFC 8785. What first-party A2A SDKs sign.
    A2a,
    /// The presence rules of A2A 1.0, RFC 8785.
    A2aStrict,
    /// RFC 8785 of the document as received.
    Jcs,
}

impl Profile {
    /// All profiles in the order in which a verifier tries them (card §8.2).
    pub const ORDER: [Self; 4] = [Self::Legacy, Self::A2a, Self::A2aStrict, Self::Jcs];

    /// The name on the wire and in `status.signatureProfile`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::A2a => "a2a",
            Self::A2aStrict => "a2a-strict",
            Self::Jcs => "jcs",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signature profile; known are legacy, a2a, a2a-strict and jcs")]
pub struct UnknownProfile;

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ORDER.into_iter().find(|profile| profile.as_str() == text).ok_or(UnknownProfile)
    }
}

/// The exact bytes that a signature under `profile` covers (card §8.2). `card` is the card itself, not its envelope;
/// its top-level member `signatures` is left out.
pub fn payload(card: &Value, profile: Profile) -> Vec<u8> {
    match profile {
        Profile::Legacy => json::legacy(&legacy::covered(card)),
        Profile::A2a => json::jcs(&without_empty(&without_signatures(card))),
        Profile::A2aStrict => json::jcs(&presence::applied(&without_signatures(card))),
        Profile::Jcs => json::jcs(&without_signatures(card)),
    }
}

fn without_signatures(card: &Value) -> Value {
    match card {
        Value::Object(members) => {
            Value::Object(members.iter().filter(|(name, _)| name != SIGNATURES).cloned().collect())
        }
        other => other.clone(),
    }
}

/// `value` without `null`, `""`, `[]` and `{}` at any depth, in objects and arrays alike.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Array(elements) => {
            Value::Array(elements.iter().map(without_empty).filter(|element| !element.is_empty()).collect())
        }
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, member)| (name.clone(), without_empty(member)))
                .filter(|(_, member)| !member.is_empty())
                .collect(),
        ),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn canonical(text: &str, profile: Profile) -> String {
        String::from_utf8(payload(&json::parse(text.as_bytes()).expect("valid"), profile)).expect("UTF-8")
    }

    #[rstest]
    #[case::arrays_lose_empties(
        r#"{"capabilities":{"extensions":[{"params":{"x":[null,"",{},{"y":""},[""],[],0,false]}}]}}"#,
        r#"{"capabilities":{"extensions":[{"params":{"x":[[""],[],0,false]}}]}}"#,
        r#"{"capabilities":{"extensions":[{"params":{"x":[0,false]}}]}}"#
    )]
    #[case::containers_that_become_empty(
        r#"{"name":"n","skills":[{"id":""}],"provider":{"url":""},"defaultInputModes":[""]}"#,
        r#"{"name":"n"}"#,
        r#"{"name":"n"}"#
    )]
    #[case::false_and_zero_stay(
        r#"{"capabilities":{"streaming":false},"zero":0}"#,
        r#"{"capabilities":{"streaming":false}}"#,
        r#"{"capabilities":{"streaming":false},"zero":0}"#
    )]
    #[case::unknown_members(
        r#"{"name":"n","new":1,"skills":[{"id":"a","security":[{"s":["x"]}]}]}"#,
        r#"{"name":"n","skills":[{"id":"a"}]}"#,
        r#"{"name":"n","new":1,"skills":[{"id":"a","security":[{"s":["x"]}]}]}"#
    )]
    #[case::negative_zero(
        r#"{"capabilities":{"extensions":[{"params":{"z":-0.0}}]}}"#,
        r#"{"capabilities":{"extensions":[{"params":{"z":-0}}]}}"#,
        r#"{"capabilities":{"extensions":[{"params":{"z":0}}]}}"#
    )]
    fn legacy_and_a2a(#[case] card: &str, #[case] legacy: &str, #[case] a2a: &str) {
        assert_eq!(canonical(card, Profile::Legacy), legacy);
        assert_eq!(canonical(card, Profile::A2a), a2a);
    }

    #[test]
    fn jcs_drops_signatures_of_the_card_only() {
        assert_eq!(
            canonical(r#"{"signatures":[1],"a":{"signatures":""},"b":[]}"#, Profile::Jcs),
            r#"{"a":{"signatures":""},"b":[]}"#
        );
    }

    #[test]
    fn names() {
        for profile in Profile::ORDER {
            assert_eq!(profile.as_str().parse(), Ok(profile));
            assert_eq!(serde_json::to_value(profile).expect("a string"), profile.as_str());
        }
        assert_eq!("LEGACY".parse::<Profile>(), Err(UnknownProfile));
    }
}
