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

mod inputs;
mod outcome;
mod patch;
mod pod;
mod writes;

use api_types::injection::{ClusterFacts, NamespaceFacts};

pub use inputs::{DryRun, Inputs};
pub use outcome::{Deny, DenyReason, Injection, Outcome, Reinvocation, Skip, Warning, WarningCode};
pub use patch::{Operation, Patch};
pub use pod::{BadPod, Pod};
pub use writes::{ConfigNames, ExistingConfigMap, OwnerPlan, PlannedConfigMap, Writes, config_names, owner_plan};

/// Rows 1-7 of webhook §5: `Some` ends the admission, `None` = go on with [`inject`].
pub fn screen(
    pod: &Pod<'_>,
    cluster: &ClusterFacts<'_>,
    namespace: &NamespaceFacts<'_>,
) -> Option<Outcome>;

/// Rows 8-16 of webhook §5 for a Pod that [`screen`] let through.
pub fn inject(inputs: &Inputs<'_>) -> Outcome;
