//! The end of an enrolment: deletion of an AgentRuntime, or a change of its target (runtime §8.1).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api_types::{
    AgentRuntime,
    names::{annotation, condition, reason},
};
use controller_kit::apply;
use kube::ResourceExt;
use serde_json::json;

use crate::{
    announce,
    context::Context,
    enrolment::Trigger,
    error::{Error, message_of},
    index::{OwnerKey, RuntimeKey, Target, WorkloadLink},
    reconcile::{Next, finish},
    sandbox::{self, Resumed},
    sources::Source,
    status::{OWNED, Report, Verdict},
    target, withdraw,
    workload::{Workload, WorkloadKey},
    write,
};

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Clean.
    Done,
    /// Another AgentRuntime enrols the workload.
    HandedOver,
    /// The workload is gone.
    Gone,
    /// A Sandbox is between the phases of its restart: look again soon.
    Waiting,
}

/// Cleans up after an AgentRuntime that is being deleted and lets it go.
///
/// # Errors
/// What the API server says; the condition Ready says it too.
pub async fn run(ctx: &Context, runtime: Arc<AgentRuntime>) -> Result<Next, Error> {
    if !write::has_finalizer(&runtime) {
        return Ok(None);
    }
    let key = RuntimeKey::of(&*runtime);
    for workload in candidates(ctx, &runtime)?.into_values() {
        let withdrawal = withdraw::plan(&workload);
        match release(ctx, &key, &workload).await {
            Ok(Released::Done) => announce::unenrolled(ctx, &runtime, &workload, &withdrawal),
            Ok(Released::HandedOver | Released::Gone) => {}
            Ok(Released::Waiting) => return Ok(Some(sandbox::LOOK_AGAIN)),
            Err(Error::Cleanup { object, message }) => {
                let known = runtime.status.clone().unwrap_or_default();
                let mut report = Report::default();
                report.configured_pods = known.configured_pods.unwrap_or_default();
                report.linked_skills = known.linked_skills.unwrap_or_default();
                report.set(condition::READY, Verdict::no(reason::CLEANUP_FAILED, message.clone()));
                finish(ctx, &runtime, &report, &OWNED, false).await?;
                return Err(Error::Cleanup { object, message });
            }
            Err(error) => return Err(error),
        }
    }
    write::remove_finalizer(ctx, runtime).await?;
    ctx.forget(&key);
    Ok(None)
}

/// The workloads an AgentRuntime may have enrolled: its target, and whatever carries its name.
fn candidates(ctx: &Context, runtime: &AgentRuntime) -> Result<BTreeMap<WorkloadKey, Arc<Workload>>, Error> {
    let mine = RuntimeKey::of(runtime);
    let enrolled = ctx.index.workloads.linked(&WorkloadLink::EnrolledBy(mine.clone()));
    let mut found: BTreeMap<_, _> = enrolled.into_iter().map(|w| (w.key.clone(), w)).collect();
    if let Ok(key) = target::key(&mine.namespace, &runtime.spec.target_ref) {
        let served = key.kind != crate::kinds::WorkloadKind::Sandbox || ctx.sandbox_version().is_some();
        if served && !ctx.sources.is_synced(Source::Workloads(key.kind), &mine.namespace) {
            // "Not in the index" would be taken for "gone", and the labels would stay for ever.
            return Err(Error::Cleanup {
                object: key.to_string(),
                message: format!("{}s cannot be read at present, so nothing was cleaned", key.kind.as_str()),
            });
        }
        if let Some(workload) = ctx.index.workloads.get(&key) {
            // Not the one that another living AgentRuntime enrolled.
            let other = workload.enrolled_by.as_ref().filter(|name| **name != mine.name);
            let alive = |name: &String| {
                let key = RuntimeKey { namespace: mine.namespace.clone(), name: name.clone() };
                ctx.index.runtimes.get(&key).is_some_and(|other| Target::of(&other) == Target::of(runtime))
            };
            if !other.is_some_and(alive) {
                found.insert(key, workload);
            }
        }
    }
    Ok(found)
}

/// Ends the enrolment of one workload by `runtime`, or hands it over.
///
/// # Errors
/// [`Error::Cleanup`] with the message of the API server.
pub async fn release(
    ctx: &Context,
    runtime: &RuntimeKey,
    workload: &Arc<Workload>,
) -> Result<Released, Error> {
    let mut workload = workload.clone();
    let key = workload.key.clone();
    let OwnerKey { namespace, group, kind, name } = OwnerKey::from(&key);
    let heir = ctx.index.runtimes.winner(&Target { namespace, group, kind, name });
    if let Some(heir) = heir.filter(|heir| heir.name_any() != runtime.name) {
        return hand_over(ctx, &workload, &heir.name_any()).await;
    }
    let mut attempt = 0;
    loop {
        if workload.sandbox.as_ref().is_some_and(|state| state.restart_pending) {
            match sandbox::resume(ctx, &workload).await? {
                Resumed::Waiting => return Ok(Released::Waiting),
                Resumed::Gone => return Ok(Released::Gone),
                Resumed::Done(resumed) => workload = resumed,
            }
        }
        let mut patch = withdraw::plan(&workload).patch;
        if patch.is_empty() {
            return Ok(Released::Done);
        }
        let restarting = sandbox::add_restart(ctx, &workload, &mut patch).await?;
        ctx.may_write()?;
        attempt += 1;
        match write::patch_workload(ctx, &key, &patch.document(&workload)).await {
            Ok(None) => return Ok(Released::Gone),
            Ok(Some(_)) => {
                ctx.limiter.forget(&key);
                if patch.changes_template() {
                    ctx.metrics.rollout(Trigger::Unenroll, key.kind);
                }
                tracing::info!(workload = %key, runtime = %runtime, "enrolment ended");
                return Ok(if restarting { Released::Waiting } else { Released::Done });
            }
            Err(error) if apply::is_stale(&error) && attempt < write::ATTEMPTS => {
                // A live read: the index is behind what the API server holds.
                match write::read_workload(ctx, &key).await {
                    Ok(Some(live)) => workload = live,
                    Ok(None) => return Ok(Released::Gone),
                    Err(error) => return Err(cleanup_error(&key, &error)),
                }
            }
            Err(error) => return Err(cleanup_error(&key, &error)),
        }
    }
}

fn cleanup_error(key: &WorkloadKey, error: &kube::Error) -> Error {
    Error::Cleanup { object: key.to_string(), message: message_of(error) }
}

/// The heir takes the workload over in place: no moment without labels, no restart.
async fn hand_over(ctx: &Context, workload: &Workload, heir: &str) -> Result<Released, Error> {
    let key = &workload.key;
    if workload.enrolled_by.is_some() && workload.enrolled_by.as_deref() != Some(heir) {
        ctx.may_write()?;
        let body =
            json!({ "metadata": { "uid": workload.uid, "annotations": { annotation::ENROLLED_BY: heir } } });
        match write::patch_workload(ctx, key, &body).await {
            Ok(_) => tracing::info!(workload = %key, heir, "handed over"),
            Err(error) if apply::is_stale(&error) => {}
            Err(error) => return Err(cleanup_error(key, &error)),
        }
    }
    ctx.wake(RuntimeKey { namespace: key.namespace.clone(), name: heir.to_owned() }, Duration::ZERO);
    Ok(Released::HandedOver)
}
