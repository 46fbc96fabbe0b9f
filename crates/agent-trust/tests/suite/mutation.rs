//! No mutation of anything that is signed is ever verified.
//!
//! A short form runs always; the long one (100,000 mutations of each kind) with `just test-long`.

use agent_trust::profile::{Profile, payload};
use agent_trust::verify::{Policy, ReasonCode, verify};
use agent_trust::{Card, TrustBundle};
use jiff::Timestamp;
use openssl::pkey::{PKey, Private};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::fixtures::{bundle, entry, text};
use crate::mint::{Issued, NOW, authority, bundle_of, header, jws, leaf, p256};

const SHORT: u32 = 1_500;
const LONG: u32 = 100_000;

/// A card that verifies, and what its signature covers.
struct Good {
    signatures: Value,
    payload: Vec<u8>,
    profile: Profile,
    bundle: TrustBundle,
    now: Timestamp,
}

fn good(id: &str) -> Good {
    let case = entry("verification", id);
    let card = Card::read(text(case, "card").as_bytes()).expect("a card");
    let (bundle, now) = (bundle(text(case, "bundle")), text(case, "now").parse().expect("a time"));
    let verdict = verify(&card, &bundle, &Policy::default(), now);
    let profile = verdict.profile.expect("verified");
    let signatures = serde_json::from_str::<Value>(text(case, "card")).expect("JSON")["signatures"].clone();
    Good { signatures, payload: payload(card.value(), profile), profile, bundle, now }
}

fn goods() -> Vec<Good> {
    [
        "es256-legacy",
        "html-escaping-matters",
        "a2a-profile",
        "jcs-profile",
        "chain-one-intermediate",
        "rs256-legacy",
    ]
    .map(good)
    .into_iter()
    .collect()
}

/// The payload as a document, with its signatures put before its first member.
fn document(signatures: &Value, payload: &[u8]) -> Vec<u8> {
    [format!("{{\"signatures\":{signatures},").as_bytes(), payload.get(1..).unwrap_or_default()].concat()
}

fn run<S: Strategy>(cases: u32, strategy: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(strategy, check) {
        panic!("{failure}");
    }
}

/// Replaces, inserts or removes a byte.
fn edited(bytes: &[u8], at: usize, kind: u8, byte: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match kind {
        0 => out[at] = byte,
        1 => out.insert(at, byte),
        _ => drop(out.remove(at)),
    }
    out
}

fn payload_bytes(cases: u32) {
    let goods = goods();
    for one in &goods {
        let card = Card::read(&document(&one.signatures, &one.payload)).expect("a card");
        assert!(verify(&card, &one.bundle, &Policy::default(), one.now).verified, "unchanged it verifies");
    }
    let strategy = (
        any::<Index>(),
        any::<Index>(),
        0_u8..3,
        prop_oneof![any::<u8>(), select(b"\"{}[],:0aA \\&<".to_vec())],
    );
    run(cases, &strategy, |(which, at, kind, byte)| {
        let one = &goods[which.index(goods.len())];
        // The first byte opens the object that the signatures are put into.
        let changed = edited(&one.payload, 1 + at.index(one.payload.len() - 1), kind, byte);
        let Ok(card) = Card::read(&document(&one.signatures, &changed)) else { return Ok(()) };
        let verdict = verify(&card, &one.bundle, &Policy::default(), one.now);
        // Some edits change the text and not the content, such as a space or the case of an escape. And under `legacy`
        // a new member can lie outside what is signed. What is covered and shown must be the signed bytes, always.
        let same = payload(card.value(), one.profile) == one.payload;
        prop_assert_eq!(verdict.verified, same, "{}", String::from_utf8_lossy(&changed));
        if let Some(shown) = verdict.payload {
            prop_assert_eq!(shown, Card::read(&one.payload).expect("a card"));
        }
        Ok(())
    });
}

#[test]
fn payload_mutations() {
    payload_bytes(SHORT);
}

#[test]
#[ignore = "long: just test-long"]
fn payload_mutations_long() {
    payload_bytes(LONG);
}

/// Header and signature: any other text in their place is refused, even one that decodes to the same bytes.
fn signature_text(cases: u32) {
    let goods = goods();
    let strategy =
        (any::<Index>(), any::<Index>(), any::<bool>(), 0_u8..3, select((0x20..0x7f).collect::<Vec<u8>>()));
    run(cases, &strategy, |(which, at, in_header, kind, byte)| {
        let one = &goods[which.index(goods.len())];
        let member = if in_header { "protected" } else { "signature" };
        let old = one.signatures[0][member].as_str().expect("text");
        let new = String::from_utf8(edited(old.as_bytes(), at.index(old.len()), kind, byte)).expect("ASCII");
        if new == old {
            return Ok(());
        }
        let mut signatures = one.signatures.clone();
        signatures[0][member] = json!(new);
        let card = Card::read(&document(&signatures, &one.payload)).expect("a card");
        let verdict = verify(&card, &one.bundle, &Policy::default(), one.now);
        prop_assert!(!verdict.verified, "{} became {}", member, new);
        Ok(())
    });
}

#[test]
fn signature_mutations() {
    signature_text(SHORT);
}

#[test]
#[ignore = "long: just test-long"]
fn signature_mutations_long() {
    signature_text(LONG);
}

/// A certificate that is changed by its holder, who then signs with the matching key: never accepted.
fn certificate_bytes(cases: u32) {
    let root = authority("root").root(p256());
    let middle = authority("middle").by(&root, p256());
    let signer = leaf().by(&middle, p256());
    let bundle = bundle_of(&[&root]);
    let now = Timestamp::from_second(NOW).expect("a time");
    let ders = [signer.der(), middle.der()];
    let judge = |ders: &[Vec<u8>], key: &PKey<Private>| {
        let card = br#"{"name":"n"}"#;
        let signature = jws(&header("ES256", ders), "ES256", key, card);
        let document = document(&json!([signature]), card);
        verify(&Card::read(&document).expect("a card"), &bundle, &Policy::default(), now).reason
    };
    assert_eq!(judge(&ders, &signer.key), ReasonCode::Ok);
    let strategy = (any::<bool>(), any::<Index>(), 0_u8..3, any::<u8>());
    run(cases, &strategy, |(of_leaf, at, kind, byte)| {
        let mut changed = ders.clone();
        let victim = &mut changed[usize::from(!of_leaf)];
        *victim = edited(victim, at.index(victim.len()), kind, byte);
        if changed != ders {
            let reason = judge(&changed, &signer.key);
            prop_assert!(!reason.is_ok(), "{:02x?}", changed);
        }
        Ok(())
    });
}

#[test]
fn certificate_mutations() {
    certificate_bytes(SHORT);
}

#[test]
#[ignore = "long: just test-long"]
fn certificate_mutations_long() {
    certificate_bytes(LONG);
}

/// The holder of one identity cannot give a card to another: a foreign key under a good certificate.
#[test]
fn certificates_of_others() {
    let root = authority("root").root(p256());
    let (victim, thief) = (leaf().by(&root, p256()), leaf().by(&root, p256()));
    let stolen = Issued { certificate: victim.certificate, key: thief.key };
    let card = br#"{"name":"n"}"#;
    let signature = jws(&header("ES256", &[stolen.der()]), "ES256", &stolen.key, card);
    let card = Card::read(&document(&json!([signature]), card)).expect("a card");
    let now = Timestamp::from_second(NOW).expect("a time");
    let verdict = verify(&card, &bundle_of(&[&root]), &Policy::default(), now);
    assert_eq!(verdict.reason, ReasonCode::JwsInvalid);
}
