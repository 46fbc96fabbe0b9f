//! The credentials Secret (client-registration §8): what is known of one from its metadata, and what one should be. Pure.

use std::collections::{BTreeMap, HashMap};

use api_types::{
    credentials,
    enrolment::TargetKind,
    names::{MANAGED_BY_OPERATOR, label},
    registration::{CLIENT_ID_KEY, CLIENT_SECRET_KEY, FINALIZER, annotation},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use controller_kit::{index::Entry, watch::Key};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret as ApiSecret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use rest_client::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    keycloak::attributes::WorkloadMark,
    workload::{Unit, Workload},
};

/// In the place of a secret that Keycloak does not have.
const UNUSED: &str = "unused";
/// More earlier clients than this are not remembered.
const EARLIER: usize = 5;

/// Where a client is, as the annotations of a Secret say. Others can write them: never acted on unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Base URL.
    pub url: String,
    /// Realm.
    pub realm: String,
    /// UUID of the client.
    pub uuid: String,
}

/// What is kept of a Secret: nothing of its data.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMeta {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// The workload it is for, when the name of the Secret confirms it.
    pub unit: Option<Unit>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// The suite's label is on it.
    pub labelled: bool,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
    /// The suite's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl SecretMeta {
    /// Compacts metadata. `None` without namespace or name.
    pub fn of(metadata: ObjectMeta) -> Option<Self> {
        let labelled = has_label(Some(&metadata));
        let key = Key::new(metadata.namespace?, metadata.name?);
        let annotations: BTreeMap<String, String> = metadata
            .annotations
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("kagenti.io/"))
            .collect();
        let owners = metadata.owner_references.unwrap_or_default();
        let named = annotations
            .get(annotation::WORKLOAD)
            .and_then(|text| WorkloadMark::read(text))
            .map(|mark| mark.name)
            .into_iter()
            .chain(owners.iter().map(|owner| owner.name.clone()))
            .map(|name| Unit::new(key.namespace.clone(), name))
            .find(|unit| unit.secret_name() == key.name);
        Some(Self {
            uid: metadata.uid.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            unit: named,
            owners,
            labelled,
            finalizer: metadata.finalizers.iter().flatten().any(|name| name == FINALIZER),
            deleting: metadata.deletion_timestamp.map(|time| time.0),
            annotations,
            key,
        })
    }

    /// An annotation that is not empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether it is ours, to be deleted with its client when the workload goes: it carries the suite's label, and
    /// nobody keeps it for themselves (§8).
    pub fn is_ours(&self) -> bool {
        self.labelled && !is_kept(&self.annotations)
    }

    /// Where its client is.
    pub fn place(&self) -> Option<Place> {
        place(&self.annotations)
    }

    /// Where its earlier clients are.
    pub fn previous(&self) -> Vec<Place> {
        previous(&self.annotations)
    }

    /// The revision of its data.
    pub fn revision(&self) -> u64 {
        revision(&self.annotations)
    }
}

impl Entry for SecretMeta {
    type Key = Key;
    type Link = SecretLink;

    fn key(&self) -> &Key {
        &self.key
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn links(&self) -> impl Iterator<Item = SecretLink> {
        self.annotation(annotation::CLIENT_UUID).map(|uuid| SecretLink(uuid.to_owned())).into_iter()
    }
}

/// UUID of the client that Secrets are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretLink(pub String);

fn place(annotations: &BTreeMap<String, String>) -> Option<Place> {
    let get = |key| annotations.get(key).filter(|value| !value.is_empty()).cloned();
    Some(Place {
        url: get(annotation::URL)?,
        realm: get(annotation::REALM)?,
        uuid: get(annotation::CLIENT_UUID)?,
    })
}

fn previous(annotations: &BTreeMap<String, String>) -> Vec<Place> {
    let list = annotations.get(annotation::PREVIOUS).and_then(|text| serde_json::from_str(text).ok());
    let mut list: Vec<Place> = list.unwrap_or_default();
    list.truncate(EARLIER);
    list
}

/// Whether somebody keeps the Secret with these annotations for themselves (§8).
pub fn is_kept(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(annotation::MANAGED).is_some_and(|value| value == "false")
}

fn revision(annotations: &BTreeMap<String, String>) -> u64 {
    annotations.get(annotation::REVISION).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What a Secret should hold.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The workload.
    pub unit: &'a Unit,
    /// The eligible workloads of that name, oldest first.
    pub owners: &'a [std::sync::Arc<Workload>],
    /// Client id.
    pub client_id: &'a str,
    /// Its secret; `None` = Keycloak has none.
    pub secret: Option<&'a Secret>,
    /// Where the client is.
    pub place: &'a Place,
    /// Id of the audience scope, when there is one.
    pub scope_id: Option<&'a str>,
    /// Hash of all inputs.
    pub hash: &'a str,
    /// The value of the rotation annotation that was obeyed.
    pub rotated_for: Option<&'a str>,
    /// The client goes with the Secret.
    pub finalizer: bool,
    /// Credentials of this name were in use before, up to this revision.
    pub used_revision: u64,
}

/// What to do about a Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Somebody keeps it for themselves.
    Leave,
    /// It is as it should be.
    Keep {
        /// Revision of its data.
        revision: u64,
    },
    /// Apply this.
    Apply {
        /// The fields, for server-side apply.
        fields: Value,
        /// Revision of its data then.
        revision: u64,
        /// The data change.
        rotated: bool,
        /// It must be deleted first: it is immutable.
        replace: bool,
    },
}

/// Compares a Secret with what it should be.
pub fn plan(live: Option<&ApiSecret>, wanted: &Wanted<'_>, now: Timestamp) -> Plan {
    let none = BTreeMap::new();
    let meta = live.map(|live| &live.metadata);
    let annotations = meta.and_then(|meta| meta.annotations.as_ref()).unwrap_or(&none);
    if is_kept(annotations) {
        return Plan::Leave;
    }
    let data = [
        (CLIENT_ID_KEY, wanted.client_id),
        (CLIENT_SECRET_KEY, wanted.secret.map_or(UNUSED, Secret::expose)),
    ];
    let held = |key: &str| {
        live.and_then(|live| live.data.as_ref())
            .and_then(|data| data.get(key))
            .map(|value| value.0.as_slice())
    };
    let same_data = data.iter().all(|(key, value)| held(key) == Some(value.as_bytes()));
    let revision = match live {
        None => wanted.used_revision + 1,
        Some(_) if same_data => revision(annotations),
        Some(_) => revision(annotations).max(wanted.used_revision) + 1,
    };
    let mut next = HashMap::from([
        (annotation::URL, wanted.place.url.clone()),
        (annotation::REALM, wanted.place.realm.clone()),
        (annotation::CLIENT_UUID, wanted.place.uuid.clone()),
        (annotation::REGISTRATION_HASH, wanted.hash.to_owned()),
        (annotation::REVISION, revision.to_string()),
        (
            annotation::REGISTERED_AT,
            annotations.get(annotation::REGISTERED_AT).cloned().unwrap_or_else(|| rfc3339(now)),
        ),
    ]);
    if let Some(owner) = wanted.owners.first() {
        next.insert(annotation::WORKLOAD, owner.key.mark().to_string());
    }
    if let Some(id) = wanted.scope_id {
        next.insert(annotation::SCOPE_ID, id.to_owned());
    }
    if let Some(value) = wanted.rotated_for {
        next.insert(annotation::ROTATED_FOR, value.to_owned());
    }
    let mut earlier = previous(annotations);
    if let Some(left) = place(annotations).filter(|left| left != wanted.place) {
        earlier.push(left);
    }
    earlier.retain(|place| place != wanted.place);
    earlier.dedup();
    let excess = earlier.len().saturating_sub(EARLIER);
    if !earlier.is_empty()
        && let Ok(text) = serde_json::to_string(earlier.get(excess..).unwrap_or_default())
    {
        next.insert(annotation::PREVIOUS, text);
    }
    let owned = [
        annotation::URL,
        annotation::REALM,
        annotation::CLIENT_UUID,
        annotation::SCOPE_ID,
        annotation::WORKLOAD,
        annotation::REGISTRATION_HASH,
        annotation::REGISTERED_AT,
        annotation::REVISION,
        annotation::ROTATED_FOR,
        annotation::PREVIOUS,
    ];
    let owners = owners(wanted.owners);
    let same = same_data
        && owned.iter().all(|key| annotations.get(*key) == next.get(key))
        && has_label(meta)
        && has_finalizer(meta) == wanted.finalizer
        && meta
            .is_some_and(|meta| covers_owners(meta.owner_references.as_deref().unwrap_or_default(), &owners));
    if same {
        return Plan::Keep { revision };
    }
    let fields = json!({
        "metadata": {
            "labels": { label::MANAGED_BY: MANAGED_BY_OPERATOR },
            "annotations": next.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect::<Map<_, _>>(),
            "finalizers": if wanted.finalizer { vec![FINALIZER] } else { Vec::new() },
            "ownerReferences": owners,
        },
        "type": "Opaque",
        "data": data.into_iter().map(|(key, value)| (key.to_owned(), Value::String(STANDARD.encode(value)))).collect::<Map<_, _>>(),
    });
    let replace = !same_data && live.is_some_and(|live| live.immutable == Some(true));
    Plan::Apply { fields, revision, rotated: live.is_some() && !same_data, replace }
}

/// Since the suite's timestamps have whole seconds.
fn rfc3339(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Owner references that neither control nor block (§8). The two flags are written, because those of a predecessor
/// would stay otherwise.
pub fn owners(workloads: &[std::sync::Arc<Workload>]) -> Vec<Value> {
    let reference = |workload: &std::sync::Arc<Workload>| {
        json!({
            "apiVersion": workload.api_version,
            "kind": workload.key.kind.as_str(),
            "name": workload.key.unit.name,
            "uid": workload.uid,
            "controller": false,
            "blockOwnerDeletion": false,
        })
    };
    workloads.iter().map(reference).collect()
}

/// Whether `live` has every wanted owner, plain, and none that controls or blocks.
pub fn covers_owners(live: &[OwnerReference], wanted: &[Value]) -> bool {
    live.iter().all(|owner| owner.controller != Some(true) && owner.block_owner_deletion != Some(true))
        && wanted.iter().all(|wanted| {
            let uid = wanted.get("uid").and_then(Value::as_str);
            live.iter().any(|owner| Some(owner.uid.as_str()) == uid)
        })
}

fn has_label(meta: Option<&ObjectMeta>) -> bool {
    meta.and_then(|meta| meta.labels.as_ref())
        .and_then(|labels| labels.get(label::MANAGED_BY))
        .is_some_and(|value| value == MANAGED_BY_OPERATOR)
}

fn has_finalizer(meta: Option<&ObjectMeta>) -> bool {
    meta.and_then(|meta| meta.finalizers.as_ref())
        .is_some_and(|names| names.iter().any(|name| name == FINALIZER))
}

/// What else controls a Secret, as `Kind name`: it would undo every change of ours. A workload of the unit itself does not
/// count, whichever it was: the operator this product replaces made it the controller.
pub fn controller(live: &ApiSecret, unit: &Unit) -> Option<String> {
    let owners = live.metadata.owner_references.as_deref().unwrap_or_default();
    let is_workload = |owner: &&OwnerReference| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.name == unit.name && TargetKind::of(group, &owner.kind).is_some()
    };
    let other = owners.iter().find(|owner| owner.controller == Some(true) && !is_workload(owner))?;
    Some(format!("{} {}", other.kind, other.name))
}

/// A Secret of the operator this product replaces that holds this client id (§6.4).
pub fn is_inherited(live: &ApiSecret, client_id: &str) -> bool {
    let held = live.data.as_ref().and_then(|data| data.get(CLIENT_ID_KEY));
    has_label(Some(&live.metadata))
        && live.metadata.name.as_deref().is_some_and(credentials::is_operator_secret)
        && held.is_some_and(|held| held.0 == client_id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::workload::tests::workload;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    struct Case {
        unit: Unit,
        owners: Vec<Arc<Workload>>,
        secret: Secret,
        place: Place,
        rotated_for: Option<String>,
        used: u64,
    }

    fn case() -> Case {
        Case {
            unit: Unit::new("team1", "w"),
            owners: vec![Arc::new(workload(TargetKind::Deployment, json!({})))],
            secret: Secret::from("s3cret"),
            place: Place { url: "http://kc".into(), realm: "r".into(), uuid: "u-1".into() },
            rotated_for: None,
            used: 0,
        }
    }

    impl Case {
        fn plan(&self, live: Option<&ApiSecret>, now: Timestamp) -> Plan {
            let wanted = Wanted {
                unit: &self.unit,
                owners: &self.owners,
                client_id: "team1/w",
                secret: Some(&self.secret),
                place: &self.place,
                scope_id: Some("scope-1"),
                hash: "h",
                rotated_for: self.rotated_for.as_deref(),
                finalizer: true,
                used_revision: self.used,
            };
            plan(live, &wanted, now)
        }
    }

    /// The object after `fields` were applied to nothing.
    fn applied(plan: &Plan) -> ApiSecret {
        let Plan::Apply { fields, .. } = plan else { panic!("nothing to apply: {plan:?}") };
        let mut object = fields.clone();
        object["metadata"]["name"] = json!(case().unit.secret_name());
        object["metadata"]["namespace"] = json!("team1");
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_first_secret_is_complete_and_stays() {
        let first = case().plan(None, at(5));
        assert!(matches!(&first, Plan::Apply { revision: 1, rotated: false, replace: false, .. }));
        let secret = applied(&first);
        let data = secret.data.as_ref().unwrap();
        assert_eq!(data["client-id.txt"].0, b"team1/w");
        assert_eq!(data["client-secret.txt"].0, b"s3cret");
        let owner = &secret.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(false), Some(false)));
        assert_eq!(
            secret.metadata.annotations.as_ref().unwrap()["kagenti.io/workload"],
            "team1/Deployment/w"
        );
        assert_eq!(case().plan(Some(&secret), at(99)), Plan::Keep { revision: 1 }, "zero writes at rest");
        let meta = SecretMeta::of(secret.metadata).unwrap();
        assert_eq!(meta.unit, Some(case().unit));
        assert!(meta.finalizer && meta.place() == Some(case().place));
    }

    #[test]
    fn changed_data_raise_the_revision() {
        let secret = applied(&case().plan(None, at(5)));
        let changed = Case { secret: Secret::from("other"), ..case() };
        let plan = changed.plan(Some(&secret), at(6));
        assert!(matches!(&plan, Plan::Apply { revision: 2, rotated: true, replace: false, .. }), "{plan:?}");
        let Plan::Apply { fields, .. } = plan else { unreachable!() };
        assert_eq!(fields["metadata"]["annotations"]["kagenti.io/registered-at"], "1970-01-01T00:00:05Z");
        let frozen = ApiSecret { immutable: Some(true), ..secret };
        assert!(matches!(changed.plan(Some(&frozen), at(6)), Plan::Apply { replace: true, revision: 2, .. }));
        assert_eq!(case().plan(Some(&frozen), at(6)), Plan::Keep { revision: 1 });
    }

    /// Pods that mounted an earlier Secret of this name have to go when it is made anew.
    #[test]
    fn a_secret_made_anew_is_a_later_revision() {
        let again = Case { used: 3, ..case() };
        assert!(matches!(again.plan(None, at(1)), Plan::Apply { revision: 4, .. }));
    }

    /// Scenario 20: what the operator this product replaces has left.
    #[test]
    fn an_inherited_secret_keeps_its_data_and_revision() {
        let left: ApiSecret = serde_json::from_value(json!({
            "metadata": {"name": case().unit.secret_name(), "namespace": "team1",
                "labels": {"app.kubernetes.io/managed-by": "kagenti-operator"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": "uid-1",
                    "controller": true, "blockOwnerDeletion": true}]},
            "data": {"client-id.txt": STANDARD.encode("team1/w"), "client-secret.txt": STANDARD.encode("s3cret")},
        }))
        .unwrap();
        assert!(is_inherited(&left, "team1/w") && !is_inherited(&left, "team1/x"));
        assert_eq!(SecretMeta::of(left.metadata.clone()).unwrap().unit, Some(case().unit));
        let plan = case().plan(Some(&left), at(1));
        assert!(matches!(&plan, Plan::Apply { revision: 1, rotated: false, .. }), "{plan:?}");
    }

    #[test]
    fn a_client_left_behind_is_remembered() {
        let secret = applied(&case().plan(None, at(5)));
        let moved = Case { place: Place { uuid: "u-2".into(), ..case().place }, ..case() };
        let second = applied(&moved.plan(Some(&secret), at(6)));
        let meta = SecretMeta::of(second.metadata.clone()).unwrap();
        assert_eq!(meta.previous(), [case().place]);
        assert_eq!(moved.plan(Some(&second), at(7)), Plan::Keep { revision: 1 });
        let back = SecretMeta::of(applied(&case().plan(Some(&second), at(8))).metadata).unwrap();
        assert_eq!(back.previous(), [moved.place], "the client in use is never on the list");
    }

    #[rstest]
    #[case(json!({"kagenti.io/credentials-managed": "false"}), true)]
    #[case(json!({"kagenti.io/credentials-managed": "true"}), false)]
    fn a_secret_that_is_kept(#[case] annotations: Value, #[case] kept: bool) {
        let live: ApiSecret =
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
        assert_eq!(case().plan(Some(&live), at(1)) == Plan::Leave, kept);
    }

    /// Whoever writes annotations must not make us work on somebody else's workload.
    #[test]
    fn a_foreign_workload_annotation_is_not_believed() {
        let meta: ObjectMeta = serde_json::from_value(json!({
            "name": case().unit.secret_name(), "namespace": "team1",
            "annotations": {"kagenti.io/workload": "team1/Deployment/other"}}))
        .unwrap();
        assert_eq!(SecretMeta::of(meta).unwrap().unit, None);
    }
}
