//! Takes finalizers off: one patch per object, of exactly the own entries of what was seen.

use std::cell::Cell;
use std::time::Duration;

use api_types::TargetRef;
use api_types::enrolment::TargetKind;
use futures::StreamExt as _;
use futures::stream;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Answer, Cluster, NoCluster, Right};

use super::leftover::{Workload, left_behind};
use super::report::{Done, Outcome};
use super::stuck::Stuck;

/// Objects that are worked on at once.
const CONCURRENCY: usize = 8;
/// Times that an object is looked at again because it changed meanwhile.
const ATTEMPTS: usize = 5;
/// How often it is said how far the work is.
const PROGRESS: Duration = Duration::from_secs(2);
/// Field manager.
const MANAGER: &str = "kubectl-kagenti";

/// Takes the finalizers off all objects. What was done is told even when the API server goes away meanwhile.
pub(super) async fn all(cluster: &Cluster, wanted: Vec<Stuck>) -> Result<Vec<Done>, NoCluster> {
    let total = wanted.len();
    let lost: Cell<Option<String>> = Cell::new(None);
    let work = wanted.into_iter().map(|object| {
        let lost = &lost;
        async move {
            let gone = lost.take();
            lost.set(gone.clone());
            let outcome = match gone {
                Some(why) => Err(why),
                None => one(cluster, &object).await.map_err(|error| {
                    let why = error.to_string();
                    lost.set(Some(why.clone()));
                    why
                }),
            };
            outcome.unwrap_or_else(|why| Done::new(&object, Outcome::Failed(why), Vec::new()))
        }
    });
    let mut work = stream::iter(work).buffered(CONCURRENCY);
    let mut done = Vec::with_capacity(total);
    let mut told = Instant::now();
    while let Some(next) = work.next().await {
        done.push(next);
        if told.elapsed() >= PROGRESS {
            eprintln!("{} of {total} objects are done", done.len());
            told = Instant::now();
        }
    }
    Ok(done)
}

async fn one(cluster: &Cluster, object: &Stuck) -> Result<Done, NoCluster> {
    let workload = workload(cluster, object).await?;
    let resource = object.kind.api_resource();
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client().clone(), &object.namespace, &resource);
    let mut seen = object.clone();
    for _ in 0..ATTEMPTS {
        let patch = json!({"metadata": {
            "uid": seen.uid, "resourceVersion": seen.version, "finalizers": seen.others,
        }});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(&seen.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {
                let outcome = match (seen.others.is_empty(), seen.deleting) {
                    (true, true) => Outcome::Deleted,
                    (_, false) => Outcome::Released,
                    (false, true) => Outcome::Held(seen.others),
                };
                return Ok(Done::new(object, outcome, left_behind(object, &workload)));
            }
            // It changed since it was read.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Ok(Done::new(object, Outcome::Gone, Vec::new()));
            }
            Err(error) => {
                let needs = Right::new("patch", object.kind.resource(), Some(&object.namespace));
                return Ok(match cluster.answer::<()>(&needs, Err(error))? {
                    Answer::Unknown(why) => Done::new(object, Outcome::Failed(why), Vec::new()),
                    Answer::Known(()) => Done::new(object, Outcome::Gone, Vec::new()),
                });
            }
        }
        let needs = Right::new("get", object.kind.resource(), Some(&object.namespace));
        match cluster.answer(&needs, api.get_metadata_opt(&seen.name).await)? {
            Answer::Unknown(why) => return Ok(Done::new(object, Outcome::Failed(why), Vec::new())),
            Answer::Known(now) => {
                let now = now.and_then(|now| Stuck::of(object.kind, now.metadata, None));
                match now.filter(|now| now.uid == object.uid) {
                    Some(now) => seen = now,
                    None => return Ok(Done::new(object, Outcome::Gone, Vec::new())),
                }
            }
        }
    }
    let why = format!("it changed {ATTEMPTS} times meanwhile: somebody writes it all the time");
    Ok(Done::new(object, Outcome::Failed(why), Vec::new()))
}

/// What is known of the workload, where it matters.
async fn workload(cluster: &Cluster, object: &Stuck) -> Result<Workload, NoCluster> {
    let Some((target, kind)) = object.target.as_ref().and_then(|target| Some((target, kind(target)?))) else {
        return Ok(Workload::Gone);
    };
    let (plural, right) = match kind {
        TargetKind::Deployment => ("deployments", "deployments.apps"),
        TargetKind::StatefulSet => ("statefulsets", "statefulsets.apps"),
        TargetKind::Sandbox => ("sandboxes", "sandboxes.agents.x-k8s.io"),
    };
    let version = target.api_version.rsplit('/').next().unwrap_or_default();
    let gvk = GroupVersionKind::gvk(kind.group(), version, kind.as_str());
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client().clone(), &object.namespace, &resource);
    let needs = Right::new("get", right, Some(&object.namespace));
    Ok(match cluster.answer(&needs, api.get_opt(&target.name).await)? {
        Answer::Known(None) => Workload::Gone,
        Answer::Known(Some(found)) => match serde_json::to_value(&found) {
            Ok(value) => Workload::of(&value),
            Err(error) => Workload::Unknown(error.to_string()),
        },
        Answer::Unknown(why) => Workload::Unknown(why),
    })
}

fn kind(target: &TargetRef) -> Option<TargetKind> {
    TargetKind::of(target.group()?, &target.kind)
}
