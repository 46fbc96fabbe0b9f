//! AgentRuntimes and AgentCards by the workload they name (webhook §7.4, README decision 27).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use api_types::{
    AgentCard, AgentRuntime, AgentRuntimeSpec, TargetRef,
    duplicates::{self, Claim},
    owner::Workload,
};
use jiff::Timestamp;

use super::table::Table;

/// One object that names a workload.
#[derive(Debug)]
pub struct Targeting<P> {
    /// Name of the object.
    pub name: Box<str>,
    /// UID of the object.
    pub uid: Box<str>,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
    /// The workload it names; `None` for a card without target.
    pub target: Option<TargetRef>,
    /// What else decisions need of it.
    pub payload: P,
}

type Entry<P> = Arc<Targeting<P>>;
/// Namespace, target name -> the objects that name it.
type ByTarget<P> = HashMap<Box<str>, HashMap<Box<str>, Vec<Entry<P>>>>;

/// Objects by their own name and by their target's name.
#[derive(Debug)]
pub struct Targets<P> {
    by_name: Table<Entry<P>>,
    by_target: RwLock<ByTarget<P>>,
}

impl<P> Default for Targets<P> {
    fn default() -> Self {
        Self { by_name: Table::default(), by_target: RwLock::default() }
    }
}

/// AgentRuntimes with their spec.
pub type RuntimeTargets = Targets<AgentRuntimeSpec>;
/// AgentCards; their target is all that is needed.
pub type CardTargets = Targets<()>;

impl<P> Targets<P> {
    /// Puts an object.
    pub fn put(&self, namespace: &str, entry: Targeting<P>) {
        let entry = Arc::new(entry);
        let old = self.by_name.put(namespace, &entry.name, entry.clone());
        let mut index = self.by_target.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = old {
            unlink(&mut index, namespace, &old);
        }
        if let Some(target) = &entry.target {
            let names = index.entry(namespace.into()).or_default();
            names.entry(target.name.as_str().into()).or_default().push(entry);
        }
    }

    /// Drops an object.
    pub fn remove(&self, namespace: &str, name: &str) {
        if let Some(old) = self.by_name.remove(namespace, name) {
            let mut index = self.by_target.write().unwrap_or_else(PoisonError::into_inner);
            unlink(&mut index, namespace, &old);
        }
    }

    /// Starts a relist of one namespace, or of everything.
    pub fn begin_relist(&self, namespace: Option<&str>) {
        self.by_name.begin_relist(namespace);
    }

    /// Ends a relist of one namespace, or of everything.
    pub fn finish_relist(&self, namespace: Option<&str>) {
        let gone = self.by_name.finish_relist(namespace);
        let mut index = self.by_target.write().unwrap_or_else(PoisonError::into_inner);
        for (space, _, old) in gone {
            unlink(&mut index, &space, &old);
        }
    }

    /// All objects of the namespace that name a workload of that name, whatever its kind.
    pub fn naming(&self, namespace: &str, target: &str) -> Vec<Entry<P>> {
        let index = self.by_target.read().unwrap_or_else(PoisonError::into_inner);
        index.get(namespace).and_then(|names| names.get(target)).cloned().unwrap_or_default()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn unlink<P>(index: &mut ByTarget<P>, namespace: &str, old: &Entry<P>) {
    let Some(target) = &old.target else { return };
    let Some(names) = index.get_mut(namespace) else { return };
    if let Some(entries) = names.get_mut(target.name.as_str()) {
        entries.retain(|entry| !Arc::ptr_eq(entry, old));
        if entries.is_empty() {
            names.remove(target.name.as_str());
        }
    }
    if names.is_empty() {
        index.remove(namespace);
    }
}

/// The AgentRuntime of a workload and, when others name it too, that it is not the only one.
#[derive(Clone, Debug)]
pub struct Match {
    /// The chosen one: oldest, then smallest name.
    pub runtime: Entry<AgentRuntimeSpec>,
    /// Another AgentRuntime names the same workload.
    pub ambiguous: bool,
}

impl Targets<AgentRuntimeSpec> {
    /// The AgentRuntime for a workload (webhook §7.4): same name, kind and group, version ignored; an
    /// unknown kind matches by name only; those being deleted count for nothing.
    pub fn matching(&self, namespace: &str, workload: &Workload) -> Option<Match> {
        choose(self.naming(namespace, &workload.name), workload)
    }
}

/// Chooses among AgentRuntimes that may name the workload.
pub fn choose(
    candidates: impl IntoIterator<Item = Entry<AgentRuntimeSpec>>,
    workload: &Workload,
) -> Option<Match> {
    let matching: Vec<_> =
        candidates.into_iter().filter(|entry| !entry.terminating && names(entry, workload)).collect();
    let claim =
        |entry: &'_ Entry<AgentRuntimeSpec>| (entry.created.unwrap_or(Timestamp::MAX), entry.name.clone());
    let ambiguous = matching.len() > 1;
    let runtime = matching.into_iter().min_by_key(claim)?;
    Some(Match { runtime, ambiguous })
}

fn names<P>(entry: &Targeting<P>, workload: &Workload) -> bool {
    let Some(target) = &entry.target else { return false };
    target.name == workload.name
        && (workload.kind.is_empty()
            || (target.kind == workload.kind && target.group() == Some(workload.group.as_str())))
}

impl From<AgentRuntime> for Targeting<AgentRuntimeSpec> {
    fn from(runtime: AgentRuntime) -> Self {
        let claim = Claim::of_runtime(&runtime);
        let (created, terminating) = (claim.created, claim.terminating);
        Self {
            name: runtime.metadata.name.unwrap_or_default().into(),
            uid: runtime.metadata.uid.unwrap_or_default().into(),
            created,
            terminating,
            target: Some(runtime.spec.target_ref.clone()),
            payload: runtime.spec,
        }
    }
}

impl From<AgentCard> for Targeting<()> {
    fn from(card: AgentCard) -> Self {
        let claim = Claim::of_card(&card);
        let (created, terminating) = (claim.created, claim.terminating);
        Self {
            name: card.metadata.name.unwrap_or_default().into(),
            uid: card.metadata.uid.unwrap_or_default().into(),
            created,
            terminating,
            target: card.spec.target_ref,
            payload: (),
        }
    }
}

impl<P> Targeting<P> {
    /// Whether this object, not being deleted, names the target (runtime §9.1).
    pub fn claims(&self, target: &TargetRef) -> bool {
        !self.terminating && self.target.as_ref().is_some_and(|own| duplicates::same_target(own, target))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn runtime(name: &str, created: &str, api_version: &str, kind: &str, target: &str) -> AgentRuntime {
        serde_json::from_value(json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": created},
            "spec": {"type": "agent", "targetRef": {"apiVersion": api_version, "kind": kind, "name": target}},
        }))
        .unwrap()
    }

    fn workload(group: &str, kind: &str) -> Workload {
        Workload { group: group.into(), kind: kind.into(), name: "w".into() }
    }

    fn filled() -> RuntimeTargets {
        let targets = RuntimeTargets::default();
        targets.put("ns", runtime("young", "2026-01-02T00:00:00Z", "apps/v1", "Deployment", "w").into());
        targets.put("ns", runtime("old", "2026-01-01T00:00:00Z", "apps/v1beta1", "Deployment", "w").into());
        targets.put("ns", runtime("set", "2025-01-01T00:00:00Z", "apps/v1", "StatefulSet", "w").into());
        targets
    }

    /// Webhook §7.4: version ignored, oldest first, kind and group must agree unless unknown.
    #[rstest]
    #[case("apps", "Deployment", Some(("old", true)))]
    #[case("apps", "StatefulSet", Some(("set", false)))]
    #[case("agents.x-k8s.io", "Sandbox", None)]
    #[case("", "", Some(("set", true)))]
    fn the_oldest_match_is_chosen(
        #[case] group: &str,
        #[case] kind: &str,
        #[case] want: Option<(&str, bool)>,
    ) {
        let found = filled().matching("ns", &workload(group, kind));
        assert_eq!(found.as_ref().map(|m| (&*m.runtime.name, m.ambiguous)), want);
        assert!(filled().matching("elsewhere", &workload(group, kind)).is_none());
    }

    #[test]
    fn a_changed_target_and_a_deletion_leave_the_index() {
        let targets = filled();
        targets.put("ns", runtime("old", "2026-01-01T00:00:00Z", "apps/v1", "Deployment", "other").into());
        assert_eq!(targets.naming("ns", "w").len(), 2);
        assert_eq!(targets.naming("ns", "other").len(), 1);
        targets.remove("ns", "young");
        targets.begin_relist(None);
        targets.put("ns", runtime("set", "2025-01-01T00:00:00Z", "apps/v1", "StatefulSet", "w").into());
        targets.finish_relist(None);
        assert_eq!((targets.naming("ns", "w").len(), targets.naming("ns", "other").len()), (1, 0));
        assert_eq!(targets.len(), 1);
    }

    #[test]
    fn one_being_deleted_counts_for_nothing() {
        let targets = RuntimeTargets::default();
        let mut dying = runtime("dying", "2026-01-01T00:00:00Z", "apps/v1", "Deployment", "w");
        dying.metadata.deletion_timestamp = dying.metadata.creation_timestamp.clone();
        targets.put("ns", dying.into());
        assert!(targets.matching("ns", &workload("apps", "Deployment")).is_none());
    }
}
