//! One pass over one AgentRuntime (runtime §6).

use std::{sync::Arc, time::Duration};

use api_types::{
    AgentRuntime, AgentRuntimeStatus,
    names::{condition, reason},
};
use controller_kit::backoff::jitter;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::{
    announce, cleanup,
    context::{Context, Key},
    enrol,
    error::{Error, PassError, message_of},
    index::{NamespaceState, RuntimeKey, Target, WorkloadLink},
    invalid,
    kinds::WorkloadKind,
    propagation, sandbox,
    sources::{Source, State},
    status::{self, Report, Truth, Verdict},
    target::{self, Unresolved},
    withdraw,
    workload::{Workload, WorkloadKey},
    write,
};

/// When to look again at a missing target; the workload watch is the fast path.
const MISSING_TARGET: Duration = Duration::from_secs(30);
/// When to look again while a watch has not delivered.
const NOT_SYNCED: Duration = Duration::from_millis(300);

/// When to look again while a watch is refused.
const TROUBLED: Duration = Duration::from_secs(5);
/// How long the steps of a rollout are held back before one is written. A few Pods have no steps worth a write each:
/// where a busy cluster keeps them waiting, that would be one more request for every workload.
fn hold_steps(configured_pods: i32) -> Duration {
    Duration::from_secs(if configured_pods > 3 { 30 } else { 300 })
}

/// When to look again.
pub type Next = Option<Duration>;

/// One pass over whatever the queue handed out.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &Key) -> Result<Next, Error> {
    let result = match key {
        Key::Runtime(key) => runtime(ctx, key).await,
        Key::Workload(key) => propagation::follow(ctx, key).await,
    };
    match result {
        Err(Error::Pass(PassError::NotSynced(what))) => {
            tracing::debug!(object = %key, "waiting for the watch of {what}");
            Ok(Some(NOT_SYNCED))
        }
        result => result,
    }
}

async fn runtime(ctx: &Context, key: &RuntimeKey) -> Result<Next, Error> {
    if let Some(bad) = ctx.undecodable.get(key) {
        return invalid::report(ctx, key, &bad).await;
    }
    let Some(runtime) = ctx.index.runtimes.get(key) else {
        ctx.forget(key);
        return Ok(None);
    };
    if runtime.metadata.deletion_timestamp.is_some() {
        return cleanup::run(ctx, runtime).await;
    }
    match ctx.index.namespaces.get(&key.namespace) {
        // Nothing is made in a namespace that goes away.
        NamespaceState::Known(facts) if facts.terminating => return Ok(None),
        NamespaceState::Absent => return Err(PassError::NotSynced("namespaces").into()),
        NamespaceState::Known(_) | NamespaceState::Unreadable => {}
    }
    match ctx.sources.state(Source::Pods, &key.namespace) {
        State::Synced => {}
        State::Pending => return Err(PassError::NotSynced("pods").into()),
        // `/readyz` names what is missing.
        State::Troubled(_) => return Ok(Some(TROUBLED)),
    }
    let Some(runtime) = write::add_finalizer(ctx, runtime).await? else { return Ok(None) };

    if runtime.spec.workload_type.is_unknown() {
        let message = format!(
            "spec.type {:?} is not known to this version: use agent or tool",
            runtime.spec.workload_type.as_str()
        );
        let report = not_ready(reason::INVALID_SPEC, message);
        finish(ctx, &runtime, &report, &[], false).await?;
        return Ok(None);
    }

    let winner = ctx.index.runtimes.winner(&Target::of(&runtime)).map(|winner| winner.name_any());
    if let Some(winner) = winner.filter(|winner| *winner != key.name) {
        let reference = &runtime.spec.target_ref;
        let message = format!(
            "AgentRuntime {winner} already targets {} {}: delete one of the two, or give them different targets",
            reference.kind, reference.name
        );
        finish(ctx, &runtime, &not_ready(reason::DUPLICATE_TARGET, message), &[], false).await?;
        return Ok(None);
    }

    let workload = match resolve(ctx, &runtime).await? {
        Ok(workload) => workload,
        Err(unresolved) => {
            report_unresolved(ctx, &runtime, unresolved).await?;
            return Ok(Some(jitter(MISSING_TARGET, 0.1)));
        }
    };
    if !release_former_targets(ctx, &runtime, &workload.key).await? {
        return Ok(Some(sandbox::LOOK_AGAIN));
    }
    enrol::run(ctx, runtime, workload).await
}

fn not_ready(reason: &'static str, message: String) -> Report {
    let mut report = Report::default();
    report.set(condition::READY, Verdict::no(reason, message));
    report
}

/// Writes that the target cannot be enrolled.
///
/// # Errors
/// What the API server says.
pub async fn report_unresolved(
    ctx: &Context,
    runtime: &AgentRuntime,
    unresolved: Unresolved,
) -> Result<(), Error> {
    let mut report = not_ready(unresolved.reason, unresolved.message.clone());
    report.set(condition::TARGET_RESOLVED, Verdict::no(unresolved.reason, unresolved.message));
    finish(ctx, runtime, &report, &[], false).await.map(drop)
}

/// The target of an AgentRuntime, or why there is none.
async fn resolve(ctx: &Context, runtime: &AgentRuntime) -> Result<Result<Arc<Workload>, Unresolved>, Error> {
    let reference = &runtime.spec.target_ref;
    let namespace = runtime.namespace().unwrap_or_default();
    let key = match target::key(&namespace, reference) {
        Ok(key) => key,
        Err(unresolved) => return Ok(Err(unresolved)),
    };
    if let Some(workload) = ctx.index.workloads.get(&key) {
        return Ok(Ok(workload));
    }
    let missing = target::not_found(&namespace, reference);
    if key.kind == WorkloadKind::Sandbox && ctx.sandbox_version().is_none() {
        return Ok(Err(missing));
    }
    match ctx.sources.state(Source::Workloads(key.kind), &namespace) {
        State::Synced => {}
        State::Pending => return Err(PassError::NotSynced("workloads").into()),
        State::Troubled(why) => return Ok(Err(target::lookup_error(reference, &why))),
    }
    if says_missing(runtime) {
        return Ok(Err(missing));
    }
    // A live read before the status says "not found": workload and AgentRuntime are often made in one breath, and
    // their watches are two.
    match write::read_workload(ctx, &key).await {
        Ok(Some(workload)) => Ok(Ok(workload)),
        Ok(None) => Ok(Err(missing)),
        Err(error) => Ok(Err(target::lookup_error(reference, &message_of(&error)))),
    }
}

fn says_missing(runtime: &AgentRuntime) -> bool {
    let conditions = runtime.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let known = api_types::conditions::condition(conditions, condition::TARGET_RESOLVED);
    known.is_some_and(|c| {
        c.reason == reason::TARGET_NOT_FOUND && c.observed_generation == runtime.metadata.generation
    })
}

/// Cleans workloads that this AgentRuntime enrolled before its target changed (runtime §6 step 6). False = a Sandbox
/// is between the phases of its restart, and the switch waits for it.
async fn release_former_targets(
    ctx: &Context,
    runtime: &AgentRuntime,
    current: &WorkloadKey,
) -> Result<bool, Error> {
    let mine = RuntimeKey::of(runtime);
    for workload in ctx.index.workloads.linked(&WorkloadLink::EnrolledBy(mine.clone())) {
        if workload.key == *current {
            continue;
        }
        match cleanup::release(ctx, &mine, &workload).await? {
            cleanup::Released::Done => {
                announce::unenrolled(ctx, runtime, &workload, &withdraw::plan(&workload));
            }
            cleanup::Released::HandedOver | cleanup::Released::Gone => {}
            cleanup::Released::Waiting => return Ok(false),
        }
    }
    Ok(true)
}

/// Writes the status when it differs and says what turned. `Some` = not written yet, come back after that time.
///
/// # Errors
/// What the API server says.
pub async fn finish(
    ctx: &Context,
    runtime: &AgentRuntime,
    report: &Report,
    kept: &[&str],
    hash_written: bool,
) -> Result<Next, Error> {
    let key = RuntimeKey::of(runtime);
    let generation = runtime.metadata.generation.unwrap_or_default();
    let Some(next) = status::next(runtime.status.as_ref(), report, generation, kept, ctx.now()) else {
        ctx.progress.remove(&key);
        return Ok(None);
    };
    if !hash_written && status::is_progress(runtime.status.as_ref(), &next) {
        let since = ctx.progress.get_or_insert(key.clone(), Instant::now());
        let hold = hold_steps(next.configured_pods.unwrap_or_default());
        if let Some(rest) = hold.checked_sub(since.elapsed()).filter(|rest| !rest.is_zero()) {
            return Ok(Some(rest));
        }
    }
    ctx.progress.remove(&key);
    let before: Option<AgentRuntimeStatus> = runtime.status.clone();
    if write::status(ctx, runtime, &next).await?.is_none() {
        return Ok(None);
    }
    let ready = report.get(condition::READY);
    if status::turned(before.as_ref(), &next, condition::READY) {
        let truth = ready.map(|verdict| verdict.truth);
        let text = ready.map_or("", |verdict| verdict.message.as_str());
        if let Some(Truth::False) = truth {
            tracing::warn!(runtime = %RuntimeKey::of(runtime), "{text}");
        } else {
            tracing::info!(runtime = %RuntimeKey::of(runtime), "{text}");
        }
    }
    announce::transitions(ctx, runtime, before.as_ref(), &next, report, hash_written);
    Ok(None)
}
