//! Fingerprint of `spec.identity`: says whether running Pods still have the identity settings of their
//! AgentRuntime (webhook §7.5 `identityHash`, runtime §5.3).

use sha2::{Digest, Sha256};

use crate::Identity;

/// 16 lowercase hex of the SHA-256 of an AgentRuntime's `identity`.
///
/// No AgentRuntime, no `identity` and an empty one are the same. The webhook writes it into
/// `kagenti.io/authbridge-status`; runtime-ctl compares.
pub fn identity_hash(identity: Option<&Identity>) -> String {
    let spiffe = identity.and_then(|identity| identity.spiffe.as_ref());
    let trust_domain = spiffe.and_then(|spiffe| spiffe.trust_domain.as_deref()).unwrap_or_default();
    let audiences = identity.and_then(|identity| identity.allowed_audiences.as_deref()).unwrap_or_default();
    let mut hash = Sha256::new();
    // Length before text: no two different settings give the same bytes.
    for part in std::iter::once(trust_domain).chain(audiences.iter().map(String::as_str)) {
        hash.update(part.len().to_string());
        hash.update([0]);
        hash.update(part);
    }
    let digest = hash.finalize();
    hex::encode(digest.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpiffeIdentity;

    fn identity(trust_domain: Option<&str>, audiences: Option<&[&str]>) -> Identity {
        Identity {
            spiffe: trust_domain.map(|domain| SpiffeIdentity { trust_domain: Some(domain.into()) }),
            allowed_audiences: audiences.map(|list| list.iter().map(|text| (*text).to_owned()).collect()),
        }
    }

    #[test]
    fn empty_is_absent_and_every_field_counts() {
        let none = identity_hash(None);
        assert_eq!(none.len(), 16);
        assert_eq!(identity_hash(Some(&identity(None, Some(&[])))), none);
        let different = [
            identity_hash(Some(&identity(Some("a.example"), None))),
            identity_hash(Some(&identity(None, Some(&["a.example"])))),
            identity_hash(Some(&identity(None, Some(&["a", ".example"])))),
            identity_hash(Some(&identity(None, Some(&[".example", "a"])))),
            none,
        ];
        let distinct: std::collections::BTreeSet<_> = different.iter().collect();
        assert_eq!(distinct.len(), different.len());
    }
}
