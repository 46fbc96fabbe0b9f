//! AgentCards by name and by target.

use api_types::{
    AgentCard, AgentCardSpec, TargetRef,
    duplicates::{Claim, same_target},
    names::{MANAGED_BY_OPERATOR, finalizer, label},
};
use controller_kit::index::{Entry, Index};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::ObjectKey;
use crate::{conditions::verdict_of, kinds::TargetKey, status::Stored, verdict::Truth};

/// An AgentCard as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
    /// Made by card-ctl.
    pub automatic: bool,
    /// Owners.
    pub owners: Vec<OwnerReference>,
    /// All finalizers, when one of them is of the previous operator.
    pub legacy_finalizers: Option<Vec<String>>,
    /// `spec`.
    pub spec: AgentCardSpec,
    /// The workload it targets; `None` without a usable reference.
    pub target: Option<TargetKey>,
    /// `status`.
    pub stored: Stored,
}

impl Card {
    /// Compacts an object. `None` without namespace or name, which the API server never sends.
    pub fn of(card: AgentCard) -> Option<Self> {
        let AgentCard { metadata, spec, status } = card;
        let key = ObjectKey::new(metadata.namespace?, metadata.name?);
        let mut status = status.unwrap_or_default();
        let stored_card = status.card.take().and_then(|card| serde_json::to_string(&card).ok());
        let finalizers = metadata.finalizers.unwrap_or_default();
        let legacy = |name: &String| {
            [finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY].contains(&name.as_str())
        };
        Some(Self {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            terminating: metadata.deletion_timestamp.is_some(),
            automatic: metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(label::MANAGED_BY))
                .map(String::as_str)
                == Some(MANAGED_BY_OPERATOR),
            owners: metadata.owner_references.unwrap_or_default(),
            legacy_finalizers: finalizers.iter().any(legacy).then_some(finalizers),
            target: spec.target_ref.as_ref().and_then(|target| TargetKey::of(&key.namespace, target)),
            stored: Stored { status, card: stored_card.map(Into::into) },
            spec,
            key,
        })
    }

    /// The claim on its workload.
    pub fn claim(&self) -> Claim<'_> {
        Claim {
            name: &self.key.name,
            created: self.created,
            terminating: self.terminating,
            automatic: self.automatic,
        }
    }

    /// The stored status is about the workload that the card targets now. After an edit of the target it is not, until the
    /// new one was looked at: a verdict never passes from one workload to another.
    pub fn is_about_target(&self) -> bool {
        is_about(self.stored.status.target_ref.as_ref(), self.spec.target_ref.as_ref())
    }

    /// For events.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{}/{}", api_types::names::GROUP, api_types::names::VERSION)),
            kind: Some("AgentCard".into()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.resource_version.clone()),
            ..ObjectReference::default()
        }
    }

    /// The stored truth of a condition, for the gauge: `true`, `false`, `unknown` or `none`.
    pub(super) fn says(&self, type_: &str) -> &'static str {
        match verdict_of(&self.stored.status.conditions, type_).map(|verdict| verdict.truth) {
            Some(Truth::True) => "true",
            Some(Truth::False) => "false",
            Some(Truth::Unknown) => "unknown",
            None => "none",
        }
    }
}

/// A status with this target is about the target of this spec. One without target says nothing of another.
pub fn is_about(stored: Option<&TargetRef>, wanted: Option<&TargetRef>) -> bool {
    stored.is_none_or(|stored| wanted.is_some_and(|wanted| same_target(stored, wanted)))
}

/// The index; its links are the targets. Cards that are being deleted are in it, too.
pub type Cards = Index<Card>;

impl Entry for Card {
    type Key = ObjectKey;
    type Link = TargetKey;

    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = TargetKey> {
        self.target.iter().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::tests::card, *};
    use serde_json::json;

    fn of(name: &str, target: &str, version: &str) -> Card {
        card(json!({
            "metadata": {"namespace": "ns", "name": name, "resourceVersion": version},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
            "status": {"card": {"name": "x"}},
        }))
    }

    #[test]
    fn cards_are_found_by_their_present_target() {
        let index = Cards::default();
        let target = |name: &str| TargetKey {
            namespace: "ns".into(),
            group: "apps".into(),
            kind: "Deployment".into(),
            name: name.into(),
        };
        index.upsert(of("a", "w", "1")).unwrap();
        index.upsert(of("b", "w", "1")).unwrap();
        assert_eq!(index.linked(&target("w")).len(), 2);
        index.upsert(of("a", "v", "2")).unwrap();
        assert!(index.upsert(of("a", "w", "1")).is_err(), "older");
        assert_eq!(index.linked(&target("v"))[0].key.name, "a");
        index.retain(|_| true, &HashSet::from([ObjectKey::new("ns", "a")]));
        assert!(index.linked(&target("w")).is_empty());
    }

    #[test]
    fn the_card_is_kept_as_text_and_legacy_finalizers_are_noticed() {
        let plain = of("a", "w", "1");
        assert_eq!(plain.stored.card.as_deref(), Some(r#"{"name":"x"}"#));
        assert_eq!(plain.stored.status.card, None);
        assert_eq!(plain.legacy_finalizers, None);
        let legacy = card(json!({"metadata": {"namespace": "ns", "name": "l",
            "finalizers": ["x/y", "agentcard.kagenti.dev/finalizer"]}}));
        assert_eq!(legacy.legacy_finalizers.map(|list| list.len()), Some(2));
    }
}
