//! The platform configuration file (webhook §7.1, split §3): an overlay on compiled defaults.

mod parse;
mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

pub use self::quantity::parse_quantity;
use crate::{
    injection::{Egress, Layout},
    yaml::{Parsed, YamlError},
};

/// Cluster-wide settings; [`Default`] gives the compiled defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlatformConfig {
    /// `images`.
    pub images: Images,
    /// `proxy`.
    pub proxy: Proxy,
    /// `resources`.
    pub resources: Resources,
    /// `spiffe`.
    pub spiffe: Spiffe,
    /// `identity`.
    pub identity: IdentityPolicy,
    /// `pod`.
    pub pod: PodSettings,
    /// `sidecar`.
    pub sidecar: SidecarSettings,
    /// `sidecars`.
    pub sidecars: Sidecars,
}

/// `images`: references of the injected containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `envoyProxy`: Envoy sidecar.
    pub envoy_proxy: String,
    /// `authbridge`: sidecar of mode proxy-sidecar.
    pub authbridge: String,
    /// `authbridgeLite`: sidecar of mode lite.
    pub authbridge_lite: String,
    /// `proxyInit`: iptables init container.
    pub proxy_init: String,
    /// `spiffeHelper`: layout split only.
    pub spiffe_helper: String,
    /// `clientRegistration`: layout split only.
    pub client_registration: String,
    /// `pullPolicy`: `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

impl Default for Images {
    fn default() -> Self {
        let image = |name: &str| format!("ghcr.io/kagenti/kagenti-extensions/{name}:latest");
        Self {
            envoy_proxy: image("authbridge-envoy"),
            authbridge: image("authbridge"),
            authbridge_lite: image("authbridge-lite"),
            proxy_init: image("proxy-init"),
            spiffe_helper: image("spiffe-helper"),
            client_registration: image("client-registration"),
            pull_policy: "IfNotPresent".into(),
        }
    }
}

/// `proxy`: ports and capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `port`: Envoy's outbound listener.
    pub port: u16,
    /// `inboundProxyPort`: Envoy's inbound listener.
    pub inbound_proxy_port: u16,
    /// `adminPort`: Envoy's admin interface, loopback.
    pub admin_port: u16,
    /// `transparentPort`: transparent egress listener of the proxy modes.
    pub transparent_port: u16,
    /// `uid`: user of the sidecars; exempt from capture.
    pub uid: i64,
    /// `iptablesCmd`: empty = the image decides.
    pub iptables_cmd: String,
    /// `allowedEgressEnforcement`: never empty; the first entry replaces what is not listed.
    pub allowed_egress_enforcement: Vec<Egress>,
    /// `noProxy`: hosts of `NO_PROXY`.
    pub no_proxy: Vec<String>,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            port: 15_123,
            inbound_proxy_port: 15_124,
            admin_port: 9901,
            transparent_port: 8082,
            uid: 1337,
            iptables_cmd: String::new(),
            allowed_egress_enforcement: vec![Egress::EnforceRedirect, Egress::None],
            no_proxy: vec!["127.0.0.1".into(), "localhost".into()],
        }
    }
}

/// `resources` of the injected containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// `envoyProxy`.
    pub envoy_proxy: ResourceRequirements,
    /// `proxyInit`.
    pub proxy_init: ResourceRequirements,
    /// `authbridge`: proxy-sidecar and lite.
    pub authbridge: ResourceRequirements,
    /// `spiffeHelper`: layout split only.
    pub spiffe_helper: ResourceRequirements,
    /// `clientRegistration`: layout split only.
    pub client_registration: ResourceRequirements,
}

impl Default for Resources {
    fn default() -> Self {
        let list = |cpu: &str, memory: &str| {
            Some(BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_owned())),
                ("memory".to_owned(), Quantity(memory.to_owned())),
            ]))
        };
        let of = |request: (&str, &str), limit: (&str, &str)| ResourceRequirements {
            requests: list(request.0, request.1),
            limits: list(limit.0, limit.1),
            ..ResourceRequirements::default()
        };
        Self {
            envoy_proxy: of(("50m", "64Mi"), ("200m", "256Mi")),
            proxy_init: of(("10m", "10Mi"), ("10m", "10Mi")),
            authbridge: of(("100m", "128Mi"), ("300m", "384Mi")),
            spiffe_helper: of(("50m", "64Mi"), ("100m", "128Mi")),
            client_registration: of(("50m", "64Mi"), ("100m", "128Mi")),
        }
    }
}

/// `spiffe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spiffe {
    /// `socketPath`: `unix://` and an absolute path with a directory.
    pub socket_path: String,
    /// `trustDomain`: informational.
    pub trust_domain: String,
    /// `enabled`.
    pub enabled: SpiffeEnabled,
}

impl Default for Spiffe {
    fn default() -> Self {
        Self {
            socket_path: "unix:///spiffe-workload-api/spire-agent.sock".into(),
            trust_domain: "cluster.local".into(),
            enabled: SpiffeEnabled::Auto,
        }
    }
}

impl Spiffe {
    /// Path of the socket, without `unix://`.
    pub fn socket_file(&self) -> &str {
        self.socket_path.strip_prefix("unix://").unwrap_or(&self.socket_path)
    }

    /// Directory of the socket, where the CSI volume is mounted.
    pub fn socket_dir(&self) -> &str {
        self.socket_file().rsplit_once('/').map_or("/", |(dir, _)| dir)
    }
}

/// Is SPIRE used (platform key `spiffe.enabled`)?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpiffeEnabled {
    /// Yes.
    Always,
    /// Where CSIDriver `csi.spiffe.io` exists.
    #[default]
    Auto,
    /// No.
    Never,
}

impl SpiffeEnabled {
    /// Is SPIRE to be had, given whether the CSI driver exists?
    pub fn available(self, csi_driver: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Auto => csi_driver,
            Self::Never => false,
        }
    }
}

/// `identity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// `required`: pods of a namespace without identity provider are denied.
    pub required: bool,
}

/// `pod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// `fsGroup`: set on pods with SPIRE that have none; `None` = never set.
    pub fs_group: Option<i64>,
}

impl Default for PodSettings {
    fn default() -> Self {
        Self { fs_group: Some(0) }
    }
}

/// `sidecar`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SidecarSettings {
    /// `native`.
    pub native: NativeSidecar,
    /// `probes`: add probes to the proxy.
    pub probes: bool,
}

/// Is the sidecar an init container with `restartPolicy: Always` (webhook §10.4)?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NativeSidecar {
    /// Never.
    Never,
    /// For pods that run to completion, on servers that know it.
    #[default]
    Auto,
    /// For every pod.
    Always,
}

/// `sidecars` (split §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidecars {
    /// `layout`; `None` = not in the file, which means combined (source `cluster-default`).
    pub layout: Option<Layout>,
    /// `uid`: user and group of the two helper containers.
    pub uid: HelperUid,
}

impl Default for Sidecars {
    fn default() -> Self {
        Self { layout: None, uid: HelperUid::SameAsProxy }
    }
}

/// User of the helper containers of layout split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HelperUid {
    /// The key is not set: the value of `proxy.uid`.
    #[default]
    SameAsProxy,
    /// `null`: neither user nor group is set.
    Unset,
    /// A number.
    Uid(i64),
}

impl HelperUid {
    /// The number to set, if any.
    pub fn resolve(self, proxy_uid: i64) -> Option<i64> {
        match self {
            Self::SameAsProxy => Some(proxy_uid),
            Self::Unset => None,
            Self::Uid(uid) => Some(uid),
        }
    }
}

/// A platform file that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformConfigError {
    /// Not YAML.
    #[error("the platform configuration is not YAML")]
    Yaml(#[from] YamlError),
    /// Values that are not allowed, each with its key and what is allowed.
    #[error("the platform configuration is invalid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl PlatformConfig {
    /// Parses the platform file: maps merge with the defaults, lists replace, unknown and unused keys are listed.
    /// All invalid values are reported at once.
    pub fn parse(text: &str) -> Result<Parsed<Self>, PlatformConfigError> {
        parse::parse(text)
    }
}

#[cfg(test)]
mod tests;
