//! A mutating webhook of somebody else: an HTTPS server in the test that patches Pods after ours did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::json::{Json as _, merge};

/// What the webhook answers for a Pod: operations of a JSON patch.
type Mutate = dyn Fn(&Value) -> Vec<Value> + Send + Sync;

/// A running webhook; it ends with this value.
pub struct SecondWebhook {
    address: SocketAddr,
    certificate: String,
    calls: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl SecondWebhook {
    /// Serves on loopback with a certificate of its own.
    pub async fn start(mutate: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pair =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).context("making a certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .context("using the certificate")?;
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr().context("the own address")?;
        let calls = Arc::new(AtomicUsize::new(0));
        let (mutate, counted): (Arc<Mutate>, _) = (Arc::new(mutate), calls.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, mutate, counted) = (tls.clone(), mutate.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, mutate.clone(), counted.clone()));
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, certificate: pair.cert.pem(), calls, server })
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A MutatingWebhookConfiguration that sends it the Pods of one namespace. Configurations are called in
    /// the order of their names.
    pub fn registration(&self, name: &str, namespace: &str) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "second.example.com",
                "clientConfig": {"url": format!("https://{}/", self.address), "caBundle": BASE64.encode(&self.certificate)},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        })
    }
}

impl Drop for SecondWebhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    mutate: Arc<Mutate>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>> {
    calls.fetch_add(1, Ordering::SeqCst);
    let body = request.into_body().collect().await.context("reading the call")?.to_bytes();
    let Ok(review) = serde_json::from_slice::<Value>(&body) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let patch = mutate(review.pointer("/request/object").unwrap_or(&Value::Null));
    let mut response = json!({"uid": review.text("/request/uid"), "allowed": true});
    if !patch.is_empty() {
        let text = BASE64.encode(Value::from(patch).to_string());
        merge(&mut response, json!({"patchType": "JSONPatch", "patch": text}));
    }
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let mut response = Response::new(Full::from(review.to_string()));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}
