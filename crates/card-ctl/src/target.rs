//! The workload of a card (card §6.1).

use std::sync::Arc;

use api_types::{TargetRef, card::reason};
use controller_kit::apply;
use kube::{
    Api,
    core::GroupVersionKind,
    discovery::{self, ApiResource},
};

use crate::{
    context::Context,
    error::{Error, message_of},
    index::Card,
    kinds::{TargetKey, WorkloadKind},
    sources::{Source, State},
    status::Stop,
    workload::{Workload, WorkloadView},
    write,
};

/// The outcome.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// An agent.
    Workload(Arc<Workload>),
    /// Why not.
    Not(Stop),
}

/// Finds the workload. Those that are labelled come from the index; for any other a live read tells "not there" from
/// "no agent".
///
/// # Errors
/// [`Error::NotSynced`].
pub async fn resolve(ctx: &Context, card: &Card) -> Result<Resolved, Error> {
    let reference = match usable(card.spec.target_ref.as_ref()) {
        Ok(reference) => reference,
        Err(stop) => return Ok(Resolved::Not(stop)),
    };
    let Some(key) = &card.target else { return Ok(Resolved::Not(unparsable(reference))) };
    if let Some(known) = ctx.index.workloads.get(key) {
        return Ok(Resolved::Workload(known));
    }
    let live = match key.workload_kind() {
        Some(kind) => {
            match ctx.sources.state(Source::Workloads(kind), &key.namespace) {
                State::Pending => return Err(Error::NotSynced("workloads")),
                State::Synced | State::Troubled(_) => {}
            }
            if kind == WorkloadKind::Sandbox && ctx.sandbox_version().is_none() {
                return Ok(Resolved::Not(not_found(reference, key)));
            }
            write::read_workload(ctx, key).await
        }
        None => read_any(ctx, reference, key).await,
    };
    Ok(match live {
        Ok(Some(workload)) if workload.is_agent => Resolved::Workload(workload),
        Ok(Some(workload)) => {
            ctx.stray(&workload);
            let message = format!(
                "{} {} is no agent: set the label kagenti.io/type=agent on its metadata",
                reference.kind, reference.name
            );
            Resolved::Not(Stop::definitive(reason::NOT_AGENT_WORKLOAD, message))
        }
        Ok(None) => Resolved::Not(not_found(reference, key)),
        Err(error) => {
            let message =
                format!("cannot read {} {}: {}", reference.kind, reference.name, message_of(&error));
            Resolved::Not(Stop::inconclusive(reason::WORKLOAD_ERROR, message))
        }
    })
}

fn usable(reference: Option<&TargetRef>) -> Result<&TargetRef, Stop> {
    match reference {
        Some(reference) if !reference.name.is_empty() && !reference.kind.is_empty() => Ok(reference),
        _ => {
            let message = "spec.targetRef is missing: name the workload with apiVersion, kind and name";
            Err(Stop::inconclusive(reason::WORKLOAD_ERROR, message))
        }
    }
}

fn unparsable(reference: &TargetRef) -> Stop {
    let message = format!(
        "spec.targetRef.apiVersion {:?} cannot be parsed: write group/version, for example apps/v1",
        reference.api_version
    );
    Stop::inconclusive(reason::WORKLOAD_ERROR, message)
}

fn not_found(reference: &TargetRef, key: &TargetKey) -> Stop {
    let message =
        format!("{} {} does not exist in namespace {}", reference.kind, reference.name, key.namespace);
    Stop::definitive(reason::WORKLOAD_NOT_FOUND, message)
}

/// Any readable kind can be fetched from; labels and restarts are for the known ones.
async fn read_any(
    ctx: &Context,
    reference: &TargetRef,
    key: &TargetKey,
) -> kube::Result<Option<Arc<Workload>>> {
    let Some(resource) = resource_of(ctx, reference, key).await? else { return Ok(None) };
    let api = Api::<WorkloadView>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let view = api.get_opt(&key.name).await?;
    let workload = view.and_then(|view| Workload::from_view(&resource, view)).map(Arc::new);
    match &workload {
        Some(workload) if workload.is_agent => ctx.strangers.insert(key.clone(), workload.clone()),
        _ => ctx.strangers.remove(key),
    };
    Ok(workload)
}

async fn resource_of(
    ctx: &Context,
    reference: &TargetRef,
    key: &TargetKey,
) -> kube::Result<Option<ApiResource>> {
    let kind = (reference.api_version.clone(), reference.kind.clone());
    if let Some(known) = ctx.kinds.get(&kind) {
        return Ok(Some(known));
    }
    let version = reference.api_version.rsplit('/').next().unwrap_or_default();
    let gvk = GroupVersionKind::gvk(&key.group, version, &reference.kind);
    match discovery::pinned_kind(&ctx.client, &gvk).await {
        Ok((resource, _)) => {
            ctx.kinds.insert(kind, resource.clone());
            Ok(Some(resource))
        }
        Err(kube::Error::Discovery(_)) => Ok(None),
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
