//! The identity binding of a card in the terms of `agent_trust::binding` (card §9). Pure.

use agent_trust::{
    SpiffeId, TrustDomain,
    binding::{self, Scope},
};
use api_types::{BindingScope, IdentityBinding};

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Identities<'a> {
    /// SPIFFE ID of the TLS peer.
    pub attested: Option<&'a SpiffeId>,
    /// SPIFFE ID of a valid signature.
    pub signed: Option<&'a SpiffeId>,
    /// The platform's trust domain.
    pub trust_domain: Option<&'a TrustDomain>,
    /// Namespace of the card.
    pub namespace: &'a str,
    /// ServiceAccount of the pod template.
    pub service_account: Option<&'a str>,
    /// `--identity-binding-scope`.
    pub default_scope: &'a BindingScope,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The identity belongs to the card.
    pub bound: bool,
    /// For people.
    pub message: String,
    /// The ID that was looked at.
    pub id: Option<String>,
    /// It failed at the trust domain.
    pub foreign_domain: bool,
    /// Scope TrustDomain accepted what scope ServiceAccount would have refused.
    pub weak: bool,
}

/// Evaluates the binding of a card.
pub fn evaluate(spec: &IdentityBinding, of: Identities<'_>) -> Binding {
    let wanted = spec.trust_domain.as_deref().filter(|domain| !domain.is_empty());
    let configured = match wanted.map(TrustDomain::configured) {
        Some(Ok(domain)) => Some(domain),
        // The schema lets nothing else pass; an ID can be a member of no domain that is none.
        Some(Err(_)) => None,
        None => of.trust_domain.cloned(),
    };
    let scope = match spec.scope.as_ref().unwrap_or(of.default_scope) {
        BindingScope::TrustDomain => Scope::TrustDomain,
        BindingScope::Namespace => Scope::Namespace,
        // A scope of a newer version: the strictest one is safe.
        BindingScope::ServiceAccount | BindingScope::Unknown(_) => Scope::ServiceAccount,
    };
    let outcome = binding::evaluate(&binding::Binding {
        attested: of.attested,
        signed: of.signed,
        trust_domain: configured.as_ref(),
        namespace: of.namespace,
        service_account: of.service_account.unwrap_or_default(),
        scope,
        allowed: spec.allowed_spiffe_ids.as_deref().unwrap_or_default(),
    });
    Binding {
        bound: outcome.bound,
        message: outcome.message,
        id: outcome.evaluated.map(|id| id.to_string()),
        foreign_domain: outcome.domain_mismatch,
        weak: outcome.weak,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MINE: &str = "spiffe://example.org/ns/team1/sa/weather";
    const OTHER: &str = "spiffe://example.org/ns/team1/sa/other";

    fn spec(scope: Option<BindingScope>, domain: Option<&str>, allowed: &[&str]) -> IdentityBinding {
        IdentityBinding {
            trust_domain: domain.map(str::to_owned),
            strict: false,
            scope,
            allowed_spiffe_ids: (!allowed.is_empty())
                .then(|| allowed.iter().map(|id| (*id).to_owned()).collect()),
        }
    }

    /// Card §9: the spec wins over the flags, an allowlist over the scope, an unknown scope is the strictest.
    #[rstest]
    #[case(spec(None, None, &[]), OTHER, true)]
    #[case(spec(None, Some("Example.ORG"), &[]), MINE, true)]
    #[case(spec(None, Some("other.org"), &[]), MINE, false)]
    #[case(spec(Some(BindingScope::ServiceAccount), None, &[]), OTHER, false)]
    #[case(spec(Some(BindingScope::ServiceAccount), None, &[OTHER]), OTHER, true)]
    #[case(spec(Some(BindingScope::from("Galaxy")), None, &[]), OTHER, false)]
    #[case(spec(Some(BindingScope::from("Galaxy")), None, &[]), MINE, true)]
    fn table(#[case] spec: IdentityBinding, #[case] id: &str, #[case] bound: bool) {
        let id = SpiffeId::parse(id).unwrap();
        let domain = TrustDomain::configured("example.org").unwrap();
        let binding = evaluate(
            &spec,
            Identities {
                attested: None,
                signed: Some(&id),
                trust_domain: Some(&domain),
                namespace: "team1",
                service_account: Some("weather"),
                default_scope: &BindingScope::TrustDomain,
            },
        );
        assert_eq!(binding.bound, bound, "{}", binding.message);
        assert_eq!(binding.weak, bound && id.as_str() == OTHER && spec.allowed_spiffe_ids.is_none());
    }
}
