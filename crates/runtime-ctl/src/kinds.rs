//! The kinds of workload that can be enrolled (runtime §8).

pub use api_types::enrolment::TargetKind as WorkloadKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// API group of the Sandbox kind.
pub const SANDBOX_GROUP: &str = "agents.x-k8s.io";

/// Served version of the Sandbox kind; the two differ in how a Sandbox is suspended (runtime §8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SandboxVersion {
    /// Suspended by `spec.replicas: 0`.
    V1Alpha1,
    /// Suspended by `spec.operatingMode: Suspended`.
    V1Beta1,
}

/// The resource to talk to; `sandbox` decides the version of a Sandbox and nothing else.
pub fn resource(kind: WorkloadKind, sandbox: SandboxVersion) -> ApiResource {
    let (version, plural) = match (kind, sandbox) {
        (WorkloadKind::Deployment, _) => ("v1", "deployments"),
        (WorkloadKind::StatefulSet, _) => ("v1", "statefulsets"),
        (WorkloadKind::Sandbox, version) => (version.as_str(), "sandboxes"),
    };
    ApiResource {
        group: kind.group().into(),
        version: version.into(),
        api_version: format!("{}/{version}", kind.group()),
        kind: kind.as_str().into(),
        plural: plural.into(),
    }
}

/// Field of the spec that holds the pod template.
pub const fn template_field(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "template",
        WorkloadKind::Sandbox => "podTemplate",
    }
}

impl SandboxVersion {
    /// The version on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1Alpha1 => "v1alpha1",
            Self::V1Beta1 => "v1beta1",
        }
    }

    /// Merge patch fragment of `spec` that runs or suspends a Sandbox.
    pub fn run_patch(self, running: bool) -> Value {
        match self {
            Self::V1Alpha1 => json!({ "replicas": i32::from(running) }),
            Self::V1Beta1 => json!({ "operatingMode": if running { "Running" } else { "Suspended" } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_versions_suspend_differently() {
        assert_eq!(SandboxVersion::V1Alpha1.run_patch(false), json!({ "replicas": 0 }));
        assert_eq!(SandboxVersion::V1Beta1.run_patch(true), json!({ "operatingMode": "Running" }));
    }
}
