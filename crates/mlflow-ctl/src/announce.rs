//! Events about a workload (MLflow §10).

use controller_kit::events::NewEvent;
use tokio::time::Instant;

use crate::{context::Context, env::Plan, rollout::is_young, tracking::Problem, workload::Workload};

const CONFIGURE: &str = "ConfigureMLflow";

fn publish(ctx: &Context, workload: &Workload, event: NewEvent) {
    ctx.announcements.publish(&workload.reference(), event);
}

/// Something was written.
pub fn configured(ctx: &Context, workload: &Workload, note: &str) {
    tracing::info!(workload = %workload.key, "{note}");
    publish(ctx, workload, NewEvent::normal("MLflowConfigured", CONFIGURE, note));
}

/// What was written is taken away.
pub fn left(ctx: &Context, workload: &Workload) {
    let note = "Removed the MLflow settings; the experiment is kept";
    tracing::info!(workload = %workload.key, "{note}");
    publish(ctx, workload, NewEvent::normal("MLflowUnconfigured", CONFIGURE, note));
}

/// The experiment could not be had: at most once per workload and code in ten minutes.
pub fn experiment_failed(ctx: &Context, workload: &Workload, problem: &Problem) {
    let code = problem.code.as_str();
    if ctx.tracks.with(workload, |track| track.say(code, Instant::now())) {
        tracing::warn!(workload = %workload.key, "{problem}");
        publish(
            ctx,
            workload,
            NewEvent::warning("MLflowExperimentFailed", "CreateExperiment", problem.to_string()),
        );
    }
}

/// A Role or RoleBinding belongs to somebody else, cannot be written, or the workload is not ours to patch.
pub fn trouble(ctx: &Context, workload: &Workload, reason: &'static str, note: &str) {
    if ctx.tracks.with(workload, |track| track.say(reason, Instant::now())) {
        tracing::warn!(workload = %workload.key, "{note}");
        publish(ctx, workload, NewEvent::warning(reason, CONFIGURE, note));
    }
}

/// What is odd about a workload, once per generation. A restart of the controller repeats nothing.
pub fn oddities(ctx: &Context, workload: &Workload, plan: &Plan, account: Option<&str>, wrote: bool) {
    let due = ctx.tracks.with(workload, |track| {
        let before = track.said.replace(workload.generation);
        let news = wrote || before.is_some() || is_young(workload, ctx.now());
        before != Some(workload.generation) && news
    });
    if !due {
        return;
    }
    if !plan.preserved.is_empty() {
        let note = format!(
            "Variables that the user set were left as they are in container {}",
            plan.preserved.join(", ")
        );
        publish(ctx, workload, NewEvent::normal("MLflowEnvPreserved", CONFIGURE, note));
    }
    if !plan.unknown.is_empty() {
        let note = format!(
            "Annotation mlflow.kagenti.io/containers names {}, but the pod template has no such container",
            plan.unknown.join(", ")
        );
        publish(ctx, workload, NewEvent::warning("MLflowUnknownContainer", CONFIGURE, note));
    }
    if account == Some("default") {
        let note = "The Pods run as ServiceAccount default, so every Pod of the namespace that does may write to this \
                    experiment: set serviceAccountName in the pod template";
        publish(ctx, workload, NewEvent::warning("MLflowDefaultServiceAccount", CONFIGURE, note));
    }
}
