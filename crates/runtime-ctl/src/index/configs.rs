//! The ConfigMaps that shape sidecars: two of the suite, five named and any labelled one per namespace (runtime §4).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::{
    config_hash::Data,
    gates::FeatureGates,
    names::{configmap, label},
    platform::PlatformConfig,
    yaml::Parsed,
};

use super::namespace_config::{Inputs, NamespaceConfig};

/// One source of configuration: a watch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// `kagenti-feature-gates` in the operator namespace.
    Gates,
    /// `kagenti-platform-config` in the operator namespace.
    Platform,
    /// `authbridge-config`.
    Authbridge,
    /// `authbridge-runtime-config`.
    Runtime,
    /// `spiffe-helper-config`.
    SpiffeHelper,
    /// `authproxy-routes`.
    Routes,
    /// `envoy-config`.
    Envoy,
    /// ConfigMaps labelled `kagenti.io/defaults=true`.
    Defaults,
}

impl Input {
    /// The inputs of every namespace.
    pub const NAMESPACED: [Self; 6] =
        [Self::Authbridge, Self::Runtime, Self::SpiffeHelper, Self::Routes, Self::Envoy, Self::Defaults];

    /// The inputs of the operator namespace.
    pub const CLUSTER: [Self; 2] = [Self::Gates, Self::Platform];

    /// Name of the ConfigMap; `None` for the labelled ones.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Gates => Some(configmap::FEATURE_GATES),
            Self::Platform => Some(configmap::PLATFORM),
            Self::Authbridge => Some(configmap::AUTHBRIDGE),
            Self::Runtime => Some(configmap::AUTHBRIDGE_RUNTIME),
            Self::SpiffeHelper => Some(configmap::SPIFFE_HELPER),
            Self::Routes => Some(configmap::AUTHPROXY_ROUTES),
            Self::Envoy => Some(configmap::ENVOY),
            Self::Defaults => None,
        }
    }

    /// For messages.
    pub fn describe(self) -> String {
        match self.name() {
            Some(name) => format!("ConfigMap {name}"),
            None => format!("ConfigMaps labelled {}=true", label::DEFAULTS),
        }
    }
}

/// Why an input of a namespace is not known and never was (runtime §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A permission is missing: counts as absent, with a warning.
    Forbidden(String),
    /// The API server does not answer: nothing can be decided.
    Failing(String),
}

/// The index.
#[derive(Debug)]
pub struct Configs {
    operator_namespace: String,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    gates: Option<Arc<Data>>,
    platform: Option<Arc<Data>>,
    parsed_gates: FeatureGates,
    parsed_platform: Arc<PlatformConfig>,
    cluster_warnings: Vec<String>,
    /// Gates of the mounted file, for when the ConfigMap cannot be read.
    gates_file: Option<Arc<Data>>,
    namespaces: HashMap<String, Namespace>,
    /// By input and namespace (`None` = every namespace).
    unreadable: BTreeMap<(Input, Option<String>), Unreadable>,
    /// Computed configurations; dropped when an input changes.
    computed: HashMap<String, Arc<NamespaceConfig>>,
}

#[derive(Debug, Default)]
struct Namespace {
    named: HashMap<Input, Arc<Data>>,
    defaults: BTreeMap<String, Arc<Data>>,
}

impl Configs {
    /// An empty index; `operator_namespace` is where the two ConfigMaps of the suite live.
    pub fn new(operator_namespace: &str) -> Self {
        Self { operator_namespace: operator_namespace.to_owned(), inner: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the data of a ConfigMap; true when it differs from what was known.
    pub fn upsert(&self, input: Input, namespace: &str, name: &str, data: Data) -> bool {
        self.write().put(input, namespace, name, Some(data))
    }

    /// Removes a ConfigMap; true when it was known.
    pub fn remove(&self, input: Input, namespace: &str, name: &str) -> bool {
        self.write().put(input, namespace, name, None)
    }

    /// After a new list of one input in `namespace` (all, when `None`): removes what was not in it; returns the
    /// namespaces that changed.
    pub fn retain(
        &self,
        input: Input,
        namespace: Option<&str>,
        seen: &HashSet<(String, String)>,
    ) -> Vec<String> {
        let mut inner = self.write();
        let gone: Vec<(String, String)> = inner
            .known(input, &self.operator_namespace)
            .filter(|key| namespace.is_none_or(|ns| key.0 == ns) && !seen.contains(key))
            .collect();
        gone.into_iter()
            .filter_map(|(namespace, name)| inner.put(input, &namespace, &name, None).then_some(namespace))
            .collect()
    }

    /// Notes that an input can or cannot be read, in `namespace` or (`None`) everywhere; true when that is news.
    pub fn set_unreadable(&self, input: Input, namespace: Option<&str>, why: Option<Unreadable>) -> bool {
        let mut inner = self.write();
        let key = (input, namespace.map(str::to_owned));
        let changed = match why {
            Some(why) => inner.unreadable.insert(key, why.clone()) != Some(why),
            None => inner.unreadable.remove(&key).is_some(),
        };
        if changed {
            inner.computed.clear();
            if input == Input::Gates {
                inner.reparse();
            }
        }
        changed
    }

    /// Sets the text of the mounted gates file, used only while the ConfigMap cannot be read; true when it counts.
    pub fn set_gates_file(&self, text: Option<String>) -> bool {
        let mut inner = self.write();
        let file = text.map(|text| Arc::new(Data::from([(configmap::GATES_KEY.to_owned(), text)])));
        if inner.gates_file == file {
            return false;
        }
        inner.gates_file = file;
        if !inner.gates_unreadable() {
            return false;
        }
        inner.reparse();
        inner.computed.clear();
        true
    }

    /// Data of a named ConfigMap of a namespace.
    pub fn data(&self, input: Input, namespace: &str) -> Option<Arc<Data>> {
        self.read().namespaces.get(namespace)?.named.get(&input).cloned()
    }

    /// The configuration of a namespace.
    ///
    /// # Errors
    /// What could never be read: object, namespace and reason.
    pub fn resolve(&self, namespace: &str) -> Result<Arc<NamespaceConfig>, String> {
        if let Some(config) = self.read().computed.get(namespace) {
            return Ok(config.clone());
        }
        let mut inner = self.write();
        let mut warnings = inner.cluster_warnings.clone();
        for ((input, scope), why) in &inner.unreadable {
            if scope.as_deref().is_some_and(|scope| scope != namespace) || inner.is_known(*input, namespace) {
                continue;
            }
            match why {
                Unreadable::Failing(error) => {
                    return Err(format!("{} cannot be read: {error}", input.describe()));
                }
                // The mounted file stands in for the gates.
                Unreadable::Forbidden(_) if *input == Input::Gates && inner.gates_file.is_some() => {}
                Unreadable::Forbidden(right) => {
                    warnings.push(format!("{} counts as absent: {right}", input.describe()));
                }
            }
        }
        let maps = inner.namespaces.get(namespace);
        let named = |input: Input| maps.and_then(|maps| maps.named.get(&input).cloned());
        let raw = Inputs {
            namespace: namespace.to_owned(),
            gates: inner.effective_gates(),
            platform: inner.platform.clone(),
            defaults: maps
                .map(|m| m.defaults.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                .unwrap_or_default(),
            authbridge: named(Input::Authbridge),
            runtime: named(Input::Runtime),
            spiffe_helper: named(Input::SpiffeHelper),
            routes: named(Input::Routes),
            envoy: named(Input::Envoy),
        };
        let config = NamespaceConfig::new(raw, inner.parsed_gates, inner.parsed_platform.clone(), warnings);
        let config = Arc::new(config);
        inner.computed.insert(namespace.to_owned(), config.clone());
        Ok(config)
    }

    /// The gates in force.
    pub fn gates(&self) -> FeatureGates {
        self.read().parsed_gates
    }
}

impl Inner {
    fn put(&mut self, input: Input, namespace: &str, name: &str, data: Option<Data>) -> bool {
        let new = data.map(Arc::new);
        let changed = match input {
            Input::Gates => replace(&mut self.gates, new),
            Input::Platform => replace(&mut self.platform, new),
            Input::Defaults => {
                // It is an input of its own, with or without the label (runtime §5.3).
                if name == configmap::AUTHBRIDGE {
                    return false;
                }
                let defaults = &mut self.namespaces.entry(namespace.to_owned()).or_default().defaults;
                match new {
                    Some(new) if defaults.get(name) == Some(&new) => false,
                    Some(new) => defaults.insert(name.to_owned(), new).is_none_or(|_| true),
                    None => defaults.remove(name).is_some(),
                }
            }
            _ => {
                let named = &mut self.namespaces.entry(namespace.to_owned()).or_default().named;
                match new {
                    Some(new) if named.get(&input) == Some(&new) => false,
                    Some(new) => named.insert(input, new).is_none_or(|_| true),
                    None => named.remove(&input).is_some(),
                }
            }
        };
        if self
            .namespaces
            .get(namespace)
            .is_some_and(|maps| maps.named.is_empty() && maps.defaults.is_empty())
        {
            self.namespaces.remove(namespace);
        }
        if changed && Input::CLUSTER.contains(&input) {
            self.reparse();
            self.computed.clear();
        } else if changed {
            self.computed.remove(namespace);
        }
        changed
    }

    fn is_known(&self, input: Input, namespace: &str) -> bool {
        match input {
            Input::Gates => self.gates.is_some(),
            Input::Platform => self.platform.is_some(),
            Input::Defaults => self.namespaces.get(namespace).is_some_and(|maps| !maps.defaults.is_empty()),
            _ => self.namespaces.get(namespace).is_some_and(|maps| maps.named.contains_key(&input)),
        }
    }

    fn known<'a>(
        &'a self,
        input: Input,
        operator_namespace: &'a str,
    ) -> Box<dyn Iterator<Item = (String, String)> + 'a> {
        let name = input.name().unwrap_or_default().to_owned();
        match input {
            Input::Gates | Input::Platform => {
                let present = self.is_known(input, operator_namespace);
                Box::new(present.then(|| (operator_namespace.to_owned(), name)).into_iter())
            }
            Input::Defaults => Box::new(self.namespaces.iter().flat_map(|(namespace, maps)| {
                maps.defaults.keys().map(move |name| (namespace.clone(), name.clone()))
            })),
            _ => Box::new(
                self.namespaces
                    .iter()
                    .filter(move |(_, maps)| maps.named.contains_key(&input))
                    .map(move |(namespace, _)| (namespace.clone(), name.clone())),
            ),
        }
    }

    fn gates_unreadable(&self) -> bool {
        self.gates.is_none() && self.unreadable.keys().any(|(input, _)| *input == Input::Gates)
    }

    fn effective_gates(&self) -> Option<Arc<Data>> {
        if self.gates_unreadable() { self.gates_file.clone() } else { self.gates.clone() }
    }

    /// Parses gates and platform anew; what does not parse keeps the last good value, with a warning.
    fn reparse(&mut self) {
        self.cluster_warnings.clear();
        match self
            .effective_gates()
            .map_or_else(|| Ok(Parsed::default()), |data| FeatureGates::from_data(&data))
        {
            Ok(parsed) => {
                report_ignored(configmap::FEATURE_GATES, &parsed.ignored);
                self.parsed_gates = parsed.value;
            }
            Err(error) => self.warn(configmap::FEATURE_GATES, configmap::GATES_KEY, &error),
        }
        let text = self.platform.as_ref().and_then(|data| data.get(configmap::CONFIG_KEY));
        match text.map_or_else(|| Ok(Parsed::default()), |text| PlatformConfig::parse(text)) {
            Ok(parsed) => {
                report_ignored(configmap::PLATFORM, &parsed.ignored);
                self.parsed_platform = Arc::new(parsed.value);
            }
            Err(error) => self.warn(configmap::PLATFORM, configmap::CONFIG_KEY, &error),
        }
    }

    fn warn(&mut self, map: &str, key: &str, error: &dyn std::error::Error) {
        let mut text = format!("ConfigMap {map}, key {key}: {error}");
        if let Some(source) = error.source() {
            text = format!("{text}: {source}");
        }
        text.push_str("; the last good value is used");
        tracing::warn!(config_map = map, "{text}");
        self.cluster_warnings.push(text);
    }
}

fn replace(slot: &mut Option<Arc<Data>>, new: Option<Arc<Data>>) -> bool {
    let changed = *slot != new;
    *slot = new;
    changed
}

fn report_ignored(map: &str, ignored: &[String]) {
    for line in ignored {
        tracing::warn!(config_map = map, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::config_hash;

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn index() -> Configs {
        Configs::new("kagenti-system")
    }

    /// Runtime §5.3: computed once per (namespace, input versions).
    #[test]
    fn a_configuration_is_computed_once_until_an_input_changes() {
        let index = index();
        let first = index.resolve("a").unwrap();
        let other = index.resolve("b").unwrap();
        assert!(Arc::ptr_eq(&first, &index.resolve("a").unwrap()));
        let mode = || data(&[("config.yaml", "mode: lite\n")]);
        assert!(index.upsert(Input::Runtime, "a", "authbridge-runtime-config", mode()));
        assert!(!index.upsert(Input::Runtime, "a", "authbridge-runtime-config", mode()));
        let second = index.resolve("a").unwrap();
        assert_ne!(first.hash, second.hash);
        assert!(Arc::ptr_eq(&other, &index.resolve("b").unwrap()));
        assert!(index.remove(Input::Runtime, "a", "authbridge-runtime-config"));
        assert_eq!(index.resolve("a").unwrap().hash, first.hash);
        assert!(index.upsert(Input::Platform, "kagenti-system", "kagenti-platform-config", mode()));
        assert_ne!(index.resolve("b").unwrap().hash, other.hash);
    }

    #[test]
    fn gates_of_the_file_count_only_while_the_config_map_cannot_be_read() {
        let index = index();
        let off = "globalEnabled: false\n".to_owned();
        assert!(!index.set_gates_file(Some(off)));
        assert!(index.gates().global_enabled);
        let forbidden = Unreadable::Forbidden("grant get, list, watch".into());
        assert!(index.set_unreadable(Input::Gates, None, Some(forbidden)));
        assert!(!index.gates().global_enabled);
        assert!(index.resolve("a").unwrap().warnings.is_empty());
        index.set_unreadable(Input::Gates, None, None);
        assert!(index.gates().global_enabled);
    }

    /// Runtime §5.3, errors: 403 counts as absent with a warning, anything else is an error until it was read once.
    #[test]
    fn what_cannot_be_read() {
        let index = index();
        let forbidden = Unreadable::Forbidden("grant list, watch".into());
        index.set_unreadable(Input::Envoy, Some("a"), Some(forbidden));
        assert_eq!(
            index.resolve("a").unwrap().warnings,
            ["ConfigMap envoy-config counts as absent: grant list, watch"]
        );
        assert!(index.resolve("b").unwrap().warnings.is_empty());
        index.set_unreadable(Input::Routes, None, Some(Unreadable::Failing("timeout".into())));
        assert_eq!(index.resolve("b").unwrap_err(), "ConfigMap authproxy-routes cannot be read: timeout");
        index.upsert(Input::Routes, "b", "authproxy-routes", data(&[("routes.yaml", "x: 1")]));
        assert!(index.resolve("b").is_ok(), "the last good value is kept");
    }

    #[test]
    fn a_relist_removes_what_is_gone() {
        let index = index();
        for name in ["one", "two"] {
            index.upsert(Input::Defaults, "a", name, data(&[("k", name)]));
        }
        assert!(!index.upsert(Input::Defaults, "a", "authbridge-config", Data::new()));
        let seen = HashSet::from([("a".to_owned(), "two".to_owned())]);
        assert_eq!(index.retain(Input::Defaults, None, &seen), ["a"]);
        assert!(index.retain(Input::Defaults, Some("b"), &HashSet::new()).is_empty());
        assert_eq!(index.retain(Input::Defaults, None, &HashSet::new()), ["a"]);
    }

    /// Runtime §5.2, §5.4: the previous operator labels `authbridge-config` itself, so it is an overlay of v1.
    #[test]
    fn the_previous_operator_hashed_authbridge_config() {
        let index = index();
        let (identity, own) = (data(&[("KEYCLOAK_REALM", "kagenti")]), data(&[("k", "v")]));
        index.upsert(Input::Authbridge, "a", "authbridge-config", identity.clone());
        index.upsert(Input::Authbridge, "b", "authbridge-config", identity.clone());
        index.upsert(Input::Defaults, "b", "own", own.clone());
        let v1 = |overlay: &Data| config_hash::v1(&Data::new(), &Data::new(), overlay, "");
        for (namespace, overlay) in
            [("a", &identity), ("a", &Data::new()), ("b", &identity), ("b", &own), ("b", &Data::new())]
        {
            assert!(index.resolve(namespace).unwrap().is_v1(&v1(overlay)), "{namespace} {overlay:?}");
        }
        assert!(!index.resolve("a").unwrap().is_v1(&v1(&own)));
    }

    #[test]
    fn a_bad_platform_file_keeps_the_last_good_one() {
        let index = index();
        let put =
            |text: &str| index.upsert(Input::Platform, "kagenti-system", "p", data(&[("config.yaml", text)]));
        put("identity: {required: true}\n");
        put("identity: {required: [\n");
        let config = index.resolve("a").unwrap();
        assert!(config.platform.identity.required);
        assert_eq!(
            config.warnings.iter().filter(|w| w.contains("kagenti-platform-config, key config.yaml")).count(),
            1
        );
    }
}
