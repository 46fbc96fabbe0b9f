//! The way from a leaf to an authority of the trust bundle (card §8.3 step 7).
//!
//! Candidates are found by name; signatures are then checked from the authority down, so that no key is used before
//! something above it vouched for it.

use crate::bundle::Root;
use crate::certificate::{Certificate, names};
use crate::crypto::PublicKey;

/// Most candidate paths whose signatures are checked for one leaf: a bound for hostile sets of equal names.
const MAX_CANDIDATES: usize = 32;

/// Why no path leads to an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathFault {
    #[error("no certificate authority of the trust bundle issued it")]
    NoIssuer,
    #[error("too many certificates of the same name")]
    TooManyCandidates,
    #[error("a certificate carries a critical extension that is not processed here")]
    UnknownCritical,
    #[error("a certificate of the chain is not valid at the evaluation time")]
    Validity,
    #[error("an issuing certificate is not a certificate authority")]
    NotAnAuthority,
    #[error("the chain is longer than an authority's path length allows")]
    PathLength,
    #[error("an authority's name constraints do not allow a name in the chain")]
    NameConstraints,
    #[error("an authority has a key that is not accepted")]
    Key,
    #[error("a certificate is not signed by its issuer, or by an algorithm that is not accepted")]
    Signature,
}

/// Looks for a path from `leaf` over any of `others`, in any order, to one of `roots`, everything valid at `at` (Unix
/// seconds).
pub(crate) fn find<'a>(
    leaf: &'a Certificate,
    others: &'a [Certificate],
    roots: &[&'a Root],
    at: i64,
) -> Result<(), PathFault> {
    let mut search = Search { others, roots, at, candidates: 0, fault: PathFault::NoIssuer };
    if search.extend(&mut vec![leaf]) { Ok(()) } else { Err(search.fault) }
}

struct Search<'a, 's> {
    others: &'a [Certificate],
    roots: &'s [&'a Root],
    at: i64,
    candidates: usize,
    fault: PathFault,
}

impl<'a> Search<'a, '_> {
    /// Tries every way up from the last certificate of `path`. Recursion ends with the unused certificates.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> bool {
        let Some(top) = path.last().copied() else { return false };
        for root in self.roots.iter().map(|root| &root.certificate).filter(|root| root.subject == top.issuer)
        {
            if self.candidates == MAX_CANDIDATES {
                self.fault = PathFault::TooManyCandidates;
                return false;
            }
            self.candidates += 1;
            match accept(path, root, self.at) {
                Ok(()) => return true,
                Err(fault) => self.fault = fault,
            }
        }
        for other in self.others.iter().filter(|other| other.subject == top.issuer) {
            if path.iter().any(|used| std::ptr::eq(*used, other)) {
                continue;
            }
            path.push(other);
            if self.extend(path) {
                return true;
            }
            path.pop();
        }
        false
    }
}

/// Judges a whole path: `path` from the leaf up, `root` above it.
fn accept(path: &[&Certificate], root: &Certificate, at: i64) -> Result<(), PathFault> {
    let whole: Vec<&Certificate> = path.iter().copied().chain([root]).collect();
    for (below, certificate) in whole.iter().enumerate() {
        if certificate.unknown_critical {
            return Err(PathFault::UnknownCritical);
        }
        if !(certificate.not_before..=certificate.not_after).contains(&at) {
            return Err(PathFault::Validity);
        }
        if below > 0 {
            authority(certificate, below, below + 1 == whole.len())?;
            constrain(certificate, whole.get(..below).unwrap_or_default())?;
        }
    }
    for pair in whole.windows(2).rev() {
        let [subject, issuer] = pair else { continue };
        let key = PublicKey::load(&issuer.key).map_err(|_| PathFault::Key)?;
        if !key.issued(subject) {
            return Err(PathFault::Signature);
        }
    }
    Ok(())
}

/// May this certificate issue others, with `below` certificates below it? An intermediate must say so in keyUsage; an
/// authority of the bundle may leave keyUsage out.
fn authority(certificate: &Certificate, below: usize, is_root: bool) -> Result<(), PathFault> {
    let signs = certificate.key_usage.map_or(is_root, |usage| usage.key_cert_sign);
    if !certificate.is_ca || !signs {
        return Err(PathFault::NotAnAuthority);
    }
    // The leaf does not count.
    if certificate.path_length.is_some_and(|most| below as u64 - 1 > most) {
        return Err(PathFault::PathLength);
    }
    Ok(())
}

fn constrain(certificate: &Certificate, below: &[&Certificate]) -> Result<(), PathFault> {
    let Some(constraints) = &certificate.constraints else { return Ok(()) };
    for subject in below {
        let own = names::subject(&subject.subject).ok_or(PathFault::NameConstraints)?;
        if !constraints.allow(subject.alt_names.iter().chain(own.as_ref())) {
            return Err(PathFault::NameConstraints);
        }
    }
    Ok(())
}

/// True for a certificate that may sign documents or speak TLS: no authority, and keyUsage, where present, says
/// digitalSignature and neither keyCertSign nor cRLSign (card §8.3 step 6).
pub(crate) fn is_leaf(certificate: &Certificate) -> bool {
    !certificate.is_ca
        && certificate
            .key_usage
            .is_none_or(|usage| usage.digital_signature && !usage.key_cert_sign && !usage.crl_sign)
}
