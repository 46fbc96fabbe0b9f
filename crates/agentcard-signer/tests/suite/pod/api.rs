//! One ConfigMap behind TLS, with rights that a test chooses.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use agentcard_signer::KubeApi;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const TOKEN: &str = "SECRET-TOKEN";

#[derive(Default)]
pub(crate) struct State {
    /// The ConfigMap, if it exists.
    pub(crate) object: Option<Value>,
    /// Methods that are answered with 403.
    pub(crate) forbidden: Vec<Method>,
    /// So many writes are answered with 409, and before the first one somebody else changes the object.
    pub(crate) conflicts: usize,
    /// What was asked.
    pub(crate) requests: Vec<String>,
    version: u64,
}

impl State {
    pub(crate) fn writes(&self) -> Vec<&str> {
        let all = self.requests.iter().map(String::as_str);
        all.filter(|request| !request.starts_with("GET")).collect()
    }
}

pub(crate) struct Api {
    pub(crate) state: Arc<Mutex<State>>,
    directory: TempDir,
    port: u16,
    task: JoinHandle<()>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().expect("an address"))];
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).expect("written");
        std::fs::write(directory.path().join("token"), format!("{TOKEN}\n")).expect("written");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, state.clone()));
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, directory, port, task }
    }

    pub(crate) fn client(&self) -> KubeApi {
        KubeApi::new("127.0.0.1", self.port, self.directory.path()).expect("a client")
    }

    pub(crate) fn object(&self) -> Option<Value> {
        self.state.lock().expect("unpoisoned").object.clone()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.state.lock().expect("unpoisoned").writes().into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let authorized =
        head.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
    let (status, object) = if authorized {
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        decide(&head.method, head.uri.path(), body, &mut state.lock().expect("unpoisoned"))
    } else {
        (StatusCode::UNAUTHORIZED, json!({}))
    };
    let response = Response::builder().status(status).body(Full::from(object.to_string()));
    Ok(response.expect("a response"))
}

fn decide(method: &Method, path: &str, body: Value, state: &mut State) -> (StatusCode, Value) {
    const COLLECTION: &str = "/api/v1/namespaces/team1/configmaps";
    state.requests.push(format!("{method} {path}"));
    let known = if *method == Method::POST {
        path == COLLECTION
    } else {
        path == format!("{COLLECTION}/weather-card-signed")
    };
    if !known {
        return (StatusCode::NOT_FOUND, json!({}));
    }
    if state.forbidden.contains(method) {
        return (StatusCode::FORBIDDEN, json!({"kind": "Status", "message": "SECRET-MESSAGE"}));
    }
    if *method != Method::GET && state.conflicts > 0 {
        state.conflicts -= 1;
        // Somebody else was faster.
        store(json!({"metadata": {"name": "weather-card-signed"}, "data": {"theirs": "1"}}), state);
        return (StatusCode::CONFLICT, json!({}));
    }
    match (method, state.object.clone()) {
        (&Method::GET, Some(object)) => (StatusCode::OK, object),
        (&Method::POST, None) => (StatusCode::CREATED, store(body, state)),
        (&Method::POST, Some(_)) => (StatusCode::CONFLICT, json!({})),
        (&Method::PATCH | &Method::PUT, Some(object)) => {
            let versions = "/metadata/resourceVersion";
            if body.pointer(versions) != object.pointer(versions) {
                return (StatusCode::CONFLICT, json!({}));
            }
            let mut next = if *method == Method::PUT { json!({}) } else { object };
            merge(&mut next, &body);
            (StatusCode::OK, store(next, state))
        }
        _ => (StatusCode::NOT_FOUND, json!({})),
    }
}

fn store(mut object: Value, state: &mut State) -> Value {
    state.version += 1;
    object["metadata"]["resourceVersion"] = state.version.to_string().into();
    state.object = Some(object.clone());
    object
}

fn merge(into: &mut Value, change: &Value) {
    match (into.as_object_mut(), change.as_object()) {
        (Some(into), Some(change)) => {
            for (name, value) in change {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = change.clone(),
    }
}
