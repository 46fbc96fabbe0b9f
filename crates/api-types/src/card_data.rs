//! The A2A card as the cluster stores it (card §2.3) and the fetch metadata of `AgentRuntime.status.card`
//! (runtime §2.4). Members outside these types are not stored.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Declares a struct of optional members, absent on the wire when unset.
macro_rules! optional_members {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$fmeta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$ty>,)+
        }
    };
}

optional_members! {
    /// An A2A agent card, versions 0.2 to 1.0.
    AgentCardData {
        /// Name of the agent.
        name: String,
        /// What the agent does.
        description: String,
        /// Version of the agent.
        version: String,
        /// Address of the agent (0.2 and 0.3); replaced by the in-cluster address when stored.
        url: String,
        /// Address of the documentation.
        documentation_url: String,
        /// Address of an icon.
        icon_url: String,
        /// Who provides the agent.
        provider: AgentProvider,
        /// What the agent's endpoint can do.
        capabilities: AgentCapabilities,
        /// Media types the agent accepts.
        default_input_modes: Vec<String>,
        /// Media types the agent answers with.
        default_output_modes: Vec<String>,
        /// What the agent can be asked for.
        skills: Vec<AgentSkill>,
        /// True when authenticated callers get a longer card (0.2 and 0.3).
        supports_authenticated_extended_card: bool,
        /// JWS signatures of the card (0.3 and 1.0).
        signatures: Vec<AgentCardSignature>,
        /// A2A version of the card (0.2.6 and 0.3).
        protocol_version: String,
        /// Transport of `url`: JSONRPC, GRPC or HTTP+JSON (0.3).
        preferred_transport: String,
        /// Further addresses of the agent (0.3).
        additional_interfaces: Vec<AdditionalInterface>,
        /// Addresses of the agent, preferred first (1.0).
        supported_interfaces: Vec<AgentInterface>,
        /// Authentication schemes by name.
        #[schemars(schema_with = "crate::schema::object_map")]
        security_schemes: BTreeMap<String, Value>,
        /// Schemes a caller must satisfy, alternatives (0.3).
        security: Vec<BTreeMap<String, Vec<String>>>,
        /// Schemes a caller must satisfy, alternatives (1.0).
        security_requirements: Vec<SecurityRequirement>,
    }
}

optional_members! {
    /// Who provides an agent.
    AgentProvider {
        /// Name of the organization.
        organization: String,
        /// Address of the organization.
        url: String,
    }
}

optional_members! {
    /// What an agent's endpoint can do.
    AgentCapabilities {
        /// Answers can be streamed.
        streaming: bool,
        /// The agent can call back.
        push_notifications: bool,
        /// Extensions of A2A the agent knows.
        extensions: Vec<AgentExtension>,
        /// The history of a task's states is kept (0.2 and 0.3).
        state_transition_history: bool,
        /// Authenticated callers get a longer card (1.0).
        extended_agent_card: bool,
    }
}

optional_members! {
    /// An extension of A2A.
    AgentExtension {
        /// Identifier of the extension.
        uri: String,
        /// How the agent uses it.
        description: String,
        /// Callers must know it.
        required: bool,
        /// Parameters of the extension.
        #[schemars(schema_with = "crate::schema::any_map")]
        params: Map<String, Value>,
    }
}

optional_members! {
    /// Something an agent can be asked for.
    AgentSkill {
        /// Identifier of the skill.
        id: String,
        /// Name of the skill.
        name: String,
        /// What the skill does.
        description: String,
        /// Keywords.
        tags: Vec<String>,
        /// Example requests.
        examples: Vec<String>,
        /// Media types the skill accepts.
        input_modes: Vec<String>,
        /// Media types the skill answers with.
        output_modes: Vec<String>,
        /// Parameters of the skill (not A2A).
        parameters: Vec<SkillParameter>,
        /// Schemes a caller must satisfy, alternatives (0.3).
        security: Vec<BTreeMap<String, Vec<String>>>,
        /// Schemes a caller must satisfy, alternatives (1.0).
        security_requirements: Vec<SecurityRequirement>,
    }
}

optional_members! {
    /// A parameter of a skill.
    SkillParameter {
        /// Name of the parameter.
        name: String,
        /// Type of the parameter.
        #[serde(rename = "type")]
        parameter_type: String,
        /// Meaning of the parameter.
        description: String,
        /// The parameter must be given.
        required: bool,
        /// Value when it is not given.
        default: String,
    }
}

/// A JWS signature over a card.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCardSignature {
    /// Protected header, base64url.
    pub protected: String,
    /// Signature, base64url.
    pub signature: String,
    /// Unprotected header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub header: Option<Map<String, Value>>,
}

optional_members! {
    /// A further address of an agent (0.3).
    AdditionalInterface {
        /// The address.
        url: String,
        /// Transport at the address.
        transport: String,
    }
}

optional_members! {
    /// An address of an agent (1.0).
    AgentInterface {
        /// The address.
        url: String,
        /// Protocol binding at the address.
        protocol_binding: String,
        /// Tenant at the address.
        tenant: String,
        /// A2A version at the address.
        protocol_version: String,
    }
}

optional_members! {
    /// Schemes that must be satisfied together (1.0).
    SecurityRequirement {
        /// Scopes by scheme name.
        schemes: BTreeMap<String, StringList>,
    }
}

optional_members! {
    /// A list of strings.
    StringList {
        /// The strings.
        list: Vec<String>,
    }
}

/// `AgentRuntime.status.card`: the card and how it was fetched (runtime §2.4). Written by card-ctl.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CardStatus {
    /// The card itself.
    #[serde(flatten)]
    pub data: AgentCardData,
    /// When the stored card last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_card_fetch_time: Option<Time>,
    /// SHA-256 of the card, 64 hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_hash: Option<String>,
    /// Protocol of the agent, for example `a2a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// How the card was fetched: `mtls` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_security: Option<String>,
    /// Outcome of the signature check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_signature: Option<bool>,
    /// Key id of the verified signature.
    #[serde(rename = "signatureKeyID", default, skip_serializing_if = "Option::is_none")]
    pub signature_key_id: Option<String>,
    /// Text of the signature check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_verification_details: Option<String>,
    /// SPIFFE ID of the TLS peer that served the card.
    #[serde(rename = "attestedAgentSpiffeID", default, skip_serializing_if = "Option::is_none")]
    pub attested_agent_spiffe_id: Option<String>,
}
