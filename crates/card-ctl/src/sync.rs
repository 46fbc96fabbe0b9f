//! Which AgentCard a workload should have (card §5.2). Pure.

use api_types::{
    AgentCard, AgentCardSpec, IdentityBinding, TargetRef,
    card::{self, AUTO_SYNC_PERIOD},
    duplicates::{Claim, same_target},
    names::{MANAGED_BY_OPERATOR, label},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::{index::Card, workload::Workload};

/// What to do about the cards of one workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Everything is as it should be, or somebody else's business.
    Nothing,
    /// Create the own card.
    Create,
    /// Delete the own card: a manual one targets the workload.
    DeleteOwn,
    /// Add the owner reference to the own card, and the target when it has none.
    Adopt {
        /// Set `spec.targetRef`, too.
        retarget: bool,
    },
    /// The own name is taken by a card for something else.
    Conflict {
        /// What that card targets.
        target: TargetRef,
    },
    /// The own card belongs to a workload that is gone; the garbage collector takes it away.
    WaitForCollector,
    /// The own card is being deleted; its last event wakes this workload.
    WaitForDeletion,
}

/// The reference that makes a workload own its card.
pub fn owner_reference(workload: &Workload) -> OwnerReference {
    OwnerReference {
        api_version: workload.api_version.clone(),
        kind: workload.key.kind.clone(),
        name: workload.key.name.clone(),
        uid: workload.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference that a card's `spec.targetRef` needs to be this workload.
pub fn target_ref(workload: &Workload) -> TargetRef {
    TargetRef {
        api_version: workload.api_version.clone(),
        kind: workload.key.kind.clone(),
        name: workload.key.name.clone(),
    }
}

/// The card to create (card §5.1). `binding` = a trust domain is known.
pub fn desired(workload: &Workload, binding: bool) -> AgentCard {
    let app = workload.app_name.as_deref().unwrap_or(&workload.key.name);
    AgentCard {
        metadata: ObjectMeta {
            name: Some(card::auto_name(&workload.key.name, &workload.key.kind)),
            namespace: Some(workload.key.namespace.clone()),
            labels: Some(
                [
                    (label::APP_NAME.to_owned(), card::short(app)),
                    (label::MANAGED_BY.to_owned(), MANAGED_BY_OPERATOR.to_owned()),
                ]
                .into(),
            ),
            owner_references: Some(vec![owner_reference(workload)]),
            ..ObjectMeta::default()
        },
        spec: AgentCardSpec {
            sync_period: Some(AUTO_SYNC_PERIOD.to_owned()),
            target_ref: Some(target_ref(workload)),
            identity_binding: binding.then(IdentityBinding::default),
            sigstore_verification: None,
        },
        status: None,
    }
}

/// Decides. `own` is the card of the own name, `others` are the live cards of other names with this target.
pub fn decide<'a>(
    workload: &Workload,
    own: Option<&Card>,
    others: impl IntoIterator<Item = Claim<'a>>,
) -> Action {
    let others: Vec<Claim<'a>> = others.into_iter().filter(|claim| !claim.terminating).collect();
    let Some(own) = own else {
        return if others.is_empty() { Action::Create } else { Action::Nothing };
    };
    if own.terminating {
        return Action::WaitForDeletion;
    }
    let target = own.spec.target_ref.as_ref().filter(|target| **target != TargetRef::default());
    let controller = own.owners.iter().find(|owner| owner.controller == Some(true));
    let owned_by_namesake =
        controller.is_some_and(|owner| owner.kind == workload.key.kind && owner.name == workload.key.name);
    let dead = owned_by_namesake && controller.is_some_and(|owner| owner.uid != workload.uid);
    let adopt = |retarget| match controller {
        Some(_) if dead => Action::WaitForCollector,
        None => Action::Adopt { retarget },
        // Somebody else controls it, or we do.
        Some(_) if retarget => Action::Adopt { retarget },
        Some(_) => Action::Nothing,
    };
    match target {
        None => adopt(true),
        Some(target) if !same_target(target, &target_ref(workload)) => {
            Action::Conflict { target: target.clone() }
        }
        Some(_) if !own.automatic => Action::Nothing,
        Some(_) if others.iter().any(|claim| !claim.automatic) => Action::DeleteOwn,
        Some(_) => adopt(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{index::tests::card as indexed, kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn echo() -> Workload {
        workload(WorkloadKind::Deployment, json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}}))
    }

    #[allow(clippy::needless_pass_by_value, reason = "what `json!` made")]
    fn own(automatic: bool, target: Value, owners: Value) -> Card {
        let labels = if automatic { json!({label::MANAGED_BY: MANAGED_BY_OPERATOR}) } else { json!({}) };
        indexed(json!({
            "metadata": {"namespace": "team1", "name": "w-deployment-card", "labels": labels, "ownerReferences": owners},
            "spec": {"targetRef": target},
        }))
    }

    fn target(name: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name})
    }

    fn owner(uid: &str) -> Value {
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": uid, "controller": true}])
    }

    fn other(automatic: bool) -> Claim<'static> {
        Claim { name: "other", created: None, terminating: false, automatic }
    }

    const TERMINATING: Claim<'static> =
        Claim { name: "other", created: None, terminating: true, automatic: false };

    /// Card §5.2, one row each.
    #[rstest]
    #[case::create(None, &[], Action::Create)]
    #[case::another_exists(None, &[other(false)], Action::Nothing)]
    #[case::another_auto(None, &[other(true)], Action::Nothing)]
    #[case::terminating_counts_for_nothing(None, &[TERMINATING], Action::Create)]
    #[case::manual_wins(Some(own(true, target("w"), owner("uid-1"))), &[other(false)], Action::DeleteOwn)]
    #[case::manual_is_going(Some(own(true, target("w"), owner("uid-1"))), &[TERMINATING], Action::Nothing)]
    #[case::settled(Some(own(true, target("w"), owner("uid-1"))), &[], Action::Nothing)]
    #[case::adopt(Some(own(true, target("w"), json!([]))), &[], Action::Adopt { retarget: false })]
    #[case::manual_is_left_alone(Some(own(false, target("w"), json!([]))), &[], Action::Nothing)]
    #[case::no_target(Some(own(false, json!(null), json!([]))), &[], Action::Adopt { retarget: true })]
    #[case::empty_target(
        Some(own(true, json!({"apiVersion": "", "kind": "", "name": ""}), json!([]))), &[], Action::Adopt { retarget: true }
    )]
    #[case::dead_owner(Some(own(true, target("w"), owner("uid-0"))), &[], Action::WaitForCollector)]
    fn table(#[case] own: Option<Card>, #[case] others: &[Claim<'static>], #[case] want: Action) {
        assert_eq!(decide(&echo(), own.as_ref(), others.iter().copied()), want);
    }

    #[test]
    fn a_foreign_target_is_never_overwritten() {
        let card = own(true, target("x"), json!([]));
        assert!(
            matches!(decide(&echo(), Some(&card), []), Action::Conflict { target } if target.name == "x")
        );
    }

    #[test]
    fn a_terminating_own_card_is_waited_for() {
        let mut card = own(true, target("w"), owner("uid-1"));
        card.terminating = true;
        assert_eq!(decide(&echo(), Some(&card), []), Action::WaitForDeletion);
    }

    /// Card §5.1, §5.3.
    #[test]
    fn the_card_is_named_labelled_owned_and_bound_when_a_domain_is_known() {
        let card = desired(&echo(), false);
        assert_eq!(card.metadata.name.as_deref(), Some("w-deployment-card"));
        let labels = card.metadata.labels.unwrap_or_default();
        assert_eq!(labels.get("app.kubernetes.io/name").map(String::as_str), Some("w"));
        assert_eq!(labels.get("app.kubernetes.io/managed-by").map(String::as_str), Some("kagenti-operator"));
        let owner = &card.metadata.owner_references.unwrap_or_default()[0];
        assert_eq!(
            (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
            ("uid-1", Some(true), Some(true))
        );
        assert_eq!(card.spec.sync_period.as_deref(), Some("30s"));
        assert_eq!(card.spec.identity_binding, None);
        assert_eq!(desired(&echo(), true).spec.identity_binding, Some(IdentityBinding::default()));
    }
}
