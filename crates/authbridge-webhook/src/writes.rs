//! The write protocol (webhook §11.2, §12.3): what must exist before a Pod is admitted, written
//! only when it is not there yet.

use std::{collections::BTreeMap, sync::Arc};

use api_types::{
    names::{MANAGED_BY_WEBHOOK, annotation, label, manager},
    owner::PodIdentity,
};
use futures::future::try_join_all;
use k8s_openapi::{
    api::core::v1::{ConfigMap, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    caches::{
        Caches,
        managed::{Account, HELPER_CONTENT_HASH, ManagedConfigMap},
    },
    injection::{OwnerPlan, PlannedConfigMap, Writes, owner_plan},
    keyed_lock::KeyedLock,
    live::{Live, LiveError},
    metrics::Metrics,
    owners::{OwnerError, OwnerKind, Owners},
};

/// A write, or a read it needs, that failed; the Pod is denied with 500.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The owner could not be read.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// Another read failed.
    #[error(transparent)]
    Read(#[from] LiveError),
    /// The API server refused a write.
    #[error("{action} {kind} {namespace}/{name}: {source}")]
    Api {
        /// creating, applying.
        action: &'static str,
        /// Kind of the object.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The operator this product replaces is still running (packaging §12).
    #[error("nothing is written while Lease {0} is being renewed; stop the previous operator")]
    LegacyOperator(&'static str),
}

/// Says whether writing is allowed at the moment; `Err` names the legacy Lease.
pub type WritesAllowed = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Carries out writes.
pub struct Writer {
    client: Client,
    caches: Arc<Caches>,
    owners: Arc<Owners>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    allowed: WritesAllowed,
    turns: KeyedLock<(Box<str>, Box<str>)>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer.
    pub fn new(
        client: Client,
        caches: Arc<Caches>,
        owners: Arc<Owners>,
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        allowed: WritesAllowed,
    ) -> Self {
        Self { client, caches, owners, live, metrics, allowed, turns: KeyedLock::default() }
    }

    /// Makes sure that everything in `writes` exists as planned; independent writes run at the same
    /// time. In steady state no request is sent. Returns a warning when the ServiceAccount exists
    /// without being ours.
    pub async fn carry_out(
        &self,
        namespace: &str,
        pod: &PodIdentity<'_>,
        writes: &Writes,
    ) -> Result<Option<String>, WriteError> {
        let account = async {
            match &writes.service_account {
                Some(name) => self.ensure_account(namespace, name).await,
                None => Ok(None),
            }
        };
        let maps = async {
            if writes.config_maps.is_empty() {
                return Ok(());
            }
            let owner = self.owner(namespace, pod).await?;
            let all = writes.config_maps.iter().map(|map| self.ensure_map(namespace, map, owner.as_ref()));
            try_join_all(all).await.map(drop)
        };
        let (warning, ()) = tokio::try_join!(account, maps)?;
        Ok(warning)
    }

    /// The ownerReference for the Pod's ConfigMaps: always with the UID that exists now, so that a
    /// map left by a deleted workload of the same name is taken over before it is collected.
    async fn owner(
        &self,
        namespace: &str,
        pod: &PodIdentity<'_>,
    ) -> Result<Option<OwnerReference>, WriteError> {
        let plan = match owner_plan(pod, None) {
            OwnerPlan::ControllerOf { kind, name, uid } => {
                let Some(kind) = OwnerKind::of(&kind) else { return Ok(None) };
                let controller = self.owners.controller(namespace, kind, &name, &uid).await?;
                owner_plan(pod, Some(controller.as_deref()))
            }
            known => known,
        };
        Ok(match plan {
            OwnerPlan::Known(owner) => Some(owner),
            OwnerPlan::ControllerOf { .. } | OwnerPlan::Unknown => None,
        })
    }

    async fn ensure_account(&self, namespace: &str, name: &str) -> Result<Option<String>, WriteError> {
        let accounts = &self.caches.service_accounts;
        let known = if let Some(account) = accounts.known(namespace, name) {
            account
        } else {
            let _turn = self.turns.turn((namespace.into(), format!("serviceaccount/{name}").into())).await;
            match accounts.known(namespace, name) {
                Some(account) => account,
                None => self.create_account(namespace, name).await?,
            }
        };
        Ok((known == Account::Foreign).then(|| {
            format!(
                "ServiceAccount {name} exists and was not made by the webhook (no label {}={MANAGED_BY_WEBHOOK}); the pod runs as it",
                label::WEBHOOK_MANAGED_BY
            )
        }))
    }

    async fn create_account(&self, namespace: &str, name: &str) -> Result<Account, WriteError> {
        (self.allowed)().map_err(WriteError::LegacyOperator)?;
        let labels = BTreeMap::from([(label::WEBHOOK_MANAGED_BY.to_owned(), MANAGED_BY_WEBHOOK.to_owned())]);
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        let params = PostParams { field_manager: Some(manager::WEBHOOK.to_owned()), ..PostParams::default() };
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let found = match api.create(&params, &account).await {
            Ok(_) => {
                self.metrics.api("create", "serviceaccounts", "ok");
                tracing::info!(
                    k8s.namespace.name = namespace,
                    serviceaccount = name,
                    "created ServiceAccount"
                );
                Account::Ours
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.metrics.api("create", "serviceaccounts", "exists");
                let labels = self.live.service_account(namespace, name).await?.unwrap_or_default();
                let ours = labels.get(label::WEBHOOK_MANAGED_BY).is_some_and(|v| v == MANAGED_BY_WEBHOOK);
                if ours { Account::Ours } else { Account::Foreign }
            }
            Err(source) => {
                self.metrics.api("create", "serviceaccounts", "error");
                return Err(failed("creating", "ServiceAccount", namespace, name, source));
            }
        };
        self.caches.service_accounts.remember(namespace, name, found);
        Ok(found)
    }

    async fn ensure_map(
        &self,
        namespace: &str,
        planned: &PlannedConfigMap,
        owner: Option<&OwnerReference>,
    ) -> Result<(), WriteError> {
        let current = || {
            let known = self
                .caches
                .config_maps
                .table
                .with(namespace, &planned.name, |row| is_current(row, planned, owner));
            known.unwrap_or(false)
        };
        if current() {
            return Ok(());
        }
        let _turn = self.turns.turn((namespace.into(), format!("configmap/{}", planned.name).into())).await;
        // Whoever held the turn before may have written the same.
        if current() {
            return Ok(());
        }
        (self.allowed)().map_err(WriteError::LegacyOperator)?;
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(planned.field_manager).force();
        let body = apply_body(namespace, planned, owner);
        let mut result = api.patch_metadata(&planned.name, &params, &Patch::Apply(&body)).await;
        if matches!(&result, Err(kube::Error::Api(status)) if status.is_conflict()) {
            // Two replicas created it at the same moment.
            result = api.patch_metadata(&planned.name, &params, &Patch::Apply(&body)).await;
        }
        match result {
            Ok(stored) => {
                self.metrics.api("apply", "configmaps", "ok");
                tracing::info!(k8s.namespace.name = namespace, configmap = planned.name, "applied ConfigMap");
                self.caches.config_maps.put(namespace, &planned.name, &stored.metadata);
                Ok(())
            }
            Err(source) => {
                self.metrics.api("apply", "configmaps", "error");
                Err(failed("applying", "ConfigMap", namespace, &planned.name, source))
            }
        }
    }
}

fn failed(
    action: &'static str,
    kind: &'static str,
    namespace: &str,
    name: &str,
    source: kube::Error,
) -> WriteError {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    WriteError::Api { action, kind, namespace, name, source: Box::new(source) }
}

/// Annotation that holds the hash of what this field manager wrote.
fn hash_key(planned: &PlannedConfigMap) -> &'static str {
    if planned.field_manager == manager::WEBHOOK_HELPER {
        HELPER_CONTENT_HASH
    } else {
        annotation::CONTENT_HASH
    }
}

/// Whether the stored map already is what the plan says, for this very owner.
fn is_current(row: &ManagedConfigMap, planned: &PlannedConfigMap, owner: Option<&OwnerReference>) -> bool {
    let hash =
        if planned.field_manager == manager::WEBHOOK_HELPER { &row.helper_hash } else { &row.content_hash };
    let same_owner = match (owner, &row.controller) {
        (Some(owner), Some(controller)) => owner.uid == controller.uid,
        (Some(_), None) => false,
        // A bare Pod, or an owner that is gone: whoever owns the map keeps it.
        (None, _) => true,
    };
    same_owner && hash.as_deref() == Some(planned.content_hash.as_str())
}

/// The fields this manager owns, and no other.
fn apply_body(namespace: &str, planned: &PlannedConfigMap, owner: Option<&OwnerReference>) -> Value {
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": planned.name,
            "namespace": namespace,
            "labels": { label::WEBHOOK_MANAGED_BY: MANAGED_BY_WEBHOOK },
            "annotations": { hash_key(planned): planned.content_hash },
        },
        "data": planned.data,
    });
    if let (Some(owner), Some(metadata)) = (owner, body.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    body
}
