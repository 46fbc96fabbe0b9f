//! Profile `legacy`: the frozen field set, and what of a card it leaves unsigned (card §8.2).

use super::{MAX_UNSIGNED_MEMBERS, Profile, SIGNATURES, without_empty, without_signatures};
use crate::card::members::{self, CARD, Fields, Kind};
use crate::json::Value;

/// Longest listed pointer in bytes: names are a peer's text and go into status.
const MAX_POINTER_BYTES: usize = 256;

/// The part of `card` that a `legacy` signature covers.
pub(super) fn covered(card: &Value) -> Value {
    clean(&members::reduce(&without_signatures(card), &Kind::Object(CARD), Fields::Legacy))
}

/// Removes `null`, `""`, `[]` and `{}` from objects, after cleaning; from arrays `null`, `""` and empty objects. Arrays
/// directly inside arrays are left as they are.
fn clean(value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(
            elements
                .iter()
                .map(
                    |element| {
                        if matches!(element, Value::Object(_)) { clean(element) } else { element.clone() }
                    },
                )
                .filter(|element| matches!(element, Value::Array(_)) || !element.is_empty())
                .collect(),
        ),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, member)| (name.clone(), clean(member)))
                .filter(|(_, member)| !member.is_empty())
                .collect(),
        ),
        other => other.clone(),
    }
}

/// JSON pointers of the members of `card` that hold something and that a signature under `profile` does not cover,
/// sorted, at most [`MAX_UNSIGNED_MEMBERS`] (card §2.2, §8.2). Only `legacy` leaves anything out; a member that holds
/// nothing but empty values is not listed. A pointer longer than 256 bytes is cut, control characters are replaced.
pub fn unsigned_members(card: &Value, profile: Profile) -> Vec<String> {
    let mut found = Vec::new();
    if profile == Profile::Legacy {
        collect(card, &Kind::Object(CARD), "", &mut found);
        found.sort_unstable();
        found.truncate(MAX_UNSIGNED_MEMBERS);
    }
    found
}

fn collect(value: &Value, kind: &Kind, pointer: &str, found: &mut Vec<String>) {
    match (kind, value) {
        (Kind::List(of), Value::Array(elements)) => {
            for (n, element) in elements.iter().enumerate() {
                collect(element, of, &format!("{pointer}/{n}"), found);
            }
        }
        (Kind::Object(known), Value::Object(members)) => {
            for (name, member) in members {
                if pointer.is_empty() && name == SIGNATURES {
                    continue;
                }
                match members::find(known, name).filter(|entry| entry.legacy) {
                    Some(entry) => collect(member, &entry.kind, &step(pointer, name), found),
                    None if without_empty(member).is_empty() => {}
                    None => found.push(step(pointer, name)),
                }
            }
        }
        _ => {}
    }
}

fn step(pointer: &str, name: &str) -> String {
    let mut next = format!("{pointer}/");
    for character in name.chars() {
        if next.len() >= MAX_POINTER_BYTES {
            next.push('…');
            break;
        }
        match character {
            '~' => next.push_str("~0"),
            '/' => next.push_str("~1"),
            other if other.is_control() => next.push('\u{fffd}'),
            other => next.push(other),
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    fn unsigned(text: &str, profile: Profile) -> Vec<String> {
        unsigned_members(&parse(text.as_bytes()).expect("valid"), profile)
    }

    #[test]
    fn members_outside_the_field_set_are_listed() {
        let card = r#"{"name":"n","z":false,"a/b~":1,"signatures":[{"x":1}],"empty":[{"x":""}],
            "skills":[{"id":"i"},{"id":"j","security":[{"s":["x"]}]}],
            "capabilities":{"extensions":[{"params":{"anything":1},"more":0}],"extendedAgentCard":true}}"#;
        assert_eq!(
            unsigned(card, Profile::Legacy),
            [
                "/a~1b~0",
                "/capabilities/extendedAgentCard",
                "/capabilities/extensions/0/more",
                "/skills/1/security",
                "/z"
            ]
        );
        for profile in [Profile::A2a, Profile::A2aStrict, Profile::Jcs] {
            assert!(unsigned(card, profile).is_empty());
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let members: Vec<String> =
            (0..1000).map(|n| format!("\"m{n}\\u0007{}\":1", "x".repeat(500))).collect();
        let listed = unsigned(&format!("{{{}}}", members.join(",")), Profile::Legacy);
        assert_eq!(listed.len(), MAX_UNSIGNED_MEMBERS);
        assert!(listed.iter().all(|pointer| pointer.len() < 300 && !pointer.contains('\u{7}')));
    }
}
