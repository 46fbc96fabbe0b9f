//! Bringing the pod template to its state: limiter, guard, one patch (MLflow §7.3, §7.4).

use std::{sync::Arc, time::Duration};

use api_types::mlflow::Field;
use controller_kit::{apply::code_of, backoff::jitter, limiter::Turn, message::message_of};
use tokio::time::Instant;

use crate::{
    announce,
    conditions::{Report, reason},
    configure::{BLOCKED, Done, rules},
    context::Context,
    env::{self, Mode, Values},
    error::Error,
    patch::TemplatePatch,
    rollout::{self, Cause},
    workload::Workload,
    write::{self, Patched},
};

/// How often a patch is tried at once after a conflict, and when again (MLflow §7.3).
const ATTEMPTS: usize = 5;
const AFTER_CONFLICTS: Duration = Duration::from_secs(1);
/// When to patch again after the API server failed.
const FAILING: Duration = Duration::from_secs(10);
/// A shorter wait for the limiter is not worth a condition.
const WORTH_SAYING: Duration = Duration::from_secs(5);

/// How the template was brought to its state.
pub(crate) enum Written {
    /// It is there; true = it was patched.
    Yes(Arc<Workload>, bool),
    /// Not now.
    No(Done),
}

/// Annotations and variables, in one patch.
pub(crate) async fn write_template(
    ctx: &Context,
    mut workload: Arc<Workload>,
    mode: Mode,
    desired: &Values,
) -> Result<Written, Error> {
    let mut granted = false;
    for _ in 0..ATTEMPTS {
        let recorded = workload.recorded();
        let plan = env::plan(&workload.containers, &recorded, desired, rules(ctx, &workload, mode));
        let patch = TemplatePatch::new(&workload, desired, plan.changes);
        if patch.is_empty() {
            return Ok(Written::Yes(workload, false));
        }
        let state = rollout::fingerprint(desired, workload.containers.len());
        let now = Instant::now();
        if let Some(rest) = ctx.tracks.with(&workload, |track| track.guard.truce(state, now)) {
            return reverted(ctx, &workload, rest).await.map(Written::No);
        }
        if !granted && rollout::needs_token(&workload, ctx.now()) {
            if let Turn::Wait(delay) = ctx.limiter.try_acquire(&workload.key) {
                return Ok(Written::No(queued(&recorded, delay)));
            }
            granted = true;
        }
        match write::patch_template(ctx, &workload, &patch).await? {
            Patched::Done(after) => {
                let lost = ctx.tracks.with(&workload, |track| {
                    track.guard.wrote(state, Instant::now());
                    std::mem::take(&mut track.lost)
                });
                ctx.metrics.rollout(cause(&recorded, desired, lost));
                return Ok(Written::Yes(after, true));
            }
            Patched::Stale => match write::read_workload(ctx, &workload.key).await? {
                Some(live) if is_same_question(&live, &workload) => workload = live,
                // Gone, another one, or its user wants something else: from the beginning.
                _ => return Ok(Written::No(Done::again(Duration::ZERO))),
            },
            Patched::Refused(error) => return Ok(Written::No(refused(ctx, &workload, &error))),
        }
    }
    Ok(Written::No(Done::again(AFTER_CONFLICTS)))
}

/// The experiment, and who may use it, are the same for both.
fn is_same_question(live: &Workload, before: &Workload) -> bool {
    let asked = |w: &Workload| {
        (
            w.uid.clone(),
            w.deleting,
            w.type_label.clone(),
            w.inject.clone(),
            w.experiment.clone(),
            w.service_account.clone(),
        )
    };
    asked(live) == asked(before)
}

fn cause(recorded: &Values, desired: &Values, lost: bool) -> Cause {
    let same_server = match (recorded.get(Field::TrackingUri), desired.get(Field::TrackingUri)) {
        (Some(before), Some(now)) => env::same_address(before, now),
        _ => true,
    };
    if lost {
        Cause::ExperimentLost
    } else if recorded.is_empty() {
        Cause::Configured
    } else if same_server {
        Cause::Repair
    } else {
        Cause::Server
    }
}

fn queued(recorded: &Values, delay: Duration) -> Done {
    let said = delay >= WORTH_SAYING && recorded.get(Field::ExperimentId).is_none();
    let text = "Waiting for the limiter of rollouts (--rollout-qps, --rollout-burst)";
    let done =
        if said { Done::with(Report::new(reason::PENDING, text), Some(delay)) } else { Done::again(delay) };
    done.in_queue()
}

fn refused(ctx: &Context, workload: &Workload, error: &kube::Error) -> Done {
    let note = format!("{} cannot be patched: {}", workload.key, message_of(error));
    announce::trouble(ctx, workload, "MLflowPatchFailed", &note);
    // What the API server refuses today it refuses in a second too.
    let next = match code_of(error) {
        400..=499 => BLOCKED,
        _ => jitter(FAILING, 0.5),
    };
    Done::with(Report::new(reason::PATCH_FAILED, note), Some(next))
}

async fn reverted(ctx: &Context, workload: &Workload, rest: Duration) -> Result<Done, Error> {
    let known = ctx.index.runtime_of(&workload.key).and_then(|runtime| runtime.condition.clone());
    if let Some(said) = known.filter(|said| said.reason == reason::PATCH_REVERTED) {
        return Ok(Done::with(Report::new(reason::PATCH_REVERTED, said.message), Some(rest)));
    }
    let who = write::last_writer(ctx, &workload.key).await;
    let who = who.map_or_else(|| "somebody".to_owned(), |manager| format!("field manager {manager:?}"));
    let note = format!(
        "{who} took the MLflow settings off the pod template again and again, so they are not written for half an \
         hour: keep environment and annotations of others there, or set annotation mlflow.kagenti.io/inject to \
         annotations or disabled"
    );
    announce::trouble(ctx, workload, "MLflowPatchReverted", &note);
    Ok(Done::with(Report::new(reason::PATCH_REVERTED, note), Some(rest)))
}
