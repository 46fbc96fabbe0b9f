//! Un-enrolment: what we put on a workload is taken away again (MLflow §9).

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use controller_kit::limiter::Turn;

use crate::{
    announce,
    conditions::{Report, State, reason},
    context::Context,
    eligibility::{Eligibility, Leaving, eligibility},
    env,
    env::Values,
    error::Error,
    granting,
    patch::TemplatePatch,
    reconcile::Next,
    rollout::{self, Cause},
    workload::Workload,
    write::{self, Patched},
};

/// So long the template stays as it is, so that runtime-ctl's own un-enrolment comes first and both are one rollout.
const DELAY: Duration = Duration::from_secs(30);
/// How often a patch is tried at once after a conflict, and when again.
const ATTEMPTS: usize = 5;
const AFTER_CONFLICTS: Duration = Duration::from_secs(1);

/// Takes permission away at once, and marks and variables after a while.
///
/// # Errors
/// What a retry may fix.
pub async fn leave(ctx: &Context, workload: Arc<Workload>, why: Leaving) -> Result<Next, Error> {
    let report = match why {
        Leaving::NoAgent => None,
        Leaving::OptedOut => Some(Report::new(
            reason::OPTED_OUT,
            "Annotation mlflow.kagenti.io/inject of the workload is disabled",
        )),
    };
    let deleted = granting::withdraw(ctx, &workload).await?;
    if deleted {
        tracing::info!(workload = %workload.key, "Role and RoleBinding are deleted");
    }
    let mut next = None;
    if !strip_patch(&workload).is_empty() {
        let since = ctx.tracks.with(&workload, |track| {
            track.known = None;
            track.hold = None;
            track.state = Some(State::Skipped);
            *track.leaving_since.get_or_insert_with(Instant::now)
        });
        next = DELAY.checked_sub(since.elapsed()).filter(|rest| !rest.is_zero());
        if next.is_none() {
            let mode = ctx.settings.mlflow_inject_mode;
            let still = |live: &Workload| matches!(eligibility(live, mode), Eligibility::Leave(_));
            next = strip(ctx, workload.clone(), still).await?;
        }
    }
    write::condition(ctx, &workload.key, report.as_ref()).await?;
    if next.is_none() {
        settle(ctx, &workload, why);
    }
    Ok(next)
}

/// Nothing is left to do.
fn settle(ctx: &Context, workload: &Workload, why: Leaving) {
    match why {
        // It is not watched, so nobody would ever forget it.
        Leaving::NoAgent => ctx.forget(&workload.key),
        Leaving::OptedOut => ctx.tracks.with(workload, |track| {
            track.leaving_since = None;
            track.state = Some(State::Skipped);
        }),
    }
}

/// The four annotations, and the variables that say what they say.
fn strip_patch(workload: &Workload) -> TemplatePatch {
    let changes = env::withdrawal(&workload.containers, &workload.recorded());
    TemplatePatch::new(workload, &Values::default(), changes)
}

/// Removes annotations and variables in one patch, while `still` holds for the workload as it is then.
///
/// # Errors
/// What a retry may fix.
pub async fn strip(
    ctx: &Context,
    mut workload: Arc<Workload>,
    still: impl Fn(&Workload) -> bool,
) -> Result<Next, Error> {
    if rollout::needs_token(&workload, ctx.now())
        && let Turn::Wait(delay) = ctx.limiter.try_acquire(&workload.key)
    {
        return Ok(Some(delay));
    }
    for _ in 0..ATTEMPTS {
        let patch = strip_patch(&workload);
        if patch.is_empty() {
            return Ok(None);
        }
        match write::patch_template(ctx, &workload, &patch).await? {
            Patched::Done(after) => {
                ctx.metrics.rollout(Cause::Unenrolled);
                announce::left(ctx, &after);
                return Ok(None);
            }
            Patched::Stale => match write::read_workload(ctx, &workload.key).await? {
                Some(live) if live.uid == workload.uid && still(&live) => workload = live,
                // Gone, or an agent again.
                _ => return Ok(Some(Duration::ZERO)),
            },
            Patched::Refused(error) => {
                return Err(Error::api("take the MLflow settings from", workload.key.to_string())(error));
            }
        }
    }
    Ok(Some(AFTER_CONFLICTS))
}
