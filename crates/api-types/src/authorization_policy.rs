//! AuthorizationPolicy: Rego policies served to sidecars (runtime §2.6).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;

open_enum! {
    /// For whom a policy counts.
    PolicyScope {
        /// Everybody; only in the bundle service's own namespace.
        Global = "global",
        /// Every client of the object's namespace.
        Namespace = "namespace",
        /// The client the object is named after.
        Client = "client",
    }
}

fn default_scope() -> PolicyScope {
    PolicyScope::Client
}

/// Desired policies.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agent.kagenti.dev",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    singular = "authorizationpolicy",
    plural = "authorizationpolicies",
    shortname = "ap",
    namespaced,
    status = "AuthorizationPolicyStatus",
    derive = "PartialEq",
    doc = "Rego policies that sidecars load as a bundle.",
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "ClientID", type_ = "string", json_path = ".spec.clientID"),
    printcolumn(name = "Hash", type_ = "string", json_path = ".status.bundleHash", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// For whom the policies count.
    #[serde(default = "default_scope")]
    pub scope: PolicyScope,
    /// The client, for scope `client`.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))]
    pub client_id: Option<String>,
    /// The policy files.
    #[schemars(length(min = 1))]
    pub policies: Vec<PolicyFile>,
}

/// One Rego file.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFile {
    /// Path of the file in the bundle.
    #[schemars(length(min = 1), regex(pattern = r"^[a-z0-9][a-z0-9/_.-]*\.rego$"))]
    pub path: String,
    /// Rego source.
    #[schemars(length(min = 1))]
    pub content: String,
}

/// Observed state of a policy.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicyStatus {
    /// Hash of the built bundle, `sha256:<hex>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_hash: Option<String>,
    /// When the bundle was last built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_built: Option<Time>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
