//! The kinds of workload that can be enrolled (runtime §8).

pub use api_types::enrolment::TargetKind as WorkloadKind;
pub use controller_kit::workload::template_field;
use serde_json::{Value, json};

/// Served version of the Sandbox kind; the two differ in how a Sandbox is suspended (runtime §8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SandboxVersion {
    /// Suspended by `spec.replicas: 0`.
    V1Alpha1,
    /// Suspended by `spec.operatingMode: Suspended`.
    V1Beta1,
}

impl SandboxVersion {
    /// Reads the version on the wire; newer ones are as the newest known.
    pub fn of(version: &str) -> Self {
        if version == "v1alpha1" { Self::V1Alpha1 } else { Self::V1Beta1 }
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
