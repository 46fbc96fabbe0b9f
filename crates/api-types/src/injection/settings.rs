//! The resolution tables of webhook §8 and split §1, and the rules that follow them "in order".

use super::{
    Denial, DenyReason, Egress, Inbound, Inputs, Layout, Mode, Mtls, Resolved, Source, WarningCode,
    eligibility::Signs, warning::Warnings,
};
use crate::{AgentRuntimeSpec, names::annotation, namespace_config::RuntimeConfig};

/// Everything that has a value, a source and a default.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: Resolved<Mode>,
    pub(super) mtls: Resolved<Mtls>,
    pub(super) mtls_wanted: Resolved<Mtls>,
    pub(super) spire: bool,
    pub(super) spire_available: bool,
    pub(super) egress: Resolved<Egress>,
    pub(super) tls_bridge: Resolved<bool>,
    pub(super) inbound: Resolved<Inbound>,
    /// The settings contradict each other in a way that must not be papered over.
    pub(super) denial: Option<Denial>,
}

/// One setting's name in each place it can be given.
struct Setting {
    cr: &'static str,
    namespace: &'static str,
}

const MODE: Setting = Setting { cr: "authBridgeMode", namespace: "mode" };
const MTLS: Setting = Setting { cr: "mtlsMode", namespace: "mtls.mode" };
const EGRESS: Setting = Setting { cr: "egressEnforcement", namespace: "egressEnforcement" };
const TLS_BRIDGE: Setting = Setting { cr: "tlsBridgeMode", namespace: "tls_bridge.mode" };
const INBOUND: Setting = Setting { cr: "inboundInterception", namespace: "listener.inbound_interception" };

impl Setting {
    /// Where a value was written, for a message.
    fn place(&self, source: Source) -> String {
        match source {
            Source::AgentRuntime => format!("spec.{} of the AgentRuntime", self.cr),
            Source::Annotation => format!("annotation {}", annotation::AUTHBRIDGE_MODE),
            _ => format!("{} in ConfigMap authbridge-runtime-config", self.namespace),
        }
    }
}

/// A value as written, with its place.
type Written<'a> = Option<(&'a str, Source)>;

/// The first layer that says something: AgentRuntime, then namespace. Empty means not set.
fn layered<'a>(cr: Option<&'a str>, namespace: Option<&'a String>) -> Written<'a> {
    let said = |text: &&str| !text.is_empty();
    cr.filter(said)
        .map(|text| (text, Source::AgentRuntime))
        .or_else(|| namespace.map(String::as_str).filter(said).map(|text| (text, Source::Namespace)))
}

/// The value of a setting, or its default: plain when nothing is written, with a warning when it is invalid.
fn settle<T: Copy + std::fmt::Display>(
    setting: &Setting,
    written: Written<'_>,
    parse: impl Fn(&str) -> Option<T>,
    default: Resolved<T>,
    invalid: (Source, WarningCode),
    warnings: &mut Warnings,
) -> Resolved<T> {
    let Some((text, source)) = written else { return default };
    if let Some(value) = parse(text) {
        return Resolved { value, source };
    }
    warnings.add(invalid.1, || {
        let shown: String = text.chars().take(40).collect();
        format!("{}: {shown:?} is not a known value; {} is used", setting.place(source), default.value)
    });
    Resolved { value: default.value, source: invalid.0 }
}

/// The sidecar layout (split §1): namespace, then platform file, then `combined`. Resolved before the mode.
pub(super) fn layout(inputs: &Inputs<'_>, warnings: &mut Warnings) -> Resolved<Layout> {
    let platform = inputs.cluster.platform.sidecars.layout;
    let lower = match platform {
        Some(value) => Resolved { value, source: Source::Platform },
        None => Resolved { value: Layout::Combined, source: Source::ClusterDefault },
    };
    let invalid = if platform.is_some() { Source::PlatformInvalid } else { Source::ClusterDefaultInvalid };
    let written = inputs
        .namespace
        .runtime_config
        .parsed()
        .and_then(|config| config.sidecar_layout.as_deref())
        .map(|text| (text, Source::Namespace));
    let setting = Setting { cr: "", namespace: "sidecarLayout" };
    settle(&setting, written, Layout::parse, lower, (invalid, WarningCode::InvalidLayout), warnings)
}

impl Settings {
    pub(super) fn resolve(
        inputs: &Inputs<'_>,
        layout: Layout,
        signs: Signs,
        warnings: &mut Warnings,
    ) -> Self {
        let namespace = inputs.namespace.runtime_config.parsed();
        let mode = mode(inputs, layout, warnings);
        let no_proxy = layout == Layout::Split && mode.value == Mode::EnvoySidecar && !signs.envoy;
        let egress = egress(inputs, mode.value, warnings);
        let mut settings = Self {
            mode,
            mtls: Resolved::default(),
            mtls_wanted: settle(
                &MTLS,
                layered(
                    inputs.runtime.and_then(|spec| Some(spec.mtls_mode.as_ref()?.as_str())),
                    namespace.and_then(|config| config.mtls_mode.as_ref()),
                ),
                Mtls::parse,
                Resolved { value: Mtls::Permissive, source: Source::BuiltIn },
                (Source::BuiltInInvalid, WarningCode::InvalidMtls),
                warnings,
            ),
            spire: false,
            spire_available: spire_available(inputs, layout),
            egress,
            tls_bridge: tls_bridge(inputs.runtime, namespace, mode.value, no_proxy, warnings),
            inbound: inbound(inputs.runtime, namespace, mode.value, no_proxy, egress.value, warnings),
            denial: None,
        };
        settings.mtls = settings.mtls_wanted;
        if no_proxy {
            settings.without_proxy(signs);
        } else {
            settings.with_spire(inputs, layout, signs, warnings);
        }
        settings
    }

    /// Split §4: a Pod without proxy has no mTLS, and demanding it is refused.
    fn without_proxy(&mut self, signs: Signs) {
        self.spire = signs.spiffe && self.spire_available;
        if self.explicitly_strict() {
            self.denial = Some(Denial::new(
                DenyReason::StrictWithoutProxy,
                "mTLS mode strict needs a proxy, but the Envoy sidecar is switched off by gate envoyProxy or label \
                 kagenti.io/envoy-proxy-inject: switch it on, or set mtlsMode to disabled",
            ));
        } else {
            self.mtls = Resolved { value: Mtls::Disabled, source: Source::NoProxy };
        }
    }

    /// Webhook §8, second point: SPIRE and mTLS follow from each other.
    fn with_spire(&mut self, inputs: &Inputs<'_>, layout: Layout, signs: Signs, warnings: &mut Warnings) {
        let wanted = self.mtls_wanted;
        let by_default = wanted.source == Source::BuiltIn;
        if by_default && signs.spiffe_opt_out {
            self.mtls = Resolved { value: Mtls::Disabled, source: Source::SpireOptOut };
        }
        if self.spire_available {
            self.spire = signs.spiffe || self.mtls.value != Mtls::Disabled;
            return;
        }
        if self.mtls.value == Mtls::Disabled {
            return;
        }
        if self.explicitly_strict() {
            self.denial = Some(Denial::new(
                DenyReason::StrictWithoutSpire,
                format!(
                    "{}: mTLS mode strict needs SPIRE, but {}: {}, or set mtlsMode to disabled or permissive",
                    MTLS.place(wanted.source),
                    why_no_spire(inputs, layout).0,
                    why_no_spire(inputs, layout).1,
                ),
            ));
            return;
        }
        if !by_default {
            warnings.add(WarningCode::SpireUnavailable, || {
                format!(
                    "mTLS mode {} needs SPIRE, but {}: mTLS is off; {}, or set mtlsMode to disabled",
                    wanted.value,
                    why_no_spire(inputs, layout).0,
                    why_no_spire(inputs, layout).1,
                )
            });
        }
        self.mtls = Resolved { value: Mtls::Disabled, source: Source::SpireUnavailable };
    }

    fn explicitly_strict(&self) -> bool {
        self.mtls_wanted.value == Mtls::Strict && self.mtls_wanted.source.is_explicit()
    }
}

/// Is SPIRE to be had? In layout split the gate `spiffeHelper` false acts like `spiffe.enabled: never`.
fn spire_available(inputs: &Inputs<'_>, layout: Layout) -> bool {
    inputs.cluster.platform.spiffe.enabled.available(inputs.cluster.spire_driver)
        && (layout == Layout::Combined || inputs.cluster.gates.spiffe_helper())
}

/// The reason and the remedy.
fn why_no_spire(inputs: &Inputs<'_>, layout: Layout) -> (&'static str, &'static str) {
    if layout == Layout::Split && !inputs.cluster.gates.spiffe_helper() {
        return ("gate spiffeHelper is off", "switch it on");
    }
    if inputs.cluster.platform.spiffe.enabled == crate::platform::SpiffeEnabled::Never {
        return ("platform key spiffe.enabled is never", "change it");
    }
    ("CSIDriver csi.spiffe.io does not exist", "install SPIRE")
}

fn mode(inputs: &Inputs<'_>, layout: Layout, warnings: &mut Warnings) -> Resolved<Mode> {
    let namespace = inputs.namespace.runtime_config.parsed();
    let written = layered(
        inputs.runtime.and_then(|spec| Some(spec.auth_bridge_mode.as_ref()?.as_str())),
        namespace.and_then(|config| config.mode.as_ref()),
    )
    .or_else(|| Some((inputs.pod.annotation(annotation::AUTHBRIDGE_MODE)?, Source::Annotation)));
    let default = match layout {
        Layout::Combined => Mode::ProxySidecar,
        Layout::Split => Mode::EnvoySidecar,
    };
    let resolved = settle(
        &MODE,
        written,
        Mode::parse,
        Resolved { value: default, source: Source::ClusterDefault },
        (Source::ClusterDefaultInvalid, WarningCode::InvalidMode),
        warnings,
    );
    if resolved.source == Source::Annotation {
        warnings.add(WarningCode::DeprecatedModeAnnotation, || {
            format!(
                "annotation {} is deprecated: set spec.authBridgeMode of an AgentRuntime, or mode in ConfigMap \
                 authbridge-runtime-config",
                annotation::AUTHBRIDGE_MODE
            )
        });
    }
    resolved
}

/// Egress, clamped to the platform's list. Envoy captures by itself, so the setting means nothing there and
/// nothing is said about it.
fn egress(inputs: &Inputs<'_>, mode: Mode, warnings: &mut Warnings) -> Resolved<Egress> {
    let mut unheard = Warnings::default();
    let warnings = if mode.is_proxy() { warnings } else { &mut unheard };
    let namespace = inputs.namespace.runtime_config.parsed();
    let resolved = settle(
        &EGRESS,
        layered(
            inputs.runtime.and_then(|spec| Some(spec.egress_enforcement.as_ref()?.as_str())),
            namespace.and_then(|config| config.egress_enforcement.as_ref()),
        ),
        Egress::parse,
        Resolved { value: Egress::EnforceRedirect, source: Source::ClusterDefault },
        (Source::BuiltInInvalid, WarningCode::InvalidEgress),
        warnings,
    );
    let allowed = &inputs.cluster.platform.proxy.allowed_egress_enforcement;
    match allowed.first() {
        Some(first) if !allowed.contains(&resolved.value) => {
            warnings.add(WarningCode::EgressPolicyOverride, || {
                format!(
                    "egressEnforcement {} is not allowed by platform key proxy.allowedEgressEnforcement; {first} is \
                     used",
                    resolved.value
                )
            });
            Resolved { value: *first, source: Source::PlatformPolicy }
        }
        _ => resolved,
    }
}

/// `enabled` and `disabled` as they are written.
#[derive(Clone, Copy)]
struct Switch(bool);

impl std::fmt::Display for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "enabled" } else { "disabled" })
    }
}

fn tls_bridge(
    runtime: Option<&AgentRuntimeSpec>,
    namespace: Option<&RuntimeConfig>,
    mode: Mode,
    no_proxy: bool,
    warnings: &mut Warnings,
) -> Resolved<bool> {
    let switch = settle(
        &TLS_BRIDGE,
        layered(
            runtime.and_then(|spec| Some(spec.tls_bridge_mode.as_ref()?.as_str())),
            namespace.and_then(|config| config.tls_bridge_mode.as_ref()),
        ),
        |text| match text {
            "enabled" => Some(Switch(true)),
            "disabled" => Some(Switch(false)),
            _ => None,
        },
        Resolved { value: Switch(false), source: Source::BuiltIn },
        (Source::BuiltInInvalid, WarningCode::InvalidTlsBridge),
        warnings,
    );
    let off = Resolved { value: false, source: Source::NotApplicable };
    if !switch.value.0 {
        return Resolved { value: false, source: switch.source };
    }
    if no_proxy {
        warnings.add(WarningCode::TlsBridgeWithoutProxy, || {
            "the TLS bridge is enabled, but the pod gets no proxy: it stays off".into()
        });
        return off;
    }
    if !mode.is_proxy() {
        warnings.add(WarningCode::TlsBridgeNeedsProxyMode, || {
            format!("the TLS bridge needs mode proxy-sidecar or lite, the mode is {mode}: it stays off")
        });
        return off;
    }
    if switch.source == Source::Namespace && runtime.is_none() {
        warnings.add(WarningCode::TlsBridgeWithoutRuntime, || {
            "tls_bridge.mode in ConfigMap authbridge-runtime-config is enabled, but without an AgentRuntime nobody \
             issues the CA: the TLS bridge stays off; create an AgentRuntime for the workload"
                .into()
        });
        return off;
    }
    Resolved { value: true, source: switch.source }
}

fn inbound(
    runtime: Option<&AgentRuntimeSpec>,
    namespace: Option<&RuntimeConfig>,
    mode: Mode,
    no_proxy: bool,
    egress: Egress,
    warnings: &mut Warnings,
) -> Resolved<Inbound> {
    let resolved = settle(
        &INBOUND,
        layered(
            runtime.and_then(|spec| Some(spec.inbound_interception.as_ref()?.as_str())),
            namespace.and_then(|config| config.inbound_interception.as_ref()),
        ),
        Inbound::parse,
        Resolved { value: Inbound::ReverseProxy, source: Source::BuiltIn },
        (Source::BuiltInInvalid, WarningCode::InvalidInbound),
        warnings,
    );
    if resolved.value == Inbound::ReverseProxy || (mode.is_proxy() && egress == Egress::EnforceRedirect) {
        return resolved;
    }
    if !no_proxy {
        warnings.add(WarningCode::InboundNeedsRedirect, || {
            format!(
                "inboundInterception transparent needs mode proxy-sidecar or lite with egressEnforcement \
                 enforce-redirect, not {mode} with {egress}: reverse-proxy is used"
            )
        });
    }
    Resolved { value: Inbound::ReverseProxy, source: Source::NotApplicable }
}
