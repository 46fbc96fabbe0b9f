//! AgentRuntimes by name and by the workload they target.

use std::sync::Arc;

use api_types::{
    AgentRuntime, AgentRuntimeSpec,
    conditions::condition,
    duplicates::{Claim, runtime_winner},
};
use controller_kit::index::Entry;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Names one AgentRuntime.
pub use controller_kit::watch::Key as RuntimeKey;

use crate::{conditions::CONDITION, kinds::WorkloadKind, workload::WorkloadKey};

/// An AgentRuntime as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Its name.
    pub key: RuntimeKey,
    /// The workload it targets, when that can be an agent.
    pub target: Option<WorkloadKey>,
    resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Being deleted.
    pub deleting: bool,
    created: Option<Timestamp>,
    /// Spec, for the shared decision.
    pub spec: AgentRuntimeSpec,
    /// Our condition.
    pub condition: Option<Condition>,
}

impl Runtime {
    /// Compacts what was read.
    pub fn of(runtime: AgentRuntime) -> Self {
        let key = RuntimeKey::of(&runtime);
        let reference = &runtime.spec.target_ref;
        let kind = reference.group().and_then(|group| WorkloadKind::of(group, &reference.kind));
        let target = kind.map(|kind| WorkloadKey {
            namespace: key.namespace.clone(),
            kind,
            name: reference.name.clone(),
        });
        let conditions = runtime.status.as_ref().map(|status| status.conditions.as_slice());
        Self {
            key,
            target,
            condition: condition(conditions.unwrap_or_default(), CONDITION).cloned(),
            resource_version: runtime.metadata.resource_version.unwrap_or_default(),
            generation: runtime.metadata.generation.unwrap_or_default(),
            deleting: runtime.metadata.deletion_timestamp.is_some(),
            created: runtime.metadata.creation_timestamp.map(|time| time.0),
            spec: runtime.spec,
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim { name: &self.key.name, created: self.created, terminating: self.deleting, automatic: false }
    }
}

impl Entry for Runtime {
    type Key = RuntimeKey;
    type Link = WorkloadKey;

    fn key(&self) -> &RuntimeKey {
        &self.key
    }
    fn version(&self) -> &str {
        &self.resource_version
    }
    fn links(&self) -> impl Iterator<Item = WorkloadKey> {
        self.target.clone().into_iter()
    }
}

/// The one of several that speaks for their workload (runtime §9.2).
pub fn winner(claimants: Vec<Arc<Runtime>>) -> Option<Arc<Runtime>> {
    let name = runtime_winner(claimants.iter().map(|runtime| runtime.claim()))?.name.to_owned();
    claimants.into_iter().find(|runtime| runtime.key.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_kit::index::Index;
    use serde_json::json;

    fn runtime(name: &str, target: &str, created: &str, version: &str) -> Runtime {
        Runtime::of(
            serde_json::from_value(json!({
                "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
                "metadata": {"namespace": "ns", "name": name, "creationTimestamp": created, "resourceVersion": version},
                "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
            }))
            .unwrap(),
        )
    }

    fn target(name: &str) -> WorkloadKey {
        WorkloadKey { namespace: "ns".into(), kind: WorkloadKind::Deployment, name: name.into() }
    }

    #[test]
    fn the_oldest_speaks_and_edits_are_followed() {
        let index = Index::default();
        let speaks = |workload: &str| {
            winner(index.linked(&target(workload))).map(|r: Arc<Runtime>| r.key.name.clone())
        };
        index.upsert(runtime("a", "w1", "2026-01-01T00:00:00Z", "1")).unwrap();
        index.upsert(runtime("b", "w1", "2026-01-02T00:00:00Z", "2")).unwrap();
        assert_eq!(speaks("w1").as_deref(), Some("a"));
        index.upsert(runtime("a", "w2", "2026-01-01T00:00:00Z", "3")).unwrap();
        assert_eq!(speaks("w1").as_deref(), Some("b"));
        assert_eq!(speaks("w2").as_deref(), Some("a"));
        assert_eq!(speaks("w3"), None);
    }
}
