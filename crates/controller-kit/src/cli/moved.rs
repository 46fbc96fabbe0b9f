//! Where the flags of Existing's one binary live now.
//!
//! A legacy argument list handed to one component must fail as a whole and say where each flag
//! belongs; half of it applied silently would switch features off unnoticed (runtime §19.1).

/// Components of this release. A flag of any other component is refused with a message that says
/// the component is not there yet (README decision 31).
const BUILT: &[&str] =
    &["runtime-ctl", "authbridge-webhook", "card-ctl", "netpol-ctl", "mlflow-ctl", "client-registration-ctl"];

/// Flags of features that no component has (README decision 10).
const NOT_BUILT: &[&str] = &[
    "enable-otel-bootstrap",
    "enable-kuadrant",
    "enable-mlflow-operand",
    "enable-shared-trust",
    "enable-sigstore-verification",
    "sigstore-*",
];

/// Flag and the component that owns it. A name that ends in `*` covers every flag that begins so.
const OWNERS: &[(&str, &str)] = &[
    ("enable-client-registration", "client-registration-ctl"),
    ("keycloak-admin-secret-namespace", "client-registration-ctl"),
    ("keycloak-realm", "client-registration-ctl"),
    ("client-auth-type", "client-registration-ctl"),
    ("spiffe-idp-alias", "client-registration-ctl"),
    ("credential-wait-timeout", "client-registration-ctl"),
    ("enable-authbridge-config", "client-registration-ctl"),
    ("config-path", "authbridge-webhook"),
    ("webhook-*", "authbridge-webhook"),
    ("enable-agentbuild-webhook", "tekton-build-ctl"),
    ("enable-agent-webhook", "agent-ctl"),
    ("feature-gates-path", "runtime-ctl"),
    ("enable-istio-mesh", "runtime-ctl"),
    ("propagate-defaults", "runtime-ctl"),
    ("enable-tls-bridge-ca", "runtime-ctl"),
    ("tls-bridge-issuer", "runtime-ctl"),
    ("rollout-*", "runtime-ctl"),
    ("require-a2a-signature", "card-ctl"),
    ("signature-audit-mode", "card-ctl"),
    ("enable-card-discovery", "card-ctl"),
    ("enable-verified-fetch", "card-ctl"),
    ("verified-fetch-spiffe-socket", "card-ctl"),
    ("spire-trust-bundle-*", "card-ctl"),
    ("svid-expiry-grace-period", "card-ctl"),
    ("enforce-network-policies", "netpol-ctl"),
    ("apiserver-cidrs", "netpol-ctl"),
    ("enable-mlflow", "mlflow-ctl"),
    ("mlflow-*", "mlflow-ctl"),
];

/// What to tell about a flag that `component` does not know. `None` = the flag is simply unknown.
///
/// `argument` is the argument as typed, with dashes and value.
pub(super) fn explain(component: &str, argument: &str) -> Option<String> {
    let flag = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
    if NOT_BUILT.iter().any(|name| matches(name, flag)) {
        return Some(format!(
            "--{flag} belongs to a feature that this suite does not have; remove the flag (no component accepts it)"
        ));
    }
    let owner = OWNERS.iter().find(|(name, _)| matches(name, flag)).map(|(_, owner)| *owner)?;
    if owner == component {
        return None;
    }
    Some(if BUILT.contains(&owner) {
        format!("--{flag} is a flag of {owner}; remove it from {component} and set it there")
    } else {
        format!(
            "--{flag} is a flag of {owner}, which is not part of this release; remove it from {component}"
        )
    })
}

fn matches(pattern: &str, flag: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == flag, |prefix| flag.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("--webhook-cert-path=/x", "is a flag of authbridge-webhook; remove it from runtime-ctl")]
    #[case("--enable-mlflow", "is a flag of mlflow-ctl; remove it from runtime-ctl")]
    #[case("--enable-agent-webhook", "is a flag of agent-ctl, which is not part of this release")]
    #[case("--enable-mlflow-operand", "feature that this suite does not have")]
    #[case("--spire-trust-bundle-configmap-key", "is a flag of card-ctl")]
    #[case("--enable-kuadrant=true", "feature that this suite does not have")]
    fn a_legacy_flag_names_its_new_home(#[case] argument: &str, #[case] part: &str) {
        let text = explain("runtime-ctl", argument).expect("known legacy flag");
        assert!(text.contains(part), "{text}");
    }

    #[rstest]
    #[case("runtime-ctl", "--frobnicate")]
    #[case("runtime-ctl", "--rollout-colour")]
    fn an_unknown_or_own_flag_has_no_other_home(#[case] component: &str, #[case] argument: &str) {
        assert_eq!(explain(component, argument), None);
    }
}
