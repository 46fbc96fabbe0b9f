//! Keycloak client of a workload: who gets one, its id, and the Secret that carries it
//! (client-registration §3, §4, §8).

use std::{collections::BTreeMap, fmt::Write as _};

use sha2::{Digest, Sha256};

use crate::{gates::FeatureGates, names::label, spiffe_id};

/// What the names of operator-made credential Secrets start with.
pub const SECRET_PREFIX: &str = "kagenti-keycloak-client-credentials-";
/// Longest client id Keycloak can store: its service account's user name adds 16 to it and holds 255.
pub const CLIENT_ID_LIMIT: usize = 239;
/// Longest display name of a client.
pub const CLIENT_NAME_LIMIT: usize = 255;

/// Name of the credentials Secret of a workload (client-registration §8): the prefix and 16 hex of SHA-256 over
/// namespace, NUL, workload, NUL and a constant.
pub fn secret_name(namespace: &str, workload: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace);
    hash.update([0]);
    hash.update(workload);
    hash.update([0]);
    hash.update("kagenti-keycloak-client-credentials");
    let mut name = String::with_capacity(SECRET_PREFIX.len() + 16);
    name.push_str(SECRET_PREFIX);
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// True for a Secret name that the suite chose, ours or copied from another manifest.
pub fn is_operator_secret(name: &str) -> bool {
    name.starts_with(SECRET_PREFIX)
}

/// Does a workload get a client (client-registration §3)? The webhook decides by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It gets one.
    Register,
    /// No pod template labels at all.
    NoLabels,
    /// Label `kagenti.io/client-registration-inject: "true"` asks for the in-Pod registrar.
    LegacyRegistrar,
    /// Type `tool` while gate `injectTools` is off.
    ToolsOff,
    /// `kagenti.io/type` is missing or something else.
    NotAgentOrTool,
}

/// Eligibility of a workload by its pod template labels; the gates `globalEnabled` and `clientRegistration` are
/// the caller's (off = no work at all).
pub fn eligibility(labels: Option<&BTreeMap<String, String>>, gates: &FeatureGates) -> Eligibility {
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return Eligibility::NoLabels };
    if wants_registrar(labels) {
        return Eligibility::LegacyRegistrar;
    }
    match labels.get(label::TYPE).map(String::as_str) {
        Some("agent") => Eligibility::Register,
        Some("tool") if gates.inject_tools => Eligibility::Register,
        Some("tool") => Eligibility::ToolsOff,
        _ => Eligibility::NotAgentOrTool,
    }
}

/// True when the label asks for the in-Pod registrar; only the exact text `true` does.
pub fn wants_registrar(labels: &BTreeMap<String, String>) -> bool {
    labels.get(label::CLIENT_REGISTRATION_INJECT).is_some_and(|value| value == "true")
}

/// Why a workload has no client id (condition `IdentityUnresolved`, client-registration §4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdError {
    /// With a trust domain the id is a ServiceAccount, and `default` is nobody's.
    #[error(
        "the pods of {workload} run as ServiceAccount default, which cannot be an identity: set spec.template.spec.serviceAccountName"
    )]
    DefaultServiceAccount {
        /// Name of the workload.
        workload: String,
    },
    /// Keycloak would answer 500.
    #[error(
        "client id {id} has {length} characters, Keycloak takes at most {CLIENT_ID_LIMIT}: use a shorter name"
    )]
    TooLong {
        /// The id.
        id: String,
        /// Its length in characters.
        length: usize,
    },
}

/// Client id of a workload (client-registration §4): `<namespace>/<workload>` without a trust domain, else the
/// SPIFFE ID of its effective ServiceAccount (see [`crate::injection::Decision::service_account`]).
pub fn client_id(
    namespace: &str,
    workload: &str,
    trust_domain: Option<&str>,
    service_account: &str,
) -> Result<String, ClientIdError> {
    let id = match trust_domain.filter(|domain| !domain.is_empty()) {
        None => format!("{namespace}/{workload}"),
        Some(_) if matches!(service_account, "" | "default") => {
            return Err(ClientIdError::DefaultServiceAccount { workload: workload.to_owned() });
        }
        Some(domain) => spiffe_id::workload_id(domain, namespace, service_account),
    };
    let length = id.chars().count();
    if length > CLIENT_ID_LIMIT { Err(ClientIdError::TooLong { id, length }) } else { Ok(id) }
}

/// Display name of the client: `<namespace>/<workload>`, cut to 255 characters.
pub fn client_name(namespace: &str, workload: &str) -> String {
    format!("{namespace}/{workload}").chars().take(CLIENT_NAME_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The vectors of client-registration §8.
    #[rstest]
    #[case("team1", "weather-agent", "a325925866a45ebf")]
    #[case("default", "weather-agent", "ea546f43d49990bf")]
    #[case("test-ns", "my-dep", "6c06689fa1d5605c")]
    #[case("a-b", "c", "a06895a187ebeb61")]
    #[case("a", "b-c", "0ebbde486391009c")]
    fn secret_names(#[case] namespace: &str, #[case] workload: &str, #[case] suffix: &str) {
        let name = secret_name(namespace, workload);
        assert_eq!(name, format!("kagenti-keycloak-client-credentials-{suffix}"));
        assert!(is_operator_secret(&name));
        assert!(!is_operator_secret("kagenti-keycloak-client-credentials"));
    }

    /// The table of client-registration §3.
    #[rstest]
    #[case(&[], "", Eligibility::NoLabels)]
    #[case(&[("kagenti.io/type", "agent")], "", Eligibility::Register)]
    #[case(&[("kagenti.io/type", "agent"), ("kagenti.io/client-registration-inject", "true")], "", Eligibility::LegacyRegistrar)]
    #[case(&[("kagenti.io/type", "agent"), ("kagenti.io/client-registration-inject", "True")], "", Eligibility::Register)]
    #[case(&[("kagenti.io/type", "tool")], "", Eligibility::ToolsOff)]
    #[case(&[("kagenti.io/type", "tool")], "injectTools: true", Eligibility::Register)]
    #[case(&[("kagenti.io/type", "mcp")], "", Eligibility::NotAgentOrTool)]
    #[case(&[("app", "x")], "", Eligibility::NotAgentOrTool)]
    fn eligible(#[case] labels: &[(&str, &str)], #[case] gates: &str, #[case] expected: Eligibility) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let gates = FeatureGates::parse(gates).expect("gates").value;
        assert_eq!(eligibility(Some(&labels), &gates), expected);
        assert_eq!(eligibility(None, &gates), Eligibility::NoLabels);
    }

    /// Client-registration §4.
    #[rstest]
    #[case(None, "default", "team1/weather")]
    #[case(Some(""), "default", "team1/weather")]
    #[case(Some("Example.org"), "weather", "spiffe://example.org/ns/team1/sa/weather")]
    fn client_ids(#[case] domain: Option<&str>, #[case] account: &str, #[case] expected: &str) {
        assert_eq!(client_id("team1", "weather", domain, account).as_deref(), Ok(expected));
    }

    #[test]
    fn unusable_client_ids() {
        let error = client_id("team1", "weather", Some("d"), "default").expect_err("no identity");
        assert!(error.to_string().contains("serviceAccountName"), "{error}");
        let fits = "w".repeat(CLIENT_ID_LIMIT - "team1/".len());
        assert!(client_id("team1", &fits, None, "").is_ok());
        let error = client_id("team1", &format!("{fits}w"), None, "").expect_err("too long");
        assert!(matches!(&error, ClientIdError::TooLong { length: 240, .. }), "{error:?}");
        assert!(error.to_string().contains("239"), "{error}");
    }

    #[test]
    fn client_names_are_cut() {
        assert_eq!(client_name("team1", "weather"), "team1/weather");
        assert_eq!(client_name(&"n".repeat(63), &"w".repeat(253)).len(), CLIENT_NAME_LIMIT);
    }
}
