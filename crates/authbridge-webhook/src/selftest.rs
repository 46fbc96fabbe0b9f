//! The sub-command `selftest` (packaging §12, §15): does a running installation work?

mod trust;

use std::{process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use controller_kit::{
    cli::CommonArgs,
    commands::{connect, operator_namespace},
    selftest::{self as checks, Selftest},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kube::{Api, Client, api::PostParams, core::DynamicObject};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    registration::{PODS_PATH, RUNTIMES_PATH, service_name},
    review::API_VERSION,
    settings::{COMPONENT, SelftestArgs, Settings},
};

/// Calls before the webhook counts as silent, and how long each is waited for.
const ATTEMPTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(4);

/// Checks the installation and prints a table; 1 when a check failed.
pub async fn selftest(common: &CommonArgs, own: &Settings, args: &SelftestArgs) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = match connect(&COMPONENT, common).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let namespace = operator_namespace(common);
    let mut test = Selftest::new();
    checks::common(&mut test, &client, &COMPONENT, common, &args.common).await;
    test.check("webhook", answers(&client, own, args, namespace)).await;
    let invalid_in = common.watch_namespaces.namespaces().first().map_or(namespace, String::as_str);
    let refused = async {
        let by_server = refused(&client, invalid_in).await?;
        match by_server {
            Some(words) => Ok(words),
            None => {
                refused_by_webhook(&Endpoint::find(&client, own, args, namespace).await?, invalid_in).await
            }
        }
    };
    test.check("invalid AgentRuntime is refused", refused).await;
    test.finish()
}

/// Where the webhook answers, and whom to trust there.
struct Endpoint {
    address: String,
    host: String,
    tls: Arc<ClientConfig>,
}

impl Endpoint {
    async fn find(
        client: &Client,
        own: &Settings,
        args: &SelftestArgs,
        namespace: &str,
    ) -> Result<Self, String> {
        let tls = Arc::new(trust::client_config(client, own, namespace).await?);
        let host = format!("{}.{namespace}.svc", service_name(&own.webhook_fullname));
        let address = args.address.clone().unwrap_or_else(|| format!("{host}:443"));
        Ok(Self { address, host, tls })
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

/// The webhook answers over TLS that the API server trusts.
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
    let Endpoint { address, host, tls } = endpoint;
    let tcp =
        TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))?;
    let server = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(tls.clone()).connect(server, tcp).await;
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
async fn refused_by_webhook(endpoint: &Endpoint, namespace: &str) -> Result<String, String> {
    let mut object = invalid();
    if let Some(metadata) = object.get_mut("metadata") {
        *metadata = json!({"name": "selftest", "namespace": namespace});
    }
    let kind = json!({"group": "agent.kagenti.dev", "version": "v1alpha1", "kind": "AgentRuntime"});
    let resource = json!({"group": "agent.kagenti.dev", "version": "v1alpha1", "resource": "agentruntimes"});
    let request = json!({
        "uid": "selftest", "operation": "CREATE", "dryRun": true, "kind": kind, "resource": resource,
        "name": "selftest", "namespace": namespace, "userInfo": {"username": "selftest"}, "object": object,
    });
    match endpoint.ask(RUNTIMES_PATH, request).await {
        Ok(false) => Ok("refused by the webhook".to_owned()),
        Ok(true) => Err("the webhook admits it".to_owned()),
        Err(error) => Err(error),
    }
}
