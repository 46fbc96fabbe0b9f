//! The kinds of workload that can be an agent (MLflow §2).

pub use api_types::enrolment::TargetKind as WorkloadKind;
pub use controller_kit::workload::{SANDBOXES, plural, resource, template_field};
