//! Identity binding: may a workload carry the SPIFFE ID that was proven for its card? (card §9)

use std::fmt;

use crate::spiffe::{SpiffeId, TrustDomain};

/// How tightly the path of an ID must match the workload (card §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Any ID of the trust domain.
    #[default]
    TrustDomain,
    /// An ID of the card's namespace.
    Namespace,
    /// The ID of the workload's ServiceAccount.
    ServiceAccount,
}

/// What a binding is evaluated from (card §9).
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The ID that the TLS peer proved, if any.
    pub attested: Option<&'a SpiffeId>,
    /// The ID of a valid signature, if any.
    pub signed: Option<&'a SpiffeId>,
    /// `spec.identityBinding.trustDomain`, else the operator's; `None` when neither is known.
    pub trust_domain: Option<&'a TrustDomain>,
    /// Namespace of the card.
    pub namespace: &'a str,
    /// ServiceAccount of the workload's pod template; empty counts as `default`.
    pub service_account: &'a str,
    /// How tightly the path must match.
    pub scope: Scope,
    /// `spec.identityBinding.allowedSpiffeIDs`; when it is not empty it replaces the scope.
    pub allowed: &'a [String],
}

/// The outcome of a binding (card §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The workload may carry the ID.
    pub bound: bool,
    /// Why, for the condition and `bindingStatus.message`.
    pub message: String,
    /// The ID that was evaluated (`status.expectedSpiffeID`).
    pub evaluated: Option<SpiffeId>,
    /// It failed on the trust domain (`kagenti_x5c_binding_trust_domain_mismatch_total`).
    pub domain_mismatch: bool,
    /// Scope `TrustDomain` accepted an ID that scope `ServiceAccount` would refuse (Event `WeakIdentityBinding`).
    pub weak: bool,
}

/// Evaluates a binding. The attested ID counts before the signed one.
pub fn evaluate(binding: &Binding<'_>) -> Evaluation {
    let Some(id) = binding.attested.or(binding.signed) else {
        return Evaluation {
            bound: false,
            message: "no verified SPIFFE ID: the card has neither a valid signature nor an attested TLS peer"
                .to_owned(),
            evaluated: None,
            domain_mismatch: false,
            weak: false,
        };
    };
    let refused = judge(binding, id).err();
    let weak = refused.is_none()
        && binding.scope == Scope::TrustDomain
        && binding.allowed.is_empty()
        && id.path() != own_path(binding);
    Evaluation {
        bound: refused.is_none(),
        domain_mismatch: matches!(refused, Some(Refusal::TrustDomain { .. })),
        message: refused.map_or_else(|| format!("{id} is bound to this workload"), |why| why.to_string()),
        evaluated: Some(id.clone()),
        weak,
    }
}

fn judge(binding: &Binding<'_>, id: &SpiffeId) -> Result<(), Refusal> {
    let domain = binding.trust_domain.ok_or(Refusal::NoTrustDomain)?;
    if id.trust_domain() != domain {
        return Err(Refusal::TrustDomain { id: id.clone(), expected: domain.clone() });
    }
    if binding.allowed.is_empty() {
        in_scope(binding, id)?;
    } else if !binding.allowed.iter().any(|entry| admits(entry, id)) {
        return Err(Refusal::NotAllowed { id: id.clone() });
    }
    match (binding.attested, binding.signed) {
        (Some(attested), Some(signed)) if attested != signed => {
            Err(Refusal::Differ { attested: attested.clone(), signed: signed.clone() })
        }
        _ => Ok(()),
    }
}

fn in_scope(binding: &Binding<'_>, id: &SpiffeId) -> Result<(), Refusal> {
    match binding.scope {
        Scope::TrustDomain => Ok(()),
        Scope::Namespace => {
            let prefix = format!("/ns/{}/", binding.namespace);
            if id.path().starts_with(&prefix) {
                Ok(())
            } else {
                Err(Refusal::Namespace { id: id.clone(), prefix })
            }
        }
        Scope::ServiceAccount => {
            let path = own_path(binding);
            if id.path() == path { Ok(()) } else { Err(Refusal::ServiceAccount { id: id.clone(), path }) }
        }
    }
}

fn own_path(binding: &Binding<'_>) -> String {
    let account = if binding.service_account.is_empty() { "default" } else { binding.service_account };
    format!("/ns/{}/sa/{account}", binding.namespace)
}

/// True when an entry of `allowedSpiffeIDs` admits `id`: equal, or ending in `/*` with the part before `*` a prefix.
fn admits(entry: &str, id: &SpiffeId) -> bool {
    match entry.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => id.as_str().starts_with(prefix),
        _ => entry == id.as_str(),
    }
}

/// Why an ID is not bound.
#[derive(Debug)]
enum Refusal {
    NoTrustDomain,
    TrustDomain { id: SpiffeId, expected: TrustDomain },
    NotAllowed { id: SpiffeId },
    Namespace { id: SpiffeId, prefix: String },
    ServiceAccount { id: SpiffeId, path: String },
    Differ { attested: SpiffeId, signed: SpiffeId },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrustDomain => f.write_str(
                "no trust domain configured: set spec.identityBinding.trustDomain or the operator's --spire-trust-domain",
            ),
            Self::TrustDomain { id, expected } => write!(f, "{id} is not of trust domain {expected}"),
            Self::NotAllowed { id } => write!(f, "{id} is not in the allowlist spec.identityBinding.allowedSpiffeIDs"),
            Self::Namespace { id, prefix } => write!(f, "{id} is of the wrong namespace: its path must start with {prefix}"),
            Self::ServiceAccount { id, path } => {
                write!(f, "{id} is of the wrong service account: its path is {}, expected {path}", id.path())
            }
            Self::Differ { attested, signed } => {
                write!(f, "identities differ: the TLS peer is {attested}, the signature is of {signed}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ECHO: &str = "spiffe://dev.example/ns/demo/sa/echo";

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).expect("valid")
    }

    fn evaluated(signed: &str, scope: Scope, allowed: &[&str]) -> Evaluation {
        let domain = TrustDomain::configured("DEV.example").expect("valid");
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        evaluate(&Binding {
            attested: None,
            signed: Some(&id(signed)),
            trust_domain: Some(&domain),
            namespace: "demo",
            service_account: "echo",
            scope,
            allowed: &allowed,
        })
    }

    #[rstest]
    #[case(ECHO, Scope::TrustDomain, &[], true, false)]
    #[case(ECHO, Scope::Namespace, &[], true, false)]
    #[case(ECHO, Scope::ServiceAccount, &[], true, false)]
    #[case("spiffe://dev.example/ns/demo/sa/other", Scope::TrustDomain, &[], true, true)]
    #[case("spiffe://dev.example/ns/demo/sa/other", Scope::Namespace, &[], true, false)]
    #[case("spiffe://dev.example/ns/demo/sa/other", Scope::ServiceAccount, &[], false, false)]
    #[case("spiffe://dev.example/ns/demo/sa/echo/x", Scope::ServiceAccount, &[], false, false)]
    #[case("spiffe://dev.example/ns/demo2/sa/echo", Scope::Namespace, &[], false, false)]
    #[case("spiffe://other.example/ns/demo/sa/echo", Scope::TrustDomain, &[], false, false)]
    #[case("spiffe://other.example/ns/demo/sa/echo", Scope::TrustDomain, &["spiffe://other.example/*"], false, false)]
    #[case("spiffe://dev.example/x", Scope::ServiceAccount, &["spiffe://dev.example/x"], true, false)]
    #[case("spiffe://dev.example/x/y", Scope::ServiceAccount, &["spiffe://dev.example/x/*"], true, false)]
    #[case("spiffe://dev.example/xy", Scope::TrustDomain, &["spiffe://dev.example/x/*"], false, false)]
    #[case("spiffe://dev.example/xy", Scope::TrustDomain, &["spiffe://dev.example/x*"], false, false)]
    #[case(ECHO, Scope::ServiceAccount, &["spiffe://dev.example/x"], false, false)]
    #[case("spiffe://dev.example/x", Scope::TrustDomain, &["spiffe://dev.example/*"], true, false)]
    fn scopes_and_allowlists(
        #[case] signed: &str,
        #[case] scope: Scope,
        #[case] allowed: &[&str],
        #[case] bound: bool,
        #[case] weak: bool,
    ) {
        let outcome = evaluated(signed, scope, allowed);
        assert_eq!((outcome.bound, outcome.weak), (bound, weak), "{}", outcome.message);
        assert_eq!(outcome.domain_mismatch, !signed.starts_with("spiffe://dev.example/"));
        assert_eq!(outcome.evaluated, Some(id(signed)));
    }

    #[test]
    fn what_is_missing_is_said() {
        let domain = TrustDomain::configured("dev.example").expect("valid");
        let (echo, other) = (id(ECHO), id("spiffe://dev.example/ns/demo/sa/other"));
        let base = Binding {
            attested: None,
            signed: None,
            trust_domain: Some(&domain),
            namespace: "demo",
            service_account: "",
            scope: Scope::TrustDomain,
            allowed: &[],
        };
        assert!(evaluate(&base).message.contains("no verified SPIFFE ID"));
        let unknown = evaluate(&Binding { signed: Some(&echo), trust_domain: None, ..base });
        assert!(!unknown.bound && unknown.message.contains("no trust domain configured"));
        let differ = evaluate(&Binding { attested: Some(&echo), signed: Some(&other), ..base });
        assert!(!differ.bound && differ.message.contains("identities differ"));
        assert_eq!(differ.evaluated, Some(echo.clone()));
        let wrong = evaluate(&Binding { signed: Some(&echo), scope: Scope::ServiceAccount, ..base });
        assert!(wrong.message.contains("/ns/demo/sa/echo") && wrong.message.contains("/ns/demo/sa/default"));
    }
}
