//! `crds delete`: the definitions and every object of theirs go (packaging §5).

use std::time::Duration;

use controller_kit::apply;
use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::DeleteParams,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use tokio::time::timeout;

use super::{CrdError, Group, definitions, failed};

/// Deletes the definitions and waits until they are gone, which is when the last object of theirs is.
///
/// # Errors
/// What the API server says, or the definitions that are left after `within`.
pub async fn delete(client: &Client, groups: &[Group], within: Duration) -> Result<(), CrdError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut going = Vec::new();
    for crd in definitions(groups) {
        let name = crd.name_any();
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(answer) => {
                if let Some(uid) = answer.left().and_then(|live| live.uid()) {
                    going.push((name, uid));
                }
            }
            Err(error) if apply::is_not_found(&error) => {}
            Err(error) => return Err(failed(&name, &error)),
        }
    }
    let waits = going.iter().map(async |(name, uid)| {
        let gone = await_condition(api.clone(), name, is_deleted(uid));
        (name, timeout(within, gone).await.is_ok_and(|watched| watched.is_ok()))
    });
    for (name, gone) in join_all(waits).await {
        if !gone {
            return Err(CrdError::Api { name: name.clone(), message: left_over(&api, name, within).await });
        }
        println!("{name} deleted");
    }
    Ok(())
}

async fn left_over(api: &Api<CustomResourceDefinition>, name: &str, within: Duration) -> String {
    let live = api.get_opt(name).await.ok().flatten();
    let conditions = live.and_then(|live| live.status).and_then(|status| status.conditions);
    let why = conditions.and_then(|all| all.into_iter().find(|found| found.type_ == "Terminating"));
    let why = why.and_then(|found| found.message).unwrap_or_else(|| "no reason given".to_owned());
    format!(
        "still there after {within:?} ({why}): an object of it has a finalizer that nobody takes off; kubectl get {name} \
         -A -o custom-columns=NAMESPACE:.metadata.namespace,NAME:.metadata.name,FINALIZERS:.metadata.finalizers"
    )
}
