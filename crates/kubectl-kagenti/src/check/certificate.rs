//! Certificates of admission: what the API server trusts, what the webhook serves, and whether both fit. Pure.

use std::slice;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// Certificates that end earlier than this should have been renewed, unless they never last that long.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A PEM text that is no list of certificates.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it holds no certificate")]
    Empty,
    #[error("it is damaged")]
    Damaged,
}

/// The certificates of a PEM text.
pub(super) fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| Unreadable::Damaged)?;
    if all.is_empty() {
        return Err(Unreadable::Empty);
    }
    if all.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(Unreadable::Damaged);
    }
    Ok(all)
}

/// Start and end of validity.
fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(parsed.validity().not_before)?, time(parsed.validity().not_after)?))
}

/// Whether a certificate is valid, and when it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh(Timestamp),
    /// It ends soon, and nobody has renewed it.
    Late(Timestamp),
    Over(Timestamp),
    /// It begins later: the clock of the cluster, or of whoever made it, is wrong.
    Early(Timestamp),
}

pub(super) fn age(der: &CertificateDer<'_>, now: Timestamp) -> Option<Age> {
    let (from, to) = validity(der)?;
    let lasts = to.duration_since(from);
    Some(if now >= to {
        Age::Over(to)
    } else if now < from {
        Age::Early(from)
    } else if to.duration_since(now) < SOON.min(lasts / 10) {
        Age::Late(to)
    } else {
        Age::Fresh(to)
    })
}

/// Whether a certificate can be used now.
pub(super) fn is_valid(der: &CertificateDer<'_>, now: Timestamp) -> bool {
    matches!(age(der, now), Some(Age::Fresh(_) | Age::Late(_)))
}

/// Whether a certificate leads to one of the authorities, directly or by way of others that are served with it.
pub(super) fn is_trusted(
    leaf: &CertificateDer<'_>,
    others: &[&CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
) -> bool {
    let mut reached = vec![leaf];
    let mut next = 0;
    while let Some(current) = reached.get(next).copied() {
        if is_issued_by(current, authorities) {
            return true;
        }
        for &issuer in others {
            if !reached.contains(&issuer) && is_issued_by(current, slice::from_ref(issuer)) {
                reached.push(issuer);
            }
        }
        next += 1;
    }
    false
}

/// Whether one of the authorities signed a certificate, or is that very certificate.
fn is_issued_by(leaf: &CertificateDer<'_>, authorities: &[CertificateDer<'_>]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return false };
    authorities.iter().any(|authority| {
        if authority.as_ref() == leaf.as_ref() {
            return true;
        }
        let Ok((_, issuer)) = X509Certificate::from_der(authority) else { return false };
        parsed.issuer() == issuer.subject() && parsed.verify_signature(Some(issuer.public_key())).is_ok()
    })
}

/// Whether a certificate is for a DNS name.
pub(super) fn is_for(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names
        .value
        .general_names
        .iter()
        .any(|general| matches!(general, GeneralName::DNSName(dns) if *dns == name))
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    use rstest::rstest;

    use super::*;

    /// An authority, one below it that ends earlier, and leaves of both for `hook.kagenti-system.svc`, valid for 2026.
    struct Family {
        root: String,
        leaf: String,
        below: String,
        leaf_below: String,
    }

    fn params(end: (i32, u8, u8)) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["hook.kagenti-system.svc".to_owned()]).expect("names");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        params
    }

    fn family() -> Family {
        let authority = |end| {
            let mut ca = params(end);
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            ca
        };
        let key = || KeyPair::generate().expect("a key");
        let end = (2027, 1, 1);
        let root = CertifiedIssuer::self_signed(authority(end), key()).expect("an authority");
        let below = CertifiedIssuer::signed_by(authority((2026, 7, 1)), key(), &root).expect("an authority");
        let leaf = params(end).signed_by(&key(), &root).expect("a leaf");
        let leaf_below = params(end).signed_by(&key(), &below).expect("a leaf");
        Family { root: root.pem(), leaf: leaf.pem(), below: below.pem(), leaf_below: leaf_below.pem() }
    }

    /// An authority and a leaf of it for `hook.kagenti-system.svc`, valid for 2026.
    pub(in crate::check) fn pair() -> (String, String) {
        let Family { root, leaf, .. } = family();
        (root, leaf)
    }

    /// The same with an authority between them, valid until July, that is served with the leaf.
    pub(in crate::check) fn chain() -> (String, String) {
        let Family { root, below, leaf_below, .. } = family();
        (root, format!("{leaf_below}{below}"))
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[rstest]
    #[case("2026-06-01T00:00:00Z", "Fresh")]
    #[case("2026-12-28T00:00:00Z", "Late")]
    #[case("2027-01-01T00:00:00Z", "Over")]
    #[case("2025-12-31T00:00:00Z", "Early")]
    fn ages(#[case] now: &str, #[case] expected: &str) {
        let (_, leaf) = pair();
        let leaf = read(leaf.as_bytes()).expect("a certificate");
        assert!(format!("{:?}", age(&leaf[0], time(now)).expect("a validity")).starts_with(expected));
    }

    #[test]
    fn leaf_and_authority_belong_together() {
        let ((ca, leaf), (other, _)) = (pair(), pair());
        let read = |pem: &str| read(pem.as_bytes()).expect("certificates");
        let (ca, leaf, other) = (read(&ca), read(&leaf), read(&other));
        assert!(is_issued_by(&leaf[0], &ca) && is_issued_by(&ca[0], &ca));
        assert!(!is_issued_by(&leaf[0], &other), "the same names, another key");
        assert!(is_for(&leaf[0], "hook.kagenti-system.svc") && !is_for(&leaf[0], "hook.other.svc"));
    }

    /// The order of what is served with the leaf does not matter, nor what else is among it.
    #[test]
    fn others_lead_to_an_authority() {
        let ((root, served), (other, stranger)) = (chain(), pair());
        let read = |pem: &str| read(pem.as_bytes()).expect("certificates");
        let (root, served, other, stranger) = (read(&root), read(&served), read(&other), read(&stranger));
        let [leaf, below] = served.as_slice() else { panic!("{served:?}") };
        assert!(is_trusted(leaf, &[&stranger[0], below, leaf], &root));
        assert!(is_trusted(leaf, &[], &served[1..]), "directly");
        assert!(!is_trusted(leaf, &[], &root), "the one between is missing");
        assert!(!is_trusted(leaf, &[below], &other), "another authority");
    }

    #[rstest]
    #[case("", Unreadable::Empty)]
    #[case("hello", Unreadable::Empty)]
    #[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", Unreadable::Damaged)]
    fn what_is_no_bundle(#[case] text: &str, #[case] expected: Unreadable) {
        assert_eq!(read(text.as_bytes()), Err(expected));
    }
}
