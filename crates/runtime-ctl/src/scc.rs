//! OpenShift: binds the SCC of the sidecars to the ServiceAccounts of a namespace (runtime §12.3, README 20).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use api_types::names::{MANAGED_BY_OPERATOR, label, manager};
use controller_kit::{backoff::jitter, memory::Memory};
use k8s_openapi::{
    api::rbac::v1::{ClusterRole, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};

use crate::{
    context::Context,
    error::{Error, code_of, message_of},
    sources::Source,
};

/// ClusterRole that allows the use of SCC `kagenti-authbridge`; its absence means "not OpenShift".
pub const CLUSTER_ROLE: &str = "system:openshift:scc:kagenti-authbridge";
/// The RoleBinding made in every namespace of agents.
pub const ROLE_BINDING: &str = "agent-authbridge-scc";

const ROLE_KNOWN_FOR: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(2);

/// What is remembered: is this OpenShift, and which namespaces are bound.
#[derive(Default)]
pub struct SccMemory {
    openshift: AtomicBool,
    bound: Memory<String, ()>,
}

/// Makes sure that the RoleBinding exists. `Err` carries the message of the condition.
///
/// # Errors
/// Only [`Error::Pass`], when this replica does not lead; what the API server refuses is in the answer.
pub async fn ensure(ctx: &Context, namespace: &str) -> Result<Result<(), String>, Error> {
    if !ctx.scc.openshift.load(Ordering::Acquire) || ctx.scc.bound.get(&namespace.to_owned()).is_some() {
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

/// Finds out whether this is OpenShift, again every five minutes; says so by `ctx.scc`.
pub async fn look(ctx: &Context) {
    let api = Api::<ClusterRole>::all(ctx.client.clone());
    let mut said = false;
    loop {
        let pause = match api.get_metadata_opt(CLUSTER_ROLE).await {
            Ok(role) => {
                if ctx.scc.openshift.swap(role.is_some(), Ordering::AcqRel) != role.is_some() {
                    tracing::info!(present = role.is_some(), "ClusterRole {CLUSTER_ROLE}");
                    ctx.wake_all(None, Duration::ZERO);
                }
                ROLE_KNOWN_FOR
            }
            Err(error) if code_of(&error) == 403 => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("ClusterRole {CLUSTER_ROLE} counts as absent: {}", message_of(&error));
                }
                ROLE_KNOWN_FOR
            }
            Err(error) => {
                tracing::debug!("ClusterRole {CLUSTER_ROLE} cannot be read: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
                continue;
            }
        };
        ctx.sources.synced(Source::OpenShift, None);
        tokio::time::sleep(jitter(pause, 0.1)).await;
    }
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
