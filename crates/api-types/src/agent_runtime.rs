//! AgentRuntime: enrols a workload (runtime §2.2, §2.3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{card_data::CardStatus, open_enum::open_enum, target_ref::TargetRef};

open_enum! {
    /// Value of the label `kagenti.io/type`.
    WorkloadType {
        /// An agent.
        Agent = "agent",
        /// A tool an agent calls.
        Tool = "tool",
    }
}

open_enum! {
    /// Shape of the sidecar.
    AuthBridgeMode {
        /// HTTP reverse and forward proxy.
        ProxySidecar = "proxy-sidecar",
        /// Envoy with external processing.
        EnvoySidecar = "envoy-sidecar",
        /// The proxy with two plugins only.
        Lite = "lite",
        /// A proxy of its own elsewhere; nothing is injected.
        Waypoint = "waypoint",
    }
}

open_enum! {
    /// mTLS between sidecars.
    MtlsMode {
        /// Plain text.
        Disabled = "disabled",
        /// mTLS where the peer offers it.
        Permissive = "permissive",
        /// mTLS only.
        Strict = "strict",
    }
}

open_enum! {
    /// Decryption of outbound HTTPS.
    TlsBridgeMode {
        /// HTTPS passes untouched.
        Disabled = "disabled",
        /// HTTPS is decrypted by the sidecar.
        Enabled = "enabled",
    }
}

open_enum! {
    /// How inbound traffic reaches the sidecar.
    InboundInterception {
        /// The sidecar takes the agent's port.
        ReverseProxy = "reverse-proxy",
        /// iptables redirects to the sidecar.
        Transparent = "transparent",
    }
}

open_enum! {
    /// Capture of egress.
    EgressEnforcement {
        /// iptables redirects all egress to the sidecar.
        EnforceRedirect = "enforce-redirect",
        /// Egress is captured by proxy variables only.
        None = "none",
    }
}

open_enum! {
    /// Summary of the conditions (runtime §7.2).
    Phase {
        /// Not decided yet.
        Pending = "Pending",
        /// `Ready=True`.
        Active = "Active",
        /// `Ready=False`.
        Error = "Error",
    }
}

/// Desired enrolment of one workload.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agent.kagenti.dev",
    version = "v1alpha1",
    kind = "AgentRuntime",
    singular = "agentruntime",
    plural = "agentruntimes",
    shortname = "art",
    shortname = "agentrt",
    namespaced,
    status = "AgentRuntimeStatus",
    derive = "PartialEq",
    cel,
    doc = "Enrols a workload as an agent or tool: labels, configuration and sidecars.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tlsBridgeMode) || self.tlsBridgeMode != 'enabled' || !has(self.authBridgeMode) || !(self.authBridgeMode in ['envoy-sidecar', 'waypoint'])")
        .message("tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite: change spec.authBridgeMode or set spec.tlsBridgeMode to disabled")
)]
pub struct AgentRuntimeSpec {
    /// Whether the workload is an agent or a tool; value of the label `kagenti.io/type`.
    #[serde(rename = "type")]
    pub workload_type: WorkloadType,
    /// The workload to enrol, in the same namespace.
    pub target_ref: TargetRef,
    /// Identity settings of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Shape of the sidecar. Unset: the namespace's `mode`, else the default of the sidecar layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_bridge_mode: Option<AuthBridgeMode>,
    /// mTLS between sidecars; anything but `disabled` needs SPIRE. Unset: the namespace's `mtls.mode`, else
    /// `permissive` with SPIRE and `disabled` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls_mode: Option<MtlsMode>,
    /// Decrypt outbound HTTPS; only with modes proxy-sidecar and lite, needs cert-manager. Unset: the
    /// namespace's `tls_bridge.mode`, else `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_bridge_mode: Option<TlsBridgeMode>,
    /// How inbound traffic reaches the sidecar. Unset: the namespace's `listener.inbound_interception`, else
    /// `reverse-proxy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_interception: Option<InboundInterception>,
    /// Capture of egress by iptables; ignored by envoy-sidecar. Unset: the namespace's `egressEnforcement`,
    /// else `enforce-redirect`. Clamped to what the platform allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_enforcement: Option<EgressEnforcement>,
}

/// Identity settings of a workload.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// SPIFFE settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<SpiffeIdentity>,
    /// Extra JWT audiences the sidecar accepts on inbound requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_audiences: Option<Vec<String>>,
}

/// SPIFFE settings of a workload.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpiffeIdentity {
    /// Trust domain of the workload. Unset: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-zA-Z0-9]([a-zA-Z0-9\-\.]*[a-zA-Z0-9])?$"))]
    pub trust_domain: Option<String>,
}

impl AgentRuntimeSpec {
    /// The workload's own trust domain, when set.
    pub fn trust_domain(&self) -> Option<&str> {
        self.identity.as_ref()?.spiffe.as_ref()?.trust_domain.as_deref()
    }

    /// Extra accepted audiences; empty when unset.
    pub fn allowed_audiences(&self) -> &[String] {
        self.identity.as_ref().and_then(|i| i.allowed_audiences.as_deref()).unwrap_or_default()
    }
}

/// Observed state of an enrolment. Every field but `card` is written by runtime-ctl.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRuntimeStatus {
    /// Generation that was last processed, also when processing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary: Active when Ready is True, Error when it is False, Pending otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Pods that run with the current configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_pods: Option<i32>,
    /// Skills read from the annotation `kagenti.io/skills` of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_skills: Option<Vec<String>>,
    /// Conditions: TargetResolved, ConfigResolved, IstioMeshEnrolled, MTLSReady, IdentityReady, TLSBridgeReady,
    /// PodsConfigured, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The agent's card, written by card-ctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(auth_bridge: Option<AuthBridgeMode>, tls_bridge: Option<TlsBridgeMode>) -> AgentRuntime {
        AgentRuntime::new(
            "rt",
            AgentRuntimeSpec {
                workload_type: WorkloadType::Agent,
                target_ref: TargetRef {
                    api_version: "apps/v1".into(),
                    kind: "Deployment".into(),
                    name: "a".into(),
                },
                identity: None,
                auth_bridge_mode: auth_bridge,
                mtls_mode: None,
                tls_bridge_mode: tls_bridge,
                inbound_interception: None,
                egress_enforcement: None,
            },
        )
    }

    #[test]
    fn the_schema_rule_refuses_tls_bridge_with_envoy_and_waypoint() {
        // runtime §9.1, second row; the message must start with the words users match on.
        for mode in [AuthBridgeMode::EnvoySidecar, AuthBridgeMode::Waypoint] {
            let refused = spec(Some(mode), Some(TlsBridgeMode::Enabled)).validate_cel();
            let text = format!("{:?}", refused.unwrap_err());
            assert!(
                text.contains("tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite"),
                "{text}"
            );
        }
        for mode in [None, Some(AuthBridgeMode::Lite), Some(AuthBridgeMode::ProxySidecar)] {
            assert!(spec(mode, Some(TlsBridgeMode::Enabled)).validate_cel().is_ok());
        }
        assert!(
            spec(Some(AuthBridgeMode::EnvoySidecar), Some(TlsBridgeMode::Disabled)).validate_cel().is_ok()
        );
        assert!(spec(Some(AuthBridgeMode::EnvoySidecar), None).validate_cel().is_ok());
    }

    #[test]
    fn an_unknown_enum_value_is_kept() {
        // runtime §2.7: never a decode error, never lost.
        let text = r#"{"type":"robot","targetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"},"mtlsMode":"later"}"#;
        let spec: AgentRuntimeSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.workload_type, WorkloadType::Unknown("robot".into()));
        assert_eq!(spec.mtls_mode, Some(MtlsMode::Unknown("later".into())));
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
    }

    #[test]
    fn unset_optionals_are_absent_and_null_means_unset() {
        let text = r#"{"type":"agent","targetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"}}"#;
        let spec: AgentRuntimeSpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        let with_null: AgentRuntimeSpec =
            serde_json::from_str(&text.replace("\"type\"", "\"mtlsMode\":null,\"type\"")).unwrap();
        assert_eq!(with_null, spec);
    }
}
