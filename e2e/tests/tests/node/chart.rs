//! Real Helm with the charts of this clone.

pub(crate) use local_cluster::Helm;

/// Name of the release, as in the README.
pub(crate) const RELEASE: &str = "kagenti-operator";
/// Its namespace.
pub(crate) const NAMESPACE: &str = "kagenti-system";
