//! Namespaces and the ConfigMaps that configure them (webhook §7.3), parsed when they change.

use std::{collections::BTreeMap, sync::Arc};

use api_types::{
    names::{configmap, label},
    namespace_config::RuntimeConfig,
    yaml::YamlError,
};
use k8s_openapi::api::core::v1::ConfigMap;

use super::table::Table;

type Labels = BTreeMap<String, String>;
type Data = BTreeMap<String, String>;

/// The one row of a table that has one object per namespace.
const ONE: &str = "";

/// Which of the three namespace ConfigMaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceMap {
    /// `authbridge-config`.
    Authbridge,
    /// `authbridge-runtime-config`.
    Runtime,
    /// `spiffe-helper-config`.
    Helper,
}

impl NamespaceMap {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Authbridge, Self::Runtime, Self::Helper];

    /// Name of the ConfigMap.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authbridge => configmap::AUTHBRIDGE,
            Self::Runtime => configmap::AUTHBRIDGE_RUNTIME,
            Self::Helper => configmap::SPIFFE_HELPER,
        }
    }
}

/// Configuration of one namespace as one admission sees it.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Data of `authbridge-config`.
    pub authbridge: Option<Arc<Data>>,
    /// Parsed `authbridge-runtime-config`, or why it does not parse.
    pub runtime: Option<Arc<Result<RuntimeConfig, YamlError>>>,
    /// `helper.conf` of `spiffe-helper-config`.
    pub helper: Option<Arc<str>>,
}

/// Namespaces by name.
#[derive(Debug, Default)]
pub struct NamespaceStates {
    /// Labels of each Namespace.
    pub labels: Table<Arc<Labels>>,
    authbridge: Table<Arc<Data>>,
    runtime: Table<Arc<Result<RuntimeConfig, YamlError>>>,
    helper: Table<Arc<str>>,
}

impl NamespaceStates {
    /// Labels of a namespace; `None` = not known (yet).
    pub fn labels_of(&self, namespace: &str) -> Option<Arc<Labels>> {
        self.labels.get(namespace, ONE)
    }

    /// A Namespace exists with these labels.
    pub fn put_labels(&self, namespace: &str, labels: Labels) {
        self.labels.put(namespace, ONE, Arc::new(labels));
    }

    /// A Namespace is gone.
    pub fn remove_labels(&self, namespace: &str) {
        self.labels.remove(namespace, ONE);
    }

    /// The configuration of a namespace; what is absent is empty.
    pub fn config(&self, namespace: &str) -> NamespaceConfig {
        NamespaceConfig {
            authbridge: self.authbridge.get(namespace, ONE),
            runtime: self.runtime.get(namespace, ONE),
            helper: self.helper.get(namespace, ONE),
        }
    }

    /// A namespace ConfigMap exists with this content. Returns the parse error of a
    /// `config.yaml` that has one.
    pub fn put_map(&self, which: NamespaceMap, namespace: &str, map: ConfigMap) -> Option<YamlError> {
        let mut data = map.data.unwrap_or_default();
        match which {
            NamespaceMap::Authbridge => {
                self.authbridge.put(namespace, ONE, Arc::new(data));
                None
            }
            NamespaceMap::Runtime => {
                let text = data.remove(configmap::CONFIG_KEY).unwrap_or_default();
                let parsed = RuntimeConfig::parse(&text);
                let error = parsed.as_ref().err().cloned();
                self.runtime.put(namespace, ONE, Arc::new(parsed));
                error
            }
            NamespaceMap::Helper => {
                match data.remove(configmap::HELPER_KEY) {
                    Some(text) => self.helper.put(namespace, ONE, text.into()),
                    None => self.helper.remove(namespace, ONE),
                };
                None
            }
        }
    }

    /// A namespace ConfigMap is gone.
    pub fn remove_map(&self, which: NamespaceMap, namespace: &str) {
        match which {
            NamespaceMap::Authbridge => drop(self.authbridge.remove(namespace, ONE)),
            NamespaceMap::Runtime => drop(self.runtime.remove(namespace, ONE)),
            NamespaceMap::Helper => drop(self.helper.remove(namespace, ONE)),
        }
    }

    /// A relist of one kind of ConfigMap begins.
    pub fn begin_relist(&self, which: NamespaceMap, namespace: Option<&str>) {
        match which {
            NamespaceMap::Authbridge => self.authbridge.begin_relist(namespace),
            NamespaceMap::Runtime => self.runtime.begin_relist(namespace),
            NamespaceMap::Helper => self.helper.begin_relist(namespace),
        }
    }

    /// A relist of one kind of ConfigMap ends.
    pub fn finish_relist(&self, which: NamespaceMap, namespace: Option<&str>) {
        match which {
            NamespaceMap::Authbridge => drop(self.authbridge.finish_relist(namespace)),
            NamespaceMap::Runtime => drop(self.runtime.finish_relist(namespace)),
            NamespaceMap::Helper => drop(self.helper.finish_relist(namespace)),
        }
    }
}

/// The labels of a Namespace that decisions read; the rest need not be kept.
pub fn relevant(labels: Labels) -> Labels {
    let kept = [label::NAMESPACE_ENABLED, label::POD_SECURITY_ENFORCE, label::NAMESPACE_NAME];
    labels.into_iter().filter(|(key, _)| kept.contains(&key.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, value: &str) -> ConfigMap {
        ConfigMap { data: Some([(key.to_owned(), value.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn a_broken_document_is_kept_as_its_error() {
        let states = NamespaceStates::default();
        assert!(states.config("ns").runtime.is_none());
        let error = states.put_map(NamespaceMap::Runtime, "ns", map("config.yaml", "mode: ["));
        assert!(error.is_some());
        let kept = states.config("ns").runtime.unwrap();
        assert!(kept.is_err(), "webhook §7.3: deny, never an empty base");
        assert!(states.put_map(NamespaceMap::Runtime, "ns", map("config.yaml", "mode: lite")).is_none());
        let kept = states.config("ns").runtime.unwrap();
        assert_eq!(kept.as_ref().as_ref().unwrap().mode.as_deref(), Some("lite"));
        states.remove_map(NamespaceMap::Runtime, "ns");
        assert!(states.config("ns").runtime.is_none());
    }

    #[test]
    fn helper_conf_follows_its_key() {
        let states = NamespaceStates::default();
        states.put_map(NamespaceMap::Helper, "ns", map("helper.conf", "x"));
        assert_eq!(states.config("ns").helper.as_deref(), Some("x"));
        states.put_map(NamespaceMap::Helper, "ns", map("other", "x"));
        assert_eq!(states.config("ns").helper, None);
    }
}
