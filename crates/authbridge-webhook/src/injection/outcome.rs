//! What the pure half answers.

use api_types::injection::{self as decision, Decision};

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
    /// The Pod carries sidecars already (webhook §11.5); message `already injected`.
    Reinvoke(Reinvocation),
}

/// An allowed Pod that gets no sidecar.
#[derive(Debug)]
pub struct Skip {
    /// Why; its `message()` is the `status.message` of the response.
    pub reason: decision::SkipReason,
    /// MLflow variables only (webhook §10.1); nearly always empty.
    pub patch: Patch,
    /// Warnings for the response.
    pub warnings: Vec<Warning>,
}

/// A refused Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// HTTP code of the response status: 400 for a Pod that cannot be read, else 403.
    pub code: u16,
    /// Why, as a closed set.
    pub reason: DenyReason,
    /// Names the field or object and the remedy.
    pub message: String,
}

/// Why a Pod was refused; label `reason` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The shared decision refuses.
    Decision(decision::DenyReason),
    /// The object is no Pod this build can read (webhook §4.2).
    BadPod,
    /// A user container runs with the UID that is exempt from capture (webhook §5 row 13).
    ProxyUid,
    /// A reserved port is taken and cannot be moved (row 14).
    PortClash,
    /// A user volume has a reserved name and another source (webhook §11.1).
    VolumeClash,
    /// The JWT audience cannot be written to `helper.conf` (split §6).
    BadAudience,
}

impl DenyReason {
    /// A closed word for metrics, logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision(reason) => reason.as_str(),
            Self::BadPod => "bad-pod",
            Self::ProxyUid => "proxy-uid",
            Self::PortClash => "port-clash",
            Self::VolumeClash => "volume-clash",
            Self::BadAudience => "bad-audience",
        }
    }
}

/// One warning: text for the user, code for the metric `kagenti_authbridge_warnings_total{reason}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Closed code.
    pub code: WarningCode,
    /// At most 256 characters.
    pub message: String,
}

impl Warning {
    /// A warning whose message is cut to 256 characters (webhook §4.8).
    pub(crate) fn new(code: WarningCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.chars().count() > decision::Warning::LIMIT {
            message = message.chars().take(decision::Warning::LIMIT - 3).chain("...".chars()).collect();
        }
        Self { code, message }
    }
}

impl From<decision::Warning> for Warning {
    fn from(warning: decision::Warning) -> Self {
        Self { code: WarningCode::Decision(warning.code), message: warning.message }
    }
}

/// Codes of warnings: those of the shared decision, and what only the Pod shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WarningCode {
    /// From the shared decision.
    Decision(decision::WarningCode),
    /// Several AgentRuntimes name the workload (webhook §7.4).
    AmbiguousRuntime,
    /// A user container could undo the egress guard (webhook §5).
    CaptureCanBeUndone,
    /// No container declares a TCP port (webhook §9).
    NoContainerPort,
    /// Command or arguments name the port the agent has to leave (webhook §9).
    PortInArguments,
    /// Declared ports that the sidecar does not serve (webhook §9).
    UnproxiedPorts,
    /// Tokens of a port list that are no ports (webhook §10.3).
    InvalidPortList,
    /// The server is too old for native sidecars, so the Job will not end (webhook §10.4).
    NativeSidecarUnavailable,
    /// A user volume replaces a generated one (webhook §11.1, split §6).
    UserVolume,
    /// Dry run: the ServiceAccount does not exist yet (webhook §4.4).
    DryRunServiceAccount,
    /// A user's CA variable was overwritten (webhook §11.4).
    CaVariableOverwritten,
    /// The namespace's `pipeline` has no `jwt-validation` for `allowedAudiences` (webhook §12.1 step 3).
    AudiencesUnused,
    /// The issuer is unknown (webhook §12.1 step 2).
    IssuerUnknown,
    /// The plain ConfigMap name belongs to another workload (webhook §12.3).
    ConfigNameCollision,
    /// Pod Security admission will refuse `proxy-init` (webhook §16).
    PodSecurity,
}

impl WarningCode {
    /// A closed word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision(code) => code.as_str(),
            Self::AmbiguousRuntime => "ambiguous-runtime",
            Self::CaptureCanBeUndone => "capture-can-be-undone",
            Self::NoContainerPort => "no-container-port",
            Self::PortInArguments => "port-in-arguments",
            Self::UnproxiedPorts => "unproxied-ports",
            Self::InvalidPortList => "invalid-port-list",
            Self::NativeSidecarUnavailable => "native-sidecar-unavailable",
            Self::UserVolume => "user-volume",
            Self::DryRunServiceAccount => "dry-run-service-account",
            Self::CaVariableOverwritten => "ca-variable-overwritten",
            Self::AudiencesUnused => "audiences-unused",
            Self::IssuerUnknown => "issuer-unknown",
            Self::ConfigNameCollision => "config-name-collision",
            Self::PodSecurity => "pod-security",
        }
    }
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
    /// The shared decision: modes with their sources, for logs, metrics and Events. Its warnings are in
    /// `warnings`, up to the limit.
    pub decision: Decision,
    /// Label `mode` of the metrics: the resolved mode, `none` for a Pod without proxy (split §10).
    pub mode: &'static str,
    /// Names of the injected long-running containers, in order; for
    /// `kagenti_authbridge_split_containers_total{container}` in layout split.
    pub sidecars: Vec<&'static str>,
}

/// A Pod that is injected already.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// What is missing since; empty when nothing is.
    pub patch: Patch,
    /// Warnings for the response.
    pub warnings: Vec<Warning>,
}
