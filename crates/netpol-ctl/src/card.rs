//! What netpol-ctl knows of an AgentCard: read partially from the wire, kept compactly.

use api_types::{
    AgentCard, TargetRef,
    card::condition,
    duplicates::{Claim, same_target},
    names::{MANAGED_BY_OPERATOR, finalizer, label},
};
use controller_kit::{index::Entry, watch::Key};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::{index::Slot, verdict::Verdict};

/// An AgentCard as read from the API: only what the policy depends on. Nothing is ever written from this type.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = AgentCard)]
pub struct CardView {
    /// Object metadata.
    #[serde(default, deserialize_with = "controller_kit::lean::metadata")]
    pub metadata: ObjectMeta,
    /// The part of the spec that matters.
    #[serde(default)]
    pub spec: SpecView,
    /// The part of the status that matters.
    #[serde(default)]
    pub status: StatusView,
}

/// The part of a card's spec that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// The workload.
    pub target_ref: Option<TargetRef>,
}

/// The part of a card's status that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// The workload that it is about.
    pub target_ref: Option<TargetRef>,
    /// Conditions.
    pub conditions: Option<Vec<ConditionView>>,
}

/// The part of a condition that matters; the message is left on the wire.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason in CamelCase.
    pub reason: String,
}

/// Names one workload, without version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Kind.
    pub kind: String,
    /// API group.
    pub group: String,
    /// Name; the namespace is the card's.
    pub name: String,
}

/// An AgentCard as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// Made by card-ctl.
    pub automatic: bool,
    /// Being deleted: counts for nothing (card §17.2).
    pub terminating: bool,
    /// The workload; `None` when the card names none, or none that can exist.
    pub target: Option<Target>,
    /// The condition `Verified`.
    pub verdict: Verdict,
    /// All finalizers, when a legacy one is among them.
    pub finalizers: Option<Box<[String]>>,
    /// The stored object cannot be read by this build; what is known of it is from before.
    pub unreadable: bool,
}

impl Card {
    /// Keeps what matters.
    pub fn from_view(view: CardView) -> Self {
        let mut card = Self::from_meta(view.metadata);
        // After an edit of the target the verdict is still about the former workload.
        let wanted = view.spec.target_ref.as_ref();
        let about = |stored: &TargetRef| wanted.is_some_and(|wanted| same_target(stored, wanted));
        let speaks = view.status.target_ref.as_ref().is_none_or(about);
        card.target = view.spec.target_ref.and_then(|reference| {
            let group = reference.group()?.to_owned();
            let named = !reference.kind.is_empty() && !reference.name.is_empty();
            named.then_some(Target { kind: reference.kind, group, name: reference.name })
        });
        let mut conditions = view.status.conditions.iter().flatten().filter(|_| speaks);
        let verified = conditions.find(|c| c.type_ == condition::VERIFIED);
        let none = if speaks { Verdict::Absent } else { Verdict::Pending };
        card.verdict = verified.map_or(none, |c| Verdict::of(&c.status, &c.reason));
        card
    }

    /// A card of which only the metadata can be read: it verifies nothing.
    pub fn unreadable(metadata: ObjectMeta, before: Option<&Self>) -> Self {
        let target = before.and_then(|before| before.target.clone());
        Self { target, unreadable: true, ..Self::from_meta(metadata) }
    }

    fn from_meta(meta: ObjectMeta) -> Self {
        let managed_by = meta.labels.as_ref().and_then(|labels| labels.get(label::MANAGED_BY));
        let finalizers = meta.finalizers.unwrap_or_default();
        Self {
            automatic: managed_by.is_some_and(|value| value == MANAGED_BY_OPERATOR),
            key: Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            created: meta.creation_timestamp.map(|time| time.0),
            terminating: meta.deletion_timestamp.is_some(),
            target: None,
            verdict: Verdict::Absent,
            finalizers: finalizers.iter().any(|name| is_legacy(name)).then(|| finalizers.into_boxed_slice()),
            unreadable: false,
        }
    }

    /// Its claim to the workload (card §17.2).
    pub fn claim(&self) -> Claim<'_> {
        Claim {
            name: &self.key.name,
            created: self.created,
            terminating: self.terminating,
            automatic: self.automatic,
        }
    }

    /// The workloads it speaks for.
    pub fn slot(&self) -> Option<Slot> {
        let target = self.target.as_ref()?;
        Some(Slot { namespace: self.key.namespace.clone(), name: target.name.clone() })
    }

    /// Nobody will ever verify it: it has a workload and no condition `Verified`.
    pub fn is_unverifiable(&self) -> bool {
        self.verdict == Verdict::Absent && self.target.is_some() && !self.terminating
    }

    /// What Events are about.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(AgentCard::api_version(&()).into_owned()),
            kind: Some(AgentCard::kind(&()).into_owned()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

impl Entry for Card {
    type Key = Key;
    type Link = Slot;

    fn key(&self) -> &Key {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = Slot> {
        self.slot().into_iter()
    }
}

/// A finalizer of the previous operator: never added, always removed (card §3).
pub fn is_legacy(finalizer: &str) -> bool {
    [finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY].contains(&finalizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    pub(crate) fn read(card: Value) -> Card {
        Card::from_view(serde_json::from_value(card).unwrap())
    }

    #[test]
    fn what_matters_is_kept() {
        let card = read(json!({
            "metadata": {"namespace": "ns", "name": "c", "uid": "u", "resourceVersion": "7",
                "labels": {"app.kubernetes.io/managed-by": "kagenti-operator"},
                "finalizers": ["mine", "agentcard.kagenti.dev/network-policy"]},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
            "status": {"card": {"name": "big"}, "conditions": [
                {"type": "Synced", "status": "True", "reason": "SyncSucceeded"},
                {"type": "Verified", "status": "True", "reason": "SignatureVerified"}]},
        }));
        assert!(card.automatic && !card.terminating);
        assert_eq!(card.verdict, Verdict::Verified);
        assert_eq!(card.target.map(|t| (t.group, t.kind)), Some(("apps".into(), "Deployment".into())));
        assert_eq!(card.finalizers.map(|f| f.len()), Some(2));
    }

    /// A verdict is about one workload: a card that is pointed at another one opens nothing there.
    #[test]
    fn a_verdict_does_not_move_to_another_workload() {
        let verdict = |stored: Value| {
            let conditions = json!([{"type": "Verified", "status": "True", "reason": "SignatureVerified"}]);
            let status = json!({"targetRef": stored, "conditions": conditions});
            read(json!({
                "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
                "status": status,
            }))
            .verdict
        };
        let target = |name: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        assert_eq!(verdict(target("w")), Verdict::Verified);
        assert_eq!(verdict(target("former")), Verdict::Pending);
        assert_eq!(verdict(Value::Null), Verdict::Verified, "the previous operator's");
    }

    #[rstest]
    #[case(json!({}))]
    #[case(json!({"spec": {"targetRef": {"apiVersion": "a/b/c", "kind": "Deployment", "name": "w"}}}))]
    #[case(json!({"spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": ""}}}))]
    fn a_card_may_name_no_workload(#[case] card: Value) {
        let card = read(card);
        assert_eq!(card.target, None);
        assert_eq!(card.verdict, Verdict::Absent);
    }

    /// Card §15.3: only the condition counts.
    #[test]
    fn no_other_field_verifies() {
        let card = read(json!({"status": {"validSignature": true, "signatureIdentityMatch": true,
            "conditions": [{"type": "SignatureVerified", "status": "True", "reason": "SignatureValid"}]}}));
        assert_eq!(card.verdict, Verdict::Absent);
    }

    #[test]
    fn an_unreadable_card_keeps_its_workload_and_loses_its_verdict() {
        let before = read(json!({
            "metadata": {"namespace": "ns", "name": "c"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
            "status": {"conditions": [{"type": "Verified", "status": "True", "reason": "x"}]},
        }));
        let after = Card::unreadable(ObjectMeta::default(), Some(&before));
        assert_eq!(after.target, before.target);
        assert_eq!(after.verdict, Verdict::Absent);
        assert!(after.unreadable);
    }
}
