//! Trust bundles beyond the vectors (card §4.3, §8.6).

use agent_trust::TrustBundle;
use agent_trust::bundle::BundleError;
use agent_trust::spiffe::TrustDomain;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;

use crate::mint::{Issued, Wish, authority, p256};

fn root(uris: &[&str]) -> Issued {
    let uris = uris.iter().map(|uri| uri.as_bytes().to_vec()).collect();
    Wish { uris, ..authority("root") }.root(p256())
}

fn pem(roots: &[&Issued]) -> String {
    roots
        .iter()
        .map(|root| String::from_utf8(root.certificate.to_pem().expect("PEM")).expect("ASCII"))
        .collect()
}

fn document(roots: &[&Issued]) -> String {
    let keys: Vec<String> = roots
        .iter()
        .map(|root| format!(r#"{{"use":"x509-svid","x5c":["{}"]}}"#, STANDARD.encode(root.der())))
        .collect();
    format!(r#"{{"keys":[{}],"spiffe_sequence":1}}"#, keys.join(","))
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::configured(name).expect("a trust domain")
}

/// The trust domain a bundle tells by itself; with several candidates it is never guessed.
#[rstest]
#[case::one(&[&["spiffe://a"][..]], Some("a"))]
#[case::agreeing(&[&["spiffe://a"][..], &["spiffe://a"]], Some("a"))]
#[case::differing(&[&["spiffe://a"][..], &["spiffe://b"]], None)]
#[case::silent(&[&[][..]], None)]
#[case::one_silent(&[&["spiffe://a"][..], &[]], Some("a"))]
#[case::other_uri(&[&["https://a"][..]], None)]
#[case::two_in_one(&[&["spiffe://a", "spiffe://b"][..]], None)]
#[case::malformed(&[&["spiffe://A"][..]], None)]
fn discovery(#[case] uris: &[&[&str]], #[case] expected: Option<&str>) {
    let roots: Vec<Issued> = uris.iter().map(|uris| root(uris)).collect();
    let roots: Vec<&Issued> = roots.iter().collect();
    for text in [pem(&roots), document(&roots)] {
        let bundle = TrustBundle::parse(&text, Some(&domain("operator"))).expect("a bundle");
        assert_eq!(bundle.trust_domain(), expected.map(domain));
    }
}

/// An authority that names no trust domain speaks for the operator's; one that names several speaks for nobody.
#[test]
fn whom_an_authority_speaks_for() {
    let (silent, double) = (root(&[]), root(&["spiffe://a", "spiffe://b"]));
    let bundle = TrustBundle::parse(&pem(&[&silent, &double]), Some(&domain("Operator"))).expect("a bundle");
    let domains: Vec<Option<&TrustDomain>> = bundle.roots().map(|(_, domain)| domain).collect();
    assert_eq!(domains, [Some(&domain("operator")), None]);
    let bundle = TrustBundle::parse(&pem(&[&silent]), None).expect("a bundle");
    assert!(bundle.trust_domains().is_empty());
}

#[test]
fn maps_of_trust_domains() {
    let (one, other) = (root(&["spiffe://elsewhere"]), root(&[]));
    let text = format!(
        r#"{{"One.example":{},"not a domain":{},"two.example":{},"note":7}}"#,
        document(&[&one]),
        document(&[&one]),
        document(&[&other])
    );
    let bundle = TrustBundle::parse(&text, None).expect("a bundle");
    assert_eq!(bundle.trust_domains(), [domain("one.example"), domain("two.example")]);
    assert_eq!(bundle.trust_domain(), None);
    let single =
        TrustBundle::parse(&format!(r#"{{"one.example":{}}}"#, document(&[&one])), None).expect("a bundle");
    assert_eq!(
        single.trust_domain(),
        Some(domain("one.example")),
        "the key wins over the authority's own name"
    );
}

#[test]
fn the_fingerprint_is_that_of_the_certificates() {
    let (one, other) = (root(&["spiffe://a"]), root(&["spiffe://a"]));
    let fingerprint = |text: &str| TrustBundle::parse(text, None).expect("a bundle").fingerprint();
    let both = fingerprint(&document(&[&one, &other]));
    assert_eq!(both, fingerprint(&document(&[&other, &one, &one])));
    assert_eq!(
        both,
        fingerprint(&document(&[&one, &other]).replace("\"spiffe_sequence\":1", "\"spiffe_sequence\": 99 "))
    );
    assert_eq!(both, fingerprint(&pem(&[&one, &other])));
    assert_ne!(both, fingerprint(&pem(&[&one])));
}

#[test]
fn broken_blocks_of_pem_are_skipped_and_counted() {
    let good = root(&["spiffe://a"]);
    let text = format!(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}-----BEGIN CERTIFICATE-----\n",
        pem(&[&good])
    );
    let bundle = TrustBundle::parse(&text, None).expect("a bundle");
    assert_eq!((bundle.roots().count(), bundle.skipped()), (1, 2));
}

#[test]
fn what_is_no_bundle() {
    let good = root(&["spiffe://a"]);
    let two =
        format!(r#"{{"keys":[{{"use":"x509-svid","x5c":["{0}","{0}"]}}]}}"#, STANDARD.encode(good.der()));
    let mut longer = good.der();
    longer.push(0);
    let trailing = format!(r#"{{"keys":[{{"use":"x509-svid","x5c":["{}"]}}]}}"#, STANDARD.encode(longer));
    let one_bad = document(&[&good]).replace("]}]", "]},{\"use\":\"x509-svid\",\"x5c\":[\"AAAA\"]}]");
    for (text, label) in [
        ("", "empty_bundle"),
        (" \n", "empty_bundle"),
        ("{}", "empty_bundle"),
        ("-----BEGIN CERTIFICATE-----", "empty_bundle"),
        ("[]", "invalid_json"),
        ("nonsense", "invalid_json"),
        (r#"{"keys":[],"keys":[]}"#, "invalid_json"),
        (r#"{"keys":[7]}"#, "invalid_json"),
        (r#"{"keys":[{"use":"x509-svid"}]}"#, "invalid_cert"),
        (&two, "invalid_cert"),
        (&trailing, "invalid_cert"),
        (&one_bad, "invalid_cert"),
    ] {
        assert_eq!(TrustBundle::parse(text, None).map_err(BundleError::label), Err(label), "{text}");
    }
    assert!(TrustBundle::of_domain(&domain("a"), []).is_err());
    assert!(TrustBundle::of_domain(&domain("a"), [&[1, 2, 3][..]]).is_err());
}
