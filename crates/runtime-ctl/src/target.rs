//! From `spec.targetRef` to a workload (runtime §6 step 5). Pure.

use api_types::{TargetRef, names::reason};

use crate::{kinds::WorkloadKind, workload::WorkloadKey};

/// Why a target is no workload that can be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Reason of the conditions TargetResolved and Ready, and of the event.
    pub reason: &'static str,
    /// Names the field, what is wrong and the remedy.
    pub message: String,
}

/// The workload a reference names, whether or not it exists.
///
/// # Errors
/// `InvalidAPIVersion` or `UnsupportedTargetKind`.
pub fn key(namespace: &str, target: &TargetRef) -> Result<WorkloadKey, Unresolved> {
    let Some(group) = target.group() else {
        return Err(Unresolved {
            reason: reason::INVALID_API_VERSION,
            message: format!(
                "spec.targetRef.apiVersion {:?} is not an API version: write <group>/<version>, for example apps/v1",
                target.api_version
            ),
        });
    };
    let Some(kind) = WorkloadKind::of(group, &target.kind) else {
        return Err(Unresolved {
            reason: reason::UNSUPPORTED_TARGET_KIND,
            message: format!(
                "spec.targetRef names {}/{}, which cannot be enrolled: supported are Deployment and StatefulSet of \
                 group apps, and Sandbox of group agents.x-k8s.io",
                target.api_version, target.kind
            ),
        });
    };
    Ok(WorkloadKey { namespace: namespace.to_owned(), kind, name: target.name.clone() })
}

/// The workload does not exist.
pub fn not_found(namespace: &str, target: &TargetRef) -> Unresolved {
    Unresolved {
        reason: reason::TARGET_NOT_FOUND,
        message: format!(
            "{}/{} {} not found in namespace {namespace}",
            target.api_version, target.kind, target.name
        ),
    }
}

/// The kind cannot be read at present.
pub fn lookup_error(target: &TargetRef, why: &str) -> Unresolved {
    Unresolved {
        reason: reason::TARGET_LOOKUP_ERROR,
        message: format!("cannot look up {} {}: {why}", target.kind, target.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("apps/v1", "Deployment", Ok(WorkloadKind::Deployment))]
    #[case("apps/v1beta2", "StatefulSet", Ok(WorkloadKind::StatefulSet))]
    #[case("agents.x-k8s.io/v1", "Sandbox", Ok(WorkloadKind::Sandbox))]
    #[case("apps/v1", "DaemonSet", Err(reason::UNSUPPORTED_TARGET_KIND))]
    #[case("v1", "Deployment", Err(reason::UNSUPPORTED_TARGET_KIND))]
    #[case("a/b/c", "Deployment", Err(reason::INVALID_API_VERSION))]
    fn kinds(#[case] api_version: &str, #[case] kind: &str, #[case] want: Result<WorkloadKind, &str>) {
        let target = TargetRef { api_version: api_version.into(), kind: kind.into(), name: "w".into() };
        assert_eq!(key("ns", &target).map(|key| key.kind).map_err(|e| e.reason), want);
    }

    #[test]
    fn the_message_names_the_workload() {
        let target = TargetRef { api_version: "apps/v1".into(), kind: "Deployment".into(), name: "w".into() };
        assert_eq!(not_found("team1", &target).message, "apps/v1/Deployment w not found in namespace team1");
    }
}
