//! What has to change on a workload so that it is enrolled (runtime §6 step 10, §5.4). Pure.

use api_types::names::{MANAGED_BY_OPERATOR, annotation, label};

use crate::{
    patch::{WorkloadPatch, set, unset},
    workload::Workload,
};

/// What an AgentRuntime and its namespace want of a workload.
pub struct Wanted<'a> {
    /// Name of the AgentRuntime.
    pub runtime: &'a str,
    /// `agent` or `tool`.
    pub workload_type: &'a str,
    /// Configuration hash v2 of the namespace.
    pub hash: &'a str,
    /// True when a hash is one that the previous operator would write for the same inputs (runtime §5.4).
    pub is_v1: &'a (dyn Fn(&str) -> bool + Sync),
    /// Resolved mTLS mode.
    pub mtls: &'a str,
    /// The AgentRuntime was edited since it was last processed: its restarts do not wait (runtime §20).
    pub own_edit: bool,
    /// Flag `--rollout-on-spec-change`: hash of the spec fields.
    pub runtime_generation: Option<&'a str>,
    /// Hash of the TLS-bridge certificate, from its second revision on (runtime §15).
    pub ca_hash: Option<&'a str>,
}

/// Why Pods are replaced; label `trigger` of `kagenti_rollouts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trigger {
    /// First enrolment.
    Enroll,
    /// `kagenti.io/type` changed.
    Type,
    /// The mTLS mode changed.
    Mtls,
    /// The configuration hash changed.
    Config,
    /// Something else in the template: certificate, spec hash, enrolled label.
    Restart,
    /// The enrolment ended.
    Unenroll,
}

impl Trigger {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Type => "type",
            Self::Mtls => "mtls",
            Self::Config => "config",
            Self::Restart => "restart",
            Self::Unenroll => "unenroll",
        }
    }
}

/// A patch that enrols, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The differing keys.
    pub patch: WorkloadPatch,
    /// Why Pods are replaced; `None` when the template stays.
    pub rollout: Option<Trigger>,
    /// Pods are replaced although nobody edited the AgentRuntime: takes a token of the limiter first.
    pub limited: bool,
    /// The hash in the template or in the adoption annotation changes.
    pub hash_written: bool,
}

/// The selector of the workload contradicts the wanted type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedType(pub String);

/// The differences between the workload and what is wanted; `None` = in sync.
///
/// # Errors
/// When the selector of the workload forbids the wanted type.
pub fn plan(workload: &Workload, wanted: &Wanted<'_>) -> Result<Option<Plan>, PinnedType> {
    let mut patch = WorkloadPatch::default();
    let first_contact = workload.enrolled_by.is_none();
    let template_hash = workload.template_annotation(annotation::CONFIG_HASH);
    let template_type = workload.template_label(label::TYPE);

    set(&mut patch.labels, label::TYPE, workload.type_label.as_deref(), wanted.workload_type);
    if workload.managed_by.as_deref().is_none_or(str::is_empty) {
        set(&mut patch.labels, label::MANAGED_BY, workload.managed_by.as_deref(), MANAGED_BY_OPERATOR);
    }
    set(&mut patch.annotations, annotation::ENROLLED_BY, workload.enrolled_by.as_deref(), wanted.runtime);

    set(&mut patch.template_labels, label::TYPE, template_type, wanted.workload_type);
    if patch.template_labels.contains_key(label::TYPE)
        && !workload.selector.allows(Some(wanted.workload_type))
    {
        return Err(PinnedType(pinned_message(workload, wanted.workload_type)));
    }

    // A baseline of runtime §13 is no enrolment: without a hash in the template the first one is a full one.
    let baseline_only = first_contact && template_hash.is_none();
    let adopt = first_contact
        && workload.adopted.is_none()
        && !patch.changes_template()
        && template_hash.is_some_and(|hash| hash != wanted.hash && (wanted.is_v1)(hash));
    let write_hash = !adopt && (baseline_only || workload.effective_hash() != Some(wanted.hash));
    if adopt {
        patch.annotations.insert(annotation::CONFIG_HASH_ADOPTED, Some(wanted.hash.to_owned()));
    }
    if write_hash {
        set(&mut patch.template_annotations, annotation::CONFIG_HASH, template_hash, wanted.hash);
        unset(&mut patch.annotations, annotation::CONFIG_HASH_ADOPTED, workload.adopted.as_deref());
    }
    let hash_written = adopt || write_hash;

    // Adopted Pods run with what the previous operator wrote. What only this product adds, and a mode that it
    // resolves differently without anybody's edit, wait for the next restart.
    let adopted = adopt || (workload.adopted.is_some() && !write_hash);
    let held = adopt || (adopted && !wanted.own_edit);
    let now = |key| workload.template_annotation(key);
    if !held {
        set(&mut patch.template_annotations, annotation::MTLS_MODE, now(annotation::MTLS_MODE), wanted.mtls);
        if let Some(hash) = wanted.runtime_generation {
            let key = annotation::RUNTIME_GENERATION;
            set(&mut patch.template_annotations, key, now(key), hash);
        }
    }
    if let (Some(hash), false) = (wanted.ca_hash, adopt) {
        let key = annotation::TLS_BRIDGE_CA_HASH;
        set(&mut patch.template_annotations, key, now(key), hash);
    }
    if !adopted || patch.changes_template() {
        set(&mut patch.template_labels, label::ENROLLED, workload.template_label(label::ENROLLED), "true");
        set(&mut patch.template_annotations, annotation::MTLS_MODE, now(annotation::MTLS_MODE), wanted.mtls);
    }
    let type_changed = template_type.is_some_and(|now| now != wanted.workload_type);
    if workload.inject_disabled_by.is_some() {
        unset(&mut patch.annotations, annotation::INJECT_DISABLED_BY, workload.inject_disabled_by.as_deref());
        unset(&mut patch.template_labels, label::INJECT, workload.template_label(label::INJECT));
    }
    if patch.is_empty() {
        return Ok(None);
    }

    let changes = |key| patch.template_annotations.contains_key(key);
    let rollout = patch.changes_template().then(|| {
        if first_contact {
            Trigger::Enroll
        } else if type_changed {
            Trigger::Type
        } else if changes(annotation::CONFIG_HASH) {
            Trigger::Config
        } else if changes(annotation::MTLS_MODE) {
            Trigger::Mtls
        } else {
            Trigger::Restart
        }
    });
    let asked_for = match rollout {
        Some(Trigger::Config) => wanted.own_edit && changes(annotation::MTLS_MODE),
        Some(Trigger::Mtls) => wanted.own_edit,
        // A new certificate is nobody's edit; a new hash of the spec is.
        Some(Trigger::Restart) => !changes(annotation::TLS_BRIDGE_CA_HASH),
        _ => true,
    };
    Ok(Some(Plan { limited: !asked_for, rollout, hash_written, patch }))
}

fn pinned_message(workload: &Workload, wanted: &str) -> String {
    let key = &workload.key;
    format!(
        "spec.selector of {} {} pins the label {}, so a pod template with the value {wanted} would not match it; \
         selectors cannot be changed: set spec.type of the AgentRuntime to what the selector wants, or create the \
         {} anew without that label in its selector",
        key.kind.as_str(),
        key.name,
        label::TYPE,
        key.kind.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;
    use serde_json::{Value, json};

    const V1: &str = "v1-hash";

    fn wanted() -> Wanted<'static> {
        Wanted {
            runtime: "rt",
            workload_type: "agent",
            hash: "v2-hash",
            is_v1: &|hash| hash == V1,
            mtls: "permissive",
            own_edit: false,
            runtime_generation: None,
            ca_hash: None,
        }
    }

    fn of(
        labels: &Value,
        annotations: &Value,
        template_labels: &Value,
        template_annotations: &Value,
    ) -> Workload {
        workload(
            WorkloadKind::Deployment,
            json!({
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"template": {"metadata": {"labels": template_labels, "annotations": template_annotations}}},
            }),
        )
    }

    fn enrolled(template_annotations: &Value, adopted: Option<&str>) -> Workload {
        let mut annotations = json!({"agent.kagenti.dev/enrolled-by": "rt"});
        if let Some(hash) = adopted {
            annotations["agent.kagenti.dev/config-hash-adopted"] = json!(hash);
        }
        let labels = json!({"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": "kagenti-operator"});
        let template = json!({"kagenti.io/type": "agent", "agent.kagenti.dev/enrolled": "true"});
        of(&labels, &annotations, &template, template_annotations)
    }

    fn document(plan: &Plan) -> Value {
        plan.patch.document(&workload(WorkloadKind::Deployment, json!({})))
    }

    /// Runtime §6 step 10: one patch with everything on a fresh workload.
    #[test]
    fn first_enrolment_is_one_patch() {
        let plan = plan(&of(&json!({}), &json!({}), &json!({}), &json!({})), &wanted()).unwrap().unwrap();
        assert_eq!(
            document(&plan),
            json!({
                "metadata": {
                    "uid": "uid-1",
                    "labels": {"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": "kagenti-operator"},
                    "annotations": {"agent.kagenti.dev/enrolled-by": "rt"},
                },
                "spec": {"template": {"metadata": {
                    "labels": {"kagenti.io/type": "agent", "agent.kagenti.dev/enrolled": "true"},
                    "annotations": {"kagenti.io/config-hash": "v2-hash", "kagenti.io/mtls-mode": "permissive"},
                }}},
            })
        );
        assert_eq!((plan.rollout, plan.limited, plan.hash_written), (Some(Trigger::Enroll), false, true));
    }

    /// Runtime §6.1: in sync = nothing to write.
    #[rstest]
    #[case::written(json!({"kagenti.io/config-hash": "v2-hash", "kagenti.io/mtls-mode": "permissive"}), None)]
    #[case::adopted(json!({"kagenti.io/config-hash": V1, "kagenti.io/mtls-mode": "permissive"}), Some("v2-hash"))]
    #[case::adopted_other_mode(json!({"kagenti.io/config-hash": V1, "kagenti.io/mtls-mode": "strict"}), Some("v2-hash"))]
    #[case::adopted_no_mode(json!({"kagenti.io/config-hash": V1}), Some("v2-hash"))]
    fn in_sync(#[case] template: Value, #[case] adopted: Option<&str>) {
        assert_eq!(plan(&enrolled(&template, adopted), &wanted()), Ok(None));
    }

    /// Runtime §5.4, README decision 15: an adopted template misses the enrolled label and is left alone.
    #[test]
    fn adoption_writes_metadata_only() {
        let labels = json!({"kagenti.io/type": "agent", "app.kubernetes.io/managed-by": "kagenti-operator"});
        let template = json!({"kagenti.io/config-hash": V1, "kagenti.io/mtls-mode": "permissive"});
        let before = of(&labels, &json!({}), &json!({"kagenti.io/type": "agent"}), &template);
        let adoption = plan(&before, &wanted()).unwrap().unwrap();
        assert_eq!(
            document(&adoption),
            json!({"metadata": {"uid": "uid-1", "annotations": {
                "agent.kagenti.dev/enrolled-by": "rt", "agent.kagenti.dev/config-hash-adopted": "v2-hash"}}})
        );
        assert_eq!(adoption.rollout, None);
        let after = json!({"agent.kagenti.dev/enrolled-by": "rt", "agent.kagenti.dev/config-hash-adopted": "v2-hash"});
        let after = of(&labels, &after, &json!({"kagenti.io/type": "agent"}), &template);
        assert_eq!(plan(&after, &wanted()), Ok(None));
        // When v2 differs later: one patch with hash and enrolled label, adoption annotation gone, limited.
        let later = plan(&after, &Wanted { hash: "newer", ..wanted() }).unwrap().unwrap();
        assert_eq!(
            document(&later),
            json!({
                "metadata": {"uid": "uid-1", "annotations": {"agent.kagenti.dev/config-hash-adopted": null}},
                "spec": {"template": {"metadata": {
                    "labels": {"agent.kagenti.dev/enrolled": "true"},
                    "annotations": {"kagenti.io/config-hash": "newer"},
                }}},
            })
        );
        assert_eq!((later.rollout, later.limited), (Some(Trigger::Config), true));
    }

    /// A hash of unknown origin is no v1 hash: written over.
    #[test]
    fn a_foreign_hash_is_replaced() {
        let before = of(
            &json!({}),
            &json!({}),
            &json!({"kagenti.io/type": "agent"}),
            &json!({"kagenti.io/config-hash": "x"}),
        );
        let plan = plan(&before, &wanted()).unwrap().unwrap();
        assert_eq!(plan.patch.template_annotations[annotation::CONFIG_HASH].as_deref(), Some("v2-hash"));
    }

    /// The baseline of runtime §13 does not count as enrolment.
    #[test]
    fn enrolling_a_hand_labelled_workload_writes_the_hash() {
        let annotations = json!({"agent.kagenti.dev/config-hash-adopted": "v2-hash"});
        let before = of(
            &json!({"kagenti.io/type": "agent"}),
            &annotations,
            &json!({"kagenti.io/type": "agent"}),
            &json!({}),
        );
        let plan = plan(&before, &wanted()).unwrap().unwrap();
        assert_eq!(plan.patch.template_annotations[annotation::CONFIG_HASH].as_deref(), Some("v2-hash"));
        assert_eq!(plan.patch.annotations[annotation::CONFIG_HASH_ADOPTED], None);
        assert_eq!(plan.patch.template_labels[label::ENROLLED].as_deref(), Some("true"));
    }

    /// Runtime §20: which restarts wait for the limiter.
    #[rstest]
    #[case::hash("old", "permissive", false, Some(Trigger::Config), true)]
    #[case::hash_during_edit("old", "permissive", true, Some(Trigger::Config), true)]
    #[case::mtls_by_namespace("v2-hash", "disabled", false, Some(Trigger::Mtls), true)]
    #[case::mtls_by_edit("v2-hash", "disabled", true, Some(Trigger::Mtls), false)]
    #[case::both_by_edit("old", "disabled", true, Some(Trigger::Config), false)]
    fn limiter(
        #[case] hash: &str,
        #[case] mtls: &str,
        #[case] own_edit: bool,
        #[case] rollout: Option<Trigger>,
        #[case] limited: bool,
    ) {
        let template = json!({"kagenti.io/config-hash": hash, "kagenti.io/mtls-mode": mtls});
        let plan = plan(&enrolled(&template, None), &Wanted { own_edit, ..wanted() }).unwrap().unwrap();
        assert_eq!((plan.rollout, plan.limited), (rollout, limited));
    }

    #[test]
    fn a_renewed_certificate_is_limited_and_a_type_change_is_not() {
        let template = json!({"kagenti.io/config-hash": "v2-hash", "kagenti.io/mtls-mode": "permissive"});
        let ca =
            plan(&enrolled(&template, None), &Wanted { ca_hash: Some("c"), ..wanted() }).unwrap().unwrap();
        assert_eq!((ca.rollout, ca.limited), (Some(Trigger::Restart), true));
        let tool =
            plan(&enrolled(&template, None), &Wanted { workload_type: "tool", ..wanted() }).unwrap().unwrap();
        assert_eq!((tool.rollout, tool.limited), (Some(Trigger::Type), false));
    }

    /// Runtime scenario 25, and an empty value counts as absent.
    #[rstest]
    #[case("Helm", None)]
    #[case("", Some("kagenti-operator"))]
    fn managed_by(#[case] now: &str, #[case] written: Option<&str>) {
        let before = of(&json!({"app.kubernetes.io/managed-by": now}), &json!({}), &json!({}), &json!({}));
        let plan = plan(&before, &wanted()).unwrap().unwrap();
        assert_eq!(plan.patch.labels.get(label::MANAGED_BY).map(|v| v.as_deref().unwrap()), written);
    }

    /// Runtime §8.1 case S, second half.
    #[test]
    fn a_pinned_type_is_refused_with_the_remedy() {
        let mut document = json!({"spec": {"selector": {"matchLabels": {"kagenti.io/type": "agent"}},
            "template": {"metadata": {"labels": {"kagenti.io/type": "agent"}}}}});
        let pinned = workload(WorkloadKind::Deployment, document.clone());
        assert!(plan(&pinned, &wanted()).is_ok());
        let refused = plan(&pinned, &Wanted { workload_type: "tool", ..wanted() }).unwrap_err();
        assert!(
            refused.0.contains("spec.selector of Deployment weather pins the label kagenti.io/type"),
            "{}",
            refused.0
        );
        // Re-enrolment takes back only what case S put there.
        document["metadata"] = json!({"annotations": {"agent.kagenti.dev/inject-disabled-by": "unenroll"}});
        document["spec"]["template"]["metadata"]["labels"]["kagenti.io/inject"] = json!("disabled");
        let again = plan(&workload(WorkloadKind::Deployment, document), &wanted()).unwrap().unwrap();
        assert_eq!(again.patch.template_labels[label::INJECT], None);
        assert_eq!(again.patch.annotations[annotation::INJECT_DISABLED_BY], None);
    }

    #[test]
    fn an_inject_label_of_the_user_stays() {
        let template = json!({"kagenti.io/inject": "disabled"});
        let plan = plan(&of(&json!({}), &json!({}), &template, &json!({})), &wanted()).unwrap().unwrap();
        assert!(!plan.patch.template_labels.contains_key(label::INJECT));
    }
}
