//! An API server with a fault: a proxy that passes everything on and, while told to, answers some requests
//! with 500 itself. It speaks plain HTTP, so that any token reaches the real server unchanged.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kube::Client;
use kube::client::Body;
use kube::config::AuthInfo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running proxy; it ends with this value.
pub struct FaultyApi {
    address: SocketAddr,
    fault: Arc<Fault>,
    server: JoinHandle<()>,
}

struct Fault {
    /// Path segment of the requests that fail.
    resource: String,
    on: AtomicBool,
    failed: AtomicUsize,
}

impl FaultyApi {
    /// Starts in front of the server of this kubeconfig. While the fault is on (it is, at first) every
    /// request whose path has the segment `resource` fails.
    pub async fn start(kubeconfig: &Path, resource: &str) -> Result<Self> {
        let mut config = local_cluster::access::config(kubeconfig).await?;
        // Everybody brings an own token.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        let upstream = Client::try_from(config).context("a client without identity")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr().context("the own address")?;
        let fault = Arc::new(Fault {
            resource: resource.to_owned(),
            on: AtomicBool::new(true),
            failed: AtomicUsize::new(0),
        });
        let shared = fault.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, fault) = (upstream.clone(), shared.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| pass(request, upstream.clone(), fault.clone()));
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, fault, server })
    }

    /// Base URL of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Number of requests that were made to fail.
    pub fn failed(&self) -> usize {
        self.fault.failed.load(Ordering::SeqCst)
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.fault.on.store(false, Ordering::SeqCst);
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(request: Request<Incoming>, upstream: Client, fault: Arc<Fault>) -> Result<Response<Body>> {
    if fault.on.load(Ordering::SeqCst) && request.uri().path().split('/').any(|part| part == fault.resource) {
        fault.failed.fetch_add(1, Ordering::SeqCst);
        return Ok(internal_error());
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(HOST);
    // The client prefixes its own server.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse::<Uri>().context("the path")?;
    let body = body.collect().await.context("reading a request")?.to_bytes();
    upstream
        .send(Request::from_parts(parts, Body::from(body.to_vec())))
        .await
        .context("asking the API server")
}

fn internal_error() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError",
                        "code": 500, "message": "the test made this fail"});
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
