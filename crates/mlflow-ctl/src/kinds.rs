//! The kinds of workload that can be an agent (MLflow §2).

pub use api_types::enrolment::TargetKind as WorkloadKind;
use kube::discovery::ApiResource;

/// API group of the Sandbox kind.
pub const SANDBOX_GROUP: &str = "agents.x-k8s.io";
/// Versions of the Sandbox kind that this build can read, newest first.
pub const SANDBOX_VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];

/// The resource to talk to; `sandbox` is the served version of a Sandbox and counts for nothing else.
pub fn resource(kind: WorkloadKind, sandbox: &str) -> ApiResource {
    let version = match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "v1",
        WorkloadKind::Sandbox => sandbox,
    };
    ApiResource {
        group: kind.group().into(),
        version: version.into(),
        api_version: format!("{}/{version}", kind.group()),
        kind: kind.as_str().into(),
        plural: plural(kind).into(),
    }
}

/// Plural name of the resource.
pub const fn plural(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::Sandbox => "sandboxes",
    }
}

/// Field of the spec that holds the pod template.
pub const fn template_field(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "template",
        WorkloadKind::Sandbox => "podTemplate",
    }
}
