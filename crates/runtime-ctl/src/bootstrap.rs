//! Copies of the configuration templates into the namespaces of agents (runtime §12.2).

use api_types::{
    config_hash::Data,
    names::{MANAGED_BY_OPERATOR, label, manager},
};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::PostParams};

use crate::{
    context::Context,
    error::{Error, code_of, message_of},
    index::Input,
    sources::Source,
};

/// The templates, in the order of the specification.
const TEMPLATES: [Input; 2] = [Input::Runtime, Input::SpiffeHelper];

/// Creates the copies that are missing; existing ones are never touched. Returns what went wrong, for events.
///
/// # Errors
/// Only [`Error::Pass`], when this replica does not lead.
pub async fn ensure(ctx: &Context, namespace: &str) -> Result<Vec<String>, Error> {
    let mut failures = Vec::new();
    for input in TEMPLATES {
        if let Some(template) = missing(ctx, input, namespace) {
            let _alone = ctx.namespace_locks.lock(namespace).await;
            if missing(ctx, input, namespace).is_some() {
                ctx.may_write()?;
                failures.extend(create(ctx, input, namespace, &template).await);
            }
        }
    }
    Ok(failures)
}

/// The template's data when the namespace has no such ConfigMap.
fn missing(ctx: &Context, input: Input, namespace: &str) -> Option<Data> {
    let synced = ctx.sources.is_synced(Source::Config(input), namespace);
    if namespace == ctx.operator_namespace || !synced || ctx.index.configs.data(input, namespace).is_some() {
        return None;
    }
    ctx.index.configs.data(input, &ctx.operator_namespace).map(|data| data.as_ref().clone())
}

async fn create(ctx: &Context, input: Input, namespace: &str, data: &Data) -> Option<String> {
    let name = input.name()?;
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(label::MANAGED_BY.to_owned(), MANAGED_BY_OPERATOR.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data.clone()),
        ..ConfigMap::default()
    };
    let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace);
    let params = PostParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PostParams::default() };
    match api.create(&params, &copy).await {
        Ok(created) => {
            tracing::info!(namespace, name, "copied the template");
            // It counts as an input in this very pass.
            ctx.index.configs.upsert(input, namespace, name, created.data.unwrap_or_default());
            None
        }
        // Somebody was faster; the watch brings it.
        Err(error) if code_of(&error) == 409 => None,
        Err(error) => Some(format!(
            "ConfigMap {name} could not be made in namespace {namespace}: {}",
            message_of(&error)
        )),
    }
}
