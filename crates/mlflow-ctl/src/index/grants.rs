//! Roles and RoleBindings with our label, by the workload that their name leads to.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use controller_kit::index::is_older;

use crate::{
    grant::{BindingState, Marks, RoleState},
    workload::WorkloadKey,
};

/// One of the two kinds.
pub trait Grant: Clone + PartialEq {
    /// Whose it is.
    fn marks(&self) -> &Marks;
    /// Equal but for the version.
    fn same(&self, other: &Self) -> bool;
}

impl Grant for RoleState {
    fn marks(&self) -> &Marks {
        &self.marks
    }
    fn same(&self, other: &Self) -> bool {
        self.experiment == other.experiment && same_marks(&self.marks, &other.marks)
    }
}

impl Grant for BindingState {
    fn marks(&self) -> &Marks {
        &self.marks
    }
    fn same(&self, other: &Self) -> bool {
        (&self.role, &self.service_account) == (&other.role, &other.service_account)
            && same_marks(&self.marks, &other.marks)
    }
}

fn same_marks(a: &Marks, b: &Marks) -> bool {
    (&a.uid, a.labelled, &a.owners) == (&b.uid, b.labelled, &b.owners)
}

/// Objects of one kind.
#[derive(Debug)]
pub struct GrantMap<G>(Mutex<HashMap<WorkloadKey, G>>);

impl<G> Default for GrantMap<G> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<G: Grant> GrantMap<G> {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadKey, G>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an object; true when it says something else than before.
    pub fn upsert(&self, key: &WorkloadKey, grant: G) -> bool {
        let mut map = self.lock();
        let old = map.get(key);
        let marks = grant.marks();
        // Of two lives of an object the newer one counts, whatever their versions are.
        let older = |old: &G| {
            old.marks().uid == marks.uid && is_older(&marks.resource_version, &old.marks().resource_version)
        };
        if old.is_some_and(older) {
            return false;
        }
        let changed = old.is_none_or(|old| !old.same(&grant));
        map.insert(key.clone(), grant);
        changed
    }

    /// Removes an object, unless a newer one of another uid took its place.
    pub fn remove(&self, key: &WorkloadKey, uid: &str) -> bool {
        let mut map = self.lock();
        let gone = map.get(key).is_some_and(|known| known.marks().uid == uid);
        if gone {
            map.remove(key);
        }
        gone
    }

    /// After a new list of `namespace` (all, when `None`): removes what was not in it.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<WorkloadKey>) -> Vec<WorkloadKey> {
        let mut gone = Vec::new();
        self.lock().retain(|key, _| {
            let keep = namespace.is_some_and(|ns| key.namespace != ns) || seen.contains(key);
            if !keep {
                gone.push(key.clone());
            }
            keep
        });
        gone
    }

    /// One object.
    pub fn get(&self, key: &WorkloadKey) -> Option<G> {
        self.lock().get(key).cloned()
    }

    /// Workloads that have one.
    pub fn keys(&self) -> Vec<WorkloadKey> {
        self.lock().keys().cloned().collect()
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct Grants {
    /// Roles.
    pub roles: GrantMap<RoleState>,
    /// RoleBindings.
    pub bindings: GrantMap<BindingState>,
}

impl Grants {
    /// Workloads that have any of the two.
    pub fn workloads(&self) -> HashSet<WorkloadKey> {
        self.roles.keys().into_iter().chain(self.bindings.keys()).collect()
    }

    /// A workload has any of the two.
    pub fn has(&self, key: &WorkloadKey) -> bool {
        self.roles.get(key).is_some() || self.bindings.get(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::WorkloadKind;

    fn role(uid: &str, version: &str, experiment: &str) -> RoleState {
        let marks = Marks { uid: uid.into(), resource_version: version.into(), ..Marks::default() };
        RoleState { marks, experiment: Some(experiment.into()) }
    }

    #[test]
    fn news_are_told_and_late_events_are_not() {
        let map = GrantMap::default();
        let key = WorkloadKey { namespace: "a".into(), kind: WorkloadKind::Deployment, name: "w".into() };
        assert!(map.upsert(&key, role("1", "5", "x")));
        assert!(!map.upsert(&key, role("1", "6", "x")), "only the version");
        assert!(!map.upsert(&key, role("1", "4", "y")), "older");
        assert!(map.upsert(&key, role("2", "3", "y")), "another object");
        assert!(!map.remove(&key, "1"), "the deletion of the former one");
        assert!(map.remove(&key, "2"));
        map.upsert(&key, role("3", "9", "x"));
        assert_eq!(map.retain(Some("b"), &HashSet::new()), []);
        assert_eq!(map.retain(None, &HashSet::new()), [key]);
    }
}
