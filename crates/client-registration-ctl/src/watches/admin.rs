//! The administrator's Secret: watched by name, without its data, and read when it changes.

use std::{sync::Arc, time::Duration};

use controller_kit::{
    apply::is_forbidden,
    lean::LeanMeta,
    message::message_of,
    watch::{Presence, pages},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use kube::Api;

use super::options;
use crate::{context::Context, keycloak::AdminCredentials, sources::Source};

/// How often it is read again when that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Watches it; never ends.
pub(super) async fn run(ctx: Arc<Context>) {
    let settings = &ctx.settings;
    let (namespace, name) = (&settings.keycloak_admin_secret_namespace, &settings.keycloak_admin_secret_name);
    let api = Api::<LeanMeta<ApiSecret>>::namespaced(ctx.client.clone(), namespace);
    let options = options(&ctx, "secrets", Source::Admin, Some(namespace)).check("admin secret");
    let config = pages().fields(&format!("metadata.name={name}"));
    let mut events = ctx.watch(api, config, options);
    let mut presence = Presence::default();
    while let Some(event) = events.next().await {
        let Some(exists) = presence.after(&event) else { continue };
        let read = if exists { read(&ctx).await } else { Err("does not exist".to_owned()) };
        let why = read.as_ref().err().cloned();
        if ctx.keycloak.admin().set(read) {
            if let Some(why) = why {
                tracing::warn!(
                    "Secret {namespace}/{name} {why}: agents are not registered until that changes"
                );
            }
            ctx.wake_namespaces();
            ctx.wake_all(None);
        }
        ctx.sources.synced(Source::Admin, Some(namespace));
    }
}

async fn read(ctx: &Context) -> Result<AdminCredentials, String> {
    let settings = &ctx.settings;
    let api = Api::<ApiSecret>::namespaced(ctx.client.clone(), &settings.keycloak_admin_secret_namespace);
    loop {
        match api.get_opt(&settings.keycloak_admin_secret_name).await {
            Ok(None) => return Err("does not exist".to_owned()),
            Ok(Some(secret)) => {
                let version = secret.metadata.resource_version.unwrap_or_default();
                let data = secret.data.unwrap_or_default();
                return AdminCredentials::read(settings.keycloak_admin_auth, &data, version);
            }
            Err(error) if is_forbidden(&error) => {
                return Err(format!("may not be read: {}", message_of(&error)));
            }
            Err(error) => {
                tracing::debug!("cannot read the admin Secret: {}", message_of(&error));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
