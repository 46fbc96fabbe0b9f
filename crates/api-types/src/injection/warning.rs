//! Warnings: closed codes with bounded texts.

use std::fmt;

/// Something the user should know about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Closed code.
    pub code: WarningCode,
    /// Text, at most 256 characters.
    pub message: String,
}

impl Warning {
    /// Longest message, in characters; the API server cuts more.
    pub const LIMIT: usize = 256;

    /// A warning whose message is cut to [`Self::LIMIT`].
    pub fn new(code: WarningCode, message: impl Into<String>) -> Self {
        Self { code, message: bounded(message.into()) }
    }
}

/// At most 256 characters; a cut text ends in `...`.
pub(super) fn bounded(text: String) -> String {
    if text.chars().count() <= Warning::LIMIT {
        return text;
    }
    text.chars().take(Warning::LIMIT - 3).chain("...".chars()).collect()
}

/// Codes of warnings; the label `reason` of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WarningCode {
    /// Invalid `sidecarLayout` of the namespace.
    InvalidLayout,
    /// Invalid mode.
    InvalidMode,
    /// Mode from the deprecated annotation.
    DeprecatedModeAnnotation,
    /// Invalid mTLS mode.
    InvalidMtls,
    /// Invalid egress enforcement.
    InvalidEgress,
    /// Invalid TLS-bridge mode.
    InvalidTlsBridge,
    /// Invalid inbound interception.
    InvalidInbound,
    /// The platform does not allow the egress enforcement.
    EgressPolicyOverride,
    /// mTLS is asked for, SPIRE is not to be had.
    SpireUnavailable,
    /// The TLS bridge needs mode proxy-sidecar or lite.
    TlsBridgeNeedsProxyMode,
    /// The namespace asks for the TLS bridge, but there is no AgentRuntime.
    TlsBridgeWithoutRuntime,
    /// The TLS bridge without proxy (layout split).
    TlsBridgeWithoutProxy,
    /// Transparent inbound needs a proxy mode and enforced egress.
    InboundNeedsRedirect,
    /// Envoy is switched off in mode envoy-sidecar: nothing is injected.
    EnvoyOff,
    /// No proxy is injected: traffic is not authenticated (layout split).
    NoProxy,
    /// The namespace has no identity provider.
    NoIdentityProvider,
    /// Label `client-registration-inject` in layout combined.
    LegacyRegistrarLabel,
    /// A container of the user is named `spiffe-helper`.
    OwnSpiffeHelper,
    /// A container of the user is named `kagenti-client-registration`.
    OwnRegistration,
    /// The user's Secret beats the registration label.
    UserSecretWins,
    /// A left-over operator Secret annotation is not used.
    LeftoverCredentials,
    /// Registration is asked for, but `authbridge-config` names no Keycloak.
    RegistrationWithoutKeycloak,
    /// Static client id with `federated-jwt`.
    StaticIdFederated,
    /// `sidecars.uid` differs from `proxy.uid` while egress is captured.
    HelperUidMismatch,
}

impl WarningCode {
    /// A closed word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidLayout => "invalid-layout",
            Self::InvalidMode => "invalid-mode",
            Self::DeprecatedModeAnnotation => "deprecated-mode-annotation",
            Self::InvalidMtls => "invalid-mtls-mode",
            Self::InvalidEgress => "invalid-egress",
            Self::InvalidTlsBridge => "invalid-tls-bridge",
            Self::InvalidInbound => "invalid-inbound",
            Self::EgressPolicyOverride => "egress-policy-override",
            Self::SpireUnavailable => "spire-unavailable",
            Self::TlsBridgeNeedsProxyMode => "tls-bridge-needs-proxy-mode",
            Self::TlsBridgeWithoutRuntime => "tls-bridge-without-runtime",
            Self::TlsBridgeWithoutProxy => "tls-bridge-without-proxy",
            Self::InboundNeedsRedirect => "inbound-needs-redirect",
            Self::EnvoyOff => "envoy-off",
            Self::NoProxy => "no-proxy",
            Self::NoIdentityProvider => "no-identity-provider",
            Self::LegacyRegistrarLabel => "legacy-registrar-label",
            Self::OwnSpiffeHelper => "own-spiffe-helper",
            Self::OwnRegistration => "own-registration",
            Self::UserSecretWins => "user-secret-wins",
            Self::LeftoverCredentials => "leftover-credentials",
            Self::RegistrationWithoutKeycloak => "registration-without-keycloak",
            Self::StaticIdFederated => "static-id-federated",
            Self::HelperUidMismatch => "helper-uid-mismatch",
        }
    }

    /// The setting whose value was replaced, for the metric of fallbacks; `None` for other warnings.
    pub fn fallback_field(self) -> Option<&'static str> {
        match self {
            Self::InvalidLayout => Some("sidecarLayout"),
            Self::InvalidMode => Some("mode"),
            Self::InvalidMtls | Self::SpireUnavailable => Some("mtlsMode"),
            Self::InvalidEgress | Self::EgressPolicyOverride => Some("egressEnforcement"),
            Self::InvalidTlsBridge
            | Self::TlsBridgeNeedsProxyMode
            | Self::TlsBridgeWithoutRuntime
            | Self::TlsBridgeWithoutProxy => Some("tlsBridgeMode"),
            Self::InvalidInbound | Self::InboundNeedsRedirect => Some("inboundInterception"),
            _ => None,
        }
    }
}

impl fmt::Display for WarningCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The warnings of one decision, in the order they were found.
#[derive(Debug, Default)]
pub(super) struct Warnings(Vec<Warning>);

impl Warnings {
    /// Adds a warning; the text is only made when it is needed.
    pub(super) fn add(&mut self, code: WarningCode, message: impl FnOnce() -> String) {
        self.0.push(Warning::new(code, message()));
    }

    pub(super) fn extend(&mut self, more: Vec<Warning>) {
        self.0.extend(more);
    }

    pub(super) fn into_vec(self) -> Vec<Warning> {
        self.0
    }
}
