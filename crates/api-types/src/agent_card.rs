//! AgentCard: discovery and verification of one agent (card §2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::{CustomResource, KubeSchema, Resource};
use serde::{Deserialize, Serialize};

use crate::{card_data::AgentCardData, open_enum::open_enum, target_ref::TargetRef};

open_enum! {
    /// How tightly a SPIFFE path must match the workload (card §9).
    BindingScope {
        /// The trust domain only.
        TrustDomain = "TrustDomain",
        /// Trust domain and namespace.
        Namespace = "Namespace",
        /// Trust domain, namespace and ServiceAccount.
        ServiceAccount = "ServiceAccount",
    }
}

open_enum! {
    /// Where a card came from.
    CardSource {
        /// The workload's signed ConfigMap.
        ConfigMap = "ConfigMap",
        /// Plain HTTP.
        Http = "HTTP",
        /// SPIFFE mTLS.
        Mtls = "MTLS",
    }
}

open_enum! {
    /// Which canonical payload a signature covered (card §8).
    SignatureProfile {
        /// The frozen legacy field set.
        Legacy = "legacy",
        /// A2A.
        A2a = "a2a",
        /// A2A, every member.
        A2aStrict = "a2a-strict",
        /// RFC 8785 over the whole document.
        Jcs = "jcs",
    }
}

#[allow(clippy::unnecessary_wraps, reason = "serde defaults have the type of the field")]
fn default_sync_period() -> Option<String> {
    Some("30s".into())
}

/// An AgentCard as it is read: `spec` may be absent (card §2), which the generated root type refuses.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = AgentCardDefinition)]
pub struct AgentCard {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Desired discovery; empty when absent.
    #[serde(default)]
    pub spec: AgentCardSpec,
    /// Observed state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AgentCardStatus>,
}

/// Desired discovery of one agent.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agent.kagenti.dev",
    version = "v1alpha1",
    kind = "AgentCard",
    root = "AgentCardDefinition",
    singular = "agentcard",
    plural = "agentcards",
    shortname = "agentcards",
    shortname = "cards",
    namespaced,
    status = "AgentCardStatus",
    derive = "PartialEq",
    doc = "The card of an agent: fetched, signature-checked and bound to the workload's identity.",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".status.protocol"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".status.targetRef.kind"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetRef.name"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.card.name"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Verified')].status"
    ),
    printcolumn(name = "Sigstore", type_ = "boolean", json_path = ".status.sigstoreBundleVerified"),
    printcolumn(name = "Bound", type_ = "boolean", json_path = ".status.bindingStatus.bound"),
    printcolumn(
        name = "Synced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Synced')].status"
    ),
    printcolumn(name = "LastSync", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "AttestedAgent",
        type_ = "string",
        json_path = ".status.attestedAgentSpiffeId",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AgentCardSpec {
    /// How often the card is fetched again, as a Go duration.
    #[serde(default = "default_sync_period", skip_serializing_if = "Option::is_none")]
    pub sync_period: Option<String>,
    /// The workload that serves the card, in the same namespace. Required by admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// How the card is bound to the workload's identity. Absent: binding is not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_binding: Option<IdentityBinding>,
    /// Expected signer of a Sigstore bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigstore_verification: Option<SigstoreVerification>,
}

/// How a card is bound to the workload's identity (card §9).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityBinding {
    /// Trust domain of the workload. Unset: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-zA-Z0-9]([a-zA-Z0-9\-\.]*[a-zA-Z0-9])?$"))]
    pub trust_domain: Option<String>,
    /// A failed binding also revokes Verified.
    #[serde(default)]
    pub strict: bool,
    /// How tightly the SPIFFE path must match. Unset: the controller's flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<BindingScope>,
    /// SPIFFE IDs that are accepted; each may end in `/*`.
    #[serde(rename = "allowedSpiffeIDs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(max = 2048), regex(pattern = r"^spiffe://[^/?#*]+(/[^?#*]+)*(/\*)?$"))
    )]
    pub allowed_spiffe_ids: Option<Vec<String>>,
}

/// Expected signer of a Sigstore bundle (card §13).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigstoreVerification {
    /// Identity in the signing certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_identity: Option<String>,
    /// Issuer of that identity.
    #[serde(rename = "certificateOIDCIssuer", default, skip_serializing_if = "Option::is_none")]
    pub certificate_oidc_issuer: Option<String>,
}

/// Observed state of a card: a pure function of the present evaluation. Written by card-ctl.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCardStatus {
    /// The card, with `url` replaced by the in-cluster address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<AgentCardData>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// When the card last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// Protocol of the agent, for example `a2a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The workload that was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outcome of the signature check; absent when it was not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_signature: Option<bool>,
    /// Text of the signature check, at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_verification_details: Option<String>,
    /// Key id of the verified signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_key_id: Option<String>,
    /// SPIFFE ID of the signing certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_spiffe_id: Option<String>,
    /// True when signature or mTLS and the binding agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_identity_match: Option<bool>,
    /// SHA-256 of the card, 64 hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_id: Option<String>,
    /// SPIFFE ID of the TLS peer that served the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested_agent_spiffe_id: Option<String>,
    /// The SPIFFE ID that was evaluated for the binding.
    #[serde(rename = "expectedSpiffeID", default, skip_serializing_if = "Option::is_none")]
    pub expected_spiffe_id: Option<String>,
    /// Outcome of the binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_status: Option<BindingStatus>,
    /// Outcome of the Sigstore check; absent when it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigstore_bundle_verified: Option<bool>,
    /// Identity in the verified bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigstore_identity: Option<String>,
    /// Index in the transparency log, decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekor_log_index: Option<String>,
    /// Source repository from the provenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slsa_repository: Option<String>,
    /// Source commit from the provenance.
    #[serde(rename = "slsaCommitSHA", default, skip_serializing_if = "Option::is_none")]
    pub slsa_commit_sha: Option<String>,
    /// Generation that was last processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the card came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_source: Option<CardSource>,
    /// Which canonical payload the signature covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_profile: Option<SignatureProfile>,
    /// Members the signature does not cover, as JSON pointers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub unsigned_members: Option<Vec<String>>,
    /// End of the signing certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_not_after: Option<Time>,
    /// The address the card itself named.
    #[serde(rename = "advertisedURL", default, skip_serializing_if = "Option::is_none")]
    pub advertised_url: Option<String>,
    /// When the card was last verified, coarse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// Pod template the verdict was given for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_template_hash: Option<String>,
}

/// Outcome of an identity binding.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    /// True when the identity matches.
    pub bound: bool,
    /// Reason in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Details for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When bound, reason or message last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_evaluation_time: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_spec_is_readable() {
        let card: AgentCard = serde_json::from_str(r#"{"metadata": {"name": "old"}}"#).unwrap();
        assert_eq!(card.spec.target_ref, None);
        assert_eq!(AgentCard::kind(&()), "AgentCard");
    }
}
