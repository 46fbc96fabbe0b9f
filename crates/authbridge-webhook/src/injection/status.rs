//! Annotation `kagenti.io/authbridge-status`: the resolved values and the port plan of an injected Pod
//! (webhook §7.5; split §9).

use api_types::{identity_hash::identity_hash, injection::Inbound};
use serde::{Deserialize, Serialize};

use super::{Warning, names, plan::Plan};

/// The annotation, members in the order they are written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    /// Version of this format.
    pub(crate) v: u32,
    pub(crate) mode: String,
    pub(crate) mode_source: String,
    pub(crate) mtls_mode: String,
    pub(crate) mtls_source: String,
    pub(crate) egress: String,
    pub(crate) egress_source: String,
    pub(crate) inbound: String,
    /// `enabled` or `disabled`.
    pub(crate) tls_bridge: String,
    pub(crate) spire: bool,
    pub(crate) identity_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relocated_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forward_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transparent_port: Option<u16>,
    /// Name of the ConfigMap with `config.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<String>,
    /// Layout split only, like the next three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layout_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sidecars: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registration: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

impl Status {
    /// The values of one injection.
    pub(crate) fn new(plan: &Plan<'_>, sidecars: &[&'static str], warnings: &[Warning]) -> Self {
        let decision = plan.decision;
        let ports = &plan.ports;
        let split = plan.split();
        let agent = ports.agent.is_some();
        let moved = plan.http_proxy() && agent && decision.inbound.value == Inbound::ReverseProxy;
        Self {
            v: 1,
            mode: decision.mode.value.to_string(),
            mode_source: decision.mode.source.to_string(),
            mtls_mode: decision.mtls.value.to_string(),
            mtls_source: decision.mtls.source.to_string(),
            egress: decision.egress.value.to_string(),
            egress_source: decision.egress.source.to_string(),
            inbound: decision.inbound.value.to_string(),
            tls_bridge: if decision.tls_bridge.value { "enabled" } else { "disabled" }.to_owned(),
            spire: decision.spire,
            identity_hash: identity_hash(plan.inputs.runtime.and_then(|spec| spec.identity.as_ref())),
            agent_container: ports.agent.clone(),
            agent_port: agent.then_some(ports.original),
            relocated_port: moved.then_some(ports.relocated),
            forward_port: plan.http_proxy().then_some(ports.forward),
            transparent_port: plan.http_proxy().then_some(ports.transparent),
            config: decision.proxy.then(|| plan.inputs.names.config.clone()),
            layout: split.then(|| decision.layout.value.to_string()),
            layout_source: split.then(|| decision.layout.source.to_string()),
            sidecars: split.then(|| sidecars.iter().map(|name| (*name).to_owned()).collect()),
            registration: split.then(|| decision.registration.to_string()),
            warnings: warnings.iter().map(|warning| warning.message.clone()).collect(),
        }
    }

    /// The annotation's text.
    pub(crate) fn to_json(&self) -> String {
        // Strings, numbers and lists: serialising to memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an annotation; `None` when it is not this format.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|status: &Self| status.v == 1)
    }

    /// Containers of ours beside the proxy.
    pub(crate) fn helpers(&self) -> Vec<String> {
        let helper = |name: &&String| !names::NEVER_APP.contains(&name.as_str());
        self.sidecars.iter().flatten().filter(helper).cloned().collect()
    }

    /// Credentials come from a Secret. Combined layouts do not say, so they do where one is named.
    pub(crate) fn mounts_secret(&self) -> bool {
        self.registration.as_deref().is_none_or(|source| matches!(source, "operator" | "user"))
    }

    /// The TLS bridge is on.
    pub(crate) fn bridges_tls(&self) -> bool {
        self.tls_bridge == "enabled"
    }
}
