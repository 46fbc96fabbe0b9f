//! Attributes of clients and scopes: Keycloak shows them as text or as a list with one text.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Prefix of the attributes that are ours.
pub const PREFIX: &str = "kagenti.";
/// Who registered it.
pub const MANAGED_BY: &str = "kagenti.managed-by";
/// For which cluster.
pub const CLUSTER_ID: &str = "kagenti.cluster-id";
/// For which workload: `<namespace>/<kind>/<name>`.
pub const WORKLOAD: &str = "kagenti.workload";
/// `true` on a client that was there before.
pub const ADOPTED: &str = "kagenti.adopted";
/// `hardened` on a client that was made without browser and password flow.
pub const GRANT_PROFILE: &str = "kagenti.grant-profile";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "client-registration-ctl";

/// Attributes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// A value that is not blank: Keycloak removes blank ones.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// True when there is one of ours.
    pub fn has_ours(&self) -> bool {
        self.0.iter().any(|(name, value)| name.starts_with(PREFIX) && !value.trim().is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Attributes {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    One(String),
    Many(Vec<String>),
    Other(serde::de::IgnoredAny),
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
        let text = |value| match value {
            Value::One(text) => Some(text),
            Value::Many(texts) => texts.into_iter().next(),
            Value::Other(_) => None,
        };
        Ok(Self(map.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect()))
    }
}

/// The workload that an attribute names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadMark {
    /// Namespace.
    pub namespace: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl WorkloadMark {
    /// Reads `<namespace>/<kind>/<name>`.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('/').filter(|part| !part.is_empty());
        let mark = Self {
            namespace: parts.next()?.to_owned(),
            kind: parts.next()?.to_owned(),
            name: parts.next()?.to_owned(),
        };
        parts.next().is_none().then_some(mark)
    }
}

impl std::fmt::Display for WorkloadMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_or_list() {
        let attributes: Attributes =
            serde_json::from_value(json!({"a": "1", "b": ["2", "3"], "c": [], "d": "", "e": 7})).unwrap();
        assert_eq!(attributes, Attributes::from([("a", "1"), ("b", "2"), ("d", "")]));
        assert_eq!((attributes.get("b"), attributes.get("d")), (Some("2"), None));
        assert_eq!(serde_json::from_value::<Attributes>(json!(null)).unwrap(), Attributes::default());
    }

    #[test]
    fn marks() {
        let mark = WorkloadMark::read("team1/Deployment/w").unwrap();
        assert_eq!(mark.to_string(), "team1/Deployment/w");
        assert_eq!(WorkloadMark::read("team1/w"), None);
        assert_eq!(WorkloadMark::read("a/b/c/d"), None);
    }
}
