//! Every entry of `card-vectors.json` (card §8.9, scenario 10).

use std::time::Duration;

use crate::fixtures::{VECTORS, bundle, entries, entry, operator_domain, text};
use agent_trust::bundle::{BundleError, TrustBundle};
use agent_trust::profile::{Profile, payload, unsigned_members};
use agent_trust::sign::Signer;
use agent_trust::verify::{LeafExpiry, Policy, ReasonCode, verify};
use agent_trust::{Card, SpiffeId};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

fn policy(overrides: &Value) -> Policy {
    let defaults = &VECTORS["defaultPolicy"];
    let setting = |name: &str| overrides.get(name).unwrap_or(&defaults[name]).clone();
    Policy {
        leaf_expiry: setting("leafExpiry").as_str().expect("text").parse::<LeafExpiry>().expect("known"),
        grace: Duration::from_secs(setting("graceSeconds").as_u64().expect("number")),
        skew: Duration::from_secs(setting("skewSeconds").as_u64().expect("number")),
    }
}

/// The codes that may stand for each other when one certificate has several defects (card §8.9).
const CERTIFICATE_DEFECTS: [&str; 3] = ["leaf_invalid", "chain_invalid", "san_invalid"];

fn check_verification(id: &str) {
    let case = entry("verification", id);
    let card = Card::read(text(case, "card").as_bytes()).expect("a card");
    let now: Timestamp = text(case, "now").parse().expect("a time");
    let verdict = verify(&card, &bundle(text(case, "bundle")), &policy(&case["policy"]), now);
    let expect = &case["expect"];
    let seen = verdict.details();
    assert_eq!(verdict.verified, expect["verified"].as_bool().expect("a verdict"), "{seen}");
    assert_eq!(verdict.verified, verdict.reason.is_ok());
    if !verdict.verified {
        let wanted = text(expect, "reason");
        let interchangeable =
            CERTIFICATE_DEFECTS.contains(&wanted) && CERTIFICATE_DEFECTS.contains(&verdict.reason.as_str());
        assert!(
            verdict.reason.as_str() == wanted || interchangeable,
            "{wanted}, got {}: {seen}",
            verdict.reason
        );
        assert!(verdict.payload.is_none() && verdict.spiffe_id.is_none() && verdict.profile.is_none());
        return;
    }
    assert_eq!(verdict.spiffe_id.as_ref().map(SpiffeId::as_str), expect["spiffeId"].as_str());
    assert_eq!(verdict.key_id.as_deref(), expect["keyId"].as_str());
    assert_eq!(verdict.not_after.expect("an end").to_string(), text(expect, "leafNotAfter"));
    assert_eq!(verdict.profile.expect("a profile").as_str(), text(expect, "profile"));
    assert_eq!(json!(verdict.unsigned_members), expect.get("unsignedMembers").cloned().unwrap_or(json!([])));
    assert_eq!(
        verdict.expired,
        case["policy"]["leafExpiry"] != "ignore" && now > verdict.not_after.expect("an end")
    );
}

/// What is shown of a verified card is exactly what its signature covers.
fn check_exposed(id: &str) {
    let case = entry("verification", id);
    let card = Card::read(text(case, "card").as_bytes()).expect("a card");
    let now: Timestamp = text(case, "now").parse().expect("a time");
    let verdict = verify(&card, &bundle(text(case, "bundle")), &policy(&case["policy"]), now);
    let (Some(shown), Some(profile)) = (verdict.payload, verdict.profile) else { return };
    assert_eq!(&Card::read(&payload(card.value(), profile)).expect("a card"), &shown);
    for pointer in &verdict.unsigned_members {
        assert!(
            serde_json::Value::from(shown.value()).pointer(pointer).is_none(),
            "{pointer} is not covered"
        );
    }
}

macro_rules! one_test_each {
    ($ids:ident, $check:ident, $($name:ident => $id:literal,)+) => {
        const $ids: &[&str] = &[$($id),+];
        $(#[test]
        fn $name() {
            $check($id);
        })+
    };
}

fn check_verified(id: &str) {
    check_exposed(id);
    check_verification(id);
}

one_test_each! { VERIFICATION, check_verified,
    verification_es256_legacy => "es256-legacy",
    verification_es256_legacy_pem_bundle => "es256-legacy-pem-bundle",
    verification_rs256_legacy => "rs256-legacy",
    verification_es384_legacy => "es384-legacy",
    verification_html_escaping_matters => "html-escaping-matters",
    verification_a2a_profile => "a2a-profile",
    verification_jcs_profile => "jcs-profile",
    verification_unsigned_extra_members => "unsigned-extra-members",
    verification_chain_one_intermediate => "chain-one-intermediate",
    verification_unknown_ca_same_subject => "unknown-ca-same-subject",
    verification_unknown_ca_root_supplied_in_x5c => "unknown-ca-root-supplied-in-x5c",
    verification_self_signed_leaf => "self-signed-leaf",
    verification_wrong_key => "wrong-key",
    verification_tampered_payload => "tampered-payload",
    verification_added_known_member => "added-known-member",
    verification_tampered_header => "tampered-header",
    verification_alg_none => "alg-none",
    verification_alg_none_valid_bytes => "alg-none-valid-bytes",
    verification_alg_hs256_public_key_as_secret => "alg-hs256-public-key-as-secret",
    verification_alg_rs256_on_ec_key => "alg-rs256-on-ec-key",
    verification_x5c_absent => "x5c-absent",
    verification_no_signatures => "no-signatures",
    verification_empty_signatures => "empty-signatures",
    verification_foreign_signature_first => "foreign-signature-first",
    verification_good_signature_first => "good-signature-first",
    verification_san_none => "san-none",
    verification_san_two_spiffe => "san-two-spiffe",
    verification_san_https_only => "san-https-only",
    verification_cross_domain_issuer => "cross-domain-issuer",
    verification_federated_domain => "federated-domain",
    verification_leaf_is_ca => "leaf-is-ca",
    verification_expired_4h_default_grace => "expired-4h-default-grace",
    verification_expired_25h_default_grace => "expired-25h-default-grace",
    verification_expired_4h_deny => "expired-4h-deny",
    verification_expired_years_ignore => "expired-years-ignore",
    verification_not_yet_valid_1h => "not-yet-valid-1h",
    verification_not_yet_valid_within_skew => "not-yet-valid-within-skew",
    verification_rotation_both_cas => "rotation-both-cas",
    verification_rotation_new_ca_leaf => "rotation-new-ca-leaf",
    verification_rotation_old_ca_removed => "rotation-old-ca-removed",
}

/// A vector that is added to the file must be added here.
#[test]
fn every_verification_vector_has_a_test() {
    let known: Vec<&str> = entries("verification").iter().map(|case| text(case, "id")).collect();
    assert_eq!(known, VERIFICATION);
    assert_eq!(known.len(), 40);
}

#[rstest]
fn canonicalization(#[values(0, 1, 2, 3, 4)] number: usize) {
    let case = &entries("canonicalization")[number];
    let card = Card::read(text(case, "input").as_bytes()).expect("a card");
    for name in case["normative"].as_array().expect("profiles") {
        let profile: Profile = name.as_str().expect("text").parse().expect("known");
        let bytes = payload(card.value(), profile);
        let expected = &case["expected"][profile.as_str()];
        assert_eq!(String::from_utf8_lossy(&bytes), text(expected, "payload"), "{profile}");
        assert_eq!(sha256(&bytes), text(expected, "sha256"), "{profile}");
    }
    assert_eq!(json!(unsigned_members(card.value(), Profile::Legacy)), case["unsignedUnderLegacy"]);
    assert_eq!(card.content_id(), text(case, "expectedCardId"));
}

#[test]
fn trust_bundles() {
    let bundles = VECTORS["trustBundles"].as_object().expect("an object");
    assert_eq!(bundles.len(), 5);
    for (name, expected) in bundles {
        let bundle = bundle(name);
        let mut found = serde_json::Map::new();
        for (der, domain) in bundle.roots() {
            let domain = domain.expect("every authority has a domain").as_str();
            let of_domain = found.entry(domain).or_insert_with(|| json!([])).as_array_mut().expect("a list");
            of_domain.push(sha256(der).into());
        }
        assert_eq!(Value::Object(found), expected["trustDomains"], "{name}");
        assert_eq!(bundle.fingerprint(), text(expected, "fingerprint"), "{name}");
    }
}

#[rstest]
fn bundle_parsing(#[values(0, 1, 2, 3, 4, 5, 6, 7)] number: usize) {
    let case = &entries("bundleParsing")[number];
    let parsed = TrustBundle::parse(text(case, "text"), None);
    let expect = &case["expect"];
    if let Some(label) = expect["error"].as_str() {
        assert_eq!(parsed.map_err(BundleError::label), Err(label), "{}", case["id"]);
    } else {
        let bundle = parsed.expect("a bundle");
        assert_eq!(bundle.roots().count() as u64, expect["certificates"].as_u64().expect("a number"));
        let domains: Vec<String> = bundle.trust_domains().iter().map(ToString::to_string).collect();
        assert_eq!(json!(domains), expect["trustDomains"], "{}", case["id"]);
        let told = bundle.trust_domain().map(|domain| domain.to_string());
        assert_eq!(told, (domains.len() == 1).then(|| domains[0].clone()), "{}", case["id"]);
    }
}

#[rstest]
fn spiffe_ids(#[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)] number: usize) {
    let case = &entries("spiffeIds")[number];
    let valid = SpiffeId::parse(text(case, "uri")).is_ok();
    assert_eq!(valid, case["validLeafId"].as_bool().expect("a verdict"), "{}", case["id"]);
}

#[rstest]
fn envelopes(#[values(0, 1, 2)] number: usize) {
    let case = &entries("envelopes")[number];
    let card = Card::read(text(case, "document").as_bytes()).expect("a card");
    let expect = &case["expect"];
    assert_eq!(card.envelope().is_some(), expect["envelope"].as_bool().expect("a verdict"));
    let bundled = card.envelope().is_some_and(|envelope| envelope.signature_bundle().is_some());
    assert_eq!(bundled, expect["signatureBundlePresent"].as_bool().expect("a verdict"));
    assert_eq!(card.name(), expect["cardName"].as_str());
}

#[rstest]
fn signer(#[values(0, 1, 2)] number: usize) {
    let case = &entries("signer")[number];
    let expect = &case["expect"];
    let chain: Vec<Vec<u8>> = expect["x5c"]
        .as_array()
        .expect("certificates")
        .iter()
        .map(|der| STANDARD.decode(der.as_str().expect("text")).expect("base64"))
        .collect();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let signer = Signer::new(text(case, "privateKeyPkcs8Pem").as_bytes(), &chain).expect("a signer");
    assert_eq!(signer.key_id(), text(expect, "kid"));
    assert_eq!(signer.spiffe_id().as_str(), text(expect, "spiffeId"));

    let unsigned = text(case, "unsignedCard");
    let signed = signer.sign(unsigned.as_bytes(), &[Profile::Legacy, Profile::A2a]).expect("signed");
    let document: Value = serde_json::from_slice(&signed.document).expect("JSON");
    let signatures = document["signatures"].as_array().expect("signatures");
    assert_eq!(signatures.len() as u64, expect["signatures"].as_u64().expect("a number"));
    for signature in signatures {
        let header = URL_SAFE_NO_PAD.decode(text(signature, "protected")).expect("base64url");
        let header: Value = serde_json::from_slice(&header).expect("JSON");
        assert_eq!(
            header,
            json!({"alg": expect["alg"], "typ": expect["typ"], "kid": expect["kid"], "x5c": expect["x5c"]})
        );
        let raw = URL_SAFE_NO_PAD.decode(text(signature, "signature")).expect("base64url");
        assert_eq!(raw.len() as u64, expect["signatureBytes"].as_u64().expect("a number"));
    }

    let card = Card::read(&signed.document).expect("a card");
    for (profile, name) in [(Profile::Legacy, "legacyPayload"), (Profile::A2a, "a2aPayload")] {
        assert_eq!(String::from_utf8_lossy(&payload(card.value(), profile)), text(expect, name));
    }
    // Every signature on its own verifies.
    for signature in signatures {
        let mut alone = document.clone();
        alone["signatures"] = json!([signature]);
        let alone = Card::read(alone.to_string().as_bytes()).expect("a card");
        let now = "2026-06-01T00:00:00Z".parse().expect("a time");
        let verdict = verify(&alone, &bundle("spiffe-json"), &Policy::default(), now);
        assert_eq!(verdict.reason, ReasonCode::Ok, "{}", verdict.details());
    }
}

#[test]
fn sections_have_the_entries_that_are_tested() {
    for (section, count) in
        [("canonicalization", 5), ("bundleParsing", 8), ("spiffeIds", 19), ("envelopes", 3), ("signer", 3)]
    {
        assert_eq!(entries(section).len(), count, "{section}");
    }
    assert_eq!(operator_domain().as_str(), "dev.cluster.local");
    let codes: Vec<&str> = entries("reasonCodes").iter().filter_map(Value::as_str).collect();
    for code in [
        ReasonCode::NoSignature,
        ReasonCode::TooManySignatures,
        ReasonCode::InvalidCard,
        ReasonCode::HeaderInvalid,
        ReasonCode::NoX5c,
        ReasonCode::AlgRejected,
        ReasonCode::ParseError,
        ReasonCode::ChainInvalid,
        ReasonCode::LeafInvalid,
        ReasonCode::Expired,
        ReasonCode::NotYetValid,
        ReasonCode::SanInvalid,
        ReasonCode::TrustDomain,
        ReasonCode::KeyPolicy,
        ReasonCode::JwsInvalid,
    ] {
        assert!(codes.contains(&code.as_str()), "{code}");
    }
    assert_eq!(codes.len(), 15);
}
