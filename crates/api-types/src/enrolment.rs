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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Runtime §3, last line.
    #[rstest]
    #[case(&[], &[("agent.kagenti.dev/enrolled-by", "rt")], true)]
    #[case(&[("app.kubernetes.io/managed-by", "kagenti-operator"), ("kagenti.io/type", "agent")], &[], true)]
    #[case(&[("app.kubernetes.io/managed-by", "kagenti-operator")], &[], false)]
    #[case(&[("app.kubernetes.io/managed-by", "Helm"), ("kagenti.io/type", "agent")], &[], false)]
    #[case(&[("kagenti.io/type", "agent")], &[("kagenti.io/skills", "[]")], false)]
    fn enrolled(
        #[case] labels: &[(&str, &str)],
        #[case] annotations: &[(&str, &str)],
        #[case] expected: bool,
    ) {
        assert_eq!(is_enrolled(Some(&map(labels)), Some(&map(annotations))), expected);
    }

    #[test]
    fn nothing_is_not_enrolled() {
        assert!(!is_enrolled(None, None));
    }

    /// Runtime §8: kind and group both count.
    #[rstest]
    #[case("apps", "Deployment", Some(TargetKind::Deployment))]
    #[case("apps", "StatefulSet", Some(TargetKind::StatefulSet))]
    #[case("agents.x-k8s.io", "Sandbox", Some(TargetKind::Sandbox))]
    #[case("apps", "Sandbox", None)]
    #[case("", "Deployment", None)]
    #[case("apps", "DaemonSet", None)]
    #[case("batch", "Job", None)]
    fn kinds(#[case] group: &str, #[case] kind: &str, #[case] expected: Option<TargetKind>) {
        assert_eq!(TargetKind::of(group, kind), expected);
    }
}
