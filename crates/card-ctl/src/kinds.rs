//! The kinds of workload that get cards, labels and restarts (card §5.1), and how any other kind is named.

use api_types::TargetRef;
pub use api_types::enrolment::TargetKind as WorkloadKind;

/// Names a workload, whatever its kind and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// Namespace.
    pub namespace: String,
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl TargetKey {
    /// What a reference in a namespace names; `None` when its apiVersion cannot be parsed.
    pub fn of(namespace: &str, reference: &TargetRef) -> Option<Self> {
        Some(Self {
            namespace: namespace.to_owned(),
            group: reference.group()?.to_owned(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        })
    }

    /// The kind, when it is one that gets labels and restarts.
    pub fn workload_kind(&self) -> Option<WorkloadKind> {
        WorkloadKind::of(&self.group, &self.kind)
    }

    /// The same name in another kind.
    pub fn new(namespace: &str, kind: WorkloadKind, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            group: kind.group().to_owned(),
            kind: kind.as_str().to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for TargetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
