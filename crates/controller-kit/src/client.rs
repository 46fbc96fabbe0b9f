//! The client every component talks to the API server with.
//!
//! kube's pieces in an order of our own: requests wait for a token (`--kube-qps`, `--kube-burst`;
//! watches, leases, Events and reviews do not), are retried when the server asks for it, and every
//! attempt is counted in `rest_client_requests_total{code,method,host}`. Requests that are no watch
//! end after a minute at the latest, so that a dead connection never hangs a reconcile.

mod layer;
mod reachability;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::bucket::TokenBucket;
use crate::cli::{CommonArgs, Component};
use crate::metrics::Metrics;
use crate::version::VERSION;

pub use layer::ApiLayer;
pub use reachability::Reachability;

/// Retries of one request that the server refused for now (429, 503, 504): about 6 s in all.
const RETRIES: u32 = 6;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(3);
/// A peer that is gone without a word is noticed after this long.
const KEEPALIVE: Duration = Duration::from_secs(15);
const DEAD_PEER: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// Idle connections are closed before a load balancer in front of the API server does it.
const IDLE: Duration = Duration::from_mins(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The named kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a ServiceAccount was found.
    #[error(
        "no cluster to talk to: give --kubeconfig, set KUBECONFIG, or run in a Pod with a mounted ServiceAccount token: {0}"
    )]
    NoConfig(#[source] Box<kube::config::InferConfigError>),
    /// A proxy is configured.
    #[error(
        "a proxy ({0}) is configured for the API server, which is not supported: unset HTTPS_PROXY or add the API server to NO_PROXY"
    )]
    Proxy(String),
    /// Certificates or credentials in the configuration are unusable.
    #[error("cannot set up the connection to the API server: {0}")]
    Setup(#[source] Box<kube::Error>),
}

/// Finds the cluster: the given kubeconfig, else `KUBECONFIG`, else the Pod's ServiceAccount. Opens
/// no connection.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    match kubeconfig {
        None => Config::infer().await.map_err(|error| ClientError::NoConfig(Box::new(error))),
        Some(path) => {
            let error = |source| ClientError::Kubeconfig {
                path: path.display().to_string(),
                source: Box::new(source),
            };
            let file = Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(error)
        }
    }
}

/// The client of a component, and what is known about the API server being there.
pub fn client(
    component: &Component,
    args: &CommonArgs,
    mut config: Config,
    metrics: &Metrics,
) -> Result<(Client, Arc<Reachability>), ClientError> {
    if let Some(proxy) = &config.proxy_url {
        return Err(ClientError::Proxy(proxy.host().unwrap_or("?").to_owned()));
    }
    let setup = |error| ClientError::Setup(Box::new(error));
    if let Ok(agent) = HeaderValue::from_str(&format!("{}/{VERSION}", component.name)) {
        config.headers.push((HeaderName::from_static("user-agent"), agent));
    }
    let host = config.cluster_url.authority().map_or_else(String::new, ToString::to_string);
    let reachability = Arc::new(Reachability::new(&host));
    let api = ApiLayer::new(
        TokenBucket::new(args.kube_qps, args.kube_burst),
        metrics.requests.clone(),
        &host,
        Arc::clone(&reachability),
    );
    let https = config.rustls_https_connector_with_connector(connector()).map_err(setup)?;
    let hyper: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(https);
    let retries = RetryPolicy::new(FIRST_RETRY, LAST_RETRY, RETRIES, true)
        .map_err(|error| ClientError::Setup(Box::new(kube::Error::Service(error.into()))))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(retries))
        .option_layer(config.auth_layer().map_err(setup)?)
        .layer(config.extra_headers_layer().map_err(setup)?)
        .layer(api)
        .map_err(BoxError::from)
        .service(hyper)
        .map_response(|response: Response<hyper::body::Incoming>| response);
    Ok((Client::new(service, config.default_namespace), reachability))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE / 3));
    connector.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(DEAD_PEER));
    connector
}
