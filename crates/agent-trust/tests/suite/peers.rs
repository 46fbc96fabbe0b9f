//! Who is at the other end of a TLS connection (card §7).

use agent_trust::peer::{MAX_PEER_CHAIN, PeerError, identify};
use agent_trust::spiffe::{SpiffeId, TrustDomain};
use jiff::Timestamp;
use rstest::rstest;

use crate::mint::{DOMAIN, HOUR, ID, Issued, NOW, Wish, authority, bundle_of, leaf, p256};

fn domain(name: &str) -> TrustDomain {
    TrustDomain::configured(name).expect("a trust domain")
}

fn seen(chain: &[&Issued], roots: &[&Issued], now: i64) -> Result<SpiffeId, PeerError> {
    let ders: Vec<Vec<u8>> = chain.iter().map(|one| one.der()).collect();
    let ders: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
    identify(&ders, &bundle_of(roots), &domain(DOMAIN), Timestamp::from_second(now).expect("a time"))
}

#[test]
fn members_of_the_domain_are_known() {
    let root = authority("root").root(p256());
    let direct = leaf().by(&root, p256());
    assert_eq!(seen(&[&direct], &[&root], NOW).expect("known").as_str(), ID);
    let middle = authority("middle").by(&root, p256());
    let below = leaf().by(&middle, p256());
    assert!(seen(&[&below, &middle], &[&root], NOW).is_ok());
    assert!(seen(&[&below], &[&root], NOW).is_err());
}

#[rstest]
#[case::expired(Wish { to: NOW - 1, ..leaf() }, "not valid now")]
#[case::future(Wish { from: NOW + 1, ..leaf() }, "not valid now")]
#[case::authority(Wish { ca: Some(true), ..leaf() }, "one of an authority")]
#[case::two_names(Wish { uris: vec![ID.into(), b"spiffe://dev.example/b".to_vec()], ..leaf() }, "more than one URI name")]
#[case::no_name(Wish { uris: vec![], ..leaf() }, "no URI name")]
#[case::foreign(Wish { uris: vec![b"spiffe://other.example/a".to_vec()], ..leaf() }, "not a member of trust domain dev.example")]
#[case::critical(Wish { extensions: vec![("1.3.6.1.4.1.99999.1", true, vec![5, 0])], ..leaf() }, "critical extension")]
fn refused(#[case] wish: Wish, #[case] message: &str) {
    let root = authority("root").root(p256());
    let error = seen(&[&wish.by(&root, p256())], &[&root], NOW).expect_err("must be refused").to_string();
    assert!(error.contains(message), "{error}");
}

/// No tolerance: the second after the end is too late.
#[test]
fn time_is_exact() {
    let root = authority("root").root(p256());
    let direct = leaf().by(&root, p256());
    assert!(seen(&[&direct], &[&root], NOW + HOUR).is_ok());
    assert!(seen(&[&direct], &[&root], NOW + HOUR + 1).is_err());
    assert!(seen(&[&direct], &[&root], NOW - HOUR).is_ok());
    assert!(seen(&[&direct], &[&root], NOW - HOUR - 1).is_err());
}

#[test]
fn strangers_and_long_chains() {
    let (root, other) = (authority("root").root(p256()), authority("root").root(p256()));
    let direct = leaf().by(&other, p256());
    assert!(seen(&[&direct, &other], &[&root], NOW).is_err());
    assert!(matches!(seen(&[&direct; MAX_PEER_CHAIN + 1], &[&other], NOW), Err(PeerError::ChainTooLong)));
    assert!(matches!(seen(&[], &[&other], NOW), Err(PeerError::Malformed { number: 0 })));
    // An authority that the bundle lists for another trust domain does not count.
    let der = direct.der();
    let now = Timestamp::from_second(NOW).expect("a time");
    assert!(identify(&[&der], &bundle_of(&[&other]), &domain("other.example"), now).is_err());
}
