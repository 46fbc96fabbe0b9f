//! A small store of what a component needs of each object, instead of the object.
//!
//! Ten thousand Deployments as whole objects are hundreds of megabytes; as the five fields that
//! matter they are two. A projection also knows what changed, so secondary indexes and triggers are
//! updated per event and nothing ever scans the cluster (design §7, style 1.7).

use std::collections::{HashMap, HashSet};
use std::fmt;

use kube::Resource;
use kube::runtime::watcher::Event;

/// Namespace and name. The namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// What one event did to the projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<V> {
    /// The object is new.
    Added(Key),
    /// Its projection was this and is another now.
    Updated(Key, V),
    /// It is gone; this was its projection.
    Removed(Key, V),
}

impl<V> Change<V> {
    /// The object that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Added(key) | Self::Updated(key, _) | Self::Removed(key, _) => key,
        }
    }

    /// What it was before.
    pub fn before(&self) -> Option<&V> {
        match self {
            Self::Added(_) => None,
            Self::Updated(_, old) | Self::Removed(_, old) => Some(old),
        }
    }
}

/// The projections of the objects of one watch, by key. One watch feeds one projection.
///
/// A new list changes the store object by object and removes at its end what it did not name, so
/// memory does not double and unchanged objects cause no change.
#[derive(Debug)]
pub struct Projection<V> {
    objects: HashMap<Key, V>,
    listed: Option<HashSet<Key>>,
    ready: bool,
}

impl<V> Default for Projection<V> {
    fn default() -> Self {
        Self { objects: HashMap::new(), listed: None, ready: false }
    }
}

impl<V: PartialEq> Projection<V> {
    /// An empty one, not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one event. `project` makes the projection; `None` = not of interest, which removes
    /// what was there. Events that change no projection give no change.
    pub fn apply<K: Resource>(
        &mut self,
        event: Event<K>,
        project: impl FnOnce(K) -> Option<V>,
    ) -> Vec<Change<V>> {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = Key::of(&object);
                let value = project(object);
                if value.is_some()
                    && let Some(listed) = &mut self.listed
                {
                    listed.insert(key.clone());
                }
                self.set(key, value).into_iter().collect()
            }
            Event::InitDone => {
                self.ready = true;
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Key> =
                    self.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.into_iter().filter_map(|key| self.set(key, None)).collect()
            }
            Event::Apply(object) => {
                let key = Key::of(&object);
                let value = project(object);
                self.set(key, value).into_iter().collect()
            }
            Event::Delete(object) => self.set(Key::of(&object), None).into_iter().collect(),
        }
    }

    /// The projection of one object.
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.objects.get(key)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.objects.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// True once the first list was complete. Before, "not found" means nothing.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    fn set(&mut self, key: Key, value: Option<V>) -> Option<Change<V>> {
        match value {
            None => {
                let old = self.objects.remove(&key)?;
                Some(Change::Removed(key, old))
            }
            Some(value) => match self.objects.get_mut(&key) {
                Some(old) if *old == value => None,
                Some(old) => Some(Change::Updated(key, std::mem::replace(old, value))),
                None => {
                    self.objects.insert(key.clone(), value);
                    Some(Change::Added(key))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use std::collections::BTreeMap;

    fn object(name: &str, data: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("ns".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.data = Some(BTreeMap::from([("d".to_owned(), data.to_owned())]));
        object
    }

    fn data(object: ConfigMap) -> Option<String> {
        object.data.and_then(|mut data| data.remove("d")).filter(|data| data != "skip")
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn events_become_changes_of_the_projection_only() {
        let mut store = Projection::new();
        assert_eq!(store.apply(Event::Apply(object("a", "1")), data), [Change::Added(key("a"))]);
        assert_eq!(store.apply(Event::Apply(object("a", "1")), data), [], "same projection");
        assert_eq!(
            store.apply(Event::Apply(object("a", "2")), data),
            [Change::Updated(key("a"), "1".to_owned())]
        );
        assert_eq!(store.apply(Event::Apply(object("b", "skip")), data), []);
        assert_eq!(
            store.apply(Event::Apply(object("a", "skip")), data),
            [Change::Removed(key("a"), "2".to_owned())]
        );
        assert_eq!(store.apply(Event::Delete(object("a", "")), data), [], "not there any more");
    }

    /// Style part 3, "relist": a new list is no storm; what it leaves out is gone.
    #[test]
    fn a_new_list_changes_only_what_differs() {
        let mut store = Projection::new();
        let list = |store: &mut Projection<String>, objects: &[(&str, &str)]| {
            let mut changes = store.apply(Event::<ConfigMap>::Init, data);
            for (name, value) in objects {
                changes.extend(store.apply(Event::InitApply(object(name, value)), data));
            }
            changes.extend(store.apply(Event::<ConfigMap>::InitDone, data));
            changes
        };
        assert!(!store.is_ready());
        assert_eq!(list(&mut store, &[("a", "1"), ("b", "1"), ("c", "1")]).len(), 3);
        assert!(store.is_ready());
        let changes = list(&mut store, &[("a", "1"), ("b", "2"), ("c", "skip")]);
        assert_eq!(
            changes,
            [Change::Updated(key("b"), "1".to_owned()), Change::Removed(key("c"), "1".to_owned())]
        );
        assert_eq!(list(&mut store, &[("b", "2")]), [Change::Removed(key("a"), "1".to_owned())]);
        assert_eq!(store.len(), 1);
    }
}
