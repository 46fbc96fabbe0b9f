//! The CustomResourceDefinitions of group `agent.kagenti.dev`, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{AgentCard, AgentRuntime, AuthorizationPolicy};

/// All definitions, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![AgentCard::crd(), AgentRuntime::crd(), AuthorizationPolicy::crd()]
}
