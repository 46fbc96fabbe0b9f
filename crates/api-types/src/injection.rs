//! The injection decision: the one function that says whether a Pod gets sidecars, which ones, and with which
//! resolved settings (webhook §5, §8, §11.2, §11.3, §12.1; split §1, §3, §4).
//!
//! The webhook asks it for Pods; runtime-ctl, client-registration-ctl and mlflow-ctl ask it for pod templates,
//! so everything that only a Pod knows has a default in [`PodFacts`]. It reads nothing but its arguments.

mod facts;
mod outcome;
mod values;

pub use self::{
    facts::{
        ClusterFacts, ContainerNames, Inputs, NamespaceFacts, PodFacts, PriorInjection, RuntimeDocument,
    },
    outcome::{Decision, Denial, DenyReason, Outcome, SkipReason, Warning, WarningCode},
    values::{Egress, Inbound, Layout, Mode, Mtls, Registration, Resolved, Source},
};

/// Decides about one Pod or pod template.
///
/// The settings are resolved in every case; `warnings` is empty for a Pod that is skipped before they matter.
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let _ = inputs;
    Decision::default()
}

/// Rows 1-5 of webhook §5: the checks that need neither namespace configuration nor an AgentRuntime, so that a
/// caller can skip the look-ups. `None` = go on with [`decide`], which repeats them.
pub fn prefilter(
    cluster: &ClusterFacts<'_>,
    namespace: &str,
    enabled: bool,
    pod: &PodFacts<'_>,
) -> Option<SkipReason> {
    let _ = (cluster, namespace, enabled, pod);
    None
}
