//! Who is injected at all: rows 1-6 of webhook §5, the signs of split §4.

use super::{ClusterFacts, Inputs, Layout, NamespaceFacts, PodFacts, SkipReason};
use crate::names::{annotation, label};

/// Namespaces nothing is injected into, besides the operator's own (webhook §3).
const EXCLUDED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Rows 1-5 of webhook §5: the checks that need neither the namespace's ConfigMaps nor an AgentRuntime, so a
/// caller can skip those look-ups. `None` = go on with [`super::decide`], which repeats them.
pub fn prefilter(
    cluster: &ClusterFacts<'_>,
    namespace: &NamespaceFacts<'_>,
    pod: &PodFacts<'_>,
) -> Option<SkipReason> {
    if pod.annotations.is_some_and(|map| map.contains_key(annotation::MIRROR_POD)) {
        return Some(SkipReason::MirrorPod);
    }
    if EXCLUDED.contains(&namespace.name) || namespace.name == cluster.operator_namespace {
        return Some(SkipReason::ExcludedNamespace);
    }
    if !namespace.enabled() && !pod.enrolled() {
        return Some(SkipReason::NamespaceNotEnabled);
    }
    let tool = match pod.workload_type() {
        Some("agent") => false,
        Some("tool") => true,
        _ => return Some(SkipReason::NotAgentOrTool),
    };
    if !cluster.gates.global_enabled {
        return Some(SkipReason::GloballyOff);
    }
    if tool && !cluster.gates.inject_tools {
        return Some(SkipReason::ToolsOff);
    }
    (pod.label(label::INJECT) == Some("disabled")).then_some(SkipReason::InjectDisabled)
}

/// Which sidecars gates and labels allow: the signs E, S and R of split §4, and the two of webhook §5 row 6.
///
/// A label never switches on what a gate switched off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// Envoy may be injected.
    pub(super) envoy: bool,
    /// SPIFFE is wanted.
    pub(super) spiffe: bool,
    /// The Pod itself opted out of SPIFFE by label.
    pub(super) spiffe_opt_out: bool,
    /// Registration in the Pod is wanted (layout split; opt-in).
    pub(super) registration: bool,
}

impl Signs {
    pub(super) fn read(inputs: &Inputs<'_>, layout: Layout) -> Self {
        let (pod, gates) = (&inputs.pod, inputs.cluster.gates);
        let split = layout == Layout::Split;
        let spiffe_opt_out = pod.label(label::SPIFFE_HELPER_INJECT) == Some("false")
            || pod.label(label::SPIRE) == Some("disabled");
        Self {
            envoy: gates.envoy_proxy && pod.label(label::ENVOY_PROXY_INJECT) != Some("false"),
            spiffe: !spiffe_opt_out && (!split || gates.spiffe_helper()),
            spiffe_opt_out,
            registration: split
                && gates.client_registration
                && pod.label(label::CLIENT_REGISTRATION_INJECT) == Some("true"),
        }
    }

    /// Row 6 of webhook §5 and the skip rule of split §4.
    pub(super) fn none_wanted(self) -> bool {
        !self.envoy && !self.spiffe && !self.registration
    }
}
