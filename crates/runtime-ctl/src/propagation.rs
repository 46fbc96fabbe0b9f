//! Workloads that were labelled by hand follow configuration changes (runtime §13).

use std::time::Duration;

use api_types::names::{annotation, label};
use controller_kit::limiter::Turn;

use crate::{
    context::Context,
    enrolment::Trigger,
    error::{Error, code_of, message_of},
    index::{NamespaceState, OwnerKey, Target},
    patch::{WorkloadPatch, set, unset},
    sources::Source,
    workload::{Workload, WorkloadKey},
    write,
};

/// What a pass over such a workload asks for next.
pub type Next = Option<Duration>;

/// Pure: the differences between a workload and one that follows the hash.
fn plan(workload: &Workload, hash: &str, is_v1: &dyn Fn(&str) -> bool) -> WorkloadPatch {
    let mut patch = WorkloadPatch::default();
    match workload.effective_hash() {
        Some(now) if now == hash => {}
        // First sight: remember what it runs with. A hash of the previous operator means the same inputs.
        None => set(&mut patch.annotations, annotation::CONFIG_HASH_ADOPTED, None, hash),
        Some(now) if workload.adopted.is_none() && is_v1(now) => {
            set(&mut patch.annotations, annotation::CONFIG_HASH_ADOPTED, None, hash);
        }
        Some(_) => {
            let now = workload.template_annotation(annotation::CONFIG_HASH);
            set(&mut patch.template_annotations, annotation::CONFIG_HASH, now, hash);
            unset(&mut patch.annotations, annotation::CONFIG_HASH_ADOPTED, workload.adopted.as_deref());
        }
    }
    patch
}

/// Brings one workload up to date.
///
/// # Errors
/// What the API server says.
pub async fn follow(ctx: &Context, key: &WorkloadKey) -> Result<Next, Error> {
    let Some(workload) = ctx.index.workloads.get(key) else {
        ctx.limiter.forget(key);
        return Ok(None);
    };
    if !concerns(ctx, &workload) {
        return Ok(None);
    }
    let config = ctx.index.configs.resolve(&key.namespace).map_err(Error::Config)?;
    let patch = plan(&workload, &config.hash, &|hash| config.is_v1(hash));
    if patch.is_empty() {
        ctx.limiter.forget(key);
        return Ok(None);
    }
    if patch.changes_template()
        && let Turn::Wait(delay) = ctx.limiter.try_acquire(key)
    {
        return Ok(Some(delay));
    }
    ctx.may_write()?;
    match write::patch_workload(ctx, key, &patch.document(&workload)).await {
        Ok(_) => {
            if patch.changes_template() {
                ctx.metrics.rollout(Trigger::Config, key.kind);
                tracing::info!(workload = %key, "labelled by hand, restarted for its changed configuration");
            }
            Ok(None)
        }
        Err(error) => Err(Error::Apply {
            object: key.to_string(),
            message: message_of(&error),
            refused: matches!(code_of(&error), 403 | 422),
        }),
    }
}

/// True when the workload is ours to look after: in an enabled namespace, and no AgentRuntime enrols it.
fn concerns(ctx: &Context, workload: &Workload) -> bool {
    let key = &workload.key;
    let enabled = matches!(
        ctx.index.namespaces.get(&key.namespace),
        NamespaceState::Known(facts) if facts.enabled() && !facts.terminating
    );
    let typed = matches!(workload.type_label.as_deref(), Some("agent" | "tool"))
        && workload.template_label(label::TYPE).is_some();
    if !ctx.settings.propagate_defaults
        || workload.deleting
        || !workload.is_hand_labelled()
        || !typed
        || !enabled
    {
        return false;
    }
    if key.namespace == ctx.operator_namespace || key.namespace.starts_with("kube-") {
        return false;
    }
    let OwnerKey { namespace, group, kind, name } = OwnerKey::from(key);
    // Without a complete list of AgentRuntimes nobody knows who enrols it.
    ctx.sources.is_synced(Source::Runtimes, &key.namespace)
        && ctx.index.runtimes.winner(&Target { namespace, group, kind, name }).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn hand_labelled(annotations: &Value, template: &Value) -> Workload {
        workload(
            WorkloadKind::Deployment,
            json!({
                "metadata": {"labels": {"kagenti.io/type": "agent"}, "annotations": annotations},
                "spec": {"template": {"metadata": {"labels": {"kagenti.io/type": "agent"}, "annotations": template}}},
            }),
        )
    }

    const ADOPTED: &str = "agent.kagenti.dev/config-hash-adopted";
    const HASH: &str = "kagenti.io/config-hash";

    #[rstest]
    #[case::first_sight(json!({}), json!({}), Some(false))]
    #[case::baseline(json!({ADOPTED: "new"}), json!({}), None)]
    #[case::from_existing(json!({}), json!({HASH: "v1"}), Some(false))]
    #[case::changed(json!({ADOPTED: "old"}), json!({}), Some(true))]
    #[case::changed_again(json!({}), json!({HASH: "old"}), Some(true))]
    #[case::in_sync(json!({}), json!({HASH: "new"}), None)]
    fn plans(#[case] annotations: Value, #[case] template: Value, #[case] rolls: Option<bool>) {
        let patch = plan(&hand_labelled(&annotations, &template), "new", &|hash| hash == "v1");
        assert_eq!((!patch.is_empty()).then(|| patch.changes_template()), rolls);
    }
}
