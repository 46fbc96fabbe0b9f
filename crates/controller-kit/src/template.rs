//! A pod template as controllers read it: labels, annotations and what they look at of the pod spec, nothing else.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The part of a pod template that matters; `S` is the part of its pod spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateView<S: Default = PodSpecView> {
    /// Labels and annotations; a Sandbox may have none.
    pub metadata: Option<TemplateMeta>,
    /// The part of the pod spec that matters.
    pub spec: S,
}

/// Labels and annotations of a pod template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The part of a pod spec that the identity of the Pods depends on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecView {
    /// ServiceAccount of the Pods.
    pub service_account_name: Option<String>,
    /// Shares the node's network.
    pub host_network: Option<bool>,
}

/// Labels or annotations, kept small: an index has two of these for every workload of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    /// Keeps the keys that are `wanted`.
    pub fn keep(map: Option<BTreeMap<String, String>>, wanted: impl Fn(&str) -> bool) -> Self {
        let kept = map.into_iter().flatten().filter(|(key, _)| wanted(key));
        Self(kept.map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *key).map(|(_, value)| &**value)
    }

    /// As a map, for decisions that several components share.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_without_metadata_reads() {
        let view: TemplateView = serde_json::from_value(json!({"spec": {"hostNetwork": true}})).unwrap();
        assert!(view.metadata.is_none() && view.spec.host_network == Some(true));
        let null: TemplateView = serde_json::from_value(json!({"metadata": null})).unwrap();
        assert!(null.metadata.is_none());
    }

    #[test]
    fn pairs_keep_what_is_wanted() {
        let map = BTreeMap::from([("a/x".to_owned(), "1".to_owned()), ("b/y".to_owned(), "2".to_owned())]);
        let pairs = Pairs::keep(Some(map), |key| key.starts_with("a/"));
        assert_eq!((pairs.get("a/x"), pairs.get("b/y")), (Some("1"), None));
        assert_eq!(pairs.to_map().len(), 1);
        assert_eq!(Pairs::keep(None, |_| true), Pairs::default());
    }
}
