//! Reference to a workload, shared by AgentRuntime and AgentCard (runtime §2.1).

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Names a workload in the namespace of the referring object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API version of the workload, for example `apps/v1`.
    #[schemars(length(min = 1))]
    pub api_version: String,
    /// Kind of the workload: Deployment, StatefulSet or Sandbox.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Name of the workload, in the same namespace.
    #[schemars(length(min = 1))]
    pub name: String,
}

impl TargetRef {
    /// The API group of `apiVersion`; `None` when it cannot be parsed (more than one `/`, or an empty part).
    ///
    /// The core group is `""`. Matching ignores the version (runtime §7.4).
    pub fn group(&self) -> Option<&str> {
        match self.api_version.split_once('/') {
            Some((group, version)) if group.is_empty() || version.is_empty() || version.contains('/') => None,
            Some((group, _)) => Some(group),
            None if self.api_version.is_empty() => None,
            None => Some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_the_part_before_the_slash() {
        let of = |api_version: &str| {
            TargetRef { api_version: api_version.into(), ..TargetRef::default() }.group().map(str::to_owned)
        };
        assert_eq!(of("apps/v1").as_deref(), Some("apps"));
        assert_eq!(of("v1").as_deref(), Some(""));
        assert_eq!(of("a/b/c"), None);
        assert_eq!(of("/v1"), None);
        assert_eq!(of("apps/"), None);
        assert_eq!(of(""), None);
    }
}
