//! Which namespaces a process may look at.
//!
//! With a list every watch is namespaced and nothing outside is ever read, so a Role per namespace
//! is all the process needs (runtime §19.4, packaging §7).

use kube::core::{DynamicResourceScope, NamespaceResourceScope};
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource};
use sha2::{Digest, Sha256};

/// The whole cluster, or a list of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace.
    #[default]
    Cluster,
    /// Only these: sorted, without duplicates, never empty.
    Namespaces(Vec<String>),
}

/// The objects of one namespace, or of all when `None`.
pub fn api_in<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// As [`api_in`], for a kind that is known at run time only.
pub fn dynamic_api_in<K>(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = DynamicResourceScope, DynamicType = ApiResource>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// A list of namespaces that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{name:?} is not a namespace name: use lower-case letters, digits and '-', at most 63 characters, no '-' at the ends"
)]
pub struct ScopeError {
    /// The entry that is wrong.
    pub name: String,
}

impl Scope {
    /// Reads `--watch-namespaces`: comma separated, blanks trimmed, empties and duplicates dropped;
    /// nothing left = the whole cluster. An invalid DNS label is an error.
    pub fn parse(list: &str) -> Result<Self, ScopeError> {
        let mut names: Vec<String> =
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(name) = names.iter().find(|name| !is_dns_label(name)) {
            return Err(ScopeError { name: name.clone() });
        }
        Ok(if names.is_empty() { Self::Cluster } else { Self::Namespaces(names) })
    }

    /// True when the process is limited to a list.
    pub fn is_namespaced(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// The list; empty for the whole cluster.
    pub fn namespaces(&self) -> &[String] {
        match self {
            Self::Cluster => &[],
            Self::Namespaces(names) => names,
        }
    }

    /// Whether objects of namespace `namespace` are ours.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(names) => names.binary_search_by(|name| name.as_str().cmp(namespace)).is_ok(),
        }
    }

    /// One API handle per watch: a single cluster-wide one, or one per listed namespace.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
    {
        match self {
            Self::Cluster => vec![Api::all(client.clone())],
            Self::Namespaces(names) => names.iter().map(|ns| Api::namespaced(client.clone(), ns)).collect(),
        }
    }

    /// Suffix of the Lease name: empty, or `-` and 8 hex digits of the sorted list, so that releases
    /// with disjoint lists do not share a Lease (packaging §12).
    pub fn lease_suffix(&self) -> String {
        match self {
            Self::Cluster => String::new(),
            Self::Namespaces(names) => {
                let mut digest = hex::encode(Sha256::digest(names.join(",")));
                digest.truncate(8);
                format!("-{digest}")
            }
        }
    }
}

fn is_dns_label(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Packaging §7: comma list, blanks trimmed, empties and duplicates dropped.
    #[rstest]
    #[case("", &[])]
    #[case(" , ,", &[])]
    #[case("b, a,,b ", &["a", "b"])]
    fn lists_are_cleaned(#[case] list: &str, #[case] want: &[&str]) {
        let scope = Scope::parse(list).unwrap();
        assert_eq!(scope.namespaces(), want);
        assert_eq!(scope.is_namespaced(), !want.is_empty());
    }

    #[rstest]
    #[case("Team1")]
    #[case("a,-b")]
    #[case("a_b")]
    #[case("a.b")]
    #[case("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
    fn an_invalid_dns_label_is_fatal(#[case] list: &str) {
        Scope::parse(list).unwrap_err();
    }

    #[test]
    fn only_listed_namespaces_are_ours() {
        let scope = Scope::parse("team2,team1").unwrap();
        assert!(scope.contains("team1") && scope.contains("team2") && !scope.contains("team3"));
        assert!(Scope::Cluster.contains("anything"));
    }

    /// Packaging §12: the suffix depends on the set, not on the order it was written in.
    #[test]
    fn the_lease_suffix_is_eight_hex_digits_of_the_sorted_list() {
        let suffix = Scope::parse("team2,team1").unwrap().lease_suffix();
        assert_eq!(suffix, Scope::parse("team1, team2").unwrap().lease_suffix());
        assert_ne!(suffix, Scope::parse("team1").unwrap().lease_suffix());
        assert_eq!(suffix.len(), 9);
        assert!(suffix.starts_with('-') && suffix[1..].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(Scope::Cluster.lease_suffix(), "");
    }
}
