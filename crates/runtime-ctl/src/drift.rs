//! Which edits of an AgentRuntime its running Pods do not show yet (runtime §5.3). Pure.

use api_types::{AgentRuntimeSpec, injection::Decision};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::index::PodResolved;

/// The fields of the spec, sorted, whose resolved value differs from that of a running Pod.
pub fn waiting<'a>(
    spec: &AgentRuntimeSpec,
    decision: &Decision,
    pods: impl IntoIterator<Item = &'a PodResolved>,
) -> Vec<&'static str> {
    let identity = api_types::identity_hash::identity_hash(spec.identity.as_ref());
    let mut fields = Vec::new();
    for pod in pods {
        let differs = [
            ("authBridgeMode", pod.mode.is_some_and(|mode| mode != decision.mode.value)),
            ("egressEnforcement", pod.egress.is_some_and(|egress| egress != decision.egress.value)),
            ("identity", pod.identity_hash.as_ref().is_some_and(|hash| *hash != identity)),
            ("inboundInterception", pod.inbound.is_some_and(|inbound| inbound != decision.inbound.value)),
            ("tlsBridgeMode", pod.tls_bridge.is_some_and(|on| on != decision.tls_bridge.value)),
        ];
        fields.extend(differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field));
    }
    fields.sort_unstable();
    fields.dedup();
    fields
}

/// Value of `agent.kagenti.dev/runtime-generation`: 16 hex of SHA-256 of the five fields that reach Pods only when
/// they are created (flag `--rollout-on-spec-change`).
pub fn spec_hash(spec: &AgentRuntimeSpec) -> String {
    let fields = json!({
        "authBridgeMode": spec.auth_bridge_mode,
        "egressEnforcement": spec.egress_enforcement,
        "identity": spec.identity,
        "inboundInterception": spec.inbound_interception,
        "tlsBridgeMode": spec.tls_bridge_mode,
    });
    short_hash(fields.to_string().as_bytes())
}

/// 16 hex of SHA-256.
pub fn short_hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::injection::{Egress, Mode};

    fn spec(extra: &serde_json::Value) -> AgentRuntimeSpec {
        let mut spec = json!({"type": "agent",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn differing_fields_are_named_once_and_sorted() {
        let pod =
            |mode, egress| PodResolved { mode: Some(mode), egress: Some(egress), ..PodResolved::default() };
        let pods = [pod(Mode::Lite, Egress::None), pod(Mode::Lite, Egress::EnforceRedirect)];
        let decision = Decision::default();
        assert_eq!(waiting(&spec(&json!({})), &decision, &pods), ["authBridgeMode", "egressEnforcement"]);
        assert!(waiting(&spec(&json!({})), &decision, []).is_empty());
    }

    #[test]
    fn identity_is_compared_by_hash() {
        let before = spec(&json!({"identity": {"allowedAudiences": ["a"]}}));
        let pod = PodResolved {
            identity_hash: Some(api_types::identity_hash::identity_hash(before.identity.as_ref())),
            ..PodResolved::default()
        };
        assert!(waiting(&before, &Decision::default(), [&pod]).is_empty());
        let after = spec(&json!({"identity": {"allowedAudiences": ["b"]}}));
        assert_eq!(waiting(&after, &Decision::default(), [&pod]), ["identity"]);
    }

    /// Runtime §5.3: type and mTLS mode have their own label and annotation.
    #[test]
    fn the_spec_hash_covers_five_fields() {
        let base = spec_hash(&spec(&json!({})));
        assert_eq!(base.len(), 16);
        assert_eq!(base, spec_hash(&spec(&json!({"mtlsMode": "strict", "type": "tool"}))));
        assert_ne!(base, spec_hash(&spec(&json!({"egressEnforcement": "none"}))));
    }
}
