//! Enrolling a resolved workload: steps 7 to 13 of runtime §6.

use std::{sync::Arc, time::Duration};

use api_types::{
    AgentRuntime,
    injection::Decision,
    names::{annotation, condition, reason},
};
use controller_kit::{apply, limiter::Turn};
use kube::ResourceExt;

use crate::{
    announce, bootstrap,
    context::Context,
    decide::{self, Surroundings},
    drift,
    enrolment::{self, PinnedType, Wanted},
    error::{Error, code_of, message_of},
    index::{NamespaceConfig, NamespaceState, OwnerKey, Pod, RuntimeKey},
    mesh,
    reconcile::{Next, finish, report_unresolved},
    sandbox::{self, Resumed},
    scc, skills,
    status::{OWNED, Report, Rollout, Truth, Verdict, turned},
    target, tls_bridge,
    workload::Workload,
    write,
};

const SCC_RETRY: Duration = Duration::from_secs(30);

/// Enrols a workload and reports.
///
/// # Errors
/// What a retry may fix.
pub async fn run(ctx: &Context, runtime: Arc<AgentRuntime>, workload: Arc<Workload>) -> Result<Next, Error> {
    let namespace = workload.key.namespace.clone();
    let mut workload = workload;
    let mut next = None;
    let mut report = Report::default();
    let resolved = format!("{} {} resolved", workload.key.kind.as_str(), workload.key.name);
    report.set(condition::TARGET_RESOLVED, Verdict::yes(reason::TARGET_FOUND, resolved));

    if workload.sandbox.as_ref().is_some_and(|state| state.restart_pending) {
        match sandbox::resume(ctx, &workload).await? {
            Resumed::Waiting => return restarting(ctx, &runtime, &workload, report).await,
            Resumed::Gone => return gone(ctx, &runtime, &namespace).await,
            Resumed::Done(resumed) => {
                announce::sandbox_restarted(ctx, &runtime, &resumed);
                workload = resumed;
                next = Some(sandbox::SETTLE);
            }
        }
    }

    for failure in bootstrap::ensure(ctx, &namespace).await? {
        announce::bootstrap_failure(ctx, &runtime, failure);
    }
    if let Some(verdict) = mesh::ensure(ctx, &namespace).await? {
        report.set(condition::ISTIO_MESH_ENROLLED, verdict);
    }
    if let Err(message) = scc::ensure(ctx, &namespace).await? {
        report.set(condition::READY, Verdict::no(reason::SCC_BINDING_ERROR, message));
        finish(ctx, &runtime, &report, &[], false).await?;
        return Ok(Some(SCC_RETRY));
    }

    let config = match ctx.index.configs.resolve(&namespace) {
        Ok(config) => config,
        Err(message) => {
            report.set(condition::CONFIG_RESOLVED, Verdict::no(reason::CONFIG_READ_ERROR, message.clone()));
            report.set(condition::READY, Verdict::no(reason::CONFIG_READ_ERROR, message.clone()));
            finish(ctx, &runtime, &report, &[], false).await?;
            return Err(Error::Config(message));
        }
    };
    let decision = decide_for(ctx, &runtime, &workload, &config);
    let warnings = decide::config_warnings(&config, &decision);
    ctx.note_odd(&RuntimeKey::of(&*runtime), warnings.iter().map(|warning| warning.reason).collect());
    report.set(condition::CONFIG_RESOLVED, decide::config_verdict(&warnings));
    report.set(condition::MTLS_READY, decide::mtls_verdict(&decision));
    report.set(condition::IDENTITY_READY, decide::identity_verdict(&namespace, &config, &decision));
    let bridge = tls_bridge::ensure(ctx, &runtime, &workload, decision.tls_bridge.value).await?;
    if let Some(verdict) = bridge.verdict {
        report.set(condition::TLS_BRIDGE_READY, verdict);
    }

    let wishes = Wishes { config: &config, decision: &decision, ca_hash: bridge.ca_hash.as_deref() };
    let applied = match apply_to(ctx, &runtime, workload, &wishes).await {
        Ok(Applied::Gone) => return gone(ctx, &runtime, &namespace).await,
        Ok(Applied::Done(applied)) => applied,
        Err(Error::Apply { object, message, refused }) => {
            report.set(condition::READY, Verdict::no(reason::CONFIG_APPLY_ERROR, message.clone()));
            finish(ctx, &runtime, &report, &[], false).await?;
            return Err(Error::Apply { object, message, refused });
        }
        Err(error) => return Err(error),
    };
    if applied.restarting {
        return restarting(ctx, &runtime, &applied.workload, report).await;
    }
    if let Some(delay) = applied.queued {
        next = Some(delay);
    }
    describe(ctx, &runtime, &applied, &decision, &mut report);
    read_skills(ctx, &runtime, &applied.workload, config.gates.skill_discovery, &mut report);

    let old = runtime.status.clone();
    if let Some(later) = finish(ctx, &runtime, &report, &[], applied.hash_written).await? {
        return Ok(Some(next.map_or(later, |next| next.min(later))));
    }
    if let Some(now) =
        ctx.index.runtimes.get(&RuntimeKey::of(&*runtime)).and_then(|runtime| runtime.status.clone())
        && !warnings.is_empty()
        && turned(old.as_ref(), &now, condition::CONFIG_RESOLVED)
    {
        announce::config_warnings(ctx, &runtime, warnings.iter().map(|warning| warning.text.as_str()));
    }
    Ok(next)
}

async fn gone(ctx: &Context, runtime: &AgentRuntime, namespace: &str) -> Result<Next, Error> {
    report_unresolved(ctx, runtime, target::not_found(namespace, &runtime.spec.target_ref)).await?;
    Ok(Some(SCC_RETRY))
}

async fn restarting(
    ctx: &Context,
    runtime: &AgentRuntime,
    workload: &Workload,
    mut report: Report,
) -> Result<Next, Error> {
    let message = format!("Sandbox {} is being restarted for its changed configuration", workload.key.name);
    report.set(condition::PODS_CONFIGURED, Verdict::no(reason::ROLLOUT_IN_PROGRESS, message.clone()));
    report.set(condition::READY, Verdict::new(Truth::Unknown, reason::SANDBOX_RESTARTING, message));
    report.linked_skills = runtime.status.as_ref().and_then(|s| s.linked_skills.clone()).unwrap_or_default();
    // The looks between the phases decide nothing else.
    finish(ctx, runtime, &report, &OWNED, false).await?;
    Ok(Some(sandbox::LOOK_AGAIN))
}

fn decide_for(
    ctx: &Context,
    runtime: &AgentRuntime,
    workload: &Workload,
    config: &NamespaceConfig,
) -> Decision {
    let namespace = &workload.key.namespace;
    let facts = match ctx.index.namespaces.get(namespace) {
        NamespaceState::Known(facts) => Some(facts),
        NamespaceState::Absent | NamespaceState::Unreadable => None,
    };
    let around = Surroundings {
        operator_namespace: &ctx.operator_namespace,
        spire_driver: ctx.index.spire_driver(),
        namespace,
        namespace_labels: facts.as_ref().map(|facts| &facts.labels),
    };
    decide::decide(&around, config, &runtime.spec, workload)
}

/// What the patch depends on.
struct Wishes<'a> {
    config: &'a NamespaceConfig,
    decision: &'a Decision,
    ca_hash: Option<&'a str>,
}

/// What became of the workload.
enum Applied {
    Done(Outcome),
    Gone,
}

struct Outcome {
    workload: Arc<Workload>,
    hash_written: bool,
    /// The limiter says when to come back.
    queued: Option<Duration>,
    /// Phase 1 of a Sandbox restart was written.
    restarting: bool,
}

/// Step 10: one merge patch when something differs.
async fn apply_to(
    ctx: &Context,
    runtime: &AgentRuntime,
    mut workload: Arc<Workload>,
    wishes: &Wishes<'_>,
) -> Result<Applied, Error> {
    let name = runtime.name_any();
    let spec_hash = ctx.settings.rollout_on_spec_change.then(|| drift::spec_hash(&runtime.spec));
    let wanted = Wanted {
        runtime: &name,
        workload_type: runtime.spec.workload_type.as_str(),
        hash: &wishes.config.hash,
        is_v1: &|hash| wishes.config.is_v1(hash),
        mtls: wishes.decision.mtls.value.as_str(),
        own_edit: own_edit(runtime),
        runtime_generation: spec_hash.as_deref(),
        ca_hash: wishes.ca_hash,
    };
    let object = workload.key.to_string();
    let refuse = |message: String| Error::Apply { object: object.clone(), message, refused: true };
    let mut attempt = 0;
    loop {
        let done = |workload, hash_written, queued, restarting| {
            Ok(Applied::Done(Outcome { workload, hash_written, queued, restarting }))
        };
        let plan = match enrolment::plan(&workload, &wanted) {
            Ok(None) => {
                ctx.limiter.forget(&workload.key);
                return done(workload, false, None, false);
            }
            Ok(Some(plan)) => plan,
            Err(PinnedType(message)) => return Err(refuse(message)),
        };
        // A conflict does not cost a second token.
        if plan.limited
            && attempt == 0
            && let Turn::Wait(delay) = ctx.limiter.try_acquire(&workload.key)
        {
            return done(workload, false, Some(delay), false);
        }
        let mut patch = plan.patch;
        let restarting = sandbox::add_restart(ctx, &workload, &mut patch).await?;
        ctx.may_write()?;
        attempt += 1;
        match write::patch_workload(ctx, &workload.key, &patch.document(&workload)).await {
            Ok(None) => return Ok(Applied::Gone),
            Ok(Some(patched)) => {
                if !plan.limited {
                    ctx.limiter.forget(&workload.key);
                }
                if let Some(trigger) = plan.rollout {
                    ctx.metrics.rollout(trigger, workload.key.kind);
                    tracing::info!(
                        workload = %workload.key, runtime = name, trigger = trigger.as_str(), "pod template changed"
                    );
                }
                return done(patched, plan.hash_written, None, restarting);
            }
            Err(error) if apply::is_stale(&error) && attempt < write::ATTEMPTS => {
                // A live read: the index is behind what the API server holds.
                match write::read_workload(ctx, &workload.key).await {
                    Ok(Some(live)) => workload = live,
                    Ok(None) => return Ok(Applied::Gone),
                    Err(error) => {
                        let message = message_of(&error);
                        return Err(Error::Apply { object, message, refused: false });
                    }
                }
            }
            Err(error) => {
                let refused = matches!(code_of(&error), 403 | 422);
                return Err(Error::Apply { object, message: message_of(&error), refused });
            }
        }
    }
}

/// The AgentRuntime was edited since it was last processed, or its last edit could not be applied yet.
fn own_edit(runtime: &AgentRuntime) -> bool {
    let status = runtime.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    let ready =
        status.and_then(|status| api_types::conditions::condition(&status.conditions, condition::READY));
    observed != runtime.metadata.generation || ready.is_some_and(|c| c.reason == reason::CONFIG_APPLY_ERROR)
}

/// Step 11 and the conditions that follow from it.
fn describe(
    ctx: &Context,
    runtime: &AgentRuntime,
    applied: &Outcome,
    decision: &Decision,
    report: &mut Report,
) {
    let workload = &applied.workload;
    let pods = ctx.index.pods.of(&OwnerKey::from(&workload.key));
    let configured = pods.iter().filter(|pod| is_configured(pod, workload, runtime)).count();
    report.configured_pods = i32::try_from(configured).unwrap_or(i32::MAX);
    let rollout = Rollout {
        configured: report.configured_pods,
        desired: workload.desired,
        observed: workload.observed,
        paused: workload.paused,
        queued: applied.queued.is_some(),
    };
    report.set(condition::PODS_CONFIGURED, rollout.verdict());

    let hash = workload.effective_hash().unwrap_or_default();
    let mut message = format!(
        "Workload {} configured with config-hash {}",
        workload.key.name,
        hash.get(..12).unwrap_or(hash)
    );
    if !ctx.settings.rollout_on_spec_change {
        let running = pods.iter().filter(|pod| !pod.terminating).filter_map(|pod| pod.resolved.as_ref());
        let waiting = drift::waiting(&runtime.spec, decision, running);
        if !waiting.is_empty() {
            message.push_str("; spec changes that wait for new pods: ");
            message.push_str(&waiting.join(", "));
        }
    }
    report.set(condition::READY, Verdict::yes(reason::CONFIGURED, message));
}

fn is_configured(pod: &Pod, workload: &Workload, runtime: &AgentRuntime) -> bool {
    !pod.terminating
        && pod.type_label.as_deref() == Some(runtime.spec.workload_type.as_str())
        && pod.config_hash.as_deref() == workload.template_annotation(annotation::CONFIG_HASH)
        && pod.mtls_mode.as_deref() == workload.template_annotation(annotation::MTLS_MODE)
}

/// Step 12.
fn read_skills(ctx: &Context, runtime: &AgentRuntime, workload: &Workload, on: bool, report: &mut Report) {
    let key = RuntimeKey::of(runtime);
    match skills::parse(workload.skills.as_deref().filter(|_| on)) {
        Ok(list) => {
            ctx.bad_skills.remove(&key);
            report.linked_skills = list;
        }
        Err(message) => {
            let value = workload.skills.clone().unwrap_or_default();
            if ctx.bad_skills.insert(key, value.clone()) != Some(value) {
                announce::bad_skills(ctx, runtime, message);
            }
        }
    }
}
