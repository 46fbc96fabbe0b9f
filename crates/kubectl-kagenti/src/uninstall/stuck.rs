//! Objects with finalizers of the suite.

use std::collections::BTreeMap;

use api_types::names::finalizer;
use api_types::registration;
use api_types::{AgentCardDefinition, AgentRuntime, TargetRef};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};

/// Secrets of one page.
const PAGE: u32 = 500;

/// A kind of object that gets a finalizer of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    AgentRuntime,
    AgentCard,
    Secret,
}

impl Kind {
    /// The name of the kind.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::AgentRuntime => "AgentRuntime",
            Self::AgentCard => "AgentCard",
            Self::Secret => "Secret",
        }
    }

    /// As RBAC names it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::AgentRuntime => "agentruntimes.agent.kagenti.dev",
            Self::AgentCard => "agentcards.agent.kagenti.dev",
            Self::Secret => "secrets",
        }
    }

    /// For requests.
    pub(super) fn api_resource(self) -> ApiResource {
        match self {
            Self::AgentRuntime => ApiResource::erase::<AgentRuntime>(&()),
            Self::AgentCard => ApiResource::erase::<AgentCardDefinition>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
        }
    }

    /// The finalizers that the suite puts on it, or takes off it: no others are touched.
    pub(super) fn finalizers(self) -> &'static [&'static str] {
        match self {
            Self::AgentRuntime => &[finalizer::CLEANUP],
            Self::AgentCard => &[finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY],
            Self::Secret => &[registration::FINALIZER],
        }
    }

    /// The components that take them off.
    pub(super) fn cleaners(self) -> &'static [&'static str] {
        match self {
            Self::AgentRuntime => &["runtime-ctl"],
            Self::AgentCard => &["card-ctl", "netpol-ctl"],
            Self::Secret => &["client-registration-ctl"],
        }
    }
}

/// An object with a finalizer of the suite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stuck {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
    /// Of the suite.
    pub(super) ours: Vec<&'static str>,
    /// Of others.
    pub(super) others: Vec<String>,
    /// Somebody has deleted it.
    pub(super) deleting: bool,
    pub(super) annotations: BTreeMap<String, String>,
    /// The workload it is about.
    pub(super) target: Option<TargetRef>,
}

impl Stuck {
    /// `None` when it has no finalizer of the suite.
    pub(super) fn of(kind: Kind, meta: ObjectMeta, target: Option<TargetRef>) -> Option<Self> {
        let all = meta.finalizers.unwrap_or_default();
        let ours: Vec<&'static str> =
            kind.finalizers().iter().copied().filter(|own| all.iter().any(|name| name == own)).collect();
        if ours.is_empty() {
            return None;
        }
        Some(Self {
            kind,
            namespace: meta.namespace?,
            name: meta.name?,
            uid: meta.uid?,
            version: meta.resource_version?,
            others: all.into_iter().filter(|name| !ours.contains(&name.as_str())).collect(),
            ours,
            deleting: meta.deletion_timestamp.is_some(),
            annotations: meta.annotations.unwrap_or_default(),
            target,
        })
    }
}

/// What could be found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sorted by namespace, kind and name.
    pub(super) objects: Vec<Stuck>,
    /// What could not be looked at.
    pub(super) unknown: Vec<String>,
}

/// Every object with a finalizer of the suite. Of Secrets only metadata are asked for.
pub(super) async fn find(cluster: &Cluster, namespace: Option<&str>) -> Result<Found, NoCluster> {
    let mut found = Found::default();
    for kind in [Kind::AgentRuntime, Kind::AgentCard] {
        let resource = kind.api_resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(cluster.client().clone(), namespace, &resource),
            None => Api::all_with(cluster.client().clone(), &resource),
        };
        let objects = match list(&api, "").await {
            // Without the definition there are no objects.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            other => other,
        };
        let of = |object: DynamicObject| {
            let target = object.data.pointer("/spec/targetRef").cloned();
            let target = target.and_then(|target| serde_json::from_value(target).ok());
            Stuck::of(kind, object.metadata, target)
        };
        match cluster.answer(&Right::new("list", kind.resource(), namespace), objects)? {
            Answer::Known(objects) => found.objects.extend(objects.into_iter().filter_map(of)),
            Answer::Unknown(why) => found.unknown.push(format!("which {}s are stuck: {why}", kind.as_str())),
        }
    }
    let needs = Right::new("list", Kind::Secret.resource(), namespace);
    match cluster.answer(&needs, secrets(&cluster.api(namespace)).await)? {
        Answer::Known(secrets) => found.objects.extend(secrets),
        Answer::Unknown(why) => found.unknown.push(format!("which Secrets are stuck: {why}")),
    }
    found.objects.sort_by(|a, b| (&a.namespace, a.kind, &a.name).cmp(&(&b.namespace, b.kind, &b.name)));
    Ok(found)
}

async fn secrets(api: &Api<Secret>) -> kube::Result<Vec<Stuck>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list_metadata(&params).await?;
        let stuck = page.items.into_iter().filter_map(|meta| Stuck::of(Kind::Secret, meta.metadata, None));
        found.extend(stuck);
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An object that is being deleted, unless the patch says otherwise.
    pub(in crate::uninstall) fn stuck(kind: Kind, finalizers: &[&str], annotations: &Value) -> Option<Stuck> {
        let meta = serde_json::from_value(json!({
            "namespace": "team1", "name": "weather", "uid": "u", "resourceVersion": "1",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers, "annotations": annotations,
        }))
        .expect("metadata");
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"});
        let target = (kind != Kind::Secret).then(|| serde_json::from_value(target).expect("a target"));
        Stuck::of(kind, meta, target)
    }

    /// Finalizers of others, and finalizers of the suite on objects where it never puts them, are nobody's business here.
    #[test]
    fn only_own_finalizers_count() {
        let found = stuck(Kind::AgentRuntime, &["x/y", "kagenti.io/cleanup"], &json!({})).expect("stuck");
        assert_eq!(found.ours, ["kagenti.io/cleanup"]);
        assert_eq!(found.others, ["x/y"]);
        assert!(found.deleting);
        assert_eq!(stuck(Kind::Secret, &["kagenti.io/cleanup", "x/y"], &json!({})), None);
        assert_eq!(stuck(Kind::AgentRuntime, &[], &json!({})), None);
        let card = stuck(Kind::AgentCard, &["agentcard.kagenti.dev/network-policy"], &json!({}));
        assert_eq!(card.expect("stuck").ours, ["agentcard.kagenti.dev/network-policy"]);
    }
}
