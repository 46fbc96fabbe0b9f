//! Admission requests sent to the webhook itself, past the API server's selectors.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::api::{self, Reply};
use crate::json::Json as _;
use crate::kinds;
use crate::space::Ns;

/// Path of the Pod endpoint.
pub const PODS: &str = "/mutate-workloads-authbridge";
/// Path of the AgentRuntime validator.
pub const AGENT_RUNTIMES: &str = "/validate-agent-kagenti-dev-v1alpha1-agentruntime";
/// Path of the AgentCard validator.
pub const AGENT_CARDS: &str = "/validate-agent-kagenti-dev-v1alpha1-agentcard";

/// A connection to an admission server.
#[derive(Clone)]
pub struct Admission {
    client: Client,
}

impl Admission {
    /// Trusts what the mutating configuration's `caBundle` says, as the API server does.
    pub async fn new(global: &Ns, port: u16) -> Result<Self> {
        Self::trusting(&published(global).await?, port)
    }

    /// Trusts the authorities of a PEM text.
    pub fn trusting(pem: &str, port: u16) -> Result<Self> {
        Self::at(&format!("https://127.0.0.1:{port}"), None, pem)
    }

    /// At any address, whose certificate must be for `name` instead of it.
    pub fn at(url: &str, name: Option<&str>, pem: &str) -> Result<Self> {
        let mut config = Config::new(url.parse().context("the webhook's URL")?);
        config.tls_server_name = name.map(ToOwned::to_owned);
        config.root_cert = Some(certificates(pem)?);
        // A 503 is an answer like any other here.
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config).context("a client of the webhook")? })
    }

    /// Sends a whole AdmissionReview (or whatever it is) and returns the answer as it is on the wire.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Reply> {
        api::send(&self.client, "POST", path, "application/json", body).await
    }

    /// Sends a request; the `response` of the answered AdmissionReview.
    pub async fn ask(&self, path: &str, request: Value) -> Result<Value> {
        let review =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let body = self.post(path, serde_json::to_vec(&review)?).await?.ok()?;
        body.get("response").cloned().context("the answer has no response")
    }

    /// Asks about the creation of a Pod.
    pub async fn pod(&self, namespace: &str, pod: impl Into<Value>) -> Result<Value> {
        self.ask(PODS, pod_request(namespace, pod.into(), false)).await
    }
}

/// The authorities that the API server trusts now, in PEM: `caBundle` of the mutating configuration.
pub async fn published(global: &Ns) -> Result<String> {
    let configurations = global.list(kinds::MUTATING_WEBHOOK, "").await?;
    let bundle = configurations
        .iter()
        .flat_map(|object| object.items("/webhooks"))
        .map(|webhook| webhook.text("/clientConfig/caBundle"))
        .find(|bundle| !bundle.is_empty())
        .context("no mutating webhook has a caBundle")?;
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).context("decoding the caBundle")?;
    String::from_utf8(pem).context("the caBundle is no text")
}

/// The request of a Pod's creation.
pub fn pod_request(namespace: &str, pod: Value, dry_run: bool) -> Value {
    json!({
        "uid": "00000000-0000-4000-8000-000000000001",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "name": pod.name(),
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "test"},
        "object": pod,
        "oldObject": null,
        "dryRun": dry_run,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    })
}

/// The JSON patch of a response (empty when it has none).
pub fn patch_of(response: &Value) -> Result<json_patch::Patch> {
    let text = response.text("/patch");
    if text.is_empty() {
        return Ok(json_patch::Patch(Vec::new()));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).context("decoding the patch")?;
    serde_json::from_slice(&bytes).context("reading the patch")
}

/// An object with the patch of a response applied.
pub fn patched(object: &Value, response: &Value) -> Result<Value> {
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch_of(response)?).context("applying the patch")?;
    Ok(object)
}

/// Certificates of a PEM text, as DER.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for part in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let body = part.split("-----END CERTIFICATE-----").next().unwrap_or_default();
        let text: String = body.split_whitespace().collect();
        found.push(base64::engine::general_purpose::STANDARD.decode(text).context("decoding a certificate")?);
    }
    Ok(found)
}
