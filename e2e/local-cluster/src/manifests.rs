//! Applying YAML and installing CRDs as admin.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::components::workspace;
use crate::wait_for;

/// Field manager of everything applied by hand, as kubectl's would be for a user.
const FIELD_MANAGER: &str = "local-cluster";
/// How long a kind that was just installed may take until the API serves it.
const SERVED_WITHIN: Duration = Duration::from_secs(15);
/// How long finalizers and garbage collection may take.
const GONE_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Applies every document of a YAML text (server-side, forced) in its order and returns the objects as
    /// stored. Namespaced objects without a namespace go to `default`.
    pub async fn apply_yaml(&self, text: &str) -> Result<Vec<DynamicObject>> {
        self.apply_yaml_in("default", text).await
    }

    /// Like [`Cluster::apply_yaml`], with the namespace for objects that name none.
    pub async fn apply_yaml_in(&self, namespace: &str, text: &str) -> Result<Vec<DynamicObject>> {
        let client = self.client().await?;
        apply_documents(&client, namespace, &documents(text)?).await
    }

    /// Applies objects, in their order.
    pub(crate) async fn apply_objects(&self, objects: &[Value]) -> Result<Vec<DynamicObject>> {
        apply_documents(&self.client().await?, "default", objects).await
    }

    /// Deletes objects, the last one first, and waits until each is gone.
    pub async fn delete_objects(&self, objects: &[DynamicObject]) -> Result<()> {
        let client = self.client().await?;
        for object in objects.iter().rev() {
            let types = object.types.clone().context("an object has no apiVersion and kind")?;
            let gvk = GroupVersionKind::try_from(&types).context("the kind of an object")?;
            let (resource, _) =
                pinned_kind(&client, &gvk).await.with_context(|| format!("finding {}", gvk.kind))?;
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let name = object.name_any();
            match api.delete(&name, &DeleteParams::foreground()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(error).with_context(|| format!("deleting {} {name}", gvk.kind)),
            }
            wait_for(GONE_WITHIN, &format!("{} {name} to be gone", gvk.kind), async || {
                Ok(api.get_opt(&name).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Installs the CRDs of the suite (`charts/kagenti-crds-agent/crds`) and waits until they are served.
    pub async fn install_crds(&self) -> Result<()> {
        let dir = workspace().join("charts/kagenti-crds-agent/crds");
        self.install_crds_from(&dir).await
    }

    /// Installs every CRD in the `.yaml` files of a directory and waits until they are served.
    pub async fn install_crds_from(&self, dir: &Path) -> Result<()> {
        let entries =
            std::fs::read_dir(dir).with_context(|| format!("listing the CRDs in {}", dir.display()))?;
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        if files.is_empty() {
            bail!("no CRDs in {}; generate them with `cargo xtask`", dir.display());
        }
        let client = self.client().await?;
        let mut names = Vec::new();
        for file in files {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let parsed = documents(&text).with_context(|| format!("reading {}", file.display()))?;
            let applied = apply_documents(&client, "default", &parsed)
                .await
                .with_context(|| format!("installing {}", file.display()))?;
            names.extend(applied.iter().map(ResourceExt::name_any));
        }
        let api: Api<CustomResourceDefinition> = Api::all(client);
        for name in names {
            wait_for(SERVED_WITHIN, &format!("CustomResourceDefinition {name} to be served"), async || {
                let crd = api.get(&name).await?;
                let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
                Ok(conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// The documents of a YAML text; empty ones are skipped.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("reading YAML")?;
    Ok(all.into_iter().filter(|value| !value.is_null()).collect())
}

/// Applies objects server-side, in their order; those without a namespace go to `namespace`.
pub(crate) async fn apply_documents(
    client: &Client,
    namespace: &str,
    documents: &[Value],
) -> Result<Vec<DynamicObject>> {
    let mut kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)> = HashMap::new();
    let mut applied = Vec::with_capacity(documents.len());
    for document in documents {
        let object: DynamicObject =
            serde_json::from_value(document.clone()).context("a document is no Kubernetes object")?;
        let types = object.types.clone().context("a document has no apiVersion and kind")?;
        let gvk = GroupVersionKind::try_from(&types)
            .with_context(|| format!("apiVersion {:?} of a document", types.api_version))?;
        let name =
            object.metadata.name.clone().with_context(|| format!("a {} has no metadata.name", gvk.kind))?;
        if !kinds.contains_key(&gvk) {
            let what = format!("the API to serve {} {}", types.api_version, gvk.kind);
            let found =
                wait_for(SERVED_WITHIN, &what, async || Ok(Some(pinned_kind(client, &gvk).await?))).await?;
            kinds.insert(gvk.clone(), found);
        }
        let (resource, capabilities) = kinds.get(&gvk).context("a kind that was just found")?;
        let api: Api<DynamicObject> = if capabilities.scope == Scope::Namespaced {
            Api::namespaced_with(
                client.clone(),
                object.metadata.namespace.as_deref().unwrap_or(namespace),
                resource,
            )
        } else {
            Api::all_with(client.clone(), resource)
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let stored = api
            .patch(&name, &params, &Patch::Apply(document))
            .await
            .with_context(|| format!("applying {} {name}", gvk.kind))?;
        applied.push(stored);
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_are_skipped() {
        let text = "---\na: 1\n---\n# nothing\n---\nb: 2\n";
        assert_eq!(documents(text).expect("yaml").len(), 2);
    }
}
