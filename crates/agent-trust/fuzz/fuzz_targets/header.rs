//! The protected header, and the signature beside it: never panics, never verifies.
#![no_main]

use agent_trust::verify::{Policy, verify};
use agent_trust::{Card, TrustBundle};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

mod fixture;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (header, signature) = input;
    let document = format!(
        r#"{{"name":"n","signatures":[{{"protected":"{}","signature":"{}"}}]}}"#,
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(signature)
    );
    let bundle = TrustBundle::parse(fixture::BUNDLE, None).expect("the bundle");
    if let Ok(card) = Card::read_within(document.as_bytes(), usize::MAX) {
        let verdict = verify(&card, &bundle, &Policy::default(), Timestamp::UNIX_EPOCH);
        assert!(!verdict.verified && verdict.details().len() <= 1024);
    }
});
