//! Profile `a2a-strict`: the presence rules of A2A 1.0 (card §8.2).

use crate::card::members::{self, CARD, Kind, Presence};
use crate::json::Value;

/// `card` without known members that are `null` and without empty members that A2A 1.0 leaves out. Everything else,
/// nested messages and unknown members among it, stays as it is.
pub(super) fn applied(card: &Value) -> Value {
    apply(card, &Kind::Object(CARD))
}

fn apply(value: &Value, kind: &Kind) -> Value {
    match (kind, value) {
        (Kind::List(of), Value::Array(elements)) => {
            Value::Array(elements.iter().map(|element| apply(element, of)).collect())
        }
        (Kind::Map(of), Value::Object(members)) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), apply(member, of))).collect())
        }
        (Kind::Object(known) | Kind::Open(known), Value::Object(members)) => Value::Object(
            members
                .iter()
                .filter_map(|(name, member)| match members::find(known, name) {
                    None => Some((name.clone(), member.clone())),
                    Some(_) if member.is_null() => None,
                    Some(entry) if entry.presence == Presence::Implicit && is_default(member) => None,
                    Some(entry) => Some((name.clone(), apply(member, &entry.kind))),
                })
                .collect(),
        ),
        _ => value.clone(),
    }
}

fn is_default(value: &Value) -> bool {
    value.is_empty() || *value == Value::Bool(false)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::json::{jcs, parse};

    #[rstest]
    #[case::required_stay_empty(r#"{"description":"","skills":[]}"#, r#"{"description":"","skills":[]}"#)]
    #[case::optional_stay(
        r#"{"capabilities":{"streaming":false},"iconUrl":""}"#,
        r#"{"capabilities":{"streaming":false},"iconUrl":""}"#
    )]
    #[case::null_goes(r#"{"provider":null,"capabilities":{"streaming":null}}"#, r#"{"capabilities":{}}"#)]
    #[case::unknown_null_stays(r#"{"x":null,"y":[]}"#, r#"{"x":null,"y":[]}"#)]
    #[case::implicit_go(
        r#"{"capabilities":{"extensions":[{"description":"","params":{"k":null},"required":false,"uri":"u"}]},"securityRequirements":[],"securitySchemes":{}}"#,
        r#"{"capabilities":{"extensions":[{"params":{"k":null},"uri":"u"}]}}"#
    )]
    #[case::skills(
        r#"{"skills":[{"examples":[],"id":"","inputModes":[],"securityRequirements":[{"schemes":{"s":{"list":[]}}}],"tags":[]}]}"#,
        r#"{"skills":[{"id":"","securityRequirements":[{"schemes":{"s":{}}}],"tags":[]}]}"#
    )]
    #[case::interfaces(
        r#"{"supportedInterfaces":[{"protocolVersion":"","tenant":"","url":"u"}]}"#,
        r#"{"supportedInterfaces":[{"protocolVersion":"","url":"u"}]}"#
    )]
    #[case::schemes(
        r#"{"securitySchemes":{"m":{"mtlsSecurityScheme":{"description":""}},"o":{"oauth2SecurityScheme":{"flows":{"authorizationCode":{"authorizationUrl":"","pkceRequired":false,"refreshUrl":"","scopes":{}}},"oauth2MetadataUrl":""}}}}"#,
        r#"{"securitySchemes":{"m":{"mtlsSecurityScheme":{}},"o":{"oauth2SecurityScheme":{"flows":{"authorizationCode":{"authorizationUrl":"","scopes":{}}}}}}}"#
    )]
    fn presence(#[case] card: &str, #[case] expected: &str) {
        let applied = jcs(&applied(&parse(card.as_bytes()).expect("valid")));
        assert_eq!(String::from_utf8(applied).expect("UTF-8"), expected);
    }
}
