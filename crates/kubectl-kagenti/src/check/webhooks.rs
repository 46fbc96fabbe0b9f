//! Admission as the API server is told of it: configurations, bundles, the Service behind them, its certificate
//! (packaging §8, §9).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};
use crate::installation::{Component, Found};

use super::certificate::{self, Age};
use super::finding::Finding;

const CHECK: &str = "webhook";
pub(super) const COMPONENT: &str = "authbridge-webhook";
/// Webhooks of the suite by name.
const OWN: [&str; 4] =
    ["inject.kagenti.io", "enrolled.inject.kagenti.io", "vagentcard.kb.io", "vagentruntime.kb.io"];
/// Where the certificate is unless the Deployment says otherwise (packaging §8).
const SECRET: &str = "kagenti-operator-webhook-server-cert";

/// One webhook of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Webhook {
    /// Kind and name of the configuration.
    configuration: String,
    name: String,
    bundle: Option<Vec<u8>>,
    /// Namespace and name of the Service; none when the API server calls a URL.
    service: Option<(String, String)>,
}

/// What is behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backend {
    exists: Answer<bool>,
    ready: Answer<usize>,
    secret: String,
    /// `tls.crt`; `None` = no such Secret or key.
    certificate: Answer<Option<Vec<u8>>>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Webhooks {
    entries: Vec<Webhook>,
    backends: BTreeMap<(String, String), Backend>,
    unknown: Vec<String>,
}

impl Webhooks {
    /// Whether the API server is told of a webhook of the suite, as far as that is known.
    pub(super) fn is_configured(&self) -> bool {
        !self.entries.is_empty() || !self.unknown.is_empty()
    }
}

fn webhook(configuration: String, name: &str, client: &WebhookClientConfig) -> Option<Webhook> {
    OWN.contains(&name).then(|| Webhook {
        configuration,
        name: name.to_owned(),
        bundle: client.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).filter(|bundle| !bundle.is_empty()),
        service: client.service.as_ref().map(|service| (service.namespace.clone(), service.name.clone())),
    })
}

pub(super) async fn look(cluster: &Cluster, found: &Found) -> Result<Webhooks, NoCluster> {
    let mut seen = Webhooks::default();
    let needs = Right::global("list", "mutatingwebhookconfigurations.admissionregistration.k8s.io");
    let api = Api::<MutatingWebhookConfiguration>::all(cluster.client().clone());
    match cluster.answer(&needs, list(&api, "").await)? {
        Answer::Known(all) => seen.entries.extend(all.into_iter().flat_map(|configuration| {
            let of =
                format!("MutatingWebhookConfiguration {}", configuration.metadata.name.unwrap_or_default());
            let webhooks = configuration.webhooks.unwrap_or_default().into_iter();
            webhooks.filter_map(move |w| webhook(of.clone(), &w.name, &w.client_config)).collect::<Vec<_>>()
        })),
        Answer::Unknown(why) => seen.unknown.push(why),
    }
    let needs = Right::global("list", "validatingwebhookconfigurations.admissionregistration.k8s.io");
    let api = Api::<ValidatingWebhookConfiguration>::all(cluster.client().clone());
    match cluster.answer(&needs, list(&api, "").await)? {
        Answer::Known(all) => seen.entries.extend(all.into_iter().flat_map(|configuration| {
            let of =
                format!("ValidatingWebhookConfiguration {}", configuration.metadata.name.unwrap_or_default());
            let webhooks = configuration.webhooks.unwrap_or_default().into_iter();
            webhooks.filter_map(move |w| webhook(of.clone(), &w.name, &w.client_config)).collect::<Vec<_>>()
        })),
        Answer::Unknown(why) => seen.unknown.push(why),
    }
    let services: BTreeSet<(String, String)> =
        seen.entries.iter().filter_map(|w| w.service.clone()).collect();
    for service in services {
        let backend = backend(cluster, found, &service).await?;
        seen.backends.insert(service, backend);
    }
    Ok(seen)
}

async fn backend(cluster: &Cluster, found: &Found, service: &(String, String)) -> Result<Backend, NoCluster> {
    let (namespace, name) = (service.0.as_str(), service.1.as_str());
    let secret = found.components.iter().find(|c| c.name == COMPONENT && c.namespace == namespace);
    let secret =
        secret.and_then(|component| component.certificate.clone()).unwrap_or_else(|| SECRET.to_owned());
    let exists = cluster.api::<Service>(Some(namespace)).get_opt(name).await.map(|found| found.is_some());
    let slices = cluster.api::<EndpointSlice>(Some(namespace));
    let slices = list(&slices, &format!("kubernetes.io/service-name={name}")).await;
    let certificate = cluster.api::<Secret>(Some(namespace)).get_opt(&secret).await;
    let certificate = certificate.map(|secret| Some(secret?.data?.remove("tls.crt")?.0));
    let right = |verb, resource| Right::new(verb, resource, Some(namespace));
    Ok(Backend {
        exists: cluster.answer(&right("get", "services"), exists)?,
        ready: cluster
            .answer(&right("list", "endpointslices.discovery.k8s.io"), slices.map(|s| ready(&s)))?,
        certificate: cluster.answer(&right("get", "secrets"), certificate)?,
        secret,
    })
}

fn ready(slices: &[EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let is_ready = |e: &&k8s_openapi::api::discovery::v1::Endpoint| {
        e.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    endpoints.filter(is_ready).count()
}

pub(super) fn judge(seen: &Webhooks, found: &Found, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        seen.unknown.iter().map(|why| Finding::unknown(CHECK, "webhook configurations", why)).collect();
    let component = found.components.iter().find(|component| component.name == COMPONENT);
    findings.extend(presence(seen, component, found.unknown.is_some()));
    let mut sound: BTreeMap<&(String, String), Vec<&Webhook>> = BTreeMap::new();
    for webhook in &seen.entries {
        match bundle(webhook, component, now) {
            Some(finding) => findings.push(finding),
            None => {
                if let Some(service) = &webhook.service {
                    sound.entry(service).or_default().push(webhook);
                }
            }
        }
    }
    for (service, backend) in &seen.backends {
        findings.extend(reachability(service, backend));
        let webhooks = sound.get(service).map(Vec::as_slice).unwrap_or_default();
        findings.extend(serving(service, backend, webhooks, now));
    }
    findings
}

/// Whether what is installed and what the API server is told belong together.
fn presence(seen: &Webhooks, component: Option<&Component>, unsure: bool) -> Vec<Finding> {
    let names: BTreeSet<&str> = seen.entries.iter().map(|webhook| webhook.configuration.as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    match component {
        None if seen.entries.is_empty() && seen.unknown.is_empty() => vec![Finding::warning(
            CHECK,
            "authbridge-webhook is not installed: Pods get no sidecars",
            "helm upgrade ... --set authbridge-webhook.enabled=true",
        )],
        None if !seen.entries.is_empty() && !unsure => vec![Finding::failed(
            CHECK,
            format!(
                "{names}: left behind, authbridge-webhook is not installed, so what they select is refused"
            ),
            "kubectl delete mutatingwebhookconfigurations,validatingwebhookconfigurations -l app.kubernetes.io/part-of=kagenti-operator",
        )],
        Some(component) if seen.unknown.is_empty() => {
            let missing: Vec<&str> = OWN
                .into_iter()
                .filter(|own| seen.entries.iter().all(|webhook| webhook.name != *own))
                .collect();
            if missing.is_empty() {
                return Vec::new();
            }
            vec![Finding::failed(
                CHECK,
                format!(
                    "the API server is not told of {}: it asks {} nothing",
                    missing.join(", "),
                    component.deployment
                ),
                "helm upgrade ... --set authbridge-webhook.createConfigurations=true, or as an administrator: \
                 kubectl apply -f deploy/overlays/namespaced/webhooks.yaml",
            )]
        }
        _ => Vec::new(),
    }
}

/// What is wrong with the bundle of a webhook.
fn bundle(webhook: &Webhook, component: Option<&Component>, now: Timestamp) -> Option<Finding> {
    let Webhook { configuration, name, .. } = webhook;
    let logs = component.map_or_else(
        || "install authbridge-webhook, which publishes it".to_owned(),
        |component| {
            format!(
                "kubectl -n {} logs deployment/{} | grep -i -e certificate -e bundle",
                component.namespace, component.deployment
            )
        },
    );
    let failed = |why: &str| {
        Some(Finding::failed(CHECK, format!("{configuration}: the caBundle of {name} {why}"), logs.clone()))
    };
    let Some(pem) = &webhook.bundle else {
        return failed("is empty: nobody has published an authority, and every call fails");
    };
    match certificate::read(pem) {
        Err(error) => failed(&format!("cannot be used: {error}")),
        Ok(all) => {
            if all.iter().any(|der| certificate::is_valid(der, now)) {
                None
            } else {
                failed("has expired, or is not valid yet")
            }
        }
    }
}

fn reachability(service: &(String, String), backend: &Backend) -> Vec<Finding> {
    let (namespace, name) = service;
    let text = format!("Service {name} in namespace {namespace}");
    let pods = format!("kubectl -n {namespace} get pods -l app.kubernetes.io/component={COMPONENT}");
    match (&backend.exists, &backend.ready) {
        (Answer::Known(false), _) => vec![Finding::failed(
            CHECK,
            format!("{text} does not exist: the API server cannot call the webhook"),
            "helm upgrade makes it again",
        )],
        (exists, ready) => {
            let mut findings = Vec::new();
            if let Answer::Unknown(why) = exists {
                findings.push(Finding::unknown(CHECK, &text, why));
            }
            findings.push(match ready {
                Answer::Unknown(why) => Finding::unknown(CHECK, &format!("who answers at {text}"), why),
                Answer::Known(0) => Finding::failed(CHECK, format!("{text} has no ready endpoint"), pods),
                Answer::Known(count) => Finding::ok(CHECK, format!("{text} has {count} ready endpoints")),
            });
            findings
        }
    }
}

/// Whether what is served is what the API server trusts.
fn serving(
    service: &(String, String),
    backend: &Backend,
    webhooks: &[&Webhook],
    now: Timestamp,
) -> Vec<Finding> {
    let (namespace, name) = service;
    let secret = format!("Secret {} in namespace {namespace}", backend.secret);
    let look = format!(
        "kubectl -n {namespace} describe secret {}; docs/install.md says who makes it",
        backend.secret
    );
    let failed = |why: String| vec![Finding::failed(CHECK, format!("{secret}: {why}"), look.clone())];
    let pem = match &backend.certificate {
        Answer::Unknown(why) => {
            return vec![Finding::unknown(CHECK, &format!("the certificate in {secret}"), why)];
        }
        Answer::Known(None) => return failed("it is not there, or has no tls.crt".to_owned()),
        Answer::Known(Some(pem)) => pem,
    };
    let chain = match certificate::read(pem) {
        Err(error) => return failed(format!("tls.crt cannot be used: {error}")),
        Ok(chain) => chain,
    };
    let Some((leaf, others)) = chain.split_first() else { return failed("tls.crt is empty".to_owned()) };
    let host = format!("{name}.{namespace}.svc");
    let (until, is_late) = match certificate::age(leaf, now) {
        None => return failed("the validity of tls.crt cannot be read".to_owned()),
        Some(Age::Over(when)) => return failed(format!("tls.crt has expired at {when}")),
        Some(Age::Early(when)) => return failed(format!("tls.crt is valid from {when} on: clocks differ")),
        Some(Age::Late(when)) => (when, true),
        Some(Age::Fresh(when)) => (when, false),
    };
    if !certificate::is_for(leaf, &host) {
        return failed(format!("tls.crt is not for {host}, the name that the API server calls"));
    }
    let others: Vec<_> = others.iter().filter(|der| certificate::is_valid(der, now)).collect();
    let mut findings = Vec::new();
    for webhook in webhooks {
        let trusted =
            webhook.bundle.as_deref().and_then(|pem| certificate::read(pem).ok()).unwrap_or_default();
        if !certificate::is_trusted(leaf, &others, &trusted) {
            findings.push(Finding::failed(
                CHECK,
                format!(
                    "{}: the caBundle of {} is not the authority of the certificate in {secret}, so every call fails",
                    webhook.configuration, webhook.name
                ),
                "the webhook mends it within 10s; a GitOps tool that writes caBundle back must ignore that field",
            ));
        }
    }
    if is_late {
        let late = format!("{secret}: tls.crt ends at {until} and nobody has renewed it");
        findings.push(Finding::warning(CHECK, late, look));
    } else if findings.is_empty() && !webhooks.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{secret} is valid until {until} and trusted by the API server"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::certificate::tests::{chain, pair};
    use super::super::finding::Verdict;
    use super::*;
    use crate::installation::tests::deployment;

    fn service() -> (String, String) {
        ("kagenti-system".to_owned(), "hook".to_owned())
    }

    fn sound() -> (Webhooks, Found) {
        let (ca, leaf) = pair();
        let webhook = |name: &&str| Webhook {
            configuration: "MutatingWebhookConfiguration x".to_owned(),
            name: (*name).to_owned(),
            bundle: Some(ca.clone().into_bytes()),
            service: Some(service()),
        };
        let backend = Backend {
            exists: Answer::Known(true),
            ready: Answer::Known(2),
            secret: SECRET.to_owned(),
            certificate: Answer::Known(Some(leaf.into_bytes())),
        };
        let seen = Webhooks {
            entries: OWN.iter().map(webhook).collect(),
            backends: BTreeMap::from([(service(), backend)]),
            unknown: Vec::new(),
        };
        let component = Component::of(&deployment(COMPONENT, "x:0.1.0", &json!([]))).expect("a component");
        (seen, Found { components: vec![component], unknown: None })
    }

    fn judged(change: impl FnOnce(&mut Webhooks, &mut Found, &mut Backend)) -> Vec<Finding> {
        let (mut seen, mut found) = sound();
        let mut backend = seen.backends.remove(&service()).expect("a backend");
        change(&mut seen, &mut found, &mut backend);
        if seen.entries.iter().any(|webhook| webhook.service.is_some()) {
            seen.backends.insert(service(), backend);
        }
        judge(&seen, &found, "2026-06-01T00:00:00Z".parse().expect("a time"))
    }

    fn bad(findings: &[Finding]) -> Vec<&Finding> {
        findings.iter().filter(|finding| finding.result != Verdict::Ok).collect()
    }

    #[test]
    fn a_sound_set_up_is_fine() {
        let findings = judged(|_, _, _| {});
        assert_eq!(bad(&findings), Vec::<&Finding>::new());
        assert!(findings.iter().any(|finding| finding.message.contains("trusted by the API server")));
    }

    /// A change of the facts.
    type Change = fn(&mut Webhooks, &mut Found, &mut Backend);

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(Change, Verdict, &str); 12] = [
            (
                |s, _, _| s.entries[0].bundle = None,
                Verdict::Failed,
                "the caBundle of inject.kagenti.io is empty",
            ),
            (
                |s, _, _| s.entries[0].bundle = Some(b"x".to_vec()),
                Verdict::Failed,
                "cannot be used: it holds no certificate",
            ),
            (
                |s, _, _| s.entries[0].bundle = Some(pair().0.into_bytes()),
                Verdict::Failed,
                "is not the authority of the certificate",
            ),
            (
                |_, _, b| b.exists = Answer::Known(false),
                Verdict::Failed,
                "Service hook in namespace kagenti-system does not exist",
            ),
            (|_, _, b| b.ready = Answer::Known(0), Verdict::Failed, "has no ready endpoint"),
            (|_, _, b| b.certificate = Answer::Known(None), Verdict::Failed, "it is not there"),
            (
                |_, _, b| b.certificate = Answer::Known(Some(b"x".to_vec())),
                Verdict::Failed,
                "tls.crt cannot be used",
            ),
            (
                |_, _, b| b.certificate = Answer::Unknown("needs the right to get secrets".into()),
                Verdict::Unknown,
                "needs the right to get secrets",
            ),
            (
                |s, _, _| {
                    s.entries.clear();
                    s.unknown.push("needs x".into());
                },
                Verdict::Unknown,
                "webhook configurations: needs x",
            ),
            (
                |_, f, _| f.components.clear(),
                Verdict::Failed,
                "left behind, authbridge-webhook is not installed",
            ),
            (
                |s, _, _| s.entries.clear(),
                Verdict::Failed,
                "the API server is not told of inject.kagenti.io, enrolled",
            ),
            (
                |s, f, _| {
                    s.entries.clear();
                    f.components.clear();
                },
                Verdict::Warning,
                "is not installed: Pods get no sidecars",
            ),
        ];
        for (change, verdict, says) in cases {
            let findings = judged(change);
            let bad = bad(&findings);
            assert!(bad.iter().any(|f| f.result == verdict && f.message.contains(says)), "{says}: {bad:?}");
            assert!(bad.iter().all(|f| f.result == Verdict::Unknown || f.remedy.is_some()), "{bad:?}");
        }
    }

    #[test]
    fn an_expired_certificate_and_bundle_are_both_named() {
        let (seen, found) = sound();
        let findings = judge(&seen, &found, "2027-06-01T00:00:00Z".parse().expect("a time"));
        assert!(
            findings.iter().any(|f| f.message.contains("tls.crt has expired at 2027-01-01")),
            "{findings:?}"
        );
        assert!(findings.iter().any(|f| f.message.contains("caBundle of inject.kagenti.io has expired")));
    }

    /// What is late still has to be for the Service, and of the authority.
    #[test]
    fn a_late_certificate_is_judged_like_others() {
        let late = |change: fn(&mut Webhooks)| {
            let (mut seen, found) = sound();
            change(&mut seen);
            let findings = judge(&seen, &found, "2026-12-28T00:00:00Z".parse().expect("a time"));
            bad(&findings).into_iter().map(|f| (f.result, f.message.clone())).collect::<Vec<_>>()
        };
        let has = |all: &[(Verdict, String)], verdict, says| {
            all.iter().any(|(v, m)| *v == verdict && m.contains(says))
        };
        let sound = late(|_| {});
        assert!(sound.len() == 1 && has(&sound, Verdict::Warning, "nobody has renewed it"), "{sound:?}");
        let stranger = late(|seen| seen.entries[0].bundle = Some(pair().0.into_bytes()));
        assert!(has(&stranger, Verdict::Failed, "is not the authority"), "{stranger:?}");
        assert!(has(&stranger, Verdict::Warning, "nobody has renewed it"), "{stranger:?}");
        let elsewhere = late(|seen| {
            let backend = seen.backends.remove(&service()).expect("a backend");
            seen.backends.insert(("kagenti-system".into(), "other".into()), backend);
        });
        assert!(
            has(&elsewhere, Verdict::Failed, "tls.crt is not for other.kagenti-system.svc"),
            "{elsewhere:?}"
        );
    }

    /// A leaf whose authority is served with it, and is itself of the one in `caBundle`.
    #[test]
    fn a_chain_is_followed() {
        let (root, served) = chain();
        let at = |now: &str| {
            let (mut seen, found) = sound();
            seen.entries.iter_mut().for_each(|webhook| webhook.bundle = Some(root.clone().into_bytes()));
            for backend in seen.backends.values_mut() {
                backend.certificate = Answer::Known(Some(served.clone().into_bytes()));
            }
            judge(&seen, &found, now.parse().expect("a time"))
        };
        let findings = at("2026-06-01T00:00:00Z");
        assert_eq!(bad(&findings), Vec::<&Finding>::new());
        let ended = at("2026-08-01T00:00:00Z");
        assert!(bad(&ended).iter().any(|f| f.message.contains("is not the authority")), "{ended:?}");
    }

    /// A webhook that is called by URL has no Service to look at.
    #[test]
    fn a_url_is_no_service() {
        let findings =
            judged(|seen, _, _| seen.entries.iter_mut().for_each(|webhook| webhook.service = None));
        assert_eq!(bad(&findings), Vec::<&Finding>::new());
    }

    #[test]
    fn endpoints_without_a_word_are_ready() {
        let slice = json!({"addressType": "IPv4", "endpoints": [
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        ]});
        assert_eq!(ready(&[serde_json::from_value(slice).expect("a slice")]), 1);
    }
}
