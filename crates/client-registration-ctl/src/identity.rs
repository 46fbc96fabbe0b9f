//! Which client a workload is (client-registration §4).

use agent_trust::TrustDomain;
use api_types::credentials::{self, ClientIdError};

/// What is known of the platform's trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlatformDomain {
    /// Nobody configured it and the first look is not over.
    #[default]
    Looking,
    /// There is none: no SPIRE.
    Absent,
    /// This one.
    Known(String),
    /// Several were found; a person has to choose.
    Several(Vec<String>),
}

/// The client of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Client id.
    pub client_id: String,
    /// Display name.
    pub name: String,
}

/// Why a workload has no identity (condition `IdentityUnresolved`; `Looking` is `Pending`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The first look for the trust domain is not over.
    #[error("waiting for the first look for the SPIFFE trust domain")]
    Looking,
    /// Several trust domains.
    #[error(
        "the SPIRE bundle names several trust domains ({0}): say which is the platform's with --spire-trust-domain, or \
         set spec.identity.spiffe.trustDomain of the AgentRuntime"
    )]
    Several(String),
    /// The AgentRuntime names something that is no trust domain.
    #[error("spec.identity.spiffe.trustDomain {0:?} of the AgentRuntime is no trust domain")]
    NoDomain(String),
    /// No id can be made.
    #[error(transparent)]
    Id(#[from] ClientIdError),
}

/// The identity of workload `name`, whose Pods run as `service_account`; `own_domain` is its AgentRuntime's.
///
/// # Errors
/// Why it has none.
pub fn resolve(
    namespace: &str,
    name: &str,
    service_account: &str,
    own_domain: Option<&str>,
    platform: &PlatformDomain,
) -> Result<Identity, Unresolved> {
    let domain = match (own_domain.map(str::trim).filter(|domain| !domain.is_empty()), platform) {
        (Some(text), _) => {
            let domain = TrustDomain::configured(text)
                .map_err(|_| Unresolved::NoDomain(rest_client::quote::bounded(text, 64)))?;
            Some(domain.as_str().to_owned())
        }
        (None, PlatformDomain::Looking) => return Err(Unresolved::Looking),
        (None, PlatformDomain::Several(several)) => return Err(Unresolved::Several(several.join(", "))),
        (None, PlatformDomain::Absent) => None,
        (None, PlatformDomain::Known(domain)) => Some(domain.clone()),
    };
    let client_id = credentials::client_id(namespace, name, domain.as_deref(), service_account)?;
    Ok(Identity { client_id, name: credentials::client_name(namespace, name) })
}

/// Whether a client id can be a workload's of `namespace`, in either form. What an annotation or an attribute names is
/// touched only then: both can be written by others.
pub fn is_of_namespace(client_id: &str, namespace: &str) -> bool {
    if let Some(path) = client_id.strip_prefix("spiffe://") {
        let Some((domain, path)) = path.split_once('/') else { return false };
        let account = path.strip_prefix("ns/").and_then(|path| path.strip_prefix(namespace));
        return !domain.is_empty()
            && account.and_then(|path| path.strip_prefix("/sa/")).is_some_and(is_plain_segment);
    }
    client_id.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/')).is_some_and(is_plain_segment)
}

fn is_plain_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn known(domain: &str) -> PlatformDomain {
        PlatformDomain::Known(domain.to_owned())
    }

    #[rstest]
    #[case(PlatformDomain::Absent, None, "default", "team1/w")]
    #[case(known("example.org"), None, "mysa", "spiffe://example.org/ns/team1/sa/mysa")]
    #[case(known("example.org"), Some("Other.org"), "mysa", "spiffe://other.org/ns/team1/sa/mysa")]
    #[case(known("example.org"), Some(" "), "mysa", "spiffe://example.org/ns/team1/sa/mysa")]
    #[case(PlatformDomain::Looking, Some("other.org"), "mysa", "spiffe://other.org/ns/team1/sa/mysa")]
    fn resolved(
        #[case] platform: PlatformDomain,
        #[case] own: Option<&str>,
        #[case] account: &str,
        #[case] id: &str,
    ) {
        let identity = resolve("team1", "w", account, own, &platform).expect("an identity");
        assert_eq!((identity.client_id.as_str(), identity.name.as_str()), (id, "team1/w"));
    }

    #[test]
    fn unresolved() {
        let of = |platform: &PlatformDomain, own| resolve("team1", "w", "default", own, platform);
        assert_eq!(of(&PlatformDomain::Looking, None), Err(Unresolved::Looking));
        let several = PlatformDomain::Several(vec!["a.org".into(), "b.org".into()]);
        let error = of(&several, None).expect_err("several").to_string();
        assert!(error.contains("a.org, b.org") && error.contains("--spire-trust-domain"), "{error}");
        assert!(matches!(of(&known("a.org"), Some("a/b")), Err(Unresolved::NoDomain(_))));
        let error = of(&known("a.org"), None).expect_err("default").to_string();
        assert!(error.contains("serviceAccountName"), "{error}");
    }

    #[rstest]
    #[case("team1/w", true)]
    #[case("spiffe://d/ns/team1/sa/w", true)]
    #[case("team1x/w", false)]
    #[case("team1", false)]
    #[case("team1/", false)]
    #[case("team1/w/x", false)]
    #[case("team2/w", false)]
    #[case("spiffe://d/ns/team2/sa/w", false)]
    #[case("spiffe:///ns/team1/sa/w", false)]
    #[case("spiffe://d/ns/team1/sa/w/x", false)]
    #[case("spiffe://d/x/ns/team1/sa/w", false)]
    #[case("kagenti", false)]
    fn namespaces(#[case] id: &str, #[case] expected: bool) {
        assert_eq!(is_of_namespace(id, "team1"), expected);
    }
}
