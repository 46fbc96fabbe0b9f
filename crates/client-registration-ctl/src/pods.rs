//! Looks at the Pods of a workload: one list, only when it matters (client-registration §9, §10).

use std::{borrow::Cow, collections::BTreeMap};

use api_types::{
    names::{annotation, label},
    owner::{PodIdentity, controller_of, workload_of},
    registration::annotation as own,
};
use controller_kit::controller::PassError;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Resource, api::ListParams, core::NamespaceResourceScope};
use serde::Deserialize;

use crate::{
    annotation::PodsSeen,
    context::Context,
    error::Error,
    workload::{Workload, WorkloadKey},
};

/// A Pod with nothing but its metadata and volumes.
#[derive(Clone, Debug, Default, Deserialize)]
struct PodView {
    #[serde(default, deserialize_with = "controller_kit::lean::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecView,
    #[serde(default)]
    status: StatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SpecView {
    volumes: Vec<VolumeView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeView {
    secret: Option<SecretView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SecretView {
    secret_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StatusView {
    phase: Option<String>,
}

impl Resource for PodView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl PodView {
    fn is_live(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.runs()
    }

    fn is_of(&self, workload: &WorkloadKey) -> bool {
        let owners = self.metadata.owner_references.as_deref().unwrap_or_default();
        let of = workload_of(
            &PodIdentity {
                name: self.metadata.name.as_deref().unwrap_or_default(),
                generate_name: self.metadata.generate_name.as_deref().unwrap_or_default(),
                uid: self.metadata.uid.as_deref().unwrap_or_default(),
                labels: self.metadata.labels.as_ref(),
                owner: controller_of(owners),
            },
            None,
        );
        of.name == workload.unit.name
            && of.kind == workload.kind.as_str()
            && of.group == workload.kind.group()
    }

    fn names_secret(&self, secret: &str) -> bool {
        let named = |map: &BTreeMap<String, String>| {
            map.get(annotation::CREDENTIALS_SECRET).is_some_and(|name| name == secret)
        };
        self.metadata.annotations.as_ref().is_some_and(named)
    }

    fn has_revision(&self, revision: u64) -> bool {
        let named = |map: &BTreeMap<String, String>| {
            map.get(own::TEMPLATE_REVISION).is_some_and(|text| *text == revision.to_string())
        };
        self.metadata.annotations.as_ref().is_some_and(named)
    }

    /// One that is being deleted still runs.
    fn runs(&self) -> bool {
        !matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    fn mounts(&self, secret: &str) -> bool {
        self.spec
            .volumes
            .iter()
            .filter_map(|volume| volume.secret.as_ref())
            .any(|volume| volume.secret_name.as_deref() == Some(secret))
    }
}

async fn list(ctx: &Context, namespace: &str, params: &ListParams) -> Result<Vec<PodView>, Error> {
    let api = Api::<PodView>::namespaced(ctx.client.clone(), namespace);
    let list = api.list(params).await;
    let list = list.map_err(PassError::api("list", format!("the Pods of Namespace {namespace}")))?;
    Ok(list.items)
}

/// The live Pods of a workload that carry the type label, and how many name this Secret.
///
/// # Errors
/// What the API server says.
pub async fn annotated(ctx: &Context, workload: &Workload, secret: &str) -> Result<PodsSeen, Error> {
    // The Pods of others in the namespace would only be read and thrown away.
    let selector = match &*workload.selector {
        "" => label::TYPE.to_owned(),
        own => format!("{},{own}", label::TYPE),
    };
    let pods = list(ctx, &workload.key.unit.namespace, &ListParams::default().labels(&selector)).await?;
    let own = pods.iter().filter(|pod| pod.is_live() && pod.is_of(&workload.key));
    Ok(own.fold(PodsSeen::default(), |seen, pod| PodsSeen {
        count: seen.count + 1,
        right: seen.right + usize::from(pod.names_secret(secret)),
    }))
}

/// Whether any live Pod of the namespace still mounts this Secret.
///
/// # Errors
/// What the API server says.
pub async fn any_mounts(ctx: &Context, namespace: &str, secret: &str) -> Result<bool, Error> {
    let pods = list(ctx, namespace, &ListParams::default()).await?;
    Ok(pods.iter().any(|pod| pod.mounts(secret) && pod.runs()))
}

/// Whether any Pod of a workload mounts this Secret and was made for another revision of it.
///
/// # Errors
/// What the API server says.
pub async fn any_behind(
    ctx: &Context,
    workload: &Workload,
    secret: &str,
    revision: u64,
) -> Result<bool, Error> {
    let typed = ListParams::default().labels(label::TYPE);
    let pods = list(ctx, &workload.key.unit.namespace, &typed).await?;
    Ok(pods.iter().any(|pod| {
        pod.is_of(&workload.key) && pod.mounts(secret) && pod.runs() && !pod.has_revision(revision)
    }))
}

#[cfg(test)]
mod tests {
    use api_types::enrolment::TargetKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::workload::tests::workload;

    fn pod(object: Value) -> PodView {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn pods_know_their_workload_and_their_volumes() {
        let own = pod(json!({
            "metadata": {"name": "w-abc-1", "labels": {"pod-template-hash": "abc"},
                "annotations": {"kagenti.io/keycloak-client-credentials-secret-name": "s"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w-abc", "uid": "u",
                    "controller": true}]},
            "spec": {"volumes": [{"name": "x", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s"}}]},
            "status": {"phase": "Pending"}}));
        assert!(own.is_live() && own.names_secret("s") && own.mounts("s") && !own.mounts("t"));
        assert!(own.is_of(&workload(TargetKind::Deployment, json!({})).key));
        assert!(!own.is_of(&workload(TargetKind::StatefulSet, json!({})).key));
        assert!(!pod(json!({"status": {"phase": "Failed"}})).is_live());
    }
}
