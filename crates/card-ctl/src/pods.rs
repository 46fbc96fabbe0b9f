//! The verified label on running Pods (`--verified-label-mode=pods`, card §11.2).

use std::{sync::Arc, time::Duration};

use api_types::names::{label, manager};
use controller_kit::apply;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::Error,
    index::{Card, Pod},
    label::Marks,
    reconcile::Next,
    workload::Workload,
    write,
};

/// When to look again at a rollout that is under way; its events come first.
const ROLLOUT: Duration = Duration::from_secs(30);

/// True when every live card was verified on the present pod template.
fn is_current(workload: &Workload, cards: &[Arc<Card>]) -> bool {
    workload.rolled_out
        && cards.iter().filter(|card| !card.terminating).all(|card| {
            card.stored.status.verified_template_hash.as_deref() == Some(workload.template_hash.as_str())
        })
}

/// Labels the Pods of a verified template, or takes the label off all Pods.
///
/// # Errors
/// What the API server says.
pub async fn label(
    ctx: &Context,
    workload: &Workload,
    cards: &[Arc<Card>],
    marks: &Marks,
) -> Result<Next, Error> {
    let pods = ctx.index.pods.of(&workload.key);
    let differing: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| !pod.terminating && pod.labelled != marks.verified).collect();
    if differing.is_empty() || marks.undecided {
        return Ok(None);
    }
    if marks.verified {
        if !is_current(workload, cards) {
            // Pods of a newer template stay without it until that was verified.
            return Ok(Some(ROLLOUT));
        }
        // A live read: a Pod in the index may be of a template that the index does not know yet.
        let live = write::read_workload(ctx, &workload.key)
            .await
            .map_err(Error::api("read", workload.key.to_string()))?;
        if !live.is_some_and(|live| live.template_hash == workload.template_hash && live.rolled_out) {
            return Ok(Some(Duration::from_secs(1)));
        }
    }
    for pod in differing {
        patch(ctx, pod, marks.verified).await?;
    }
    Ok(None)
}

async fn patch(ctx: &Context, pod: &Pod, verified: bool) -> Result<(), Error> {
    ctx.may_write()?;
    let value = if verified { json!("true") } else { Value::Null };
    let body = json!({ "metadata": { "uid": pod.uid, "labels": { label::SIGNATURE_VERIFIED: value } } });
    let api = Api::<ApiPod>::namespaced(ctx.client.clone(), &pod.key.namespace);
    let params = PatchParams { field_manager: Some(manager::CARD_CTL.into()), ..PatchParams::default() };
    match api.patch_metadata(&pod.key.name, &params, &Patch::Merge(&body)).await {
        Ok(answer) => {
            ctx.metrics.wrote("label_pod");
            if let Some(pod) = Pod::of(answer.metadata) {
                ctx.index.pods.upsert(pod);
            }
            Ok(())
        }
        Err(error) if apply::is_stale(&error) => Ok(()),
        Err(error) => Err(Error::api("label", format!("Pod {}", pod.key))(error)),
    }
}
