//! The sub-command `selftest` (packaging §12, §15): does a running installation work?

use std::{process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use controller_kit::{
    cli::CommonArgs,
    client,
    metrics::Metrics,
    process::DEFAULT_NAMESPACE,
    selftest::{self as checks, Right, Selftest},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client, api::PostParams, core::DynamicObject};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    registration::{PODS_PATH, RUNTIMES_PATH, service_name},
    review::API_VERSION,
    settings::{COMPONENT, SelftestArgs, Settings},
};

/// The rights whose absence stops the work; the whole list is the chart's `files/rbac.yaml`.
const RIGHTS: [(&str, &str, &[&str]); 6] = [
    ("agent.kagenti.dev", "agentruntimes", &["get", "list", "watch"]),
    ("agent.kagenti.dev", "agentcards", &["get", "list", "watch"]),
    ("", "configmaps", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "serviceaccounts", &["get", "list", "watch", "create"]),
    ("apps", "replicasets", &["get"]),
    ("batch", "jobs", &["get"]),
];

/// Calls before the webhook counts as silent, and how long each is waited for.
const ATTEMPTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(4);

/// Checks the installation and prints a table; 1 when a check failed.
pub async fn selftest(common: &CommonArgs, own: &Settings, args: &SelftestArgs) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Metrics::new(COMPONENT.name);
    let found = match client::config(common.kubeconfig.as_deref()).await {
        Ok(config) => client::client(&COMPONENT, common, config, &metrics),
        Err(error) => Err(error),
    };
    let client = match found {
        Ok((client, _)) => client,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            return ExitCode::from(2);
        }
    };
    let namespace = common.pod_namespace.clone().filter(|ns| !ns.is_empty());
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let scope = common.watch_namespaces.namespaces();
    let mut test = Selftest::new();
    test.check("api server", checks::api_server(&client)).await;
    let places: Vec<Option<&str>> =
        if scope.is_empty() { vec![None] } else { scope.iter().map(|ns| Some(ns.as_str())).collect() };
    let rights: Vec<Right<'_>> = places
        .iter()
        .flat_map(|&namespace| {
            RIGHTS.iter().flat_map(move |&(group, resource, verbs)| {
                verbs.iter().map(move |&verb| Right { group, resource, verb, namespace })
            })
        })
        .collect();
    test.check("rights", checks::rights(&client, &rights)).await;
    if common.leader_elect {
        let lease = format!("{}.kagenti.dev{}", COMPONENT.name, common.watch_namespaces.lease_suffix());
        test.check("lease", checks::lease_is_alive(&client, &namespace, &lease)).await;
    }
    test.check("webhook", answers(&client, own, args, &namespace)).await;
    let invalid_in = scope.first().map_or(namespace.as_str(), String::as_str);
    let refused = async {
        let by_server = refused(&client, invalid_in).await?;
        match by_server {
            Some(words) => Ok(words),
            None => refused_by_webhook(&Endpoint::find(&client, own, args, &namespace).await?).await,
        }
    };
    test.check("invalid AgentRuntime is refused", refused).await;
    test.finish()
}

/// Where the webhook answers, and whom to trust there.
struct Endpoint {
    address: String,
    host: String,
    bundle: Vec<u8>,
}

impl Endpoint {
    async fn find(
        client: &Client,
        own: &Settings,
        args: &SelftestArgs,
        namespace: &str,
    ) -> Result<Self, String> {
        let name = own.mutating_configuration();
        let configuration = Api::<MutatingWebhookConfiguration>::all(client.clone())
            .get(&name)
            .await
            .map_err(|error| format!("cannot read {name}: {error}"))?;
        let bundle = configuration
            .webhooks
            .iter()
            .flatten()
            .find_map(|w| w.client_config.ca_bundle.clone())
            .ok_or_else(|| format!("{name} has no caBundle: the certificate writer has not published yet"))?;
        let host = format!("{}.{namespace}.svc", service_name(&own.webhook_fullname));
        let address = args.address.clone().unwrap_or_else(|| format!("{host}:443"));
        Ok(Self { address, host, bundle: bundle.0 })
    }

    /// Sends the request of a review; whether it is allowed.
    async fn ask(&self, path: &str, request: Value) -> Result<bool, String> {
        let review = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": request});
        let mut answer = Err(format!("no answer from {}", self.address));
        for _ in 0..ATTEMPTS {
            // What was sent before the node knew the Service's endpoints is lost with its whole connection.
            if let Ok(answered) = timeout(PATIENCE, call(self, path, &review)).await {
                answer = answered;
                break;
            }
        }
        let answer = answer?;
        let allowed = answer.pointer("/response/allowed").and_then(Value::as_bool);
        allowed.ok_or_else(|| format!("unexpected answer: {answer}"))
    }
}

/// The webhook answers over TLS that the configuration's `caBundle` trusts.
async fn answers(
    client: &Client,
    own: &Settings,
    args: &SelftestArgs,
    namespace: &str,
) -> Result<String, String> {
    let endpoint = Endpoint::find(client, own, args, namespace).await?;
    // Something that is no Pod.
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let request = json!({"uid": "selftest", "kind": kind, "operation": "CREATE"});
    match endpoint.ask(PODS_PATH, request).await {
        Ok(true) => Ok(format!("answers at {}", endpoint.address)),
        Ok(false) => Err("it refuses what is no Pod".to_owned()),
        Err(error) => Err(error),
    }
}

async fn call(endpoint: &Endpoint, path: &str, review: &Value) -> Result<Value, String> {
    let Endpoint { address, host, bundle } = endpoint;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp =
        TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))?;
    let server = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(Arc::new(config)).connect(server, tcp).await;
    let tls = tls.map_err(|error| format!("TLS with {address}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| format!("HTTP with {address}: {error}"))?;
    let serving = tokio::spawn(connection);
    let request = http::Request::post(path)
        .header(http::header::HOST, host.as_str())
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| error.to_string())?;
    let response =
        sender.send_request(request).await.map_err(|error| format!("calling {address}: {error}"))?;
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    serving.abort();
    serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// Contradicts itself, by the schema and by this webhook.
fn invalid() -> Value {
    json!({
        "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
        "metadata": {"generateName": "selftest-"},
        "spec": {
            "type": "agent", "tlsBridgeMode": "enabled", "authBridgeMode": "envoy-sidecar",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "selftest"},
        },
    })
}

/// The API server refuses it, by schema or by this webhook; `None` when it asks for a right first that the account of the chart
/// does not have.
async fn refused(client: &Client, namespace: &str) -> Result<Option<String>, String> {
    let object: DynamicObject = serde_json::from_value(invalid()).map_err(|error| error.to_string())?;
    let resource = kube::core::ApiResource::erase::<api_types::AgentRuntime>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&params, &object).await {
        Ok(_) => Err("it was admitted: neither the schema nor the webhook checks AgentRuntimes".to_owned()),
        Err(kube::Error::Api(status))
            if status.is_forbidden() && status.message.contains("cannot create") =>
        {
            Ok(None)
        }
        Err(kube::Error::Api(status)) if status.code == 422 || status.is_forbidden() => {
            Ok(Some("refused by the API server".to_owned()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The same, asked of the webhook itself.
async fn refused_by_webhook(endpoint: &Endpoint) -> Result<String, String> {
    let mut object = invalid();
    if let Some(metadata) = object.get_mut("metadata") {
        *metadata = json!({"name": "selftest", "namespace": "default"});
    }
    let kind = json!({"group": "agent.kagenti.dev", "version": "v1alpha1", "kind": "AgentRuntime"});
    let resource = json!({"group": "agent.kagenti.dev", "version": "v1alpha1", "resource": "agentruntimes"});
    let request = json!({
        "uid": "selftest", "operation": "CREATE", "dryRun": true, "kind": kind, "resource": resource,
        "name": "selftest", "namespace": "default", "userInfo": {"username": "selftest"}, "object": object,
    });
    match endpoint.ask(RUNTIMES_PATH, request).await {
        Ok(false) => Ok("refused by the webhook".to_owned()),
        Ok(true) => Err("the webhook admits it".to_owned()),
        Err(error) => Err(error),
    }
}
