//! Names of containers, volumes and paths inside an injected Pod (webhook §10, §11; split §5, §6).

/// Sidecar of modes proxy-sidecar and lite.
pub(crate) const AUTHBRIDGE_PROXY: &str = "authbridge-proxy";
/// Sidecar of mode envoy-sidecar.
pub(crate) const ENVOY_PROXY: &str = "envoy-proxy";
/// Init container with the iptables script.
pub(crate) const PROXY_INIT: &str = "proxy-init";
/// SPIFFE helper of layout split.
pub(crate) const SPIFFE_HELPER: &str = "spiffe-helper";
/// Registration container of layout split.
pub(crate) const CLIENT_REGISTRATION: &str = "kagenti-client-registration";

/// Containers that are never the agent (webhook §9).
pub(crate) const NEVER_AGENT: [&str; 3] = [AUTHBRIDGE_PROXY, "istio-proxy", "linkerd-proxy"];
/// Neither are these in layout split (split §5.2).
pub(crate) const NEVER_AGENT_IN_SPLIT: [&str; 2] = [SPIFFE_HELPER, CLIENT_REGISTRATION];
/// Regular containers that are no app containers (webhook §10.1).
pub(crate) const NEVER_APP: [&str; 4] = [AUTHBRIDGE_PROXY, ENVOY_PROXY, "istio-proxy", "linkerd-proxy"];

/// A long-running container of ours.
pub(crate) fn is_sidecar(name: &str) -> bool {
    matches!(name, AUTHBRIDGE_PROXY | ENVOY_PROXY | SPIFFE_HELPER | CLIENT_REGISTRATION)
}

/// Volumes.
pub(crate) mod volume {
    /// Client id and secret.
    pub(crate) const SHARED_DATA: &str = "shared-data";
    /// Socket of the Workload API.
    pub(crate) const SPIRE_SOCKET: &str = "spire-agent-socket";
    /// `helper.conf`.
    pub(crate) const SPIFFE_HELPER_CONFIG: &str = "spiffe-helper-config";
    /// SVID files.
    pub(crate) const SVID_OUTPUT: &str = "svid-output";
    /// SVID files of the proxy in layout split.
    pub(crate) const AUTHBRIDGE_SVID: &str = "authbridge-svid";
    /// `envoy.yaml`.
    pub(crate) const ENVOY_CONFIG: &str = "envoy-config";
    /// `routes.yaml`.
    pub(crate) const AUTHPROXY_ROUTES: &str = "authproxy-routes";
    /// `config.yaml` of the workload.
    pub(crate) const RUNTIME_CONFIG: &str = "authbridge-runtime-config";
    /// CA with its key, sidecar only.
    pub(crate) const TLS_BRIDGE_CA: &str = "tls-bridge-ca";
    /// CA certificate, app containers.
    pub(crate) const TLS_BRIDGE_CA_CERT: &str = "tls-bridge-ca-cert";
}

/// Paths inside containers.
pub(crate) mod path {
    /// Mount of the credentials.
    pub(crate) const SHARED: &str = "/shared";
    /// Mount of the sidecar's configuration.
    pub(crate) const AUTHBRIDGE: &str = "/etc/authbridge";
    /// The sidecar's configuration file.
    pub(crate) const AUTHBRIDGE_CONFIG: &str = "/etc/authbridge/config.yaml";
    /// Mount of the routes.
    pub(crate) const AUTHPROXY: &str = "/etc/authproxy";
    /// Mount of Envoy's configuration.
    pub(crate) const ENVOY: &str = "/etc/envoy";
    /// Mount of the SPIFFE helper's configuration.
    pub(crate) const SPIFFE_HELPER: &str = "/etc/spiffe-helper";
    /// Mount of the SVID files.
    pub(crate) const SVID: &str = "/opt";
    /// Mount of the TLS-bridge CA.
    pub(crate) const TLS_BRIDGE_CA: &str = "/etc/authbridge/tls-bridge-ca";
}
