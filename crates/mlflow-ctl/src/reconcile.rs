//! One pass over one workload.

use std::{sync::Arc, time::Duration};

use controller_kit::surroundings::NamespaceState;

use crate::{
    configure,
    context::Context,
    eligibility::{AGENT, Eligibility, Leaving, eligibility},
    error::Error,
    leaving,
    sources::{Source, State},
    workload::{Workload, WorkloadKey},
    write,
};

/// When to look again.
pub type Next = Option<Duration>;

/// When to look again while a watch has not delivered.
const NOT_SYNCED: Duration = Duration::from_millis(300);

/// One pass over whatever the queue handed out.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &WorkloadKey) -> Result<Next, Error> {
    ctx.started();
    match one(ctx, key).await {
        Err(Error::NotSynced(what)) => {
            tracing::debug!(workload = %key, "waiting for the watch of {what}");
            Ok(Some(NOT_SYNCED))
        }
        result => result,
    }
}

async fn one(ctx: &Context, key: &WorkloadKey) -> Result<Next, Error> {
    for (source, name) in [
        (Source::Workloads(key.kind), "workloads"),
        (Source::Runtimes, "agentruntimes"),
        (Source::Roles, "roles"),
        (Source::Bindings, "rolebindings"),
    ] {
        // A refused watch is named in `/readyz`; the others are worked with.
        if ctx.sources.state(source, &key.namespace) == State::Pending {
            return Err(Error::NotSynced(name));
        }
    }
    let Some(workload) = ctx.index.workloads.get(key) else { return left_the_watch(ctx, key).await };
    match ctx.around.namespace(&key.namespace)? {
        // Nothing is made in a namespace that goes away, and nothing need be deleted.
        NamespaceState::Terminating => return Ok(None),
        NamespaceState::Absent => return Err(Error::NotSynced("namespaces")),
        NamespaceState::Known | NamespaceState::Unreadable => {}
    }
    decide(ctx, workload).await
}

async fn decide(ctx: &Context, workload: Arc<Workload>) -> Result<Next, Error> {
    match eligibility(&workload, ctx.settings.mlflow_inject_mode) {
        Eligibility::Ignore => Ok(None),
        Eligibility::Leave(why) => leaving::leave(ctx, workload, why).await,
        Eligibility::Configure(mode) => configure::configure(ctx, workload, mode).await,
    }
}

/// A workload that is not among the agents: deleted, or an agent no more. The watch tells the same of both, so it is
/// read.
async fn left_the_watch(ctx: &Context, key: &WorkloadKey) -> Result<Next, Error> {
    let Some(workload) = write::read_workload(ctx, key).await? else {
        ctx.forget(key);
        return Ok(None);
    };
    if workload.type_label.as_deref() == Some(AGENT) {
        // The index knows it now; its namespace is looked at first.
        return Ok(Some(Duration::ZERO));
    }
    if workload.deleting {
        ctx.forget(key);
        return Ok(None);
    }
    leaving::leave(ctx, workload, Leaving::NoAgent).await
}
