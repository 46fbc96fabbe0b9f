//! What becomes known while the process runs: Keycloak's public URL, the trust domain, the cluster's mark
//! (client-registration §14).

use std::{sync::Arc, time::Duration};

use agent_trust::TrustDomain;
use controller_kit::{
    apply,
    backoff::jitter,
    message::message_of,
    trust_domain::{self, Known, LOOK_AGAIN, LOOK_FOR_CHANGE, Reading},
};
use k8s_openapi::api::{core::v1::Namespace, networking::v1::Ingress};
use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use rest_client::BaseUrl;
use tokio::time::Instant;

use crate::{context::Context, identity::PlatformDomain};

/// Name of the Route or Ingress.
const KEYCLOAK: &str = "keycloak";
/// First waits when something that is needed at once was not found out.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is asked whether the first round is over.
const POLL: Duration = Duration::from_millis(20);

/// Waits until what passes decide by was looked for once, but no longer than `patience`: they would say otherwise what is
/// taken back a moment later.
pub async fn settled(ctx: &Context, patience: Duration) {
    let known = || {
        ctx.looked_for_public_url()
            && ctx.domain() != PlatformDomain::Looking
            && (ctx.cluster_id().is_some() || ctx.scope.is_namespaced())
    };
    let wait = async {
        while !known() {
            tokio::time::sleep(POLL).await;
        }
    };
    let _ = tokio::time::timeout(patience, wait).await;
}

/// Looks for the public URL until it is found, and for another one after that; never ends.
pub async fn public_url(ctx: Arc<Context>) {
    loop {
        let pause = match look_for_public_url(&ctx).await {
            Ok(Some(url)) => {
                let news = ctx.set_public_url(url.clone());
                ctx.note_public_url_look();
                if news {
                    tracing::info!(%url, "found the public URL of Keycloak");
                    ctx.wake_namespaces();
                    ctx.wake_all(None);
                }
                LOOK_FOR_CHANGE
            }
            Ok(None) => {
                ctx.note_public_url_look();
                LOOK_AGAIN
            }
            Err(error) => {
                tracing::debug!("cannot look for the public URL of Keycloak: {}", message_of(&error));
                // Passes wait for the first round.
                if ctx.looked_for_public_url() { LOOK_AGAIN } else { RETRY }
            }
        };
        tokio::time::sleep(jitter(pause, 0.1)).await;
    }
}

async fn look_for_public_url(ctx: &Context) -> kube::Result<Option<BaseUrl>> {
    let namespace = &ctx.settings.keycloak_admin_secret_namespace;
    let gvk = GroupVersionKind::gvk("route.openshift.io", "v1", "Route");
    let routes =
        Api::<DynamicObject>::namespaced_with(ctx.client.clone(), namespace, &ApiResource::from_gvk(&gvk));
    if let Some(route) = present(routes.get(KEYCLOAK).await)?
        && let Some(url) = of_route(&route.data)
    {
        return Ok(Some(url));
    }
    let ingresses = Api::<Ingress>::namespaced(ctx.client.clone(), namespace);
    Ok(present(ingresses.get(KEYCLOAK).await)?.as_ref().and_then(of_ingress))
}

fn present<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if apply::is_not_found(&error) || apply::is_forbidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of_route(route: &serde_json::Value) -> Option<BaseUrl> {
    let host = route.pointer("/spec/host")?.as_str().filter(|host| !host.is_empty())?;
    BaseUrl::parse(&format!("https://{host}")).ok()
}

fn of_ingress(ingress: &Ingress) -> Option<BaseUrl> {
    let spec = ingress.spec.as_ref()?;
    let host = spec.rules.as_ref()?.first()?.host.as_ref().filter(|host| !host.is_empty())?;
    let scheme = if spec.tls.as_ref().is_some_and(|tls| !tls.is_empty()) { "https" } else { "http" };
    BaseUrl::parse(&format!("{scheme}://{host}")).ok()
}

/// Looks for the trust domain until it is known, and for a change after that; never ends.
pub async fn trust_domain(ctx: Arc<Context>) {
    let mut known = Known::default();
    loop {
        let reading = match trust_domain::look(&ctx.client, &ctx.settings.spire_namespace).await {
            Ok(reading) => reading,
            Err(error) => {
                // The first round is not over: an agent registered now would change its id a moment later.
                tracing::debug!("cannot look for the trust domain: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
                continue;
            }
        };
        known.take(&reading, Instant::now());
        if ctx.set_domain(domain_of(&known, &reading)) {
            tracing::info!(domain = ?ctx.domain(), "trust domain");
            ctx.wake_all(None);
        }
        tokio::time::sleep(jitter(known.next_look(), 0.1)).await;
    }
}

/// A domain that was found once is kept.
fn domain_of(known: &Known, reading: &Reading) -> PlatformDomain {
    match (known.domain(), reading) {
        (Some(domain), _) => PlatformDomain::Known(domain.as_str().to_owned()),
        (None, Reading::Several(several)) => PlatformDomain::Several(
            several.iter().map(|domain| TrustDomain::as_str(domain).to_owned()).collect(),
        ),
        (None, _) => PlatformDomain::Absent,
    }
}

/// Reads the UID of `kube-system`, once; never ends.
pub async fn cluster_id(ctx: Arc<Context>) {
    let api = Api::<Namespace>::all(ctx.client.clone());
    loop {
        match api.get_metadata("kube-system").await {
            Ok(namespace) => {
                if let Some(uid) = namespace.metadata.uid {
                    tracing::info!(cluster_id = uid, "clients carry this mark");
                    ctx.set_cluster_id(uid);
                    ctx.wake_all(None);
                    break;
                }
            }
            Err(error) => {
                tracing::warn!("the UID of Namespace kube-system is not known: {}", message_of(&error));
            }
        }
        tokio::time::sleep(jitter(RETRY * 5, 0.1)).await;
    }
    // A task that ends ends the process.
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn public_urls() {
        let route = of_route(&json!({"spec": {"host": "sso.apps.example.com"}}));
        assert_eq!(route.unwrap().as_str(), "https://sso.apps.example.com");
        assert_eq!(of_route(&json!({"spec": {}})), None);
        let ingress = |spec| of_ingress(&serde_json::from_value(json!({ "spec": spec })).unwrap());
        let rules = json!([{"host": "sso.example.com"}, {"host": "other"}]);
        assert_eq!(ingress(json!({"rules": rules})).unwrap().as_str(), "http://sso.example.com");
        let tls = ingress(json!({"rules": rules, "tls": [{"secretName": "x"}]}));
        assert_eq!(tls.unwrap().as_str(), "https://sso.example.com");
        assert_eq!(ingress(json!({"rules": [{}]})), None);
    }

    #[test]
    fn several_domains_are_not_guessed_between() {
        let domain = |text: &str| TrustDomain::configured(text).unwrap();
        let several = Reading::Several(vec![domain("a.org"), domain("b.org")]);
        let mut known = Known::default();
        assert!(matches!(domain_of(&known, &several), PlatformDomain::Several(list) if list.len() == 2));
        assert_eq!(domain_of(&known, &Reading::Nothing), PlatformDomain::Absent);
        known.take(&Reading::One(domain("a.org")), Instant::now());
        for reading in [several, Reading::Nothing] {
            assert_eq!(domain_of(&known, &reading), PlatformDomain::Known("a.org".into()));
        }
    }
}
