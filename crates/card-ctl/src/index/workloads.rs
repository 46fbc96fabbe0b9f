//! Agent workloads by name and by namespace.

use controller_kit::index::{Entry, Index};

use crate::{kinds::TargetKey, workload::Workload};

/// The index; its links are namespaces.
pub type Workloads = Index<Workload>;

impl Entry for Workload {
    type Key = TargetKey;
    type Link = String;

    fn key(&self) -> &TargetKey {
        &self.key
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn links(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.key.namespace.clone())
    }
}
