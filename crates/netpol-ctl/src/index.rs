//! What the watches have seen, kept by the keys it is looked up with.

use controller_kit::{index::Index, watch::Key};
use std::sync::Arc;

use crate::{card::Card, policy::Policy, workload::Agent};

/// All workloads of one name in a namespace: their policies share names, so one pass looks at all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Namespace.
    pub namespace: String,
    /// Name of the workloads.
    pub name: String,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "workload {}/{}", self.namespace, self.name)
    }
}

/// All indexes of the process.
#[derive(Debug, Default)]
pub struct Indexes {
    /// AgentCards, linked to the workloads they speak for; those being deleted too.
    pub cards: Index<Card>,
    /// NetworkPolicies of ours, linked to the card they were made for.
    pub policies: Index<Policy>,
    /// Agents: workloads with label `kagenti.io/type=agent`.
    pub workloads: Index<Agent>,
}

impl Indexes {
    /// A policy that this suite made and nobody deletes.
    pub fn managed(&self, policy: &Key) -> Option<Arc<Policy>> {
        self.policies.get(policy).filter(|policy| policy.is_managed() && !policy.terminating)
    }

    /// Names that have cards, of a namespace or of all.
    pub fn slots(&self, namespace: Option<&str>) -> Vec<Slot> {
        self.cards.links(|slot| namespace.is_none_or(|ns| slot.namespace == ns).then(|| slot.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slot(name: &str) -> Slot {
        Slot { namespace: "ns".into(), name: name.into() }
    }

    #[test]
    fn the_slot_follows_the_target() {
        let card = |target: &str, version: &str| {
            Card::from_view(
                serde_json::from_value(json!({
                    "metadata": {"namespace": "ns", "name": "c", "uid": "c", "resourceVersion": version},
                    "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
                }))
                .unwrap(),
            )
        };
        let index = Indexes::default();
        index.cards.upsert(card("a", "1")).unwrap();
        assert_eq!(index.slots(None), [slot("a")]);
        index.cards.upsert(card("b", "2")).unwrap();
        assert!(index.cards.linked(&slot("a")).is_empty());
        assert_eq!(index.cards.linked(&slot("b")).len(), 1);
        assert!(index.cards.upsert(card("a", "1")).is_err());
        assert_eq!(index.slots(Some("ns")), [slot("b")]);
        assert!(index.slots(Some("other")).is_empty());
    }

    #[test]
    fn policies_are_found_by_their_card() {
        let policy = |card: &str, version: &str| {
            let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "ns", "name": "p", "uid": "u", "resourceVersion": version,
                    "labels": {"managed-by": "kagenti-operator", "kagenti.dev/policy-type": "identity-verification"},
                    "annotations": {"kagenti.dev/agentcard-name": card}},
                "spec": {"egress": [{}]}});
            Policy::new(serde_json::from_value(object).unwrap())
        };
        let key = |name: &str| Key::new("ns", name);
        let index = Indexes::default();
        index.policies.upsert(policy("c", "1")).unwrap();
        assert_eq!(index.policies.linked(&key("c")).len(), 1);
        index.policies.upsert(policy("d", "2")).unwrap();
        assert!(index.policies.linked(&key("c")).is_empty());
        assert_eq!(index.policies.linked(&key("d")).len(), 1);
        assert!(index.managed(&key("p")).is_some());
    }
}
