//! Writing and deleting the Role and RoleBinding of a workload (MLflow §8).

use controller_kit::{
    apply::{self, code_of},
    message::message_of,
};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    context::Context,
    error::Error,
    grant::{self, BindingState, Desired, Marks, RoleState, Step},
    index::Grants,
    naming,
    workload::{Workload, WorkloadKey},
    write::MANAGER,
};

/// How often a write is tried at once.
const ATTEMPTS: usize = 3;
/// The API server checks a RoleBinding against its own cache of Roles, which may be this much behind.
const LAG: std::time::Duration = std::time::Duration::from_millis(100);

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub enum Granted {
    /// Both are as they should be; true = something was written.
    Done(bool),
    /// An object of the name belongs to somebody else.
    Foreign(String),
    /// The API server does not let us.
    Forbidden(String),
}

/// What both kinds have in common.
trait Kind: Sized {
    type Object: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug;
    const NAME: &'static str;
    fn of(object: Self::Object) -> Self;
    fn marks(&self) -> &Marks;
    fn step(now: Option<&Self>, desired: &Desired<'_>, workload: &Workload) -> Step;
    fn desired(desired: &Desired<'_>, workload: &Workload) -> Self::Object;
    fn get(grants: &Grants, key: &WorkloadKey) -> Option<Self>;
    fn put(grants: &Grants, key: &WorkloadKey, state: Self);
    fn remove(grants: &Grants, key: &WorkloadKey, uid: &str);
}

impl Kind for RoleState {
    type Object = Role;
    const NAME: &'static str = "Role";

    fn of(object: Role) -> Self {
        Self::of(object)
    }
    fn marks(&self) -> &Marks {
        &self.marks
    }
    fn step(now: Option<&Self>, desired: &Desired<'_>, workload: &Workload) -> Step {
        grant::role_step(now, desired, workload)
    }
    fn desired(desired: &Desired<'_>, workload: &Workload) -> Role {
        grant::role(desired, workload)
    }
    fn get(grants: &Grants, key: &WorkloadKey) -> Option<Self> {
        grants.roles.get(key)
    }
    fn put(grants: &Grants, key: &WorkloadKey, state: Self) {
        grants.roles.upsert(key, state);
    }
    fn remove(grants: &Grants, key: &WorkloadKey, uid: &str) {
        grants.roles.remove(key, uid);
    }
}

impl Kind for BindingState {
    type Object = RoleBinding;
    const NAME: &'static str = "RoleBinding";

    fn of(object: RoleBinding) -> Self {
        Self::of(object)
    }
    fn marks(&self) -> &Marks {
        &self.marks
    }
    fn step(now: Option<&Self>, desired: &Desired<'_>, workload: &Workload) -> Step {
        grant::binding_step(now, desired, workload)
    }
    fn desired(desired: &Desired<'_>, workload: &Workload) -> RoleBinding {
        grant::binding(desired, workload)
    }
    fn get(grants: &Grants, key: &WorkloadKey) -> Option<Self> {
        grants.bindings.get(key)
    }
    fn put(grants: &Grants, key: &WorkloadKey, state: Self) {
        grants.bindings.upsert(key, state);
    }
    fn remove(grants: &Grants, key: &WorkloadKey, uid: &str) {
        grants.bindings.remove(key, uid);
    }
}

/// True when the Role has to be created, so the workload is looked at once more before.
pub fn is_missing(ctx: &Context, key: &WorkloadKey) -> bool {
    ctx.index.grants.roles.get(key).is_none()
}

/// Brings both to what they should be, the Role first: a binding to nothing grants nothing.
///
/// # Errors
/// What the API server says.
pub async fn ensure(
    ctx: &Context,
    workload: &Workload,
    experiment: &str,
    service_account: &str,
) -> Result<Granted, Error> {
    let name = naming::grant(&workload.key);
    let desired = Desired { name: &name, experiment, service_account };
    // Never a binding to a Role that is not ours: it would grant whatever somebody else wrote into it.
    let role = match ensure_one::<RoleState>(ctx, workload, &desired).await? {
        Granted::Done(wrote) => wrote,
        other => return Ok(other),
    };
    Ok(match ensure_one::<BindingState>(ctx, workload, &desired).await? {
        Granted::Done(binding) => Granted::Done(role || binding),
        other => other,
    })
}

async fn ensure_one<K: Kind>(
    ctx: &Context,
    workload: &Workload,
    desired: &Desired<'_>,
) -> Result<Granted, Error> {
    let key = &workload.key;
    let api = Api::<K::Object>::namespaced(ctx.client.clone(), &key.namespace);
    let object = || format!("{} {}/{}", K::NAME, key.namespace, desired.name);
    let mut now = K::get(&ctx.index.grants, key);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let answer = match K::step(now.as_ref(), desired, workload) {
            Step::Nothing => return Ok(Granted::Done(false)),
            Step::Foreign => return Ok(Granted::Foreign(object())),
            Step::Create => {
                ctx.may_write()?;
                let params =
                    PostParams { field_manager: Some(MANAGER.as_str().to_owned()), ..PostParams::default() };
                api.create(&params, &K::desired(desired, workload)).await
            }
            Step::Update(patch) => {
                ctx.may_write()?;
                let params = PatchParams {
                    field_manager: Some(MANAGER.as_str().to_owned()),
                    ..PatchParams::default()
                };
                api.patch(desired.name, &params, &Patch::Merge::<Value>(patch)).await
            }
            Step::Recreate => {
                if let Some(now) = &now {
                    delete_one::<K>(ctx, key, now.marks()).await?;
                }
                now = None;
                continue;
            }
        };
        match answer {
            Ok(written) => {
                K::put(&ctx.index.grants, key, K::of(written));
                return Ok(Granted::Done(true));
            }
            Err(error) if code_of(&error) == 403 => {
                return Ok(Granted::Forbidden(format!("{}: {}", object(), message_of(&error))));
            }
            // It exists without our label, or changed, or the API server does not know the new Role yet: look again.
            Err(error) if apply::is_stale(&error) && attempt < ATTEMPTS => {
                if apply::is_not_found(&error) {
                    tokio::time::sleep(LAG).await;
                }
                let live = api.get_opt(desired.name).await.map_err(Error::api("read", object()))?;
                now = live.map(K::of);
            }
            Err(error) => return Err(Error::api("write", object())(error)),
        }
    }
}

/// Deletes both, as far as they belong to this workload; true = something was deleted.
///
/// # Errors
/// What the API server says.
pub async fn withdraw(ctx: &Context, workload: &Workload) -> Result<bool, Error> {
    let key = &workload.key;
    let mut deleted = false;
    // The binding first: from then on nothing is allowed any more.
    if let Some(binding) = ctx.index.grants.bindings.get(key).filter(|b| b.marks.belongs_to(workload)) {
        delete_one::<BindingState>(ctx, key, &binding.marks).await?;
        deleted = true;
    }
    if let Some(role) = ctx.index.grants.roles.get(key).filter(|role| role.marks.belongs_to(workload)) {
        delete_one::<RoleState>(ctx, key, &role.marks).await?;
        deleted = true;
    }
    Ok(deleted)
}

async fn delete_one<K: Kind>(ctx: &Context, key: &WorkloadKey, marks: &Marks) -> Result<(), Error> {
    ctx.may_write()?;
    let name = naming::grant(key);
    let api = Api::<K::Object>::namespaced(ctx.client.clone(), &key.namespace);
    let preconditions = Preconditions { uid: Some(marks.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Ok(_) => {}
        // Gone, or another object of the name by now.
        Err(error) if apply::is_stale(&error) => {}
        Err(error) => {
            return Err(Error::api("delete", format!("{} {}/{name}", K::NAME, key.namespace))(error));
        }
    }
    K::remove(&ctx.index.grants, key, &marks.uid);
    Ok(())
}
