//! What the shared decision and the namespace say about one workload, as conditions (runtime §6 step 9). Pure.

use api_types::{
    AgentRuntimeSpec,
    injection::{self, ClusterFacts, Decision, Inputs, Mtls, NamespaceFacts, PodFacts, WarningCode},
    names::{configmap, reason},
};

use crate::{index::NamespaceConfig, status::Verdict, workload::Workload};

/// Cluster and namespace as the decision needs them.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Namespace of the suite.
    pub operator_namespace: &'a str,
    /// CSIDriver of SPIRE exists.
    pub spire_driver: bool,
    /// The namespace of the workload.
    pub namespace: &'a str,
    /// Labels of the namespace, when they are known.
    pub namespace_labels: Option<&'a std::collections::BTreeMap<String, String>>,
}

/// Asks the shared decision about the pod template, as if it were enrolled already.
pub fn decide(
    around: &Surroundings<'_>,
    config: &NamespaceConfig,
    spec: &AgentRuntimeSpec,
    workload: &Workload,
) -> Decision {
    let (labels, annotations) = (workload.template_labels.to_map(), workload.template_annotations.to_map());
    injection::decide(&Inputs {
        cluster: ClusterFacts {
            gates: &config.gates,
            platform: &config.platform,
            spire_driver: around.spire_driver,
            operator_namespace: around.operator_namespace,
        },
        namespace: NamespaceFacts {
            name: around.namespace,
            labels: around.namespace_labels,
            runtime_config: config.runtime_document(),
            authbridge: config.authbridge(),
        },
        pod: PodFacts {
            workload: &workload.key.name,
            labels: Some(&labels),
            annotations: Some(&annotations),
            enrolled_as: Some(spec.workload_type.as_str()),
            service_account: workload.service_account.as_deref(),
            host_network: workload.host_network,
            ..PodFacts::default()
        },
        runtime: Some(spec),
    })
}

/// A warning about the configuration: closed reason for the metric, and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// From a closed set.
    pub reason: &'static str,
    /// Object, field, what is wrong.
    pub text: String,
}

/// Everything that is wrong with the configuration but does not stop the enrolment.
pub fn config_warnings(config: &NamespaceConfig, decision: &Decision) -> Vec<ConfigWarning> {
    let of_config = config.warnings.iter().map(|text| ConfigWarning { reason: "input", text: text.clone() });
    let of_decision = decision
        .warnings
        .iter()
        // SPIRE has a condition of its own.
        .filter(|warning| {
            warning.code.fallback_field().is_some() && warning.code != WarningCode::SpireUnavailable
        })
        .map(|warning| ConfigWarning { reason: warning.code.as_str(), text: warning.message.clone() });
    of_config.chain(of_decision).collect()
}

/// Condition ConfigResolved.
pub fn config_verdict(warnings: &[ConfigWarning]) -> Verdict {
    if warnings.is_empty() {
        return Verdict::yes(reason::CONFIG_RESOLVED, "Configuration resolved successfully");
    }
    let texts: Vec<_> = warnings.iter().map(|warning| warning.text.as_str()).collect();
    Verdict::yes(reason::CONFIG_WARNING, texts.join("; "))
}

/// Condition MTLSReady.
pub fn mtls_verdict(decision: &Decision) -> Verdict {
    if decision.lacks_spire() {
        let wanted = decision.mtls_wanted.value;
        let effect = if wanted == Mtls::Strict { "new Pods are refused" } else { "Pods run without mTLS" };
        return Verdict::no(
            reason::SPIRE_UNAVAILABLE,
            format!(
                "mTLS mode {wanted} is asked for, but SPIRE is not available (no CSIDriver csi.spiffe.io, or switched \
                 off in ConfigMap {}): {effect}; install SPIRE, or set mtlsMode to disabled",
                configmap::PLATFORM
            ),
        );
    }
    if decision.mtls.value == Mtls::Disabled {
        return Verdict::yes(reason::MTLS_DISABLED, "mTLS is off");
    }
    Verdict::yes(reason::SPIRE_AVAILABLE, format!("mTLS mode {}, SPIRE is available", decision.mtls.value))
}

/// Condition IdentityReady.
pub fn identity_verdict(namespace: &str, config: &NamespaceConfig, decision: &Decision) -> Verdict {
    if decision.identity_provider {
        return Verdict::yes(
            reason::IDENTITY_CONFIGURED,
            format!("Namespace {namespace} has an identity provider"),
        );
    }
    let denied = if config.platform.identity.required { "; new Pods are refused until then" } else { "" };
    Verdict::no(
        reason::NO_IDENTITY_PROVIDER,
        format!(
            "Namespace {namespace} has no identity provider, so requests are not authenticated: set KEYCLOAK_URL, \
             ISSUER or TOKEN_URL in ConfigMap {}{denied}",
            configmap::AUTHBRIDGE
        ),
    )
}
