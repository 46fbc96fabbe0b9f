//! What card-ctl and netpol-ctl must agree on: names, lengths, conditions, the protocol of a workload (card §3, §5.3,
//! §6.2, §14.1).

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::names::label;

/// `reportingController` of the events on an AgentCard (card §14.2).
pub const REPORTING_CONTROLLER: &str = "agentcard-controller";
/// The one protocol that is spoken (card §6.2).
pub const A2A: &str = "a2a";
/// `spec.syncPeriod` of a card made by card-ctl (card §5.1).
pub const AUTO_SYNC_PERIOD: &str = "30s";
/// Longest label value and longest name part of a label or annotation key.
const LABEL_LIMIT: usize = 63;
/// Longest object name.
const NAME_LIMIT: usize = 253;
/// `-` and ten hex digits.
const SUFFIX: usize = 11;

/// Conditions of an AgentCard.
pub mod condition {
    /// The card was fetched.
    pub const SYNCED: &str = "Synced";
    /// The only input of the verified label and of NetworkPolicies.
    pub const VERIFIED: &str = "Verified";
    /// Outcome of the signature check; absent when it is off.
    pub const SIGNATURE_VERIFIED: &str = "SignatureVerified";
    /// Outcome of the identity binding; absent without `spec.identityBinding`.
    pub const BOUND: &str = "Bound";
    /// Everything that was asked for holds.
    pub const READY: &str = "Ready";
}

/// Reasons of the conditions of an AgentCard.
pub mod reason {
    /// Synced=True.
    pub const SYNC_SUCCEEDED: &str = "SyncSucceeded";
    /// `targetRef` is missing or wrong, or the look-up failed.
    pub const WORKLOAD_ERROR: &str = "WorkloadError";
    /// The workload does not exist.
    pub const WORKLOAD_NOT_FOUND: &str = "WorkloadNotFound";
    /// The workload has no label `kagenti.io/type=agent`.
    pub const NOT_AGENT_WORKLOAD: &str = "NotAgentWorkload";
    /// The workload has no protocol label.
    pub const NO_PROTOCOL: &str = "NoProtocol";
    /// No protocol of the workload is spoken here.
    pub const PROTOCOL_NOT_SUPPORTED: &str = "ProtocolNotSupported";
    /// The workload is not ready, or scaled to zero.
    pub const WORKLOAD_NOT_READY: &str = "WorkloadNotReady";
    /// No Service leads to the workload.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// The Service leads somewhere card-ctl must not connect to.
    pub const FORBIDDEN_TARGET: &str = "ForbiddenTarget";
    /// Nobody answered, or not with a card.
    pub const FETCH_FAILED: &str = "FetchFailed";
    /// The document is no agent card.
    pub const INVALID_CARD: &str = "InvalidCard";
    /// The card is too big for the status.
    pub const CARD_TOO_LARGE: &str = "CardTooLarge";
    /// The signature is required and not valid.
    pub const SIGNATURE_INVALID: &str = "SignatureInvalid";
    /// The same in audit mode, which has no effect on traffic.
    pub const SIGNATURE_INVALID_AUDIT: &str = "SignatureInvalidAudit";
    /// The signature is valid.
    pub const SIGNATURE_VALID: &str = "SignatureValid";
    /// Verified=True by a signature.
    pub const SIGNATURE_VERIFIED: &str = "SignatureVerified";
    /// Verified=True by the TLS peer.
    pub const MTLS_VERIFIED: &str = "mTLSVerified";
    /// Nothing attests the card, or a strict binding failed.
    pub const NOT_VERIFIED: &str = "NotVerified";
    /// A strict binding failed in audit mode.
    pub const NOT_VERIFIED_AUDIT: &str = "NotVerifiedAudit";
    /// The TLS peer is not who it has to be.
    pub const PEER_UNTRUSTED: &str = "PeerUntrusted";
    /// Nobody knows yet.
    pub const PENDING: &str = "Pending";
    /// The workload that was missing, or no agent, is there now; nobody knows more yet.
    pub const NOT_VERIFIED_YET: &str = "NotVerifiedYet";
    /// The verdict is too old.
    pub const VERIFICATION_STALE: &str = "VerificationStale";
    /// The trust bundle cannot be read.
    pub const TRUST_BUNDLE_UNAVAILABLE: &str = "TrustBundleUnavailable";
    /// Bound=True.
    pub const BOUND: &str = "Bound";
    /// Bound=False.
    pub const NOT_BOUND: &str = "NotBound";
    /// Bound=False: there is no agent.
    pub const AGENT_NOT_FOUND: &str = "AgentNotFound";
    /// Ready=True.
    pub const READY_TO_SERVE: &str = "ReadyToServe";
    /// Ready=False: not verified.
    pub const VERIFICATION_FAILED: &str = "VerificationFailed";
    /// Ready=False: not synced.
    pub const SYNC_FAILED: &str = "SyncFailed";

    /// True for a verdict of the audit mode, which changes no traffic (card §10.2, §15.3).
    pub fn is_audit(reason: &str) -> bool {
        reason.ends_with("Audit")
    }
}

/// Annotations that card-ctl writes.
pub mod annotation {
    /// Prefix of the per-card verdict on the workload; [`super::verified_state`] makes the key.
    pub const VERIFIED_STATE_PREFIX: &str = "verified-state.agent.kagenti.dev/";
    /// Left by the previous operator, removed when seen.
    pub const LAST_VERIFIED_STATE: &str = "agent.kagenti.dev/last-verified-state";
    /// Fingerprint of the trust bundle, on the workload.
    pub const BUNDLE_HASH: &str = "agentcard.kagenti.dev/bundle-hash";
    /// Time of a restart, on the pod template.
    pub const RESIGN_TRIGGER: &str = "agentcard.kagenti.dev/resign-trigger";
    /// End of the certificate that caused it, on the pod template.
    pub const RESIGN_LEAF_EXPIRY: &str = "agentcard.kagenti.dev/resign-leaf-expiry";
}

/// The ConfigMap with a workload's signed card.
pub mod signed {
    /// Suffix of its name.
    pub const SUFFIX: &str = "-card-signed";
    /// Its label, `"true"`.
    pub const LABEL: &str = "kagenti.io/card-signed";
    /// Its keys, preferred first.
    pub const KEYS: [&str; 2] = ["signed-agent-card.json", "agent-card.json"];
}

/// Init container that signs cards; also the beginning of what its image is called.
pub const SIGNER_CONTAINER: &str = "sign-agentcard";
/// Part of the signer's image name.
pub const SIGNER_IMAGE: &str = "agentcard-signer";

fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let cut = text.get(..text.floor_char_boundary(limit - SUFFIX)).unwrap_or_default();
    let cut = cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let digest = hex::encode(Sha256::digest(text));
    format!("{cut}-{}", digest.get(..10).unwrap_or_default())
}

/// `text` as a label value or the name part of a key: unchanged up to 63 bytes, else its first 52 bytes without
/// trailing non-alphanumerics, `-` and ten hex digits of its SHA-256 (card §5.3).
pub fn short(text: &str) -> String {
    shorten(text, LABEL_LIMIT)
}

/// The same for names of objects, 253 bytes.
pub fn short_name(text: &str) -> String {
    shorten(text, NAME_LIMIT)
}

/// Name of the card that card-ctl makes for a workload: `<workload>-<kind lower case>-card` (card §5.1).
pub fn auto_name(workload: &str, kind: &str) -> String {
    short_name(&format!("{workload}-{}-card", kind.to_ascii_lowercase()))
}

/// Key of the annotation that holds the verdict of one card (card §11.1).
pub fn verified_state(card: &str) -> String {
    format!("{}{}", annotation::VERIFIED_STATE_PREFIX, short(card))
}

/// Name of the ConfigMap with a workload's signed card.
pub fn signed_config_map(workload: &str) -> String {
    format!("{workload}{}", signed::SUFFIX)
}

/// The protocol of a workload (card §6.2): of the labels `protocol.kagenti.io/<name>` `a2a` if it is there, else the
/// smallest name; without any the legacy labels. `None` = no protocol.
pub fn protocol(labels: Option<&BTreeMap<String, String>>) -> Option<&str> {
    let labels = labels?;
    let mut names = labels
        .keys()
        .filter_map(|key| key.strip_prefix(label::PROTOCOL_PREFIX))
        .filter(|name| !name.is_empty());
    // The map is sorted, so the first is the smallest.
    let smallest = names.clone().next();
    names.find(|name| *name == A2A).or(smallest).or_else(|| {
        [label::PROTOCOL, label::AGENT_PROTOCOL]
            .into_iter()
            .filter_map(|key| labels.get(key))
            .map(String::as_str)
            .find(|value| !value.is_empty())
    })
}

/// True when a workload with these labels gets a card (card §5.1).
pub fn is_eligible(labels: Option<&BTreeMap<String, String>>) -> bool {
    is_agent(labels) && protocol(labels).is_some()
}

/// True for the label `kagenti.io/type=agent`.
pub fn is_agent(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get(label::TYPE)).is_some_and(|value| value == "agent")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Card §5.3.
    #[test]
    fn long_texts_are_shortened_to_a_legal_unique_value() {
        let name = "w".repeat(63);
        assert_eq!(short(&name), name);
        let card = auto_name(&name, "Deployment");
        assert_eq!(card.len(), 79);
        let value = short(&card);
        assert_eq!(value.len(), 63);
        assert_ne!(value, short(&format!("{card}x")));
        let dashes = format!("{}{}", "a".repeat(50), "-".repeat(40));
        assert_eq!(short(&dashes).get(..51), Some(format!("{}-", "a".repeat(50)).as_str()));
        assert_eq!(short_name(&"n".repeat(300)).len(), 253);
    }

    #[rstest]
    #[case(&[("protocol.kagenti.io/a2a", ""), ("protocol.kagenti.io/mcp", "x")], Some("a2a"))]
    #[case(&[("protocol.kagenti.io/mcp", ""), ("protocol.kagenti.io/b", "")], Some("b"))]
    #[case(&[("protocol.kagenti.io/", ""), ("kagenti.io/protocol", "a2a")], Some("a2a"))]
    #[case(&[("kagenti.io/protocol", ""), ("kagenti.io/agent-protocol", "mcp")], Some("mcp"))]
    #[case(&[("protocol.kagenti.io/mcp", ""), ("kagenti.io/protocol", "a2a")], Some("mcp"))]
    #[case(&[("kagenti.io/type", "agent")], None)]
    fn protocols(#[case] labels: &[(&str, &str)], #[case] expected: Option<&str>) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(protocol(Some(&labels)), expected);
    }

    #[test]
    fn only_agents_with_a_protocol_are_eligible() {
        let of = |kind: &str| {
            BTreeMap::from([
                (label::TYPE.to_owned(), kind.to_owned()),
                ("protocol.kagenti.io/a2a".to_owned(), String::new()),
            ])
        };
        assert!(is_eligible(Some(&of("agent"))));
        assert!(!is_eligible(Some(&of("tool"))));
        assert!(!is_eligible(Some(&[(label::TYPE.to_owned(), "agent".to_owned())].into())));
        assert!(!is_eligible(None));
    }
}
