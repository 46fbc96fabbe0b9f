//! ConfigMap `authbridge-config` of enabled namespaces (client-registration §13): this controller is its only writer, and
//! fills what is missing.

use std::{collections::BTreeMap, time::Duration};

use api_types::{
    names::{MANAGED_BY_OPERATOR, configmap, label},
    registration::MANAGER,
};
use controller_kit::{apply, controller::PassError};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{context::Context, registration::Next, settings::Settings};

type Data = BTreeMap<String, String>;

const STALE: Duration = Duration::from_millis(500);
const URL: &str = "KEYCLOAK_URL";
const REALM: &str = "KEYCLOAK_REALM";

/// The labels of the ConfigMap.
const LABELS: [(&str, &str); 2] = [(label::MANAGED_BY, MANAGED_BY_OPERATOR), (label::DEFAULTS, "true")];

/// What the values come from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Flags.
    pub settings: &'a Settings,
    /// A Keycloak is known.
    pub keycloak: bool,
    /// Its public URL.
    pub public_url: Option<&'a str>,
}

/// What is missing in a namespace's data. Values that are there are never changed.
pub fn missing(data: &Data, facts: &Facts<'_>) -> Data {
    let settings = facts.settings;
    let present = |key: &str| data.get(key).is_some_and(|value| !value.trim().is_empty());
    let mut wanted = vec![
        (REALM, settings.keycloak_realm.clone()),
        ("KEYCLOAK_NAMESPACE", settings.keycloak_admin_secret_namespace.clone()),
        ("CLIENT_AUTH_TYPE", settings.client_auth_type.as_str().to_owned()),
        ("SPIFFE_IDP_ALIAS", settings.spiffe_idp_alias.clone()),
        ("CREDENTIAL_WAIT_TIMEOUT", settings.credential_wait_timeout.clone()),
    ];
    if facts.keycloak {
        wanted.push((URL, settings.platform_url_text()));
    }
    if let Some(public) = facts.public_url {
        let own = data.get(REALM).map(|realm| realm.trim()).filter(|realm| !realm.is_empty());
        let issuer = format!("{public}/realms/{}", own.unwrap_or(&settings.keycloak_realm));
        wanted.extend(["ISSUER", "EXPECTED_AUDIENCE", "JWT_AUDIENCE"].map(|key| (key, issuer.clone())));
    }
    wanted.retain(|(key, value)| !present(key) && !value.is_empty());
    wanted.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn labels() -> Data {
    LABELS.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// One pass over a namespace.
///
/// # Errors
/// What the API server says.
pub async fn pass(ctx: &Context, namespace: &str) -> Next {
    if !ctx.settings.enable_authbridge_config || !ctx.around.is_enabled(namespace)? {
        return Ok(None);
    }
    // Before this is known, what depends on it would be left out and added a moment later.
    if !ctx.sources.is_synced(crate::sources::Source::Admin, &ctx.settings.keycloak_admin_secret_namespace) {
        return Ok(Some(STALE));
    }
    let public = ctx.public_url();
    let facts = Facts {
        settings: &ctx.settings,
        keycloak: ctx.knows_keycloak(),
        public_url: public.as_ref().map(rest_client::BaseUrl::as_str),
    };
    let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace);
    let object = || format!("ConfigMap {namespace}/{}", configmap::AUTHBRIDGE);
    // A live read, but only when something has changed that this ConfigMap depends on; its labels are kept nowhere.
    let live = api.get_opt(configmap::AUTHBRIDGE).await.map_err(PassError::api("read", object()))?;
    match live {
        None => create(ctx, &api, namespace, &facts).await,
        Some(live) => fill(ctx, &api, namespace, live, &facts).await,
    }
}

/// A new ConfigMap begins as a copy of the one in the suite's namespace.
async fn create(ctx: &Context, api: &Api<ConfigMap>, namespace: &str, facts: &Facts<'_>) -> Next {
    let own = Api::<ConfigMap>::namespaced(ctx.client.clone(), &ctx.operator_namespace);
    let template = if namespace == ctx.operator_namespace {
        None
    } else {
        let object = format!("ConfigMap {}/{}", ctx.operator_namespace, configmap::AUTHBRIDGE);
        own.get_opt(configmap::AUTHBRIDGE).await.map_err(PassError::api("read", object))?
    };
    let mut data = template.and_then(|template| template.data).unwrap_or_default();
    data.extend(missing(&data, facts));
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(configmap::AUTHBRIDGE.to_owned()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    ctx.may_write()?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &map).await {
        Ok(_) => {
            tracing::info!(namespace, "ConfigMap {} created", configmap::AUTHBRIDGE);
            Ok(None)
        }
        Err(error) if apply::is_conflict(&error) => Ok(Some(STALE)),
        // The namespace went meanwhile.
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) => {
            Err(PassError::api("create", format!("ConfigMap {namespace}/{}", configmap::AUTHBRIDGE))(error)
                .into())
        }
    }
}

async fn fill(
    ctx: &Context,
    api: &Api<ConfigMap>,
    namespace: &str,
    live: ConfigMap,
    facts: &Facts<'_>,
) -> Next {
    let data = missing(&live.data.unwrap_or_default(), facts);
    let known = live.metadata.labels.unwrap_or_default();
    let labels: Data = labels().into_iter().filter(|(key, value)| known.get(key) != Some(value)).collect();
    if data.is_empty() && labels.is_empty() {
        return Ok(None);
    }
    // An empty map changes nothing.
    let patch = json!({
        "metadata": {
            "uid": live.metadata.uid,
            "resourceVersion": live.metadata.resource_version,
            "labels": labels,
        },
        "data": data,
    });
    ctx.may_write()?;
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(configmap::AUTHBRIDGE, &params, &Patch::Merge(&patch)).await {
        Ok(_) => {
            let keys: Vec<&String> = data.keys().collect();
            tracing::info!(namespace, ?keys, "ConfigMap {} filled", configmap::AUTHBRIDGE);
            Ok(None)
        }
        Err(error) if apply::is_stale(&error) || apply::is_not_found(&error) => Ok(Some(STALE)),
        Err(error) => {
            Err(PassError::api("patch", format!("ConfigMap {namespace}/{}", configmap::AUTHBRIDGE))(error)
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::settings::tests::settings;

    fn filled(pairs: &[(&str, &str)], keycloak: bool, public_url: Option<&str>) -> Vec<(String, String)> {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let settings = settings(&[]);
        missing(&data, &Facts { settings: &settings, keycloak, public_url }).into_iter().collect()
    }

    fn keys(filled: &[(String, String)]) -> Vec<&str> {
        filled.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// The table of §13: what depends on a Keycloak is left out until one is known.
    #[test]
    fn what_is_known_is_filled() {
        let bare = filled(&[], false, None);
        let common = [
            "CLIENT_AUTH_TYPE",
            "CREDENTIAL_WAIT_TIMEOUT",
            "KEYCLOAK_NAMESPACE",
            "KEYCLOAK_REALM",
            "SPIFFE_IDP_ALIAS",
        ];
        assert_eq!(keys(&bare), common);
        let full = filled(&[], true, Some("https://sso"));
        assert_eq!(full.len(), common.len() + 4);
        assert!(full.contains(&("KEYCLOAK_URL".into(), "http://keycloak-service.keycloak.svc:8080".into())));
        assert!(full.contains(&("ISSUER".into(), "https://sso/realms/kagenti".into())));
    }

    /// Scenario 19.
    #[rstest]
    #[case(&[("KEYCLOAK_REALM", "tx"), ("CLIENT_AUTH_TYPE", "")])]
    #[case(&[("KEYCLOAK_REALM", "tx"), ("CLIENT_AUTH_TYPE", "  ")])]
    fn a_value_survives_and_an_empty_one_is_filled(#[case] pairs: &[(&str, &str)]) {
        let filled = filled(pairs, false, Some("https://sso"));
        assert!(!keys(&filled).contains(&"KEYCLOAK_REALM"));
        assert!(filled.contains(&("CLIENT_AUTH_TYPE".into(), "client-secret".into())));
        assert!(
            filled.contains(&("ISSUER".into(), "https://sso/realms/tx".into())),
            "the namespace's own realm"
        );
    }

    #[test]
    fn a_full_map_needs_nothing() {
        let all = filled(&[], true, Some("https://sso"));
        let pairs: Vec<(&str, &str)> =
            all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert!(filled(&pairs, true, Some("https://other")).is_empty());
    }
}
