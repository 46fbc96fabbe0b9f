//! Finding the SPIFFE trust domain of the platform when nobody configured it (client-registration §14, card §4.3).
//!
//! Several candidates are never guessed between, a domain that was found is kept when its source goes away, and a
//! change of a discovered one, which gives every agent a new identity, needs two equal readings five minutes apart.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_trust::{TrustBundle, TrustDomain};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::apply;

/// How often to look until a domain is known, and how often after that.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often to look for a change of a known domain.
pub const LOOK_FOR_CHANGE: Duration = Duration::from_secs(600);
/// A change must be read twice, this far apart.
const CONFIRM_AFTER: Duration = Duration::from_secs(300);
/// ConfigMap with the bundle that SPIRE publishes.
const BUNDLE: &str = "spire-bundle";
/// Its keys that are read first.
const FIRST_KEYS: [&str; 2] = ["bundle.spiffe", "bundle.json"];

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Exactly one.
    One(TrustDomain),
    /// Several: a person has to choose.
    Several(Vec<TrustDomain>),
    /// None anywhere.
    Nothing,
}

/// Looks once: OpenShift's ZeroTrustWorkloadIdentityManager `cluster`, then ConfigMap `spire-bundle` in `namespace`.
/// A source that is not there, or may not be read, counts as empty.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, namespace: &str) -> kube::Result<Reading> {
    let gvk = GroupVersionKind::gvk("operator.openshift.io", "v1alpha1", "ZeroTrustWorkloadIdentityManager");
    let manager = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    if let Some(object) = present(manager.get("cluster").await)?
        && let Some(text) = object.data.pointer("/spec/trustDomain").and_then(|value| value.as_str())
        && let Ok(domain) = TrustDomain::configured(text)
    {
        return Ok(Reading::One(domain));
    }
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let map = present(maps.get(BUNDLE).await)?;
    Ok(map.and_then(|map| map.data).map_or(Reading::Nothing, |data| of_bundle(&data)))
}

fn present<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if apply::is_not_found(&error) || apply::is_forbidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The domains of the first value that holds a bundle: `bundle.spiffe`, `bundle.json`, the others by key.
pub fn of_bundle(data: &BTreeMap<String, String>) -> Reading {
    let first = FIRST_KEYS.iter().filter_map(|key| data.get(*key));
    let others = data.iter().filter(|(key, _)| !FIRST_KEYS.contains(&key.as_str())).map(|(_, value)| value);
    for value in first.chain(others) {
        let Ok(bundle) = TrustBundle::parse(value, None) else { continue };
        if let Some(domain) = bundle.trust_domain() {
            return Reading::One(domain);
        }
        let several = bundle.trust_domains();
        if several.len() > 1 {
            return Reading::Several(several);
        }
    }
    Reading::Nothing
}

/// What is known after some looks. Pure: time comes in as an argument.
#[derive(Clone, Debug, Default)]
pub struct Known {
    domain: Option<TrustDomain>,
    /// Another domain, and when it was first read.
    changing: Option<(TrustDomain, Instant)>,
}

impl Known {
    /// The domain.
    pub fn domain(&self) -> Option<&TrustDomain> {
        self.domain.as_ref()
    }

    /// Takes in a reading; the domain when it is another one from now on.
    pub fn take(&mut self, reading: &Reading, now: Instant) -> Option<&TrustDomain> {
        let Reading::One(read) = reading else {
            self.changing = None;
            return None;
        };
        if self.domain.as_ref() == Some(read) {
            self.changing = None;
            return None;
        }
        if self.domain.is_some() {
            match &self.changing {
                Some((same, since)) if same == read => {
                    if now.saturating_duration_since(*since) < CONFIRM_AFTER {
                        return None;
                    }
                }
                _ => {
                    self.changing = Some((read.clone(), now));
                    return None;
                }
            }
        }
        self.changing = None;
        self.domain = Some(read.clone());
        self.domain.as_ref()
    }

    /// When to look again.
    pub fn next_look(&self) -> Duration {
        match (&self.domain, &self.changing) {
            (Some(_), None) => LOOK_FOR_CHANGE,
            (Some(_), Some(_)) => CONFIRM_AFTER,
            (None, _) => LOOK_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Reading {
        Reading::One(TrustDomain::configured(text).expect("a trust domain"))
    }

    /// Client-registration §14: found at once, kept when it goes missing, changed only after two equal readings.
    #[tokio::test(start_paused = true)]
    async fn a_change_needs_two_readings() {
        let mut known = Known::default();
        assert_eq!(known.next_look(), LOOK_AGAIN);
        assert!(known.take(&Reading::Nothing, Instant::now()).is_none());
        assert!(known.take(&one("a.org"), Instant::now()).is_some());
        assert!(known.take(&Reading::Nothing, Instant::now()).is_none());
        assert_eq!(known.domain().map(TrustDomain::as_str), Some("a.org"));
        assert!(known.take(&one("b.org"), Instant::now()).is_none());
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(known.take(&one("b.org"), Instant::now()).is_none(), "too soon");
        tokio::time::advance(Duration::from_secs(150)).await;
        assert!(known.take(&one("b.org"), Instant::now()).is_some());
        assert!(known.take(&one("c.org"), Instant::now()).is_none());
        tokio::time::advance(CONFIRM_AFTER).await;
        assert!(known.take(&Reading::Nothing, Instant::now()).is_none());
        assert!(known.take(&one("c.org"), Instant::now()).is_none(), "begins anew");
    }

    #[test]
    fn what_is_no_bundle_is_passed_over() {
        let data =
            BTreeMap::from([("a".to_owned(), "text".to_owned()), ("bundle.json".to_owned(), "{".to_owned())]);
        assert_eq!(of_bundle(&data), Reading::Nothing);
    }
}
