//! Workloads by key, by the AgentRuntime that enrolled them, and by namespace where they were labelled by hand.

use controller_kit::index::{Entry, Index};

use super::RuntimeKey;
use crate::workload::{Workload, WorkloadKey};

/// The index.
pub type Workloads = Index<Workload>;

/// By what workloads are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadLink {
    /// Annotation `enrolled-by` names this AgentRuntime.
    EnrolledBy(RuntimeKey),
    /// Labelled by hand, in this namespace (runtime §13).
    HandLabelled(String),
}

impl Entry for Workload {
    type Key = WorkloadKey;
    type Link = WorkloadLink;

    fn key(&self) -> &WorkloadKey {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = WorkloadLink> {
        let namespace = || self.key.namespace.clone();
        let enroller = self.enrolled_by.as_ref().map(|name| RuntimeKey::new(namespace(), name.clone()));
        let by_hand = self.is_hand_labelled().then(|| WorkloadLink::HandLabelled(namespace()));
        enroller.map(WorkloadLink::EnrolledBy).into_iter().chain(by_hand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use serde_json::json;

    #[test]
    fn the_enroller_index_follows_the_annotation() {
        let index = Workloads::default();
        let of = |by: &str, version: &str| {
            workload(
                WorkloadKind::Deployment,
                json!({"metadata": {"resourceVersion": version, "annotations": {"agent.kagenti.dev/enrolled-by": by}}}),
            )
        };
        let key = |name: &str| WorkloadLink::EnrolledBy(RuntimeKey::new("team1", name));
        index.upsert(of("a", "1")).unwrap();
        assert_eq!(index.linked(&key("a")).len(), 1);
        index.upsert(of("b", "2")).unwrap();
        assert!(index.linked(&key("a")).is_empty());
        assert_eq!(index.linked(&key("b")).len(), 1);
        assert!(index.upsert(of("c", "1")).is_err());
    }

    #[test]
    fn hand_labelled_workloads_are_found_by_namespace() {
        let index = Workloads::default();
        let plain =
            workload(WorkloadKind::Deployment, json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}}));
        let key = plain.key.clone();
        index.upsert(plain).unwrap();
        let link = WorkloadLink::HandLabelled("team1".into());
        assert_eq!(index.linked(&link).len(), 1);
        index.remove(&key);
        assert!(index.linked(&link).is_empty());
    }
}
