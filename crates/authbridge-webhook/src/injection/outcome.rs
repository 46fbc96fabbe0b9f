//! What the pure half answers.

use api_types::injection::Decision;

use super::{Patch, Writes};

/// The answer for one Pod.
#[derive(Debug)]
pub enum Outcome {
    /// Allow without sidecars (webhook §4.7).
    Skip(Skip),
    /// Refuse the Pod.
    Deny(Deny),
    /// Inject for the first time.
    Inject(Box<Injection>),
    /// The Pod carries our sidecars already (webhook §11.5).
    Reinvoke(Reinvocation),
}

/// An allowed Pod that gets no sidecar.
#[derive(Debug, Default)]
pub struct Skip {
    /// `status.message` of the response: `injection not enabled` (webhook §4.7).
    pub message: &'static str,
    /// Closed set, for the metric label `reason` and the debug log.
    pub reason: &'static str,
    /// MLflow variables only (webhook §10.1); nearly always empty.
    pub patch: Patch,
    /// Warnings for the response, limits of webhook §4.8 already applied.
    pub warnings: Vec<Warning>,
}

/// A refused Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// HTTP code of the response status: 400, 403 or 500.
    pub code: u16,
    /// Names the field or object and the remedy.
    pub message: String,
    /// Why, as a closed set.
    pub reason: DenyReason,
}

/// Why a Pod was refused; label `reason` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The object is no Pod this build understands (webhook §4.2).
    BadPod,
    /// A namespace ConfigMap does not parse (webhook §7.3).
    ConfigParseError,
    /// `spec.hostNetwork: true` (webhook §5 row 11).
    HostNetwork,
    /// `spec.os.name: windows` (row 12).
    Windows,
    /// A user container runs with the UID that is exempt from capture (row 13).
    ProxyUid,
    /// A reserved port is taken and cannot be moved (row 14).
    PortClash,
    /// No identity provider although the platform requires one (row 15).
    NoIdentityProvider,
    /// A user volume has a reserved name and another source (webhook §11.1).
    VolumeClash,
    /// Explicit `strict` mTLS without SPIRE (webhook §8).
    SpireUnavailable,
    /// Explicit `strict` mTLS in a Pod without proxy (split §4).
    NoProxy,
    /// The registration container next to a shared process namespace (split §5.2).
    SharedProcessNamespace,
    /// The JWT audience cannot be written to `helper.conf` (split §6).
    BadAudience,
    /// Any other refusal of the shared decision.
    Policy,
}

impl DenyReason {
    /// The metric label, snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadPod => "bad_pod",
            Self::ConfigParseError => "config_parse_error",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::ProxyUid => "proxy_uid",
            Self::PortClash => "port_clash",
            Self::NoIdentityProvider => "no_identity_provider",
            Self::VolumeClash => "volume_clash",
            Self::SpireUnavailable => "spire_unavailable",
            Self::NoProxy => "no_proxy",
            Self::SharedProcessNamespace => "shared_process_namespace",
            Self::BadAudience => "bad_audience",
            Self::Policy => "policy",
        }
    }
}

/// One warning: text for the user, code for the metric `kagenti_authbridge_warnings_total{reason}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Closed set, snake case.
    pub code: &'static str,
    /// At most 256 characters.
    pub message: String,
}

/// A Pod to inject.
#[derive(Debug)]
pub struct Injection {
    /// Operations on the raw Pod, in the order to apply them.
    pub patch: Patch,
    /// At most six (webhook §4.8); the same texts are in the status annotation.
    pub warnings: Vec<Warning>,
    /// Objects that must exist before the Pod is allowed; to be ignored on a dry run.
    pub writes: Writes,
    /// The shared decision: modes with their sources, for logs, metrics and Events.
    pub decision: Decision,
    /// Label `mode` of the metrics: the resolved mode, `none` for a Pod without proxy (split §10).
    pub mode: &'static str,
    /// Names of the injected long-running containers, in order; for
    /// `kagenti_authbridge_split_containers_total{container}`.
    pub sidecars: Vec<&'static str>,
}

/// A Pod that is injected already: message `already injected` (webhook §4.7).
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// What is missing since; empty when nothing is.
    pub patch: Patch,
    /// Warnings for the response.
    pub warnings: Vec<Warning>,
}
