//! The orphan sweeper (webhook §13.4): deletes ConfigMaps of ours that have no owner and that no Pod
//! mounts any more. Runs on the leader only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Preconditions},
};
use tokio::time::Instant;

use crate::{caches::Caches, metrics::Metrics, writes::WritesAllowed};

/// Pods per page of a list.
const PAGE: u32 = 500;

/// When and how patiently the sweeper works.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time between two passes.
    pub every: Duration,
    /// A ConfigMap is deleted when two passes at least this far apart found no Pod that mounts it.
    pub unused_for: Duration,
}

/// Finds and deletes orphans.
pub struct Sweeper {
    client: Client,
    caches: Arc<Caches>,
    metrics: Arc<Metrics>,
    allowed: WritesAllowed,
    patience: Patience,
    /// UID of an unmounted ConfigMap -> when a pass first found it so.
    unmounted: HashMap<Box<str>, Instant>,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("patience", &self.patience).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Orphan {
    name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
}

impl Sweeper {
    /// A sweeper that has seen nothing yet.
    pub fn new(
        client: Client,
        caches: Arc<Caches>,
        metrics: Arc<Metrics>,
        allowed: WritesAllowed,
        patience: Patience,
    ) -> Self {
        Self { client, caches, metrics, allowed, patience, unmounted: HashMap::new() }
    }

    /// Sweeps for as long as it is polled.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(self.patience.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if (self.allowed)().is_ok() {
                self.pass().await;
            }
        }
    }

    /// One pass over the ownerless ConfigMaps of the store. Only namespaces that have some are
    /// looked at; a namespace whose Pods cannot be listed is left for the next pass.
    pub async fn pass(&mut self) {
        let mut spaces: BTreeMap<Box<str>, Vec<Orphan>> = BTreeMap::new();
        self.caches.config_maps.table.collect(|namespace, name, row| {
            if !row.owned {
                spaces.entry(namespace.into()).or_default().push(Orphan {
                    name: name.into(),
                    uid: row.uid.clone(),
                    resource_version: row.resource_version.clone(),
                });
            }
            None::<()>
        });
        let mut still = HashMap::new();
        for (namespace, orphans) in spaces {
            let mounted = match self.mounted(&namespace).await {
                Ok(mounted) => mounted,
                Err(error) => {
                    tracing::warn!(k8s.namespace.name = %namespace, %error, "listing Pods for the orphan sweep");
                    for orphan in orphans {
                        if let Some(since) = self.unmounted.get(&orphan.uid) {
                            still.insert(orphan.uid, *since);
                        }
                    }
                    continue;
                }
            };
            for orphan in orphans.into_iter().filter(|orphan| !mounted.contains(&*orphan.name)) {
                let since = *self.unmounted.get(&orphan.uid).unwrap_or(&Instant::now());
                let young = since.elapsed() < self.patience.unused_for;
                if young || !self.delete(&namespace, &orphan).await {
                    still.insert(orphan.uid, since);
                }
            }
        }
        self.unmounted = still;
    }

    /// Names of the ConfigMaps that Pods of the namespace mount.
    async fn mounted(&self, namespace: &str) -> kube::Result<BTreeSet<String>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let mut params = ListParams::default().limit(PAGE);
        let mut names = BTreeSet::new();
        loop {
            let page = api.list(&params).await.inspect_err(|_| self.metrics.api("list", "pods", "error"))?;
            self.metrics.api("list", "pods", "ok");
            names.extend(page.items.iter().flat_map(mounted_by));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(names),
            }
        }
    }

    /// True when it is gone: deleted, or not there any more. Anything that changed since we looked
    /// fails the preconditions and is left alone.
    async fn delete(&self, namespace: &str, orphan: &Orphan) -> bool {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(orphan.uid.to_string()),
                resource_version: Some(orphan.resource_version.to_string()),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&orphan.name, &params).await {
            Ok(_) => {
                self.metrics.api("delete", "configmaps", "ok");
                self.metrics.swept.inc();
                tracing::info!(k8s.namespace.name = namespace, configmap = %orphan.name, "deleted orphaned ConfigMap");
                true
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                self.metrics.api("delete", "configmaps", "not_found");
                true
            }
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                self.metrics.api("delete", "configmaps", "conflict");
                false
            }
            Err(error) => {
                self.metrics.api("delete", "configmaps", "error");
                tracing::warn!(k8s.namespace.name = namespace, configmap = %orphan.name, %error, "deleting an orphaned ConfigMap");
                false
            }
        }
    }
}

/// ConfigMaps a Pod mounts, directly or projected.
fn mounted_by(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let direct = volumes.iter().filter_map(|v| v.config_map.as_ref()).map(|source| source.name.clone());
    let projected = volumes
        .iter()
        .filter_map(|v| v.projected.as_ref())
        .flat_map(|p| p.sources.as_deref().unwrap_or_default())
        .filter_map(|source| source.config_map.as_ref())
        .map(|source| source.name.clone());
    direct.chain(projected).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn direct_and_projected_mounts_count() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "configMap": {"name": "one"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "two"}}, {"secret": {"name": "s"}}]}},
            {"name": "c", "emptyDir": {}},
        ]}})).unwrap();
        assert_eq!(pod.name_any(), "p");
        assert_eq!(mounted_by(&pod), ["one", "two"]);
    }
}
