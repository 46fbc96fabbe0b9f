//! What holds for every input: readers never panic, canonical forms are canonical.

use std::fmt::Write as _;

use agent_trust::json::{self, jcs, pretty};
use agent_trust::profile::{Profile, payload, unsigned_members};
use agent_trust::spiffe::{SpiffeId, TrustDomain};
use agent_trust::verify::{Policy, verify};
use agent_trust::{Card, TrustBundle, peer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::fixtures::{bundle, entry, operator_domain, text};

/// Names that mean something in a card, and some that do not.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "name",
        "description",
        "url",
        "provider",
        "capabilities",
        "extensions",
        "params",
        "skills",
        "tags",
        "examples",
        "signatures",
        "supportedInterfaces",
        "securitySchemes",
        "securityRequirements",
        "list",
        "keys",
        "agentCard",
    ];
    prop_oneof![3 => select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::from("")),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text that is nearly JSON.
fn jsonish() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"a\"",
        "\"b\"",
        "\"",
        "\\",
        "\\u00",
        "\\ud800",
        "\\udc00",
        "1",
        "-",
        "0",
        ".",
        "e",
        "e999",
        "true",
        "null",
        " ",
        "\n",
        "\u{feff}",
        "é",
        "\u{0}",
        "\"keys\"",
        "\"skills\"",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..40).prop_map(|pieces| pieces.concat())
}

fn read_everything(bytes: &[u8]) {
    let _ = json::parse(bytes);
    if let Ok(card) = Card::read(bytes) {
        let now = Timestamp::UNIX_EPOCH;
        let verdict = verify(&card, &bundle("spiffe-json"), &Policy::default(), now);
        assert!(!verdict.verified);
        assert!(verdict.details().len() <= 1024);
        let _ = (
            card.stored(),
            card.missing_required(),
            card.content_id(),
            card.advertised_url(),
            card.protocol_version(),
        );
        for profile in Profile::ORDER {
            let _ = unsigned_members(card.value(), profile);
        }
    }
    let lossy = String::from_utf8_lossy(bytes);
    let _ = TrustBundle::parse(&lossy, Some(&operator_domain()));
    let _ = (SpiffeId::parse(&lossy), TrustDomain::configured(&lossy), TrustDomain::of_authority(&lossy));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn nearly_json(text in jsonish()) {
        read_everything(text.as_bytes());
        // Whatever we take for JSON, another strict reader does too.
        if let Ok(value) = json::parse(text.as_bytes()) {
            let other: Value = serde_json::from_str(&text).expect("serde_json reads it");
            prop_assert_eq!(Value::from(&value), other);
        }
    }

    #[test]
    fn documents(value in document()) {
        let text = value.to_string();
        read_everything(text.as_bytes());
        let tree = json::parse(text.as_bytes()).expect("serde_json writes JSON");
        // The canonical text is a fixed point, whatever the order of members and the whitespace.
        let canonical = jcs(&tree);
        prop_assert_eq!(&jcs(&json::parse(&canonical).expect("canonical JSON")), &canonical);
        prop_assert_eq!(&jcs(&json::parse(&pretty(&tree)).expect("indented JSON")), &canonical);
        prop_assert_eq!(&jcs(&json::parse(reversed(&value).as_bytes()).expect("JSON")), &canonical);
        for profile in Profile::ORDER {
            let once = payload(&tree, profile);
            let twice = payload(&json::parse(&once).expect("a payload is JSON"), profile);
            prop_assert_eq!(once, twice, "{}", profile);
        }
    }

    /// Numbers keep their value and have one form.
    #[test]
    fn numbers(double in any::<f64>()) {
        prop_assume!(double.is_finite());
        let mut forms = vec![format!("{double:e}"), format!("{double:?}")];
        forms.push(jcs(&json::parse(forms[0].as_bytes()).expect("a number")).iter().map(|byte| char::from(*byte)).collect());
        let canonical: Vec<Vec<u8>> =
            forms.iter().map(|form| jcs(&json::parse(form.as_bytes()).expect("a number"))).collect();
        prop_assert!(canonical.windows(2).all(|pair| pair[0] == pair[1]));
        let text = String::from_utf8(canonical[0].clone()).expect("ASCII");
        let (read, zero) = (text.parse::<f64>().expect("a number"), double.to_bits() << 1 == 0);
        prop_assert!(read.to_bits() == double.to_bits() || zero);
    }

    #[test]
    fn headers(object in document(), raw in prop::collection::vec(any::<u8>(), 0..200)) {
        for header in [object.to_string().into_bytes(), raw] {
            let card = format!(
                r#"{{"signatures":[{{"protected":"{}","signature":"AAAA"}}]}}"#,
                URL_SAFE_NO_PAD.encode(header)
            );
            read_everything(card.as_bytes());
        }
    }

    /// Certificates: bytes of any kind, and good ones with a hole.
    #[test]
    fn x5c(mut der in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = text(entry("verification", "chain-one-intermediate"), "card");
        let good: Value = serde_json::from_str(good).expect("JSON");
        let header = URL_SAFE_NO_PAD.decode(good["signatures"][0]["protected"].as_str().expect("text")).expect("base64url");
        let header: Value = serde_json::from_slice(&header).expect("JSON");
        let mut hurt = STANDARD.decode(header["x5c"][0].as_str().expect("text")).expect("base64");
        let at = at.index(hurt.len());
        hurt[at] = byte;
        der.truncate(200);
        for der in [der, hurt] {
            let mut header = header.clone();
            header["x5c"][0] = STANDARD.encode(&der).into();
            let card = format!(
                r#"{{"name":"n","signatures":[{{"protected":"{}","signature":"AAAA"}}]}}"#,
                URL_SAFE_NO_PAD.encode(header.to_string())
            );
            read_everything(card.as_bytes());
            let bundle_text = format!(r#"{{"keys":[{{"use":"x509-svid","x5c":["{}"]}}]}}"#, STANDARD.encode(&der));
            read_everything(bundle_text.as_bytes());
            let mut pem = String::new();
            writeln!(pem, "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", STANDARD.encode(&der)).expect("text");
            read_everything(pem.as_bytes());
            let now = Timestamp::UNIX_EPOCH;
            prop_assert!(peer::identify(&[&der], &bundle("spiffe-json"), &operator_domain(), now).is_err());
        }
    }

    /// What is accepted as an ID is exactly scheme, trust domain and path.
    #[test]
    fn ids(text in "(spiffe://)?[a-zA-Z0-9._-]{0,5}(/[a-zA-Z0-9._%-]{0,3}){0,3}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            prop_assert!(id.path().len() > 1);
        }
    }
}

/// The document with the members of every object in reverse order and spaces between everything.
fn reversed(value: &Value) -> String {
    match value {
        Value::Array(elements) => {
            format!("[ {} ]", elements.iter().map(reversed).collect::<Vec<_>>().join(" , "))
        }
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, member)| format!("{} : {}", Value::from(name.as_str()), reversed(member)))
                .collect();
            members.reverse();
            format!("{{\n{}\n}}", members.join("\t,\r\n"))
        }
        scalar => scalar.to_string(),
    }
}
