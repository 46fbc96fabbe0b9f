//! Certificates in x5c and from TLS peers: never panic, never lead to an authority.
#![no_main]

use agent_trust::spiffe::TrustDomain;
use agent_trust::verify::{LeafExpiry, Policy, verify};
use agent_trust::{Card, TrustBundle, peer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

mod fixture;

fuzz_target!(|certificates: Vec<&[u8]>| {
    let x5c: Vec<String> = certificates.iter().map(|der| format!("\"{}\"", STANDARD.encode(der))).collect();
    let header = format!(r#"{{"alg":"ES256","x5c":[{}]}}"#, x5c.join(","));
    let document = format!(
        r#"{{"name":"n","signatures":[{{"protected":"{}","signature":"AAAA"}}]}}"#,
        URL_SAFE_NO_PAD.encode(header)
    );
    let bundle = TrustBundle::parse(fixture::BUNDLE, None).expect("the bundle");
    if let Ok(card) = Card::read_within(document.as_bytes(), usize::MAX) {
        for leaf_expiry in [LeafExpiry::Grace, LeafExpiry::Ignore] {
            let policy = Policy { leaf_expiry, ..Policy::default() };
            assert!(!verify(&card, &bundle, &policy, Timestamp::UNIX_EPOCH).verified);
        }
    }
    let domain = TrustDomain::configured("dev.cluster.local").expect("a trust domain");
    assert!(peer::identify(&certificates, &bundle, &domain, Timestamp::UNIX_EPOCH).is_err());
});
