//! What an A2A version requires and a card lacks (card §2.3).

use super::Card;
use crate::json::Value;

/// Most pointers that are listed.
const MAX_LISTED: usize = 32;

const CARD_V1: &[&str] = &[
    "name",
    "description",
    "supportedInterfaces",
    "version",
    "capabilities",
    "defaultInputModes",
    "defaultOutputModes",
    "skills",
];
const CARD_V0: &[&str] = &[
    "name",
    "description",
    "url",
    "version",
    "capabilities",
    "defaultInputModes",
    "defaultOutputModes",
    "skills",
];
const SKILL: &[&str] = &["id", "name", "description", "tags"];
const PROVIDER: &[&str] = &["organization", "url"];
const INTERFACE: &[&str] = &["url", "protocolBinding", "protocolVersion"];
const SIGNATURE: &[&str] = &["protected", "signature"];

/// JSON pointers of absent required members. Schemes are not looked into: they are stored as they are.
pub(super) fn missing(card: &Card) -> Vec<String> {
    let mut found = Vec::new();
    let v1 = card.value().get("supportedInterfaces").is_some();
    absent(card.value(), if v1 { CARD_V1 } else { CARD_V0 }, "", &mut found);
    if let Some(provider) = card.value().get("provider") {
        absent(provider, PROVIDER, "/provider", &mut found);
    }
    for (list, required) in [("skills", SKILL), ("supportedInterfaces", INTERFACE), ("signatures", SIGNATURE)]
    {
        for (n, element) in card.list(list).iter().enumerate() {
            if found.len() >= MAX_LISTED {
                break;
            }
            absent(element, required, &format!("/{list}/{n}"), &mut found);
        }
    }
    found.truncate(MAX_LISTED);
    found
}

fn absent(value: &Value, required: &[&str], at: &str, found: &mut Vec<String>) {
    found.extend(required.iter().filter(|name| value.get(name).is_none()).map(|name| format!("{at}/{name}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_in(text: &str) -> Vec<String> {
        Card::read(text.as_bytes()).expect("a card").missing_required()
    }

    #[test]
    fn by_version() {
        let complete = r#""name":"","description":"","version":"","capabilities":{},"defaultInputModes":[],"defaultOutputModes":[],"skills":[]"#;
        assert!(missing_in(&format!("{{{complete},\"url\":\"u\"}}")).is_empty());
        assert_eq!(missing_in(&format!("{{{complete}}}")), ["/url"]);
        assert!(missing_in(&format!("{{{complete},\"supportedInterfaces\":[]}}")).is_empty());
        assert_eq!(
            missing_in(&format!(
                "{{{complete},\"supportedInterfaces\":[{{\"url\":\"u\",\"protocolBinding\":null}}]}}"
            )),
            ["/supportedInterfaces/0/protocolBinding", "/supportedInterfaces/0/protocolVersion"]
        );
    }

    #[test]
    fn inside_skills_and_provider() {
        let text = r#"{"name":"n","description":"d","version":"1","url":"u","capabilities":{},"defaultInputModes":[],
            "defaultOutputModes":[],"provider":{"url":"u"},"skills":[{"id":"i","name":"n","description":"d"}]}"#;
        assert_eq!(missing_in(text), ["/provider/organization", "/skills/0/tags"]);
    }

    #[test]
    fn the_list_is_bounded() {
        let skills = vec!["{}"; 5000].join(",");
        assert_eq!(missing_in(&format!("{{\"skills\":[{skills}]}}")).len(), MAX_LISTED);
    }
}
