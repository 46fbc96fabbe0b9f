//! What netpol-ctl keeps of a NetworkPolicy, and what has to change in one (card §15.2).

use api_types::AgentCard;
use controller_kit::{index::Entry, watch::Key};
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    card::Card,
    desired::{own_labels, owner},
    naming::{CARD_ANNOTATION, MANAGED_BY, POLICY_TYPE},
    verdict::Mode,
};

/// A NetworkPolicy as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Being deleted.
    pub terminating: bool,
    /// Name of the card it was made for, as far as it says so.
    pub card: Option<String>,
    /// Fingerprint of the spec.
    spec: [u8; 32],
    /// What it lets through.
    pub mode: Mode,
    /// Values of our labels, in the order of [`own_labels`].
    labels: [Option<String>; 3],
    annotation: Option<String>,
    has_labels: bool,
    has_annotations: bool,
    owners: Vec<OwnerReference>,
}

impl Entry for Policy {
    type Key = Key;
    type Link = Key;

    fn key(&self) -> &Key {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    /// The card it was made for.
    fn links(&self) -> impl Iterator<Item = Key> {
        self.card.iter().map(|card| Key::new(self.key.namespace.clone(), card.clone()))
    }
}

impl Policy {
    /// Keeps what matters.
    pub fn new(object: NetworkPolicy) -> Self {
        let ObjectMeta {
            namespace,
            name,
            uid,
            resource_version,
            deletion_timestamp,
            labels,
            annotations,
            owner_references,
            ..
        } = object.metadata;
        let spec = object.spec.unwrap_or_default();
        let owners = owner_references.unwrap_or_default();
        let annotation = annotations.as_ref().and_then(|map| map.get(CARD_ANNOTATION)).cloned();
        let by_owner = owners.iter().find(|owner| is_card(owner)).map(|owner| owner.name.clone());
        let keys = own_labels("").map(|(key, _)| key);
        Self {
            key: Key::new(namespace.unwrap_or_default(), name.unwrap_or_default()),
            uid: uid.unwrap_or_default(),
            resource_version: resource_version.unwrap_or_default(),
            terminating: deletion_timestamp.is_some(),
            card: by_owner.or_else(|| annotation.clone()),
            mode: mode(&spec),
            spec: fingerprint(&spec),
            labels: keys.map(|key| labels.as_ref().and_then(|labels| labels.get(key)).cloned()),
            annotation,
            has_labels: labels.is_some_and(|labels| !labels.is_empty()),
            has_annotations: annotations.is_some_and(|annotations| !annotations.is_empty()),
            owners,
        }
    }

    /// Made by this suite: both marks are there, or a card owns it. Everything else is foreign and left alone.
    pub fn is_managed(&self) -> bool {
        self.is_marked() || self.owners.iter().any(|owner| is_card(owner) && owner.controller == Some(true))
    }

    /// Carries both labels that say who made it.
    pub fn is_marked(&self) -> bool {
        let [managed_by, _, policy_type] = &self.labels;
        managed_by.as_deref() == Some(MANAGED_BY.1) && policy_type.as_deref() == Some(POLICY_TYPE.1)
    }

    /// The JSON Patch that makes it the policy of `card` with this spec, bound to the version seen; empty = it is.
    pub fn patch(&self, card: &Card, spec: &NetworkPolicySpec) -> Vec<Value> {
        let mut patch = Vec::new();
        let wanted = own_labels(&card.key.name);
        if wanted.iter().zip(&self.labels).any(|((_, want), have)| have.as_ref() != Some(want)) {
            if !self.has_labels {
                patch.push(json!({"op": "add", "path": "/metadata/labels", "value": {}}));
            }
            patch.extend(wanted.iter().map(|(key, value)| add("labels", key, value)));
        }
        if self.annotation.as_deref() != Some(&card.key.name) {
            if !self.has_annotations {
                patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            patch.push(add("annotations", CARD_ANNOTATION, &card.key.name));
        }
        let owners = self.wanted_owners(card);
        if owners != self.owners {
            patch.push(json!({"op": "add", "path": "/metadata/ownerReferences", "value": owners}));
        }
        if fingerprint(spec) != self.spec {
            // As a whole: a merge would keep selector keys of an earlier spec.
            patch.push(json!({"op": "replace", "path": "/spec", "value": spec}));
        }
        if !patch.is_empty() {
            let version = &self.resource_version;
            patch.insert(0, json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
        }
        patch
    }

    /// The card, and whoever else owns it without controlling it.
    fn wanted_owners(&self, card: &Card) -> Vec<OwnerReference> {
        let others = self.owners.iter().filter(|owner| !is_card(owner) && owner.controller != Some(true));
        [owner(card)].into_iter().chain(others.cloned()).collect()
    }
}

fn add(map: &str, key: &str, value: &str) -> Value {
    let key = key.replace('~', "~0").replace('/', "~1");
    json!({"op": "add", "path": format!("/metadata/{map}/{key}"), "value": value})
}

fn is_card(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.kind == AgentCard::kind(&()) && group == Some(AgentCard::group(&()).as_ref())
}

fn mode(spec: &NetworkPolicySpec) -> Mode {
    let open = spec.egress.iter().flatten().any(|rule| {
        rule.to.as_ref().is_none_or(Vec::is_empty) && rule.ports.as_ref().is_none_or(Vec::is_empty)
    });
    if open { Mode::Permissive } else { Mode::Restrictive }
}

/// Equal for specs that mean the same to the API server: it drops empty lists, and an empty list and none are one.
fn fingerprint(spec: &NetworkPolicySpec) -> [u8; 32] {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    drop_empty(&mut value);
    Sha256::digest(value.to_string()).into()
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                // An empty selector means something else than none.
                Value::Object(inner) => !(inner.is_empty() && key == "matchLabels"),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api_server::ApiServer,
        card::CardView,
        desired::{Rules, object},
        settings::Settings,
        workload::by_convention,
    };

    fn card(name: &str) -> Card {
        let view: CardView = serde_json::from_value(
            json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}")}}),
        )
        .unwrap();
        Card::from_view(view)
    }

    fn spec(mode: Mode) -> NetworkPolicySpec {
        Rules::new(&Settings::default(), "kagenti-system").spec(
            mode,
            by_convention("w"),
            &ApiServer::default(),
        )
    }

    fn live(mode: Mode) -> NetworkPolicy {
        let mut live = object("w-signature-policy", &card("c"), spec(mode));
        live.metadata.uid = Some("u".into());
        live.metadata.resource_version = Some("9".into());
        live
    }

    #[test]
    fn what_was_written_is_in_sync() {
        for mode in [Mode::Permissive, Mode::Restrictive] {
            let mut live = live(mode);
            // As the API server stores it.
            if mode == Mode::Restrictive {
                live.spec.as_mut().unwrap().egress = None;
            }
            let policy = Policy::new(live);
            assert_eq!(policy.mode, mode);
            assert!(policy.is_marked());
            assert_eq!(policy.patch(&card("c"), &spec(mode)), Vec::<Value>::new());
        }
    }

    /// Only what differs, in one request that is bound to the version seen.
    #[test]
    fn a_change_replaces_the_spec() {
        let policy = Policy::new(live(Mode::Restrictive));
        let patch = policy.patch(&card("c"), &spec(Mode::Permissive));
        assert_eq!(patch.len(), 2);
        assert_eq!(patch[0], json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "9"}));
        assert_eq!((&patch[1]["op"], &patch[1]["path"]), (&json!("replace"), &json!("/spec")));
    }

    #[test]
    fn labels_owner_and_annotation_are_repaired_and_foreign_ones_kept() {
        let mut stripped = live(Mode::Permissive);
        stripped.metadata.labels = None;
        stripped.metadata.annotations = None;
        let other = OwnerReference {
            kind: "ConfigMap".into(),
            api_version: "v1".into(),
            ..OwnerReference::default()
        };
        stripped.metadata.owner_references = Some(vec![other.clone(), owner(&card("old"))]);
        let policy = Policy::new(stripped);
        assert!(policy.is_managed() && !policy.is_marked());
        assert_eq!(policy.card.as_deref(), Some("old"));
        let patch = policy.patch(&card("c"), &spec(Mode::Permissive));
        let paths: Vec<_> = patch.iter().map(|op| op["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/metadata/resourceVersion",
                "/metadata/labels",
                "/metadata/labels/managed-by",
                "/metadata/labels/kagenti.dev~1agentcard",
                "/metadata/labels/kagenti.dev~1policy-type",
                "/metadata/annotations",
                "/metadata/annotations/kagenti.dev~1agentcard-name",
                "/metadata/ownerReferences",
            ]
        );
        assert_eq!(patch[7]["value"][0]["uid"], "uid-c");
        assert_eq!(patch[7]["value"][1]["kind"], "ConfigMap");
        assert_eq!(patch[7]["value"].as_array().unwrap().len(), 2, "the former card is no owner any more");
    }

    #[test]
    fn a_foreign_policy_is_not_managed() {
        let mut foreign = live(Mode::Permissive);
        foreign.metadata.owner_references = None;
        foreign.metadata.labels.as_mut().unwrap().remove("managed-by");
        assert!(!Policy::new(foreign).is_managed());
    }

    /// `egress: [{}]` allows all, `egress: []` and none deny all.
    #[test]
    fn fingerprints_tell_open_from_closed() {
        let of = |value: Value| {
            let spec: NetworkPolicySpec = serde_json::from_value(value).unwrap();
            (fingerprint(&spec), mode(&spec))
        };
        assert_ne!(of(json!({"egress": [{}]})).0, of(json!({"egress": []})).0);
        assert_eq!(of(json!({"egress": []})), of(json!({})));
        assert_eq!(of(json!({"egress": [{}]})).1, Mode::Permissive);
        let selector = |s: Value| of(json!({"ingress": [{"from": [s]}]})).0;
        let pods = json!({"matchLabels": {"a": "b"}});
        assert_ne!(
            selector(json!({"podSelector": pods, "namespaceSelector": {}})),
            selector(json!({"podSelector": pods}))
        );
    }
}
