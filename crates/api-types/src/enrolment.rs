//! Is a workload enrolled (runtime §3), and which kinds can be (runtime §8)?

use std::collections::BTreeMap;

use crate::names::{MANAGED_BY_OPERATOR, annotation, label};

/// True iff the workload's metadata say that an AgentRuntime enrolled it (runtime §3): annotation `enrolled-by`,
/// or `managed-by=kagenti-operator` together with `kagenti.io/type`.
pub fn is_enrolled(
    labels: Option<&BTreeMap<String, String>>,
    annotations: Option<&BTreeMap<String, String>>,
) -> bool {
    let has_label = |key: &str| labels.and_then(|labels| labels.get(key));
    annotations.is_some_and(|map| map.contains_key(annotation::ENROLLED_BY))
        || (has_label(label::MANAGED_BY).is_some_and(|value| value == MANAGED_BY_OPERATOR)
            && has_label(label::TYPE).is_some())
}

/// A kind that can be enrolled (runtime §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// `apps` Deployment.
    Deployment,
    /// `apps` StatefulSet.
    StatefulSet,
    /// `agents.x-k8s.io` Sandbox.
    Sandbox,
}

impl TargetKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::Sandbox];

    /// The kind of a group and kind name; `None` = it cannot be enrolled.
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.group() == group && known.as_str() == kind)
    }

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "apps",
            Self::Sandbox => "agents.x-k8s.io",
        }
    }

    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Sandbox => "Sandbox",
        }
    }
}
