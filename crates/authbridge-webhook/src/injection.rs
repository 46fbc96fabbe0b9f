//! The pure half of the webhook: from one Pod and one view of the configuration to one answer.
//!
//! Two calls, so that no owner is looked up for Pods that are left alone:
//!
//! 1. [`screen`] runs rows 1-7 of webhook §5 on the raw Pod: skip, reinvocation, or go on.
//! 2. [`inject`] runs rows 8-16 with the workload and the AgentRuntime: skip, deny, or the whole injection with
//!    the patch and the objects it needs.
//!
//! Neither reads a clock, the environment or the network; the same input gives the same bytes (webhook §4.3).
//! The decisions themselves are [`api_types::injection::decide`]; here they become JSON patch operations.
//! What the caller does with an answer: write [`Writes`] (never on a dry run), then send patch and warnings.

mod apps;
mod assemble;
mod containers;
mod env;
mod facts;
mod generated;
mod inputs;
mod mlflow;
mod names;
mod outcome;
mod patch;
mod plan;
mod pod;
pub(crate) mod ports;
mod reinvocation;
mod spec_fields;
mod split;
mod status;
#[cfg(test)]
mod tests;
mod volume_set;
mod volumes;
mod writes;

use api_types::injection::{
    self as decision, ClusterFacts, NamespaceFacts, Outcome as Decided, PriorInjection, SkipReason,
};

pub use inputs::{DryRun, Inputs};
pub use outcome::{Deny, DenyReason, Injection, Outcome, Reinvocation, Skip, Warning, WarningCode};
pub use patch::{Operation, Patch};
pub use pod::{BadPod, Pod};
pub use writes::{
    ConfigNames, ExistingConfigMap, OwnerPlan, PlannedConfigMap, Writes, config_names, owner_plan,
};

/// Rows 1-7 of webhook §5: `Some` ends the admission, `None` = go on with [`inject`].
pub fn screen(pod: &Pod<'_>, cluster: &ClusterFacts<'_>, namespace: &NamespaceFacts<'_>) -> Option<Outcome> {
    let facts = facts::of(pod, "");
    if let Some(reason) = decision::prefilter(cluster, namespace, &facts) {
        return Some(Outcome::Skip(skip(pod, reason, Vec::new())));
    }
    let decided = decision::decide(&decision::Inputs {
        cluster: *cluster,
        namespace: *namespace,
        pod: facts,
        runtime: None,
    });
    match decided.outcome {
        Decided::Skip(SkipReason::AlreadyInjected) => {
            let foreign = facts.containers.prior == PriorInjection::Foreign;
            let answer = reinvocation::complete(pod, cluster.platform, decided.credentials_secret, foreign);
            Some(Outcome::Reinvoke(answer))
        }
        Decided::Skip(reason @ SkipReason::NoSidecarWanted) => {
            Some(Outcome::Skip(skip(pod, reason, Vec::new())))
        }
        // Later rows need the AgentRuntime.
        Decided::Inject | Decided::Skip(_) | Decided::Deny(_) => None,
    }
}

/// Rows 8-16 of webhook §5 for a Pod that [`screen`] let through.
pub fn inject(inputs: &Inputs<'_>) -> Outcome {
    let decided = decided(inputs, inputs.cluster);
    match &decided.outcome {
        Decided::Inject => match assemble::injection(inputs, decided) {
            Ok(injection) => Outcome::Inject(Box::new(injection)),
            Err(deny) => Outcome::Deny(deny),
        },
        Decided::Skip(reason) => {
            let reason = *reason;
            Outcome::Skip(skip(inputs.pod, reason, decided.warnings.into_iter().map(Warning::from).collect()))
        }
        Decided::Deny(denial) => Outcome::Deny(earlier_denial(inputs, denial.reason).unwrap_or_else(|| {
            Deny { code: 403, reason: DenyReason::Decision(denial.reason), message: denial.message.clone() }
        })),
    }
}

fn decided(inputs: &Inputs<'_>, cluster: ClusterFacts<'_>) -> decision::Decision {
    decision::decide(&decision::Inputs {
        cluster,
        namespace: inputs.namespace,
        pod: facts::of(inputs.pod, &inputs.workload.name),
        runtime: inputs.runtime,
    })
}

/// Rows 13 and 14 come before row 15: what is wrong with the Pod itself is said first.
fn earlier_denial(inputs: &Inputs<'_>, reason: decision::DenyReason) -> Option<Deny> {
    if reason != decision::DenyReason::NoIdentityProvider {
        return None;
    }
    let mut platform = inputs.cluster.platform.clone();
    platform.identity.required = false;
    let without = decided(inputs, ClusterFacts { platform: &platform, ..inputs.cluster });
    plan::Plan::new(inputs, &without).err()
}

/// A skipped Pod still gets its MLflow variables (webhook §10.1), unless it is none of ours to touch (row 1).
fn skip(pod: &Pod<'_>, reason: SkipReason, warnings: Vec<Warning>) -> Skip {
    let untouched = matches!(
        reason,
        SkipReason::MirrorPod | SkipReason::ExcludedNamespace | SkipReason::NamespaceNotEnabled
    );
    let mut patch = Patch::default();
    if !untouched && mlflow::wanted(pod) {
        let settings = apps::AppSettings { mlflow: true, ..apps::AppSettings::default() };
        for container in pod.containers() {
            settings.edit(pod, container, env::EnvEdit::new(container), &mut patch, &mut Vec::new());
        }
    }
    Skip { reason, patch, warnings }
}
