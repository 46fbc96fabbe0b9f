//! What the watches have seen.

use api_types::{AgentRuntime, AgentRuntimeSpec, enrolment::TargetKind};
use controller_kit::{
    index::{Entry, Index},
    watch::Key,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::{
    conditions::OWNED,
    secret::SecretMeta,
    workload::{Unit, Workload, WorkloadKey},
};

/// All of them.
#[derive(Debug, Default)]
pub struct Indexes {
    /// Workloads, by namespace and name.
    pub workloads: Index<Workload>,
    /// AgentRuntimes, by their target.
    pub runtimes: Index<Runtime>,
    /// Credentials Secrets, by the client's UUID.
    pub secrets: Index<SecretMeta>,
}

/// What is kept of an AgentRuntime.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`, then the name: the oldest one counts.
    pub created: Option<jiff::Timestamp>,
    /// Being deleted.
    pub deleting: bool,
    /// The workload it targets.
    pub target: Option<WorkloadKey>,
    /// Its spec.
    pub spec: AgentRuntimeSpec,
    /// Our conditions on it.
    pub conditions: Vec<Condition>,
}

impl Runtime {
    /// Compacts an AgentRuntime.
    pub fn of(runtime: AgentRuntime) -> Self {
        let target = &runtime.spec.target_ref;
        let group = target.api_version.split_once('/').map_or("", |(group, _)| group);
        let target = TargetKind::of(group, &target.kind).map(|kind| WorkloadKey {
            unit: Unit::new(runtime.namespace().unwrap_or_default(), target.name.clone()),
            kind,
        });
        let key = Key::of(&runtime);
        let conditions = runtime.status.map(|status| status.conditions).unwrap_or_default();
        Self {
            key,
            version: runtime.metadata.resource_version.unwrap_or_default(),
            generation: runtime.metadata.generation.unwrap_or_default(),
            created: runtime.metadata.creation_timestamp.map(|time| time.0),
            deleting: runtime.metadata.deletion_timestamp.is_some(),
            target,
            spec: runtime.spec,
            conditions: conditions
                .into_iter()
                .filter(|condition| OWNED.contains(&condition.type_.as_str()))
                .collect(),
        }
    }

    /// The trust domain it names.
    pub fn trust_domain(&self) -> Option<&str> {
        self.spec.identity.as_ref()?.spiffe.as_ref()?.trust_domain.as_deref()
    }
}

impl Entry for Runtime {
    type Key = Key;
    type Link = WorkloadKey;

    fn key(&self) -> &Key {
        &self.key
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn links(&self) -> impl Iterator<Item = WorkloadKey> {
        self.target.clone().into_iter()
    }
}

impl Indexes {
    /// The AgentRuntime that counts for a workload: the oldest one.
    pub fn runtime_of(&self, workload: &WorkloadKey) -> Option<std::sync::Arc<Runtime>> {
        self.runtimes
            .linked(workload)
            .into_iter()
            .filter(|runtime| !runtime.deleting)
            .min_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)))
    }

    /// The workloads of a unit that exist, oldest first.
    pub fn workloads_of(&self, unit: &Unit) -> Vec<std::sync::Arc<Workload>> {
        let mut workloads = self.workloads.linked(unit);
        workloads.retain(|workload| !workload.deleting);
        workloads.sort_by(|a, b| a.age().cmp(&b.age()));
        workloads
    }

    /// The Secret of a unit.
    pub fn secret_of(&self, unit: &Unit) -> Option<std::sync::Arc<SecretMeta>> {
        self.secrets.get(&Key::new(&unit.namespace, unit.secret_name()))
    }
}
