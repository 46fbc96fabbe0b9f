//! The signer's half (card §16.2).

use agent_trust::Card;
use agent_trust::profile::Profile;
use agent_trust::sign::{SignError, Signer};
use agent_trust::verify::{Policy, ReasonCode, verify};
use jiff::Timestamp;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use rstest::rstest;
use serde_json::Value;

use crate::mint::{Issued, NOW, Wish, authority, bundle_of, ec, leaf, p256, rsa};

const BOTH: &[Profile] = &[Profile::Legacy, Profile::A2a];

fn pkcs8(key: &PKey<Private>) -> Vec<u8> {
    key.private_key_to_pem_pkcs8().expect("PEM")
}

fn signer(issued: &Issued) -> Result<Signer, SignError> {
    Signer::new(&pkcs8(&issued.key), &[&issued.der()])
}

fn refusal(result: Result<Signer, SignError>) -> String {
    result.err().expect("must be refused").to_string()
}

#[rstest]
#[case::rsa(rsa(2048), "RS256")]
#[case::p256(p256(), "ES256")]
#[case::p384(ec(Nid::SECP384R1), "ES384")]
#[case::p521(ec(Nid::SECP521R1), "ES512")]
fn what_is_signed_verifies(#[case] key: PKey<Private>, #[case] alg: &str) {
    use base64::Engine as _;

    let root = authority("root").root(p256());
    let middle = authority("middle").by(&root, p256());
    let issued = leaf().by(&middle, key);
    // DER works as PEM does.
    let der = issued.key.private_key_to_pkcs8().expect("DER");
    let signer = Signer::new(&der, &[&issued.der(), &middle.der()]).expect("a signer");
    let signed = signer.sign(br#"{"name":"n","more":[1.50,-0,1e3]}"#, &Profile::ORDER).expect("signed");
    assert_eq!(signed.profiles, [Profile::Legacy, Profile::A2a]);

    let document: Value = serde_json::from_slice(&signed.document).expect("JSON");
    for signature in document["signatures"].as_array().expect("signatures") {
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(signature["protected"].as_str().expect("text"))
            .expect("base64url");
        let header: Value = serde_json::from_slice(&header).expect("JSON");
        assert_eq!(header["alg"], alg);
    }
    let card = Card::read(&signed.document).expect("a card");
    let now = Timestamp::from_second(NOW).expect("a time");
    let verdict = verify(&card, &bundle_of(&[&root]), &Policy::default(), now);
    assert_eq!(
        (verdict.reason, verdict.profile),
        (ReasonCode::Ok, Some(Profile::A2a)),
        "{}",
        verdict.details()
    );
    assert_eq!(verdict.key_id.as_deref(), Some(signer.key_id()));
    assert_eq!(verdict.spiffe_id.as_ref(), Some(signer.spiffe_id()));
}

/// Members, their order and the text of numbers survive; old signatures do not.
#[test]
fn the_document_is_preserved() {
    let signer = signer(&leaf().by(&authority("root").root(p256()), p256())).expect("a signer");
    let card = br#"{"zeta":{"b":1.0,"a":[]},"signatures":[{"protected":"old","signature":"old"}],"name":"n\u00e9","big":12345678901234567890}"#;
    let text = String::from_utf8(signer.sign(card, BOTH).expect("signed").document).expect("UTF-8");
    assert!(
        text.starts_with("{\n  \"zeta\": {\n    \"b\": 1.0,\n    \"a\": []\n  },\n  \"signatures\": [\n"),
        "{text}"
    );
    assert!(text.ends_with("],\n  \"name\": \"né\",\n  \"big\": 12345678901234567890\n}"), "{text}");
    assert!(!text.contains("\"old\""));

    let appended =
        String::from_utf8(signer.sign(br#"{"name":"n"}"#, BOTH).expect("signed").document).expect("UTF-8");
    assert!(appended.starts_with("{\n  \"name\": \"n\",\n  \"signatures\": ["), "{appended}");
}

#[test]
fn inputs_that_are_no_cards() {
    let signer = signer(&leaf().by(&authority("root").root(p256()), p256())).expect("a signer");
    for (card, message) in [
        (&br#"{"name":1}"#[..], "/name must be a string"),
        (b"[]", "not a JSON object"),
        (b"{\"a\":1,\"a\":2}", "duplicate"),
        (br#"{"agentCard":{"name":"n"},"attestations":{}}"#, "SignedAgentCard envelope"),
    ] {
        let error = signer.sign(card, BOTH).expect_err("must be refused").to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(signer.sign(b"{}", &[]).is_err());
}

#[test]
fn identities_that_cannot_sign() {
    let root = authority("root").root(p256());
    let good = leaf().by(&root, p256());
    assert!(refusal(Signer::new(b"nonsense", &[&good.der()])).contains("private key"));
    let locked = good.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").expect("PEM");
    assert!(refusal(Signer::new(&locked, &[&good.der()])).contains("unencrypted"));
    assert!(refusal(Signer::new(&pkcs8(&p256()), &[&good.der()])).contains("does not belong"));
    assert!(refusal(Signer::new(&pkcs8(&good.key), &[])).contains("0 certificates"));
    let der = good.der();
    assert!(refusal(Signer::new(&pkcs8(&good.key), &[der.as_slice(); 4])).contains("4 certificates"));
    assert!(refusal(Signer::new(&pkcs8(&good.key), &[&der[1..]])).contains("certificate 0"));
    let nameless = Wish { uris: vec![], ..leaf() }.by(&root, p256());
    assert!(refusal(signer(&nameless)).contains("SPIFFE ID"));
    for key in [rsa(1024), ec(Nid::SECP256K1), PKey::generate_ed25519().expect("key")] {
        assert!(refusal(signer(&leaf().by(&root, key))).contains("cannot sign cards"));
    }
}
