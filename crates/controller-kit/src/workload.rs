//! The kinds of workload the suite looks at (runtime §8): how to name them and to ask the API server for them.

use std::fmt;

use api_types::enrolment::TargetKind;
use kube::discovery::ApiResource;

use crate::watch::OptionalKind;

/// The Sandbox kind, whose CRD may be missing.
pub const SANDBOXES: OptionalKind = OptionalKind {
    group: "agents.x-k8s.io",
    kind: "Sandbox",
    versions: &["v1beta1", "v1alpha1"],
    when_served: "Sandboxes are served",
};

/// Plural of a kind.
pub const fn plural(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Deployment => "deployments",
        TargetKind::StatefulSet => "statefulsets",
        TargetKind::Sandbox => "sandboxes",
    }
}

/// The resource of a kind; `sandbox` is the version of a Sandbox and decides nothing else.
pub fn resource(kind: TargetKind, sandbox: &str) -> ApiResource {
    let version = match kind {
        TargetKind::Deployment | TargetKind::StatefulSet => "v1",
        TargetKind::Sandbox => sandbox,
    };
    ApiResource {
        group: kind.group().into(),
        version: version.into(),
        api_version: format!("{}/{version}", kind.group()),
        kind: kind.as_str().into(),
        plural: plural(kind).into(),
    }
}

/// Field of the spec that holds the pod template.
pub const fn template_field(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Deployment | TargetKind::StatefulSet => "template",
        TargetKind::Sandbox => "podTemplate",
    }
}

/// Names one workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Namespace.
    pub namespace: String,
    /// Kind.
    pub kind: TargetKind,
    /// Name.
    pub name: String,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sandbox_has_a_version_to_choose() {
        let sandbox = resource(TargetKind::Sandbox, "v1alpha1");
        assert_eq!(
            (sandbox.api_version.as_str(), sandbox.plural.as_str()),
            ("agents.x-k8s.io/v1alpha1", "sandboxes")
        );
        assert_eq!(resource(TargetKind::Deployment, "v1alpha1").api_version, "apps/v1");
        assert_eq!(SANDBOXES.group, TargetKind::Sandbox.group());
    }
}
