//! OpenShift: binds the SCC of the sidecars to the ServiceAccounts of a namespace (runtime §12.3, README 20).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api_types::names::{MANAGED_BY_OPERATOR, label, manager};
use k8s_openapi::{
    api::rbac::v1::{ClusterRole, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use tokio::time::Instant;

use crate::{
    context::{Context, Memory},
    error::{Error, code_of, message_of},
};

/// ClusterRole that allows the use of SCC `kagenti-authbridge`; its absence means "not OpenShift".
pub const CLUSTER_ROLE: &str = "system:openshift:scc:kagenti-authbridge";
/// The RoleBinding made in every namespace of agents.
pub const ROLE_BINDING: &str = "agent-authbridge-scc";

const ROLE_KNOWN_FOR: Duration = Duration::from_secs(300);

/// What is remembered: is this OpenShift, and which namespaces are bound.
#[derive(Default)]
pub struct SccMemory {
    role: Mutex<Option<(Instant, bool)>>,
    bound: Memory<String, ()>,
}

/// Makes sure that the RoleBinding exists. `Err` carries the message of the condition.
///
/// # Errors
/// Only [`Error::NotLeader`]; what the API server refuses is in the answer.
pub async fn ensure(ctx: &Context, namespace: &str) -> Result<Result<(), String>, Error> {
    if !is_openshift(ctx).await || ctx.scc.bound.get(&namespace.to_owned()).is_some() {
        return Ok(Ok(()));
    }
    let _alone = ctx.namespace_locks.lock(namespace).await;
    if ctx.scc.bound.get(&namespace.to_owned()).is_some() {
        return Ok(Ok(()));
    }
    let api = Api::<RoleBinding>::namespaced(ctx.client.clone(), namespace);
    let wanted = role_binding(namespace);
    // A live read, once per namespace and process: RoleBindings are not watched.
    let answer = match api.get_opt(ROLE_BINDING).await {
        Ok(Some(found)) => {
            if found.role_ref != wanted.role_ref || found.subjects != wanted.subjects {
                tracing::warn!(
                    namespace,
                    "RoleBinding {ROLE_BINDING} differs from the wanted one and is left alone: delete it to have it made anew"
                );
            }
            Ok(())
        }
        Ok(None) => {
            ctx.may_write()?;
            let params =
                PostParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PostParams::default() };
            match api.create(&params, &wanted).await {
                Ok(_) => {
                    tracing::info!(namespace, "bound the SCC of the sidecars");
                    Ok(())
                }
                Err(error) if code_of(&error) == 409 => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    Ok(match answer {
        Ok(()) => {
            ctx.scc.bound.insert(namespace.to_owned(), ());
            Ok(())
        }
        Err(error) => Err(format!(
            "RoleBinding {ROLE_BINDING} in namespace {namespace} could not be made: {}",
            message_of(&error)
        )),
    })
}

async fn is_openshift(ctx: &Context) -> bool {
    let known = *ctx.scc.role.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, present)) = known
        && at.elapsed() < ROLE_KNOWN_FOR
    {
        return present;
    }
    // One read in five minutes whatever the number of AgentRuntimes: ClusterRoles are not watched.
    let present = match Api::<ClusterRole>::all(ctx.client.clone()).get_metadata_opt(CLUSTER_ROLE).await {
        Ok(role) => role.is_some(),
        Err(error) => {
            let present = known.is_some_and(|(_, present)| present);
            if known.is_none() {
                tracing::info!("ClusterRole {CLUSTER_ROLE} counts as absent: {}", message_of(&error));
            }
            present
        }
    };
    *ctx.scc.role.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), present));
    present
}

/// The wanted object. Injected ServiceAccounts are made at admission, so the subject is their group.
fn role_binding(namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(ROLE_BINDING.into()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(label::MANAGED_BY.to_owned(), MANAGED_BY_OPERATOR.to_owned())].into()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "ClusterRole".into(),
            name: CLUSTER_ROLE.into(),
        },
        subjects: Some(vec![Subject {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Group".into(),
            name: format!("system:serviceaccounts:{namespace}"),
            namespace: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// README decision 20: the binding names the ServiceAccount group of the namespace.
    #[test]
    fn the_binding_names_the_group() {
        let binding = role_binding("team1");
        let subject = &binding.subjects.unwrap()[0];
        assert_eq!((subject.kind.as_str(), subject.name.as_str()), ("Group", "system:serviceaccounts:team1"));
        assert_eq!(binding.role_ref.name, CLUSTER_ROLE);
    }
}
