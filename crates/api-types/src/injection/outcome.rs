//! What the decision answers.

use super::{
    values::{Egress, Inbound, Layout, Mode, Mtls, Registration, Resolved},
    warning::{Warning, bounded},
};

/// Answer of [`super::decide`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Inject, skip or deny.
    pub outcome: Outcome,
    /// Sidecar layout.
    pub layout: Resolved<Layout>,
    /// Sidecar mode.
    pub mode: Resolved<Mode>,
    /// mTLS mode in force; the value of `kagenti.io/mtls-mode`.
    pub mtls: Resolved<Mtls>,
    /// mTLS mode that AgentRuntime or namespace ask for, before SPIRE and proxy were looked at.
    pub mtls_wanted: Resolved<Mtls>,
    /// SPIRE is on for the Pod.
    pub spire: bool,
    /// SPIRE is to be had: platform key `spiffe.enabled`, the CSI driver, and in layout split the gate.
    pub spire_available: bool,
    /// Capture of egress; without meaning in mode envoy-sidecar.
    pub egress: Resolved<Egress>,
    /// Outbound HTTPS is decrypted.
    pub tls_bridge: Resolved<bool>,
    /// How inbound traffic arrives.
    pub inbound: Resolved<Inbound>,
    /// A proxy container is injected. False in the "identity without proxy" rows of split §4.
    pub proxy: bool,
    /// The init container `proxy-init` is injected.
    pub proxy_init: bool,
    /// The container `spiffe-helper` is injected (layout split).
    pub helper: bool,
    /// Where the credentials come from.
    pub registration: Registration,
    /// The container `kagenti-client-registration` is injected (layout split).
    pub registration_container: bool,
    /// That container takes its client id from SPIRE rather than a static one.
    pub registration_spire: bool,
    /// The namespace has an identity provider or its own pipeline.
    pub identity_provider: bool,
    /// The ServiceAccount the Pod runs as.
    pub service_account: String,
    /// It replaces the one of the Pod.
    pub replaces_service_account: bool,
    /// The Secret to mount; `None` = none.
    pub credentials_secret: Option<String>,
    /// The annotation with that name is to be written.
    pub sets_credentials_annotation: bool,
    /// Shown to the user with the answer.
    pub warnings: Vec<Warning>,
}

impl Decision {
    /// AgentRuntime or namespace ask for mTLS, and SPIRE is not to be had: condition `MTLSReady=False`, reason
    /// `SPIREUnavailable` (runtime §7.1).
    pub fn lacks_spire(&self) -> bool {
        !self.spire_available
            && self.mtls_wanted.source.is_explicit()
            && self.mtls_wanted.value != Mtls::Disabled
    }
}

/// What happens to the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is changed.
    Inject,
    /// It is admitted unchanged.
    Skip(SkipReason),
    /// It is refused with 403.
    Deny(Denial),
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Skip(SkipReason::NotAgentOrTool)
    }
}

/// Why a Pod is left alone (webhook §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// Row 1: made by a kubelet from a file.
    MirrorPod,
    /// Row 1: a system namespace or the suite's own.
    ExcludedNamespace,
    /// Row 1: neither the namespace is enabled nor the Pod enrolled.
    NamespaceNotEnabled,
    /// Row 2: `kagenti.io/type` is neither `agent` nor `tool`.
    NotAgentOrTool,
    /// Row 3: gate `globalEnabled` is off.
    GloballyOff,
    /// Row 4: type `tool`, gate `injectTools` is off.
    ToolsOff,
    /// Row 5: label `kagenti.io/inject: disabled`.
    InjectDisabled,
    /// Row 6: every sidecar is switched off by gate or label.
    NoSidecarWanted,
    /// Row 7: injected before; complete it by webhook §11.5.
    AlreadyInjected,
    /// Row 9: mode waypoint.
    Waypoint,
    /// Row 10: mode envoy-sidecar with Envoy switched off.
    EnvoyOff,
    /// Split §4 row 9: no proxy, and nothing else to add.
    NothingToAdd,
}

impl SkipReason {
    /// A closed word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MirrorPod => "mirror-pod",
            Self::ExcludedNamespace => "excluded-namespace",
            Self::NamespaceNotEnabled => "namespace-not-enabled",
            Self::NotAgentOrTool => "not-agent-or-tool",
            Self::GloballyOff => "globally-off",
            Self::ToolsOff => "tools-off",
            Self::InjectDisabled => "inject-disabled",
            Self::NoSidecarWanted => "no-sidecar-wanted",
            Self::AlreadyInjected => "already-injected",
            Self::Waypoint => "waypoint",
            Self::EnvoyOff => "envoy-off",
            Self::NothingToAdd => "nothing-to-add",
        }
    }

    /// `status.message` of the admission response (webhook §4.7).
    pub fn message(self) -> &'static str {
        match self {
            Self::AlreadyInjected => "already injected",
            _ => "injection not enabled",
        }
    }
}

/// A refusal, code 403.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Closed reason.
    pub reason: DenyReason,
    /// Names the field and the remedy, at most 256 characters.
    pub message: String,
}

impl Denial {
    pub(super) fn new(reason: DenyReason, message: impl Into<String>) -> Self {
        Self { reason, message: bounded(message.into()) }
    }
}

impl From<Denial> for Outcome {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

/// Why a Pod is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// `config.yaml` of the namespace is not YAML or not a map (webhook §7.3).
    MalformedNamespaceConfig,
    /// Row 11.
    HostNetwork,
    /// Row 12.
    Windows,
    /// Explicit `strict` without SPIRE (webhook §8).
    StrictWithoutSpire,
    /// Explicit `strict` without proxy (split §4).
    StrictWithoutProxy,
    /// Row 15.
    NoIdentityProvider,
    /// Registration container with a shared process namespace (split §5.2).
    RegistrationSharesProcesses,
    /// Registration container without Keycloak values while `identity.required` (split §4).
    RegistrationWithoutKeycloak,
}

impl DenyReason {
    /// A closed word for metrics, logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedNamespaceConfig => "malformed-namespace-config",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
            Self::StrictWithoutSpire => "strict-without-spire",
            Self::StrictWithoutProxy => "strict-without-proxy",
            Self::NoIdentityProvider => "no-identity-provider",
            Self::RegistrationSharesProcesses => "registration-shares-processes",
            Self::RegistrationWithoutKeycloak => "registration-without-keycloak",
        }
    }
}
