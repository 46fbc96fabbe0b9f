//! The controller goes for good: no Secret waits for it in deletion (client-registration §10, packaging §15). Secrets and
//! clients stay, because Pods that run use them.

use controller_kit::{apply, lean::LeanMeta, message::message_of, scope::Scope};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use api_types::{
    credentials,
    names::{MANAGED_BY_OPERATOR, label},
    registration::{FINALIZER, MANAGER},
};

/// Secrets of one page of a list.
const PAGE: u32 = 200;
/// How often the lists are read again because something changed under way.
const ROUNDS: u32 = 10;

/// Takes our finalizer off every credentials Secret of the scope; how many lost it.
///
/// # Errors
/// The first thing that cannot be done, in words; what was done before stays done.
pub async fn run(client: &Client, scope: &Scope, concurrency: usize) -> Result<usize, String> {
    let mut count = 0;
    // One namespace that cannot be cleaned must not keep the others from it.
    let mut first = None;
    for api in scope.apis::<LeanMeta<ApiSecret>>(client) {
        match strip_all(client, &api, concurrency).await {
            Ok(stripped) => count += stripped,
            Err(text) => first = first.or(Some(text)),
        }
    }
    first.map_or(Ok(count), Err)
}

async fn strip_all(
    client: &Client,
    api: &Api<LeanMeta<ApiSecret>>,
    concurrency: usize,
) -> Result<usize, String> {
    let mut count = 0;
    let mut restless = String::new();
    for _ in 0..ROUNDS {
        let found = list(api).await?;
        // Only a list without any is the end: a write that was under way may have put one on again.
        let Some(last) = found.last().and_then(|secret| secret.metadata.name.clone()) else {
            return Ok(count);
        };
        let total = found.len();
        let strip = |secret| strip(client, secret);
        let changed: Vec<Option<String>> =
            stream::iter(found).map(strip).buffer_unordered(concurrency.max(1)).try_collect().await?;
        let changed: Vec<String> = changed.into_iter().flatten().collect();
        count += total - changed.len();
        restless = changed.into_iter().next().unwrap_or(last);
    }
    Err(format!(
        "Secrets keep changing, the last one is {restless}: is another client-registration-ctl at work here?"
    ))
}

/// The credentials Secrets with our finalizer; their metadata only are asked for.
async fn list(api: &Api<LeanMeta<ApiSecret>>) -> Result<Vec<LeanMeta<ApiSecret>>, String> {
    let mut found = Vec::new();
    let selector = format!("{}={MANAGED_BY_OPERATOR}", label::MANAGED_BY);
    let mut params = ListParams::default().labels(&selector).limit(PAGE);
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(|error| format!("cannot list Secrets: {}", message_of(&error)))?;
        found.extend(page.items.into_iter().filter(|secret| {
            secret.metadata.name.as_deref().is_some_and(credentials::is_operator_secret)
                && secret.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// Takes the finalizer off; the name of a Secret that changed meanwhile.
async fn strip(client: &Client, secret: LeanMeta<ApiSecret>) -> Result<Option<String>, String> {
    let meta = secret.metadata;
    let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
    let left: Vec<String> = meta.finalizers.into_iter().flatten().filter(|name| name != FINALIZER).collect();
    let patch = json!({ "metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": left,
    } });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let api = Api::<ApiSecret>::namespaced(client.clone(), &namespace);
    match api.patch_metadata(&name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(None),
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) if apply::is_stale(&error) => Ok(Some(format!("{namespace}/{name}"))),
        Err(error) => Err(format!(
            "cannot take finalizer {FINALIZER} off Secret {namespace}/{name}: {}",
            message_of(&error)
        )),
    }
}
