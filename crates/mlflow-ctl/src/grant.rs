//! The Role and RoleBinding that let an agent write to its experiment (MLflow §8). Pure.

use api_types::{
    mlflow::{RBAC_GROUP, RBAC_RESOURCE},
    names::{MANAGED_BY_OPERATOR, label},
};
use k8s_openapi::{
    api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::{Map, Value, json};

use crate::workload::Workload;

const RBAC: &str = "rbac.authorization.k8s.io";
const VERBS: [&str; 2] = ["get", "update"];

/// What both objects should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired<'a> {
    /// Name of both.
    pub name: &'a str,
    /// The only experiment.
    pub experiment: &'a str,
    /// Who may use it: a ServiceAccount of the namespace.
    pub service_account: &'a str,
}

/// What both kinds have in common, as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Label `app.kubernetes.io/managed-by` is ours.
    pub labelled: bool,
    /// Owners.
    pub owners: Vec<OwnerReference>,
}

impl Marks {
    fn of(metadata: ObjectMeta) -> Self {
        let labels = metadata.labels.unwrap_or_default();
        Self {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labelled: labels.get(label::MANAGED_BY).is_some_and(|value| value == MANAGED_BY_OPERATOR),
            owners: metadata.owner_references.unwrap_or_default(),
        }
    }

    /// Ours: our label, or owned by this very workload.
    fn is_ours(&self, workload: &Workload) -> bool {
        self.labelled || self.owners.iter().any(|owner| *owner.uid == *workload.uid)
    }

    /// May be deleted for this workload, to which its name leads: the workload owns it, or it has our label and lost its
    /// owner. A label alone, copied to an object that somebody else owns, is not enough.
    pub fn belongs_to(&self, workload: &Workload) -> bool {
        (self.labelled && self.owners.is_empty()) || self.owners.iter().any(|owner| names(owner, workload))
    }

    fn in_order(&self, workload: &Workload) -> bool {
        self.labelled && owners(&self.owners, workload).is_none()
    }
}

/// The reference names this workload, of this or an earlier life.
fn names(owner: &OwnerReference, workload: &Workload) -> bool {
    let group = |api_version: &str| api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    owner.kind == workload.key.kind.as_str()
        && owner.name == workload.key.name
        && group(&owner.api_version) == group(&workload.api_version)
}

/// The owners with our reference put right; `None` = they are right. An older UID of the same name is replaced, other
/// people's references stay.
fn owners(now: &[OwnerReference], workload: &Workload) -> Option<Vec<OwnerReference>> {
    let wanted = workload.owner_reference();
    let right = |owner: &OwnerReference| {
        owner.uid == wanted.uid && owner.block_owner_deletion != Some(true) && owner.controller != Some(true)
    };
    let stale = |owner: &OwnerReference| names(owner, workload) && !right(owner);
    if now.iter().any(right) && !now.iter().any(stale) {
        return None;
    }
    let mut next: Vec<_> =
        now.iter().filter(|owner| !names(owner, workload) && owner.uid != wanted.uid).cloned().collect();
    next.push(wanted);
    Some(next)
}

/// A Role as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleState {
    /// Whose it is.
    pub marks: Marks,
    /// The experiment of its one rule; `None` = its rules are others.
    pub experiment: Option<String>,
}

impl RoleState {
    /// Compacts what was read.
    pub fn of(object: Role) -> Self {
        let experiment = match object.rules.as_deref() {
            Some([rule]) => experiment_of(rule),
            _ => None,
        };
        Self { marks: Marks::of(object.metadata), experiment }
    }
}

fn experiment_of(rule: &PolicyRule) -> Option<String> {
    let only = |list: &Option<Vec<String>>, wanted: &str| list.as_deref().is_some_and(|l| l == [wanted]);
    let fits = only(&rule.api_groups, RBAC_GROUP)
        && only(&rule.resources, RBAC_RESOURCE)
        && rule.verbs == VERBS
        && rule.non_resource_urls.as_ref().is_none_or(Vec::is_empty);
    match rule.resource_names.as_deref() {
        Some([name]) if fits => Some(name.clone()),
        _ => None,
    }
}

/// A RoleBinding as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BindingState {
    /// Whose it is.
    pub marks: Marks,
    /// The Role it binds; `None` = something else than a Role.
    pub role: Option<String>,
    /// Its one subject, a ServiceAccount of its own namespace; `None` = its subjects are others.
    pub service_account: Option<String>,
}

impl BindingState {
    /// Compacts what was read.
    pub fn of(binding: RoleBinding) -> Self {
        let namespace = binding.metadata.namespace.clone();
        let service_account = match binding.subjects.as_deref() {
            Some([subject])
                if subject.kind == "ServiceAccount"
                    && subject.namespace == namespace
                    && subject.api_group.as_deref().unwrap_or_default().is_empty() =>
            {
                Some(subject.name.clone())
            }
            _ => None,
        };
        let RoleRef { api_group, kind, name } = binding.role_ref;
        let role = (api_group.as_deref() == Some(RBAC) && kind == "Role").then_some(name);
        Self { marks: Marks::of(binding.metadata), role, service_account }
    }
}

/// What to do with one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as it should be.
    Nothing,
    /// It is missing.
    Create,
    /// Ours but different: a merge patch of what differs.
    Update(Value),
    /// Ours, but bound to another role, which cannot be changed.
    Recreate,
    /// Somebody else's.
    Foreign,
}

/// What to do with the Role.
pub fn role_step(now: Option<&RoleState>, desired: &Desired<'_>, workload: &Workload) -> Step {
    let Some(now) = now else { return Step::Create };
    if !now.marks.is_ours(workload) {
        return Step::Foreign;
    }
    if now.experiment.as_deref() == Some(desired.experiment) && now.marks.in_order(workload) {
        return Step::Nothing;
    }
    let mut patch = marks_patch(&now.marks, workload);
    if now.experiment.as_deref() != Some(desired.experiment) {
        patch.insert("rules".to_owned(), json!(rules(desired)));
    }
    Step::Update(Value::Object(patch))
}

/// What to do with the RoleBinding.
pub fn binding_step(now: Option<&BindingState>, desired: &Desired<'_>, workload: &Workload) -> Step {
    let Some(now) = now else { return Step::Create };
    if !now.marks.is_ours(workload) {
        return Step::Foreign;
    }
    if now.role.as_deref() != Some(desired.name) {
        return Step::Recreate;
    }
    let bound = now.service_account.as_deref() == Some(desired.service_account);
    if bound && now.marks.in_order(workload) {
        return Step::Nothing;
    }
    let mut patch = marks_patch(&now.marks, workload);
    if !bound {
        patch.insert("subjects".to_owned(), json!(subjects(desired, workload)));
    }
    Step::Update(Value::Object(patch))
}

fn marks_patch(now: &Marks, workload: &Workload) -> Map<String, Value> {
    let mut metadata = Map::from_iter([
        ("uid".to_owned(), json!(now.uid)),
        ("resourceVersion".to_owned(), json!(now.resource_version)),
    ]);
    if !now.labelled {
        metadata.insert("labels".to_owned(), json!({ label::MANAGED_BY: MANAGED_BY_OPERATOR }));
    }
    if let Some(owners) = owners(&now.owners, workload) {
        metadata.insert("ownerReferences".to_owned(), json!(owners));
    }
    Map::from_iter([("metadata".to_owned(), Value::Object(metadata))])
}

fn rules(desired: &Desired<'_>) -> Vec<PolicyRule> {
    vec![PolicyRule {
        api_groups: Some(vec![RBAC_GROUP.to_owned()]),
        resources: Some(vec![RBAC_RESOURCE.to_owned()]),
        resource_names: Some(vec![desired.experiment.to_owned()]),
        verbs: VERBS.map(str::to_owned).into(),
        ..PolicyRule::default()
    }]
}

fn subjects(desired: &Desired<'_>, workload: &Workload) -> Vec<Subject> {
    vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: desired.service_account.to_owned(),
        namespace: Some(workload.key.namespace.clone()),
        ..Subject::default()
    }]
}

fn metadata(desired: &Desired<'_>, workload: &Workload) -> ObjectMeta {
    ObjectMeta {
        name: Some(desired.name.to_owned()),
        namespace: Some(workload.key.namespace.clone()),
        labels: Some([(label::MANAGED_BY.to_owned(), MANAGED_BY_OPERATOR.to_owned())].into()),
        owner_references: Some(vec![workload.owner_reference()]),
        ..ObjectMeta::default()
    }
}

/// The Role to create.
pub fn role(desired: &Desired<'_>, workload: &Workload) -> Role {
    Role { metadata: metadata(desired, workload), rules: Some(rules(desired)) }
}

/// The RoleBinding to create.
pub fn binding(desired: &Desired<'_>, workload: &Workload) -> RoleBinding {
    RoleBinding {
        metadata: metadata(desired, workload),
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: "Role".to_owned(),
            name: desired.name.to_owned(),
        },
        subjects: Some(subjects(desired, workload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;

    const WANT: Desired<'static> =
        Desired { name: "kagenti-mlflow-weather", experiment: "weather", service_account: "weather-sa" };

    fn agent() -> Workload {
        workload(WorkloadKind::Deployment, json!({}))
    }

    fn changed<T: serde::Serialize + serde::de::DeserializeOwned>(
        object: T,
        change: impl FnOnce(&mut Value),
    ) -> T {
        let mut value = serde_json::to_value(object).unwrap();
        value["metadata"]["uid"] = json!("r1");
        value["metadata"]["resourceVersion"] = json!("5");
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn role_with(change: impl FnOnce(&mut Value)) -> Step {
        let agent = agent();
        let state = RoleState::of(changed(role(&WANT, &agent), change));
        role_step(Some(&state), &WANT, &agent)
    }

    fn binding_with(change: impl FnOnce(&mut Value)) -> Step {
        let agent = agent();
        let state = BindingState::of(changed(binding(&WANT, &agent), change));
        binding_step(Some(&state), &WANT, &agent)
    }

    /// MLflow §8: what is created is what is wanted; nothing is written again.
    #[test]
    fn what_we_create_is_in_order() {
        assert_eq!(role_with(|_| {}), Step::Nothing);
        assert_eq!(binding_with(|_| {}), Step::Nothing);
        assert_eq!(role_step(None, &WANT, &agent()), Step::Create);
        assert_eq!(binding_step(None, &WANT, &agent()), Step::Create);
        let role = serde_json::to_value(role(&WANT, &agent())).unwrap();
        assert_eq!(
            role["rules"],
            json!([{"apiGroups": ["mlflow.kubeflow.org"], "resources": ["experiments"],
                "resourceNames": ["weather"], "verbs": ["get", "update"]}])
        );
        assert_eq!(
            role["metadata"]["ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather", "uid": "uid-1"}])
        );
    }

    /// Exactly one rule for exactly one experiment: anything wider is put back.
    #[rstest]
    #[case::two_rules("/rules", json!([{"verbs": ["get"]}, {"verbs": ["get"]}]))]
    #[case::none("/rules", json!([]))]
    #[case::all_experiments("/rules/0/resourceNames", json!([]))]
    #[case::other_experiment("/rules/0/resourceNames", json!(["other"]))]
    #[case::two_experiments("/rules/0/resourceNames", json!(["weather", "other"]))]
    #[case::verbs("/rules/0/verbs", json!(["get", "update", "delete"]))]
    #[case::groups("/rules/0/apiGroups", json!(["*"]))]
    fn edited_rules_are_put_back(#[case] path: &str, #[case] value: Value) {
        let step = role_with(|role| *role.pointer_mut(path).unwrap() = value);
        let Step::Update(patch) = step else { panic!("{step:?}") };
        assert_eq!(patch["rules"][0]["resourceNames"], json!(["weather"]));
        assert_eq!(patch["metadata"], json!({"uid": "r1", "resourceVersion": "5"}));
    }

    #[rstest]
    #[case::other_account(json!([{"kind": "ServiceAccount", "name": "default", "namespace": "team1"}]))]
    #[case::other_namespace(json!([{"kind": "ServiceAccount", "name": "weather-sa", "namespace": "team2"}]))]
    #[case::a_user(json!([{"kind": "User", "name": "weather-sa", "apiGroup": "rbac.authorization.k8s.io"}]))]
    #[case::one_more(json!([{"kind": "ServiceAccount", "name": "weather-sa", "namespace": "team1"},
        {"kind": "ServiceAccount", "name": "default", "namespace": "team1"}]))]
    #[case::nobody(json!([]))]
    fn edited_subjects_are_put_back(#[case] subjects: Value) {
        let step = binding_with(|binding| binding["subjects"] = subjects);
        let Step::Update(patch) = step else { panic!("{step:?}") };
        assert_eq!(
            patch["subjects"],
            json!([{"kind": "ServiceAccount", "name": "weather-sa", "namespace": "team1"}])
        );
    }

    /// Older releases bound a ClusterRole; a roleRef cannot be changed.
    #[rstest]
    #[case(json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": "mlflow-operator-mlflow-integration"}))]
    #[case(json!({"apiGroup": RBAC, "kind": "Role", "name": "other"}))]
    fn another_role_ref_is_made_anew(#[case] role_ref: Value) {
        assert_eq!(binding_with(|binding| binding["roleRef"] = role_ref), Step::Recreate);
    }

    #[test]
    fn foreign_objects_are_left() {
        let foreign = |object: &mut Value| {
            object["metadata"]["labels"] = json!({});
            object["metadata"]["ownerReferences"] = json!([]);
        };
        assert_eq!(role_with(foreign), Step::Foreign);
        assert_eq!(binding_with(foreign), Step::Foreign);
    }

    /// The label or the owner makes it ours; what is missing comes back.
    #[test]
    fn a_missing_mark_comes_back() {
        let Step::Update(patch) = role_with(|role| role["metadata"]["labels"] = json!({"x": "y"})) else {
            panic!()
        };
        assert_eq!(patch["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "kagenti-operator"}));
        assert!(patch.get("rules").is_none());
        let Step::Update(patch) = role_with(|role| role["metadata"]["ownerReferences"] = json!([])) else {
            panic!()
        };
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    }

    /// MLflow §9: un-enrolment deletes what is ours, one that lost its owner reference too.
    #[rstest]
    #[case::as_made(|_: &mut Value| {}, true)]
    #[case::lost_its_owner(|role: &mut Value| role["metadata"]["ownerReferences"] = json!([]), true)]
    #[case::lost_its_label(|role: &mut Value| role["metadata"]["labels"] = json!({}), true)]
    #[case::of_somebody_else(|role: &mut Value| role["metadata"]["ownerReferences"][0]["kind"] = json!("ConfigMap"), false)]
    #[case::foreign(|role: &mut Value| {
        role["metadata"]["labels"] = json!({});
        role["metadata"]["ownerReferences"] = json!([]);
    }, false)]
    fn what_may_be_deleted(#[case] change: fn(&mut Value), #[case] want: bool) {
        let agent = agent();
        assert_eq!(RoleState::of(changed(role(&WANT, &agent), change)).marks.belongs_to(&agent), want);
    }

    /// MLflow §13: a workload that was made anew corrects the UID; other owners stay.
    #[test]
    fn an_older_uid_is_replaced() {
        let Step::Update(patch) = binding_with(|binding| {
            binding["metadata"]["ownerReferences"] = json!([
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u2"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather", "uid": "old", "controller": true},
            ]);
        }) else {
            panic!()
        };
        let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(owners.iter().map(|o| o["uid"].as_str().unwrap()).collect::<Vec<_>>(), ["u2", "uid-1"]);
    }
}
