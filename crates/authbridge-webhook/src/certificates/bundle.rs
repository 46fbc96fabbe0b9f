//! `caBundle` of the webhook configurations: what is there, what should be, and the apply that
//! touches nothing else (packaging §8).

use api_types::names::manager;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pki::{Certificate, pem_of};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A webhook configuration, mutating or validating.
pub trait Configuration:
    Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Name and client configuration of each entry.
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let all = self.webhooks.iter().flatten();
        all.map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let all = self.webhooks.iter().flatten();
        all.map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

fn certificates(config: &WebhookClientConfig) -> Option<Vec<Certificate>> {
    let pem = &config.ca_bundle.as_ref()?.0;
    Certificate::all_from_pem(pem).ok()
}

/// Whether every entry trusts every wanted certificate.
pub fn carries<K: Configuration>(configuration: &K, wanted: &[&Certificate]) -> bool {
    configuration.entries().iter().all(|(_, config)| {
        certificates(config).is_some_and(|have| wanted.iter().all(|want| have.contains(want)))
    })
}

/// Whether every entry trusts exactly the wanted certificates.
pub fn is_exactly<K: Configuration>(configuration: &K, wanted: &[&Certificate]) -> bool {
    configuration.entries().iter().all(|(_, config)| {
        certificates(config)
            .is_some_and(|have| have.len() == wanted.len() && wanted.iter().all(|want| have.contains(want)))
    })
}

/// The fields the certificate writer owns: names and `caBundle`. The uid keeps the apply from
/// creating a stump when the configuration was deleted meanwhile.
fn apply_body<K: Configuration>(configuration: &K, wanted: &[&Certificate]) -> Value {
    let bundle = STANDARD.encode(pem_of(wanted.iter().copied()));
    let webhooks: Vec<Value> = configuration
        .entries()
        .iter()
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}}))
        .collect();
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": configuration.meta().name, "uid": configuration.meta().uid},
        "webhooks": webhooks,
    })
}

/// Publishes the bundle; returns the stored configuration.
pub async fn publish<K: Configuration>(
    client: &Client,
    configuration: &K,
    wanted: &[&Certificate],
) -> kube::Result<K> {
    let name = configuration.meta().name.clone().unwrap_or_default();
    let params = PatchParams::apply(manager::WEBHOOK_CA).force();
    let body = apply_body(configuration, wanted);
    Api::<K>::all(client.clone()).patch(&name, &params, &Patch::Apply(&body)).await
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhook};

    use super::*;
    use crate::certificates::pki::Authority;

    fn authority() -> Authority {
        Authority::generate(Timestamp::from_second(1_800_000_000).unwrap(), SignedDuration::from_hours(1))
            .unwrap()
    }

    fn configuration(bundles: &[Option<&[&Certificate]>]) -> MutatingWebhookConfiguration {
        let mut configuration = MutatingWebhookConfiguration::default();
        configuration.metadata.name = Some("c".into());
        configuration.metadata.uid = Some("u".into());
        let entry = |(n, bundle): (usize, Option<&[&Certificate]>)| MutatingWebhook {
            name: format!("w{n}"),
            client_config: WebhookClientConfig {
                ca_bundle: bundle.map(|b| ByteString(pem_of(b.iter().copied()).into_bytes())),
                url: Some("https://x".into()),
                ..WebhookClientConfig::default()
            },
            ..MutatingWebhook::default()
        };
        configuration.webhooks = Some(bundles.iter().copied().enumerate().map(entry).collect());
        configuration
    }

    #[test]
    fn every_entry_counts() {
        let (a, b) = (authority(), authority());
        let (a, b) = (a.certificate(), b.certificate());
        let both = configuration(&[Some(&[a, b]), Some(&[b, a])]);
        assert!(carries(&both, &[a]) && carries(&both, &[a, b]));
        assert!(is_exactly(&both, &[a, b]) && !is_exactly(&both, &[a]));
        let half = configuration(&[Some(&[a, b]), Some(&[a])]);
        assert!(carries(&half, &[a]) && !carries(&half, &[a, b]));
        assert!(!carries(&configuration(&[Some(&[a]), None]), &[a]), "an empty bundle");
    }

    #[test]
    fn the_apply_owns_names_and_bundles_only() {
        let a = authority();
        let body = apply_body(&configuration(&[None, None]), &[a.certificate()]);
        assert_eq!(body["metadata"], json!({"name": "c", "uid": "u"}));
        for entry in body["webhooks"].as_array().unwrap() {
            assert_eq!(entry.as_object().unwrap().len(), 2);
            assert_eq!(entry["clientConfig"].as_object().unwrap().len(), 1);
        }
    }
}
