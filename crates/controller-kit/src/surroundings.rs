//! What the shared injection decision asks besides the workload (webhook §8; MLflow §6.3): the gates and platform
//! configuration of the suite, two ConfigMaps and the labels of the namespace, and whether SPIRE is installed.
//!
//! For components that must know how a pod of a template will look, its ServiceAccount above all, without being the
//! webhook. What was parsed once stays in force when a new version does not parse (but see [`Surroundings::gates`]).

mod watches;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api_types::AgentRuntimeSpec;
use api_types::gates::FeatureGates;
use api_types::injection::{self, ClusterFacts, Decision, NamespaceFacts, PodFacts, RuntimeDocument};
use api_types::names::{configmap, label};
use api_types::namespace_config::{AuthbridgeConfig, RuntimeConfig};
use api_types::platform::PlatformConfig;
use api_types::yaml::{Parsed, YamlError};

use crate::controller::PassError;
use crate::sources::{Sources, State};

pub use watches::{Wake, tasks};

type Data = BTreeMap<String, String>;

/// One input, which is one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// Namespaces.
    Namespaces,
    /// ConfigMap `kagenti-feature-gates` of the suite.
    Gates,
    /// ConfigMap `kagenti-platform-config` of the suite.
    Platform,
    /// ConfigMap `authbridge-config` of each namespace.
    Authbridge,
    /// ConfigMap `authbridge-runtime-config` of each namespace.
    Runtime,
    /// CSIDriver `csi.spiffe.io`.
    Spire,
}

impl Input {
    const ALL: [Self; 6] =
        [Self::Namespaces, Self::Gates, Self::Platform, Self::Authbridge, Self::Runtime, Self::Spire];

    /// Name of the ConfigMap; `None` for the inputs that are none.
    const fn config_map(self) -> Option<&'static str> {
        match self {
            Self::Gates => Some(configmap::FEATURE_GATES),
            Self::Platform => Some(configmap::PLATFORM),
            Self::Authbridge => Some(configmap::AUTHBRIDGE),
            Self::Runtime => Some(configmap::AUTHBRIDGE_RUNTIME),
            Self::Namespaces | Self::Spire => None,
        }
    }

    /// For messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Spire => "csidrivers",
            Self::Gates => configmap::FEATURE_GATES,
            Self::Platform => configmap::PLATFORM,
            Self::Authbridge => configmap::AUTHBRIDGE,
            Self::Runtime => configmap::AUTHBRIDGE_RUNTIME,
        }
    }
}

/// What is known of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// It exists.
    Known,
    /// It is being deleted.
    Terminating,
    /// It does not exist.
    Absent,
    /// Namespaces cannot be read (packaging §7): its labels count as absent.
    Unreadable,
}

/// An input has not been read yet, so nothing can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady(pub Input);

impl From<NotReady> for PassError {
    fn from(NotReady(input): NotReady) -> Self {
        Self::NotSynced(input.describe())
    }
}

/// The index; filled by the [`tasks`].
#[derive(Debug)]
pub struct Surroundings {
    operator_namespace: String,
    sources: Sources<Input>,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    gates: FeatureGates,
    /// The gates of the present ConfigMap, the defaults where it cannot be read.
    present_gates: FeatureGates,
    platform: Arc<PlatformConfig>,
    spire: bool,
    namespaces: HashMap<String, Namespace>,
    /// Where namespaces may not be read.
    unreadable: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    meta: Option<NamespaceMeta>,
    authbridge: Option<Arc<Data>>,
    runtime: Option<Arc<Result<RuntimeConfig, YamlError>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamespaceMeta {
    /// Only [`label::NAMESPACE_ENABLED`], which is all the decision looks at.
    labels: Arc<Data>,
    terminating: bool,
}

impl Namespace {
    fn is_enabled(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| {
            !meta.terminating
                && meta.labels.get(label::NAMESPACE_ENABLED).is_some_and(|value| value == "true")
        })
    }

    fn is_empty(&self) -> bool {
        self.meta.is_none() && self.authbridge.is_none() && self.runtime.is_none()
    }
}

impl Surroundings {
    /// Nothing is known; `operator_namespace` is where the two ConfigMaps of the suite live.
    pub fn new(operator_namespace: &str) -> Self {
        Self {
            operator_namespace: operator_namespace.to_owned(),
            sources: Sources::default(),
            inner: RwLock::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every input has been read once or is known to be refused, at most after `patience`.
    pub async fn settled(&self, patience: std::time::Duration) {
        self.sources.settled(patience).await;
    }

    /// The state of a namespace.
    ///
    /// # Errors
    /// [`NotReady`] before the first list.
    pub fn namespace(&self, name: &str) -> Result<NamespaceState, NotReady> {
        self.ready(Input::Namespaces, name)?;
        let inner = self.read();
        Ok(match inner.namespaces.get(name).and_then(|known| known.meta.as_ref()) {
            Some(meta) if meta.terminating => NamespaceState::Terminating,
            Some(_) => NamespaceState::Known,
            None if inner.unreadable => NamespaceState::Unreadable,
            None => NamespaceState::Absent,
        })
    }

    /// The shared decision about a pod template of a namespace; `runtime` is the AgentRuntime that targets the
    /// workload.
    ///
    /// # Errors
    /// [`NotReady`] while an input has never been read: to decide without it could name a wrong ServiceAccount.
    pub fn decide(
        &self,
        namespace: &str,
        pod: PodFacts<'_>,
        runtime: Option<&AgentRuntimeSpec>,
    ) -> Result<Decision, NotReady> {
        for input in Input::ALL {
            self.ready(input, namespace)?;
        }
        let inner = self.read();
        let known = inner.namespaces.get(namespace);
        let document = known.and_then(|known| known.runtime.as_deref());
        Ok(injection::decide(&injection::Inputs {
            cluster: ClusterFacts {
                gates: &inner.gates,
                platform: &inner.platform,
                spire_driver: inner.spire,
                operator_namespace: &self.operator_namespace,
            },
            namespace: NamespaceFacts {
                name: namespace,
                labels: known.and_then(|known| known.meta.as_ref()).map(|meta| &*meta.labels),
                runtime_config: match document {
                    None => RuntimeDocument::Absent,
                    Some(Ok(config)) => RuntimeDocument::Parsed(config),
                    Some(Err(error)) => RuntimeDocument::Malformed(error),
                },
                authbridge: AuthbridgeConfig(known.and_then(|known| known.authbridge.as_deref())),
            },
            pod,
            runtime,
        }))
    }

    /// The feature gates; the defaults while the ConfigMap is absent, empty or no YAML (client-registration §2.2).
    /// [`Self::decide`] keeps the last good ones then, as the webhook does (webhook §7.2).
    ///
    /// # Errors
    /// [`NotReady`] before they were read once.
    pub fn gates(&self) -> Result<FeatureGates, NotReady> {
        self.ready(Input::Gates, &self.operator_namespace)?;
        Ok(self.read().present_gates)
    }

    /// Data of ConfigMap `authbridge-config` of a namespace; `None` = there is none.
    ///
    /// # Errors
    /// [`NotReady`] before the first list.
    pub fn authbridge(&self, namespace: &str) -> Result<Option<Arc<Data>>, NotReady> {
        self.ready(Input::Authbridge, namespace)?;
        Ok(self.read().namespaces.get(namespace).and_then(|known| known.authbridge.clone()))
    }

    /// The namespaces with label `kagenti-enabled: "true"` that are not being deleted.
    pub fn enabled_namespaces(&self) -> Vec<String> {
        let inner = self.read();
        let enabled = inner.namespaces.iter().filter(|(_, known)| known.is_enabled());
        enabled.map(|(name, _)| name.clone()).collect()
    }

    /// Whether a namespace is one of [`Self::enabled_namespaces`].
    ///
    /// # Errors
    /// [`NotReady`] before the first list.
    pub fn is_enabled(&self, namespace: &str) -> Result<bool, NotReady> {
        self.ready(Input::Namespaces, namespace)?;
        Ok(self.read().namespaces.get(namespace).is_some_and(Namespace::is_enabled))
    }

    fn ready(&self, input: Input, namespace: &str) -> Result<(), NotReady> {
        let scope = match input {
            Input::Gates | Input::Platform => self.operator_namespace.as_str(),
            Input::Namespaces | Input::Authbridge | Input::Runtime | Input::Spire => namespace,
        };
        // A refused input counts as absent (runtime §5.3); one that only fails is waited for.
        if self.sources.state(input, scope) == State::Pending { Err(NotReady(input)) } else { Ok(()) }
    }

    /// A Namespace exists; true when that changes anything.
    pub fn put_namespace(&self, name: &str, labels: Option<&Data>, terminating: bool) -> bool {
        let enabled = labels.and_then(|labels| labels.get_key_value(label::NAMESPACE_ENABLED));
        let labels = enabled.map(|(key, value)| (key.clone(), value.clone())).into_iter().collect();
        let meta = NamespaceMeta { labels: Arc::new(labels), terminating };
        let mut inner = self.write();
        inner.unreadable = false;
        let known = inner.namespaces.entry(name.to_owned()).or_default();
        let changed = known.meta.as_ref() != Some(&meta);
        known.meta = Some(meta);
        changed
    }

    /// A Namespace is gone.
    pub fn remove_namespace(&self, name: &str) {
        self.write().change(name, |known| {
            known.meta = None;
            false
        });
    }

    /// After a new list of Namespaces: the others are gone.
    pub fn retain_namespaces(&self, seen: &HashSet<String>) {
        let mut inner = self.write();
        for (name, known) in &mut inner.namespaces {
            if !seen.contains(name) {
                known.meta = None;
            }
        }
        inner.namespaces.retain(|_, known| !known.is_empty());
    }

    fn set_unreadable(&self) {
        self.write().unreadable = true;
    }

    /// Notes whether the CSIDriver of SPIRE exists; true when that is news.
    pub fn set_spire(&self, present: bool) -> bool {
        std::mem::replace(&mut self.write().spire, present) != present
    }

    /// A ConfigMap has this data, or (`None`) is gone; true when a decision may be another one now.
    pub fn put_config(&self, input: Input, namespace: &str, data: Option<Data>) -> bool {
        let mut inner = self.write();
        match input {
            Input::Gates => {
                let parsed =
                    data.map_or_else(|| Ok(Parsed::default()), |data| FeatureGates::from_data(&data));
                let present = parsed.as_ref().map(|parsed| parsed.value).unwrap_or_default();
                let other = std::mem::replace(&mut inner.present_gates, present) != present;
                let kept = kept_on_error(configmap::FEATURE_GATES, parsed);
                kept.is_some_and(|gates| std::mem::replace(&mut inner.gates, gates) != gates) || other
            }
            Input::Platform => {
                let text = data.and_then(|mut data| data.remove(configmap::CONFIG_KEY));
                let parsed = text.map_or_else(|| Ok(Parsed::default()), |text| PlatformConfig::parse(&text));
                let Some(platform) = kept_on_error(configmap::PLATFORM, parsed) else { return false };
                let changed = *inner.platform != platform;
                inner.platform = Arc::new(platform);
                changed
            }
            Input::Authbridge => inner.change(namespace, |known| {
                let data = data.map(Arc::new);
                let changed = known.authbridge != data;
                known.authbridge = data;
                changed
            }),
            Input::Runtime => inner.change(namespace, |known| {
                let text = data.and_then(|mut data| data.remove(configmap::CONFIG_KEY));
                let parsed = text.map(|text| Arc::new(RuntimeConfig::parse(&text)));
                let changed = known.runtime != parsed;
                known.runtime = parsed;
                changed
            }),
            Input::Namespaces | Input::Spire => false,
        }
    }

    /// After a new list of a ConfigMap in `namespace` (all, when `None`): the namespaces that lost theirs.
    fn retain_config(&self, input: Input, namespace: Option<&str>, seen: &HashSet<String>) -> Vec<String> {
        let held = |known: &Namespace| match input {
            Input::Authbridge => known.authbridge.is_some(),
            Input::Runtime => known.runtime.is_some(),
            Input::Namespaces | Input::Gates | Input::Platform | Input::Spire => false,
        };
        let gone: Vec<String> = if matches!(input, Input::Gates | Input::Platform) {
            let own = &self.operator_namespace;
            (!seen.contains(own)).then(|| own.clone()).into_iter().collect()
        } else {
            let inner = self.read();
            let scoped = inner.namespaces.iter().filter(|(name, known)| {
                namespace.is_none_or(|ns| ns == name.as_str()) && held(known) && !seen.contains(*name)
            });
            scoped.map(|(name, _)| name.clone()).collect()
        };
        gone.into_iter().filter(|name| self.put_config(input, name, None)).collect()
    }

    /// Every input counts as read. For tests that fill the index themselves.
    pub fn assume_read(&self) {
        for input in Input::ALL {
            self.sources.synced(input, None);
        }
    }
}

impl Inner {
    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Namespace) -> bool) -> bool {
        let known = self.namespaces.entry(namespace.to_owned()).or_default();
        let changed = change(known);
        if known.is_empty() {
            self.namespaces.remove(namespace);
        }
        changed
    }
}

fn kept_on_error<T, E: std::fmt::Display>(map: &'static str, parsed: Result<Parsed<T>, E>) -> Option<T> {
    match parsed {
        Ok(parsed) => {
            for line in &parsed.ignored {
                tracing::warn!(config_map = map, "{line}");
            }
            Some(parsed.value)
        }
        Err(error) => {
            let used = match map {
                configmap::FEATURE_GATES => {
                    "the last good ones decide about injection, the defaults about registration"
                }
                _ => "the last good value is used",
            };
            tracing::warn!(config_map = map, "{error}; {used}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn data(key: &str, text: &str) -> Data {
        Data::from([(key.to_owned(), text.to_owned())])
    }

    fn surroundings() -> Surroundings {
        let around = Surroundings::new("kagenti-system");
        around.assume_read();
        around.put_namespace("team1", Some(&data("kagenti-enabled", "true")), false);
        around
    }

    /// The effective ServiceAccount of a template labelled by hand (webhook §11.2).
    fn account(around: &Surroundings, own: Option<&str>) -> String {
        let labels = data("kagenti.io/type", "agent");
        let pod = PodFacts {
            workload: "weather",
            labels: Some(&labels),
            service_account: own,
            ..PodFacts::default()
        };
        around.decide("team1", pod, None).unwrap().service_account
    }

    /// MLflow §6.3: with SPIRE a template without ServiceAccount runs as its workload, otherwise as `default`.
    #[rstest]
    #[case::no_spire(false, None, "default")]
    #[case::spire(true, None, "weather")]
    #[case::own(true, Some("own"), "own")]
    fn the_account_follows_spire(#[case] spire: bool, #[case] own: Option<&str>, #[case] want: &str) {
        let around = surroundings();
        assert_eq!(around.set_spire(spire), spire);
        assert_eq!(account(&around, own), want);
    }

    #[test]
    fn gates_platform_and_namespace_count() {
        let around = surroundings();
        around.set_spire(true);
        assert_eq!(account(&around, None), "weather");
        let off = data("config.yaml", "spiffe:\n  enabled: never\n");
        assert!(around.put_config(Input::Platform, "kagenti-system", Some(off.clone())));
        assert!(!around.put_config(Input::Platform, "kagenti-system", Some(off)), "no news");
        assert_eq!(account(&around, None), "default");
        // What does not parse changes nothing.
        assert!(!around.put_config(Input::Platform, "kagenti-system", Some(data("config.yaml", ": ["))));
        assert_eq!(account(&around, None), "default");
        assert_eq!(
            around.retain_config(Input::Platform, Some("kagenti-system"), &HashSet::new()),
            ["kagenti-system"]
        );
        assert_eq!(account(&around, None), "weather");
        let gates = data("feature-gates.yaml", "globalEnabled: false\n");
        assert!(around.put_config(Input::Gates, "kagenti-system", Some(gates)));
        assert_eq!(account(&around, None), "default");
        assert!(around.put_config(Input::Gates, "kagenti-system", None));
        around.put_namespace("team1", None, false);
        assert_eq!(account(&around, None), "default", "labelled by hand in a namespace that is not enabled");
    }

    /// Client-registration §2.2 takes the defaults where the webhook (§7.2) keeps what it has.
    #[test]
    fn gates_that_are_no_yaml() {
        let around = surroundings();
        let put =
            |text| around.put_config(Input::Gates, "kagenti-system", Some(data("feature-gates.yaml", text)));
        around.set_spire(true);
        assert!(put("globalEnabled: false\ninjectTools: true\n"));
        assert!(!around.gates().unwrap().global_enabled);
        assert!(put("globalEnabled: ["), "news for registration");
        assert_eq!(around.gates(), Ok(FeatureGates::default()));
        assert_eq!(account(&around, None), "default", "nothing is injected, as before");
        assert!(!put("globalEnabled: ["), "no news");
        assert!(put("globalEnabled: true\n"));
        assert_eq!(account(&around, None), "weather");
    }

    /// A wrong ServiceAccount would give somebody else the permission.
    #[test]
    fn nothing_is_decided_before_everything_was_read() {
        let around = Surroundings::new("kagenti-system");
        for input in Input::ALL {
            around.sources.register(input, None);
        }
        for input in Input::ALL {
            assert_eq!(around.decide("team1", PodFacts::default(), None).unwrap_err(), NotReady(input));
            around.sources.synced(input, None);
        }
        around.decide("team1", PodFacts::default(), None).unwrap();
    }

    #[test]
    fn namespaces_come_and_go() {
        let around = surroundings();
        assert_eq!(around.namespace("team1"), Ok(NamespaceState::Known));
        assert!(around.put_namespace("team1", None, true));
        assert_eq!(around.namespace("team1"), Ok(NamespaceState::Terminating));
        around.retain_namespaces(&HashSet::new());
        assert_eq!(around.namespace("team1"), Ok(NamespaceState::Absent));
        around.set_unreadable();
        assert_eq!(around.namespace("team1"), Ok(NamespaceState::Unreadable));
    }
}
