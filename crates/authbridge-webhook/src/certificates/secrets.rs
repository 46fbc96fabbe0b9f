//! The two Secrets of the self-managed certificate and their content.
//!
//! Serving Secret: `tls.crt`, `tls.key`, `ca.crt` (the authority of that leaf), `ca-previous.crt`
//! (older authorities whose leaves may still be alive) and the annotation
//! [`PREVIOUS_UNTIL`]. Authority Secret: `tls.crt`, `tls.key` of the newest authority.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::pki::{Authority, Certificate, PkiError, leaf_of_pair, pem_of};

/// Annotation of the serving Secret: until when a leaf of an older authority may be alive.
pub const PREVIOUS_UNTIL: &str = "kagenti.io/ca-previous-until";
/// Data key of a certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// Data key of a private key.
pub const KEY: &str = "tls.key";
/// Data key of the leaf's authority.
pub const AUTHORITY: &str = "ca.crt";
/// Data key of older authorities.
pub const PREVIOUS: &str = "ca-previous.crt";

/// Why the content of a Secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A data key is absent or empty.
    #[error("key {0} is missing")]
    Missing(&'static str),
    /// A key holds something unusable.
    #[error(transparent)]
    Content(#[from] PkiError),
    /// The leaf is not signed by the authority beside it.
    #[error("the certificate in tls.crt is not signed by the authority in ca.crt")]
    Foreign,
}

/// Content of the serving Secret.
#[derive(Clone)]
pub struct Serving {
    /// The leaf; its key is only in the data.
    pub leaf: Certificate,
    /// The authority that signed the leaf.
    pub authority: Certificate,
    /// Older authorities.
    pub previous: Vec<Certificate>,
    /// Until when leaves of older authorities may be alive.
    pub previous_until: Option<Timestamp>,
    /// The data exactly as it is stored.
    data: BTreeMap<String, ByteString>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The data holds the private key.
        f.debug_struct("Serving").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

impl Serving {
    /// Reads and checks the content of a serving Secret.
    pub fn from_secret(secret: &Secret) -> Result<Self, SecretError> {
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let until = secret.metadata.annotations.as_ref().and_then(|a| a.get(PREVIOUS_UNTIL));
        Self::from_data(data, until.and_then(|text| text.parse().ok()))
    }

    fn from_data(data: &BTreeMap<String, ByteString>, until: Option<Timestamp>) -> Result<Self, SecretError> {
        let leaf = leaf_of_pair(value(data, CERTIFICATE)?, value(data, KEY)?)?;
        let authority = Certificate::all_from_pem(value(data, AUTHORITY)?)?
            .into_iter()
            .find(|ca| leaf.issued_by(ca))
            .ok_or(SecretError::Foreign)?;
        let previous = match value(data, PREVIOUS) {
            Ok(text) => Certificate::all_from_pem(text)?,
            Err(_) => Vec::new(),
        };
        // Without the annotation (someone took it off) the authority's own end is safe.
        let end = previous.iter().map(Certificate::not_after).max();
        let previous_until = end.map(|end| until.map_or(end, |t| t.min(end)));
        let kept = [CERTIFICATE, KEY, AUTHORITY, PREVIOUS];
        let data =
            data.iter().filter(|(k, _)| kept.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone()));
        Ok(Self { leaf, authority, previous, previous_until, data: data.collect() })
    }

    /// Issues the content that follows `before`: its authority joins the previous ones when the
    /// authority changes, with the end of the longest-living leaf of them.
    pub fn issue(
        authority: &Authority,
        before: Option<&Self>,
        names: &BTreeSet<String>,
        now: Timestamp,
        lifetime: SignedDuration,
    ) -> Result<Self, SecretError> {
        let issued = authority.issue(names, now, lifetime)?;
        let mut previous = Vec::new();
        let mut until = None;
        if let Some(before) = before {
            if before.previous_alive(now) {
                previous.clone_from(&before.previous);
                until = before.previous_until;
            }
            if before.authority != *authority.certificate() {
                previous.insert(0, before.authority.clone());
                until = until.max(Some(before.leaf.not_after()));
            }
        }
        previous.retain(|ca| ca.not_after() > now && ca != authority.certificate());
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: String| {
            data.insert(key.to_owned(), ByteString(text.into_bytes()));
        };
        put(CERTIFICATE, issued.certificate);
        put(KEY, issued.key);
        put(AUTHORITY, authority.certificate().pem());
        if !previous.is_empty() {
            put(PREVIOUS, pem_of(&previous));
        }
        Self::from_data(&data, until)
    }

    /// Whether leaves of older authorities may still be alive.
    pub fn previous_alive(&self, now: Timestamp) -> bool {
        self.previous_until.is_some_and(|until| now < until)
    }

    /// The same content without older authorities.
    #[must_use]
    pub fn without_previous(mut self) -> Self {
        self.previous.clear();
        self.previous_until = None;
        self.data.remove(PREVIOUS);
        self
    }

    /// PEM of the chain and of its key, as they are served.
    pub fn pem(&self) -> (&[u8], &[u8]) {
        let of = |key: &str| self.data.get(key).map_or(&[][..], |value| &value.0);
        (of(CERTIFICATE), of(KEY))
    }

    /// The Secret's data as it is to be stored.
    pub fn data(&self) -> &BTreeMap<String, ByteString> {
        &self.data
    }
}

/// Reads and checks the content of an authority Secret.
pub fn authority_from_secret(secret: &Secret) -> Result<Authority, SecretError> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    Ok(Authority::from_pem(value(data, CERTIFICATE)?, value(data, KEY)?)?)
}

/// The authority Secret's data.
pub fn authority_data(authority: &Authority) -> BTreeMap<String, ByteString> {
    let text = |s: String| ByteString(s.into_bytes());
    BTreeMap::from([
        (CERTIFICATE.to_owned(), text(authority.certificate().pem())),
        (KEY.to_owned(), text(authority.key_pem())),
    ])
}

fn value<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<&'a [u8], SecretError> {
    match data.get(key) {
        Some(value) if !value.0.is_empty() => Ok(&value.0),
        _ => Err(SecretError::Missing(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn names() -> BTreeSet<String> {
        ["hook.ns.svc".to_owned()].into()
    }

    fn secret(data: BTreeMap<String, ByteString>) -> Secret {
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn what_is_issued_reads_back() {
        let ca = Authority::generate(now(), HOUR * 10).unwrap();
        let serving = Serving::issue(&ca, None, &names(), now(), HOUR).unwrap();
        let back = Serving::from_secret(&secret(serving.data().clone())).unwrap();
        assert_eq!(back.authority, *ca.certificate());
        assert_eq!(back.leaf, serving.leaf);
        assert!(back.previous.is_empty());
    }

    #[test]
    fn every_damage_is_noticed() {
        let ca = Authority::generate(now(), HOUR * 10).unwrap();
        let other = Authority::generate(now(), HOUR * 10).unwrap();
        let good = Serving::issue(&ca, None, &names(), now(), HOUR).unwrap();
        let foreign = Serving::issue(&other, None, &names(), now(), HOUR).unwrap();
        for key in [CERTIFICATE, KEY, AUTHORITY] {
            let mut data = good.data().clone();
            data.remove(key);
            assert!(Serving::from_secret(&secret(data)).is_err(), "{key} missing");
            let mut data = good.data().clone();
            data.insert(key.to_owned(), foreign.data()[key].clone());
            assert!(Serving::from_secret(&secret(data)).is_err(), "{key} of another authority");
            let mut data = good.data().clone();
            data.insert(key.to_owned(), ByteString(b"rubbish".to_vec()));
            assert!(Serving::from_secret(&secret(data)).is_err(), "{key} rubbish");
        }
    }

    #[test]
    fn a_change_of_authority_keeps_the_old_one_until_its_last_leaf_ends() {
        let old = Authority::generate(now(), HOUR * 10).unwrap();
        let new = Authority::generate(now(), HOUR * 10).unwrap();
        let before = Serving::issue(&old, None, &names(), now(), HOUR).unwrap();
        let after = Serving::issue(&new, Some(&before), &names(), now(), HOUR).unwrap();
        assert_eq!(after.previous, [old.certificate().clone()]);
        assert_eq!(after.previous_until, Some(before.leaf.not_after()));
        let renewed = Serving::issue(&new, Some(&after), &names(), now(), HOUR).unwrap();
        assert_eq!(renewed.previous, after.previous, "a renewal within the time keeps it");
        assert!(!renewed.without_previous().data().contains_key(PREVIOUS));
    }
}
