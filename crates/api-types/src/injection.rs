//! The injection decision: the one function that says whether a Pod gets sidecars, which ones, and with which
//! resolved settings (webhook §5, §8, §11.2, §11.3, §12.1; split §1, §3, §4).
//!
//! The webhook asks it for Pods; runtime-ctl, client-registration-ctl and mlflow-ctl ask it for pod templates,
//! so everything that only a Pod knows has a default in [`PodFacts`]. It reads nothing but its arguments.

mod eligibility;
mod facts;
mod outcome;
mod registration;
mod settings;
mod values;
mod warning;

use self::{eligibility::Signs, settings::Settings, warning::Warnings};
pub use self::{
    eligibility::prefilter,
    facts::{
        ClusterFacts, ContainerNames, Inputs, NamespaceFacts, PodFacts, PriorInjection, RuntimeDocument,
    },
    outcome::{Decision, Denial, DenyReason, Outcome, SkipReason},
    registration::{RegistrationChoice, registration_source},
    values::{Egress, Inbound, Layout, Mode, Mtls, Registration, Resolved, Source},
    warning::{Warning, WarningCode},
};
use crate::namespace_config::has_identity_provider;

/// Decides about one Pod or pod template.
///
/// The settings are resolved in every case; `warnings` is empty for a Pod that is skipped before they matter.
/// Checks that need the whole Pod (webhook §5 rows 13 and 14) are the webhook's.
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let mut warnings = Warnings::default();
    let layout = settings::layout(inputs, &mut warnings);
    let signs = Signs::read(inputs, layout.value);
    let settings = Settings::resolve(inputs, layout.value, signs, &mut warnings);
    let mut decision = Decision {
        layout,
        mode: settings.mode,
        mtls: settings.mtls,
        mtls_wanted: settings.mtls_wanted,
        spire: settings.spire,
        spire_available: settings.spire_available,
        egress: settings.egress,
        tls_bridge: settings.tls_bridge,
        inbound: settings.inbound,
        identity_provider: has_identity_provider(
            inputs.namespace.authbridge,
            inputs.namespace.runtime_config.parsed(),
        ),
        service_account: own_service_account(inputs).to_owned(),
        ..Decision::default()
    };
    decision.outcome = judge(inputs, signs, &settings, &mut decision, &mut warnings);
    match decision.outcome {
        Outcome::Inject => adopt_service_account(inputs, &mut decision),
        Outcome::Skip(SkipReason::AlreadyInjected) => {}
        Outcome::Skip(_) | Outcome::Deny(_) => withdraw(&mut decision),
    }
    if keeps_warnings(&decision.outcome) {
        decision.warnings = warnings.into_vec();
    }
    decision
}

/// The table of webhook §5, with split §4 in place of row 10 where the layout is `split`.
fn judge(
    inputs: &Inputs<'_>,
    signs: Signs,
    settings: &Settings,
    decision: &mut Decision,
    warnings: &mut Warnings,
) -> Outcome {
    let early = prefilter(&inputs.cluster, &inputs.namespace, &inputs.pod)
        .or_else(|| signs.none_wanted().then_some(SkipReason::NoSidecarWanted));
    if let Some(reason) = early {
        return Outcome::Skip(reason);
    }
    let layout = decision.layout.value;
    let choice = registration_source(inputs, layout);
    decision.registration = choice.registration;
    if inputs.pod.containers.prior != PriorInjection::None {
        decision.credentials_secret = choice.secret;
        return Outcome::Skip(SkipReason::AlreadyInjected);
    }
    if let RuntimeDocument::Malformed(error) = inputs.namespace.runtime_config {
        let message = format!(
            "config.yaml of ConfigMap authbridge-runtime-config in namespace {} is not usable: {error}; correct it",
            inputs.namespace.name
        );
        return Denial::new(DenyReason::MalformedNamespaceConfig, message).into();
    }
    let mode = settings.mode.value;
    if mode == Mode::Waypoint {
        return Outcome::Skip(SkipReason::Waypoint);
    }
    decision.proxy = mode.is_proxy() || signs.envoy;
    decision.proxy_init = decision.proxy
        && match mode {
            Mode::EnvoySidecar => true,
            _ => settings.egress.value == Egress::EnforceRedirect,
        };
    if layout == Layout::Split {
        helpers(inputs, signs, choice, decision, warnings);
    } else {
        decision.credentials_secret = choice.secret;
        decision.sets_credentials_annotation = choice.sets_annotation;
        warnings.extend(choice.warnings);
    }
    if !decision.proxy && !decision.helper && !decision.registration_container {
        return nothing_to_add(inputs, layout, warnings);
    }
    if let Some(denial) = denial(inputs, settings, decision) {
        return denial.into();
    }
    if !decision.proxy {
        warnings.add(WarningCode::NoProxy, || {
            "mode envoy-sidecar, but the Envoy sidecar is switched off by gate envoyProxy or label \
             kagenti.io/envoy-proxy-inject: the pod gets no proxy, traffic is not authenticated"
                .into()
        });
    } else if !decision.identity_provider {
        warnings.add(WarningCode::NoIdentityProvider, || {
            format!(
                "namespace {} has no identity provider: requests are not authenticated until ConfigMap \
                 authbridge-config has KEYCLOAK_URL, ISSUER or TOKEN_URL",
                inputs.namespace.name
            )
        });
    }
    Outcome::Inject
}

/// The two helper containers of layout `split` (split §4, §5).
fn helpers(
    inputs: &Inputs<'_>,
    signs: Signs,
    choice: RegistrationChoice,
    decision: &mut Decision,
    warnings: &mut Warnings,
) {
    let own = inputs.pod.containers;
    let helper_wanted = signs.spiffe && decision.spire;
    decision.helper = helper_wanted && !own.own_spiffe_helper;
    if helper_wanted && own.own_spiffe_helper {
        warnings.add(WarningCode::OwnSpiffeHelper, || {
            "the pod brings its own container spiffe-helper: none is added; rename it to get the one of the platform"
                .into()
        });
    }
    decision.credentials_secret = choice.secret;
    decision.sets_credentials_annotation = choice.sets_annotation;
    decision.registration_container = choice.container;
    warnings.extend(choice.warnings);
    if !choice.container {
        return;
    }
    decision.registration_spire = decision.helper || (own.own_spiffe_helper && own.own_helper_mounts_svid);
    let platform = inputs.cluster.platform;
    if !decision.registration_spire && inputs.namespace.authbridge.client_auth_type() == Some("federated-jwt")
    {
        warnings.add(WarningCode::StaticIdFederated, || {
            "kagenti-client-registration uses a static client id, but CLIENT_AUTH_TYPE in ConfigMap \
             authbridge-config is federated-jwt, which needs SPIRE"
                .into()
        });
    }
    if decision.proxy_init && platform.sidecars.uid.resolve(platform.proxy.uid) != Some(platform.proxy.uid) {
        warnings.add(WarningCode::HelperUidMismatch, || {
            "platform key sidecars.uid differs from proxy.uid: traffic of kagenti-client-registration is captured \
             by the pod's own proxy; set them to the same user"
                .into()
        });
    }
}

/// Row 10 of webhook §5 and row 9 of split §4. A registration that was asked for and cannot work is refused
/// nevertheless.
fn nothing_to_add(inputs: &Inputs<'_>, layout: Layout, warnings: &mut Warnings) -> Outcome {
    if let Some(denial) = unusable_registration(inputs, layout) {
        return denial.into();
    }
    warnings.add(WarningCode::EnvoyOff, || {
        "mode envoy-sidecar, but the Envoy sidecar is switched off by gate envoyProxy or label \
         kagenti.io/envoy-proxy-inject: nothing is injected, traffic is not authenticated"
            .into()
    });
    Outcome::Skip(match layout {
        Layout::Combined => SkipReason::EnvoyOff,
        Layout::Split => SkipReason::NothingToAdd,
    })
}

/// Rows 11, 12 and 15 of webhook §5 and the denials of split §10, for a Pod that would be injected.
fn denial(inputs: &Inputs<'_>, settings: &Settings, decision: &Decision) -> Option<Denial> {
    let pod = &inputs.pod;
    if pod.host_network {
        return Some(Denial::new(
            DenyReason::HostNetwork,
            "spec.hostNetwork is true: the sidecar would change the network of the node; unset it, or set label \
             kagenti.io/inject: disabled on the pod template",
        ));
    }
    if pod.windows {
        return Some(Denial::new(
            DenyReason::Windows,
            "spec.os.name is windows: the sidecar runs on Linux only; set label kagenti.io/inject: disabled on \
             the pod template",
        ));
    }
    if settings.denial.is_some() {
        return settings.denial.clone();
    }
    if decision.registration_container && pod.share_process_namespace {
        return Some(Denial::new(
            DenyReason::RegistrationSharesProcesses,
            "spec.shareProcessNamespace is true: the agent could read the Keycloak admin password of \
             kagenti-client-registration; unset it, or drop label kagenti.io/client-registration-inject",
        ));
    }
    unusable_registration(inputs, decision.layout.value).or_else(|| {
        (inputs.cluster.platform.identity.required && !decision.identity_provider).then(|| {
            Denial::new(
                DenyReason::NoIdentityProvider,
                format!(
                    "the platform requires an identity provider, but ConfigMap authbridge-config in namespace {} \
                     has none of KEYCLOAK_URL, ISSUER, TOKEN_URL: set KEYCLOAK_URL and KEYCLOAK_REALM",
                    inputs.namespace.name
                ),
            )
        })
    })
}

/// Registration in the Pod without Keycloak values, where the platform requires identity (split §4).
fn unusable_registration(inputs: &Inputs<'_>, layout: Layout) -> Option<Denial> {
    (inputs.cluster.platform.identity.required && registration::without_keycloak(inputs, layout)).then(|| {
        Denial::new(
            DenyReason::RegistrationWithoutKeycloak,
            format!(
                "label kagenti.io/client-registration-inject asks for registration, but ConfigMap authbridge-config \
                 in namespace {} has neither TOKEN_URL nor KEYCLOAK_URL and KEYCLOAK_REALM: set them",
                inputs.namespace.name
            ),
        )
    })
}

fn own_service_account<'a>(inputs: &Inputs<'a>) -> &'a str {
    inputs.pod.service_account.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// The effective ServiceAccount (webhook §11.2): with SPIRE a Pod that runs as `default` gets its workload's own.
fn adopt_service_account(inputs: &Inputs<'_>, decision: &mut Decision) {
    if decision.spire && decision.service_account == "default" && !inputs.pod.workload.is_empty() {
        inputs.pod.workload.clone_into(&mut decision.service_account);
        decision.replaces_service_account = true;
    }
}

/// Nothing is added to a Pod that is skipped or refused.
fn withdraw(decision: &mut Decision) {
    decision.proxy = false;
    decision.proxy_init = false;
    decision.helper = false;
    decision.registration = Registration::None;
    decision.registration_container = false;
    decision.registration_spire = false;
    decision.credentials_secret = None;
    decision.sets_credentials_annotation = false;
}

/// A Pod that is left alone before its settings matter gets no warnings.
fn keeps_warnings(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Inject | Outcome::Deny(_) => true,
        Outcome::Skip(reason) => matches!(reason, SkipReason::EnvoyOff | SkipReason::NothingToAdd),
    }
}

#[cfg(test)]
mod tests;
