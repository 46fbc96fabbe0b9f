//! The kinds of workload that can be an agent (MLflow §2).

pub use api_types::enrolment::TargetKind as WorkloadKind;
pub use controller_kit::workload::{SANDBOXES, plural, resource};

/// Field of the spec that holds the pod template.
pub const fn template_field(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "template",
        WorkloadKind::Sandbox => "podTemplate",
    }
}
