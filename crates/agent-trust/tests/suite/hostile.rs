//! Cards that lie: every step of card §8.3 and §8.4 with certificates made for the purpose.

use std::sync::LazyLock;
use std::time::Duration;

use crate::mint::{
    HOUR, ID, Issued, NOW, Wish, authority, bundle_of, ec, header, jws, leaf, p256, permit_uri, rsa, tlv,
};
use agent_trust::profile::{Profile, payload};
use agent_trust::verify::{LeafExpiry, Policy, ReasonCode, Verification, verify};
use agent_trust::{Card, TrustBundle};
use jiff::Timestamp;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Rsa;
use rstest::rstest;
use serde_json::{Value, json};

static ROOT: LazyLock<Issued> = LazyLock::new(|| authority("root").root(p256()));
static BUNDLE: LazyLock<TrustBundle> = LazyLock::new(|| bundle_of(&[&ROOT]));
static RSA_KEY: LazyLock<PKey<Private>> = LazyLock::new(|| rsa(2048));

fn card_json() -> Value {
    json!({"name": "Echo", "version": "1", "url": "http://echo:8000"})
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn judge(card: &Value, bundle: &TrustBundle) -> Verification {
    verify(&Card::read(card.to_string().as_bytes()).expect("a card"), bundle, &Policy::default(), at(NOW))
}

fn with(signatures: &[Value]) -> Value {
    let mut card = card_json();
    card["signatures"] = json!(signatures);
    card
}

fn legacy(card: &Value) -> Vec<u8> {
    payload(Card::read(card.to_string().as_bytes()).expect("a card").value(), Profile::Legacy)
}

/// A correctly made signature by `signer`, with `above` in x5c after the leaf.
fn signed_by(signer: &Issued, alg: &str, above: &[&Issued]) -> Value {
    let chain: Vec<Vec<u8>> = std::iter::once(signer).chain(above.iter().copied()).map(Issued::der).collect();
    jws(&header(alg, &chain), alg, &signer.key, &legacy(&card_json()))
}

fn reason_of(wish: &Wish) -> ReasonCode {
    judge(&with(&[signed_by(&wish.by(&ROOT, p256()), "ES256", &[])]), &BUNDLE).reason
}

#[test]
fn a_good_one_is_verified() {
    assert_eq!(reason_of(&leaf()), ReasonCode::Ok);
    assert_eq!(reason_of(&Wish { key_usage: None, ca: None, ..leaf() }), ReasonCode::Ok);
}

/// All nine algorithms, P-521 and PSS among them.
#[rstest]
#[case("RS256", None)]
#[case("RS384", None)]
#[case("RS512", None)]
#[case("PS256", None)]
#[case("PS384", None)]
#[case("PS512", None)]
#[case("ES256", Some(Nid::X9_62_PRIME256V1))]
#[case("ES384", Some(Nid::SECP384R1))]
#[case("ES512", Some(Nid::SECP521R1))]
fn algorithms(#[case] alg: &str, #[case] curve: Option<Nid>) {
    let key = || curve.map_or_else(|| RSA_KEY.clone(), ec);
    // The same kind of key all the way up.
    let root = Wish { hash: MessageDigest::sha512(), ..authority("top") }.root(key());
    let middle = Wish { hash: MessageDigest::sha384(), ..authority("middle") }.by(&root, key());
    let signer = leaf().by(&middle, key());
    let verdict = judge(&with(&[signed_by(&signer, alg, &[&middle])]), &bundle_of(&[&root]));
    assert_eq!(verdict.reason, ReasonCode::Ok, "{}", verdict.details());
    // The same bytes under every other name.
    for other in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "none", "HS256"]
    {
        if other != alg {
            let chain = [signer.der(), middle.der()];
            let confused = jws(&header(other, &chain), alg, &signer.key, &legacy(&card_json()));
            let verdict = judge(&with(&[confused]), &bundle_of(&[&root]));
            assert!(
                matches!(verdict.reason, ReasonCode::AlgRejected | ReasonCode::JwsInvalid),
                "{alg} as {other}: {}",
                verdict.details()
            );
        }
    }
}

#[rstest]
#[case::ca_as_leaf(Wish { ca: Some(true), ..leaf() }, ReasonCode::LeafInvalid)]
#[case::cert_sign(Wish { key_usage: Some(0x84), ..leaf() }, ReasonCode::LeafInvalid)]
#[case::crl_sign(Wish { key_usage: Some(0x82), ..leaf() }, ReasonCode::LeafInvalid)]
#[case::no_digital_signature(Wish { key_usage: Some(0x20), ..leaf() }, ReasonCode::LeafInvalid)]
#[case::no_uri(Wish { uris: vec![], ..leaf() }, ReasonCode::SanInvalid)]
#[case::two_ids(Wish { uris: vec![ID.into(), ID.into()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::id_and_web_address(Wish { uris: vec![ID.into(), b"https://x".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::web_address(Wish { uris: vec![b"https://dev.example/a".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::no_path(Wish { uris: vec![b"spiffe://dev.example".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::dotted_path(Wish { uris: vec![b"spiffe://dev.example/a/../b".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::upper_case(Wish { uris: vec![b"spiffe://DEV.example/a".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::not_ascii(Wish { uris: vec![b"spiffe://dev.example/\xff".to_vec()], ..leaf() }, ReasonCode::ParseError)]
#[case::nul(Wish { uris: vec![b"spiffe://dev.example/a\0b".to_vec()], ..leaf() }, ReasonCode::SanInvalid)]
#[case::foreign_domain(Wish { uris: vec![b"spiffe://other.example/a".to_vec()], ..leaf() }, ReasonCode::TrustDomain)]
#[case::unknown_critical(Wish { extensions: vec![("1.3.6.1.4.1.99999.1", true, vec![5, 0])], ..leaf() }, ReasonCode::ChainInvalid)]
#[case::critical_policy(Wish { extensions: vec![("2.5.29.36", true, vec![0x30, 3, 0x80, 1, 0])], ..leaf() }, ReasonCode::ChainInvalid)]
#[case::unknown_harmless(Wish { extensions: vec![("1.3.6.1.4.1.99999.1", false, vec![5, 0])], ..leaf() }, ReasonCode::Ok)]
#[case::second_names(Wish { extensions: vec![("2.5.29.17", false, tlv(0x30, &tlv(0x86, b"spiffe://dev.example/x")))], ..leaf() }, ReasonCode::ParseError)]
#[case::second_constraints(Wish { extensions: vec![("2.5.29.19", true, vec![0x30, 0])], ..leaf() }, ReasonCode::ParseError)]
#[case::malformed_usage(Wish { key_usage: None, extensions: vec![("2.5.29.15", true, vec![4, 1, 0x80])], ..leaf() }, ReasonCode::ParseError)]
#[case::sha1(Wish { hash: MessageDigest::sha1(), ..leaf() }, ReasonCode::ChainInvalid)]
fn leaves(#[case] wish: Wish, #[case] expected: ReasonCode) {
    assert_eq!(reason_of(&wish), expected);
}

fn components(modulus_bits: usize, exponent: u32) -> PKey<Public> {
    let mut modulus = vec![0xa5; modulus_bits / 8];
    modulus[0] = 0x81;
    let rsa = Rsa::from_public_components(
        BigNum::from_slice(&modulus).expect("number"),
        BigNum::from_u32(exponent).expect("number"),
    );
    PKey::from_rsa(rsa.expect("key")).expect("key")
}

/// Keys that are too weak, too expensive or of an unknown kind (step 10).
#[test]
fn keys_outside_the_policy() {
    let public: Vec<PKey<Public>> = vec![
        components(1024, 65537),
        components(2040, 65537),
        components(8200, 65537),
        components(16384, 65537),
        components(2048, 1),
        components(2048, 2),
    ];
    let others = [ec(Nid::SECP256K1), ec(Nid::SECP224R1), PKey::generate_ed25519().expect("key")];
    let certificates = public
        .iter()
        .map(|key| leaf().for_key(&ROOT, key))
        .chain(others.iter().map(|key| leaf().for_key(&ROOT, key)));
    for (n, certificate) in certificates.enumerate() {
        for alg in ["RS256", "PS256", "ES256"] {
            let chain = [certificate.to_der().expect("DER")];
            let card = with(&[jws(&header(alg, &chain), "ES256", &ROOT.key, &legacy(&card_json()))]);
            assert_eq!(judge(&card, &BUNDLE).reason, ReasonCode::KeyPolicy, "key {n} with {alg}");
        }
    }
}

/// What an intermediate must be (step 7), and what happens when it is not.
#[rstest]
#[case::good(authority("middle"), ReasonCode::Ok)]
#[case::not_a_ca(Wish { ca: Some(false), ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::no_basic_constraints(Wish { ca: None, ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::no_key_usage(Wish { key_usage: None, ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::no_cert_sign(Wish { key_usage: Some(0x82), ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::expired(Wish { to: NOW - 1, ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::future(Wish { from: NOW + 1, ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::path_length_zero(Wish { path_length: Some(0), ..authority("middle") }, ReasonCode::Ok)]
#[case::permitted(Wish { extensions: vec![("2.5.29.30", true, permit_uri("dev.example"))], ..authority("middle") }, ReasonCode::Ok)]
#[case::not_permitted(Wish { extensions: vec![("2.5.29.30", true, permit_uri("other.example"))], ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::not_permitted_though_not_critical(Wish { extensions: vec![("2.5.29.30", false, permit_uri("other.example"))], ..authority("middle") }, ReasonCode::ChainInvalid)]
#[case::malformed_constraints(Wish { extensions: vec![("2.5.29.30", true, vec![0x30, 2, 0xa0, 5])], ..authority("middle") }, ReasonCode::ParseError)]
#[case::unknown_critical(Wish { extensions: vec![("1.3.6.1.4.1.99999.1", true, vec![5, 0])], ..authority("middle") }, ReasonCode::ChainInvalid)]
fn intermediates(#[case] wish: Wish, #[case] expected: ReasonCode) {
    let middle = wish.by(&ROOT, p256());
    let signer = leaf().by(&middle, p256());
    assert_eq!(judge(&with(&[signed_by(&signer, "ES256", &[&middle])]), &BUNDLE).reason, expected);
}

#[test]
fn chains_of_three_in_any_order_and_their_path_length() {
    let upper = authority("upper").by(&ROOT, p256());
    let lower = authority("lower").by(&upper, p256());
    let signer = leaf().by(&lower, p256());
    for above in [[&lower, &upper], [&upper, &lower]] {
        assert_eq!(judge(&with(&[signed_by(&signer, "ES256", &above)]), &BUNDLE).reason, ReasonCode::Ok);
    }
    // A missing link, and one certificate too many.
    assert_eq!(
        judge(&with(&[signed_by(&signer, "ES256", &[&upper])]), &BUNDLE).reason,
        ReasonCode::ChainInvalid
    );
    let deep = judge(&with(&[signed_by(&signer, "ES256", &[&lower, &upper, &ROOT])]), &BUNDLE);
    assert_eq!(deep.reason, ReasonCode::ChainInvalid);
    assert!(deep.details().contains("chain too deep"), "{}", deep.details());

    let short = Wish { path_length: Some(0), ..authority("upper") }.by(&ROOT, p256());
    let lower = authority("lower").by(&short, p256());
    let signer = leaf().by(&lower, p256());
    assert_eq!(
        judge(&with(&[signed_by(&signer, "ES256", &[&lower, &short])]), &BUNDLE).reason,
        ReasonCode::ChainInvalid
    );
}

/// A workload's own certificate must not issue others, and an authority in x5c is no anchor.
#[test]
fn only_the_bundle_anchors_trust() {
    let workload = leaf().by(&ROOT, p256());
    let child = leaf().by(&workload, p256());
    assert_eq!(
        judge(&with(&[signed_by(&child, "ES256", &[&workload])]), &BUNDLE).reason,
        ReasonCode::ChainInvalid
    );

    let twin = authority("root").root(p256());
    let signer = leaf().by(&twin, p256());
    for above in [&[][..], &[&twin]] {
        assert_eq!(
            judge(&with(&[signed_by(&signer, "ES256", above)]), &BUNDLE).reason,
            ReasonCode::ChainInvalid
        );
    }
    // With both of one name in the bundle either is found.
    assert_eq!(
        judge(&with(&[signed_by(&signer, "ES256", &[])]), &bundle_of(&[&ROOT, &twin])).reason,
        ReasonCode::Ok
    );
    let many: Vec<Issued> = (0..40).map(|_| authority("root").root(p256())).collect();
    let crowd = bundle_of(&many.iter().collect::<Vec<_>>());
    let refused = judge(&with(&[signed_by(&signer, "ES256", &[])]), &crowd);
    assert_eq!(refused.reason, ReasonCode::ChainInvalid);
}

/// Authorities of the bundle are judged too.
#[rstest]
#[case(Wish { ca: Some(false), ..authority("r") })]
#[case(Wish { ca: None, ..authority("r") })]
#[case(Wish { key_usage: Some(0x80), ..authority("r") })]
#[case(Wish { to: NOW - 1, ..authority("r") })]
#[case(Wish { extensions: vec![("2.5.29.30", true, permit_uri("other.example"))], ..authority("r") })]
fn unfit_authorities(#[case] wish: Wish) {
    let root = wish.root(p256());
    let signer = leaf().by(&root, p256());
    assert_eq!(
        judge(&with(&[signed_by(&signer, "ES256", &[])]), &bundle_of(&[&root])).reason,
        ReasonCode::ChainInvalid
    );
}

fn at_with(signature: &Value, leaf_expiry: LeafExpiry, now: i64) -> Verification {
    let policy = Policy { leaf_expiry, grace: Duration::from_secs(1000), skew: Duration::from_secs(100) };
    let card = Card::read(with(std::slice::from_ref(signature)).to_string().as_bytes()).expect("a card");
    verify(&card, &BUNDLE, &policy, at(now))
}

/// Time (card §8.4), second by second around every edge, and the instant at which to look again.
#[test]
fn time() {
    let (start, end) = (NOW - HOUR, NOW + HOUR);
    let signature = signed_by(&leaf().by(&ROOT, p256()), "ES256", &[]);
    let edges = [
        (LeafExpiry::Grace, start - 101, ReasonCode::NotYetValid, start - 100),
        (LeafExpiry::Grace, start - 100, ReasonCode::Ok, start),
        (LeafExpiry::Grace, start, ReasonCode::Ok, end + 1),
        (LeafExpiry::Grace, end, ReasonCode::Ok, end + 1),
        (LeafExpiry::Grace, end + 1, ReasonCode::OkExpired, end + 1001),
        (LeafExpiry::Grace, end + 1000, ReasonCode::OkExpired, end + 1001),
        (LeafExpiry::Grace, end + 1001, ReasonCode::Expired, NOW + 180 * 24 * HOUR + 1),
        (LeafExpiry::Deny, end, ReasonCode::Ok, end + 1),
        (LeafExpiry::Deny, end + 100, ReasonCode::OkExpired, end + 101),
        (LeafExpiry::Deny, end + 101, ReasonCode::Expired, NOW + 180 * 24 * HOUR + 1),
    ];
    for (policy, now, expected, recheck) in edges {
        let verdict = at_with(&signature, policy, now);
        assert_eq!(verdict.reason, expected, "{policy:?} at {}", now - NOW);
        assert_eq!(verdict.expired, expected == ReasonCode::OkExpired);
        assert_eq!(verdict.recheck_at, Some(at(recheck)), "{policy:?} at {}", now - NOW);
        if verdict.expired {
            assert!(verdict.details().contains("is expired"), "{}", verdict.details());
        }
    }
    for now in [0, start - 1_000_000, end + 1_000_000_000] {
        let verdict = at_with(&signature, LeafExpiry::Ignore, now);
        assert_eq!((verdict.reason, verdict.recheck_at), (ReasonCode::Ok, None));
    }
}

/// A certificate that ends before it starts is good at no time.
#[test]
fn upside_down_validity() {
    let wish = Wish { from: NOW + HOUR, to: NOW - HOUR, ..leaf() };
    let signature = signed_by(&wish.by(&ROOT, p256()), "ES256", &[]);
    for policy in [LeafExpiry::Grace, LeafExpiry::Deny, LeafExpiry::Ignore] {
        assert!(!at_with(&signature, policy, NOW).verified);
    }
}

/// Headers (steps 2 to 4). Each is signed correctly, so nothing but the header can be the reason.
#[rstest]
#[case::crit(json!({"crit": []}), ReasonCode::HeaderInvalid)]
#[case::crit_null(json!({"crit": null}), ReasonCode::HeaderInvalid)]
#[case::b64(json!({"b64": true}), ReasonCode::HeaderInvalid)]
#[case::lower_case(json!({"alg": "es256"}), ReasonCode::AlgRejected)]
#[case::none(json!({"alg": "none"}), ReasonCode::AlgRejected)]
#[case::not_text(json!({"alg": 256}), ReasonCode::AlgRejected)]
#[case::no_alg(json!({"alg": null}), ReasonCode::AlgRejected)]
#[case::no_x5c(json!({"x5c": null}), ReasonCode::NoX5c)]
#[case::empty_x5c(json!({"x5c": []}), ReasonCode::NoX5c)]
#[case::x5c_text(json!({"x5c": "AAAA"}), ReasonCode::ParseError)]
#[case::x5c_number(json!({"x5c": [1]}), ReasonCode::ParseError)]
#[case::x5c_not_base64(json!({"x5c": ["!!!"]}), ReasonCode::ParseError)]
#[case::x5c_no_certificate(json!({"x5c": ["AAAA"]}), ReasonCode::ParseError)]
#[case::elsewhere(json!({"jku": "http://169.254.169.254/", "x5u": "file:///etc/passwd", "jwk": {"kty": "oct"}, "kid": "../../root"}), ReasonCode::Ok)]
#[case::typ_is_not_checked(json!({"typ": "anything"}), ReasonCode::Ok)]
fn headers(#[case] changes: Value, #[case] expected: ReasonCode) {
    let signer = leaf().by(&ROOT, p256());
    let mut header = header("ES256", &[signer.der()]);
    for (name, value) in changes.as_object().expect("changes") {
        header[name] = value.clone();
    }
    assert_eq!(
        judge(&with(&[jws(&header, "ES256", &signer.key, &legacy(&card_json()))]), &BUNDLE).reason,
        expected
    );
}

/// Where keys could come from, other than the protected x5c: never used.
#[test]
fn unprotected_headers_prove_nothing() {
    let signer = leaf().by(&ROOT, p256());
    let mut bare = header("ES256", &[signer.der()]);
    let x5c = bare["x5c"].take();
    let mut signature = jws(&bare, "ES256", &signer.key, &legacy(&card_json()));
    signature["header"] = json!({"x5c": x5c, "alg": "ES256", "jku": "https://evil.example/keys"});
    assert_eq!(judge(&with(&[signature]), &BUNDLE).reason, ReasonCode::NoX5c);
}

/// Encodings that a lenient decoder would let pass (steps 2 and 11).
#[test]
fn lenient_encodings_are_refused() {
    let signer = leaf().by(&ROOT, p256());
    let good = signed_by(&signer, "ES256", &[]);
    assert_eq!(judge(&with(std::slice::from_ref(&good)), &BUNDLE).reason, ReasonCode::Ok);
    for (member, expected) in
        [("protected", ReasonCode::HeaderInvalid), ("signature", ReasonCode::JwsInvalid)]
    {
        let text = good[member].as_str().expect("text");
        for bad in [
            format!("{text}="),
            format!("{text}=="),
            format!("{text}\n"),
            format!(" {text}"),
            format!("{}\n{}", &text[..8], &text[8..]),
            format!("{}+{}", &text[..8], &text[9..]),
            String::new(),
        ] {
            let mut changed = good.clone();
            changed[member] = json!(bad);
            let verdict = judge(&with(&[changed]), &BUNDLE);
            assert_eq!((verdict.verified, verdict.reason), (false, expected), "{member} {bad:?}");
        }
        let mut missing = good.clone();
        missing.as_object_mut().expect("object").remove(member);
        assert_eq!(judge(&with(&[missing]), &BUNDLE).reason, expected);
    }
}

/// The last of 86 characters carries four bits that decode to nothing.
#[test]
fn stray_bits_are_refused() {
    let mut signature = signed_by(&leaf().by(&ROOT, p256()), "ES256", &[]);
    let text = signature["signature"].as_str().expect("text").to_owned();
    assert_eq!(text.len(), 86);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|byte| text.ends_with(char::from(*byte))).expect("base64url");
    for stray in 1..16 {
        signature["signature"] = json!(format!("{}{}", &text[..85], char::from(alphabet[last + stray])));
        assert_eq!(judge(&with(std::slice::from_ref(&signature)), &BUNDLE).reason, ReasonCode::JwsInvalid);
    }
}

/// ECDSA signatures in DER are accepted, but only in canonical DER; zero is no signature.
#[test]
fn ecdsa_encodings() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use openssl::ecdsa::EcdsaSig;

    let good = signed_by(&leaf().by(&ROOT, p256()), "ES256", &[]);
    let raw = URL_SAFE_NO_PAD.decode(good["signature"].as_str().expect("text")).expect("base64url");
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).expect("number");
    let der = EcdsaSig::from_private_components(number(&raw[..32]), number(&raw[32..])).expect("signature");
    let der = der.to_der().expect("DER");
    let mut trailing = der.clone();
    trailing.push(0);
    let long_form = [&[0x30, 0x81, der[1]][..], &der[2..]].concat();
    let zeros = vec![0; 64];
    let short = raw[1..].to_vec();
    let cases =
        [(der, true), (trailing, false), (long_form, false), (zeros, false), (short, false), (vec![], false)];
    for (bytes, verified) in cases {
        let mut changed = good.clone();
        changed["signature"] = json!(URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(judge(&with(&[changed]), &BUNDLE).verified, verified, "{bytes:02x?}");
    }
}

/// Several signatures: the limit, the order, and which payload counts (card §8.2).
#[test]
fn several_signatures() {
    let signer = leaf().by(&ROOT, p256());
    let good = signed_by(&signer, "ES256", &[]);
    let mut bad = good.clone();
    bad["signature"] = json!("AAAA");
    let all = |count: usize| with(&vec![good.clone(); count]);
    assert_eq!(judge(&all(8), &BUNDLE).reason, ReasonCode::Ok);
    assert_eq!(judge(&all(9), &BUNDLE).reason, ReasonCode::TooManySignatures);
    assert_eq!(judge(&with(&[]), &BUNDLE).reason, ReasonCode::NoSignature);

    let mixed = judge(&with(&[bad.clone(), good.clone()]), &BUNDLE);
    assert_eq!((mixed.verified, mixed.reason, mixed.signatures.len()), (true, ReasonCode::Ok, 2));
    assert_eq!(mixed.signatures[0].reason, ReasonCode::JwsInvalid);
    let none = judge(&with(&[json!({"protected": "e30", "signature": "AAAA"}), bad]), &BUNDLE);
    assert_eq!(none.reason, ReasonCode::NoX5c, "the first one's code");
    assert!(
        none.details().contains("signature 1") && none.details().contains("jws_invalid"),
        "{}",
        none.details()
    );

    // A member that only the second signature covers.
    let mut card = card_json();
    card["protocolVersion"] = json!("0.3.0");
    let header = header("ES256", &[signer.der()]);
    let value = Card::read(card.to_string().as_bytes()).expect("a card");
    let [legacy, a2a] = [Profile::Legacy, Profile::A2a].map(|profile| payload(value.value(), profile));
    let [first, second] = [&legacy, &a2a].map(|payload| jws(&header, "ES256", &signer.key, payload));
    card["signatures"] = json!([first, second]);
    let both = judge(&card, &BUNDLE);
    assert_eq!((both.profile, both.unsigned_members.len()), (Some(Profile::A2a), 0));
    card["signatures"] = json!([first]);
    let one = judge(&card, &BUNDLE);
    assert_eq!(
        (one.profile, one.unsigned_members),
        (Some(Profile::Legacy), vec!["/protocolVersion".to_owned()])
    );
    let shown = one.payload.expect("verified");
    assert_eq!(shown.stored(), card_json());
    // Without one that covers everything the first that passes counts; with one, that one.
    let other = Wish { uris: vec![b"spiffe://dev.example/other".to_vec()], ..leaf() }.by(&ROOT, p256());
    let second_signer = signed_by(&other, "ES256", &[]);
    for (signatures, expected) in
        [(json!([first, second_signer]), ID), (json!([second_signer, first, second]), ID)]
    {
        card["signatures"] = signatures;
        assert_eq!(judge(&card, &BUNDLE).spiffe_id.expect("verified").as_str(), expected);
    }
}

/// The empty members that a payload leaves out must not come back in what is shown.
#[test]
fn only_what_verified_is_shown() {
    let signer = leaf().by(&ROOT, p256());
    let mut card = card_json();
    card["signatures"] = json!([signed_by(&signer, "ES256", &[])]);
    card["securitySchemes"] = json!({"evil": {"type": "http"}});
    card["supportedInterfaces"] = json!([{"url": "http://evil"}]);
    card["description"] = json!("");
    let verdict = judge(&card, &BUNDLE);
    assert_eq!(verdict.profile, Some(Profile::Legacy));
    assert_eq!(verdict.unsigned_members, ["/securitySchemes", "/supportedInterfaces"]);
    assert_eq!(verdict.payload.expect("verified").stored(), card_json());
}

/// Documents of the bad-input list.
#[test]
fn documents() {
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let many = |count: usize| format!("{{\"skills\":[{}]}}", vec![r#"{"id":"a"}"#; count].join(","));
    let bare = format!("{{\"skills\":[{}]}}", vec!["{}"; 10_000].join(","));
    for (text, message) in [
        (large, "larger than 1048576 bytes"),
        (r#"{"name":"a","name":"b"}"#.to_owned(), "duplicate member name"),
        (format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)), "nesting deeper"),
        (r#"{"name":"\ud800"}"#.to_owned(), "lone surrogate"),
        (r#"{"capabilities":{"extensions":[{"params":{"n":1e999}}]}}"#.to_owned(), "does not fit a double"),
        (many(10_000), "more than 20000 values"),
    ] {
        let error = Card::read(text.as_bytes()).expect_err("must be refused").to_string();
        assert!(error.contains(message), "{error}");
        assert!(error.len() < 200);
    }
    let card = Card::read(bare.as_bytes()).expect("a card");
    assert_eq!(card.skills().len(), 10_000);
    assert_eq!(verify(&card, &BUNDLE, &Policy::default(), at(NOW)).reason, ReasonCode::NoSignature);
}
