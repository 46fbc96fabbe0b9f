//! Plain HTTP requests to probes, metrics and etcd on loopback.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// No answer from loopback within this time is a failure.
const LIMIT: Duration = Duration::from_secs(10);

/// Status and body of a GET.
pub async fn get(url: &str) -> Result<(StatusCode, String)> {
    send(Request::get(url).body(Full::default()).with_context(|| format!("the URL {url}"))?).await
}

/// Status and body of a POST of JSON.
pub(crate) async fn post(url: &str, body: String) -> Result<(StatusCode, String)> {
    let request = Request::post(url).header("content-type", "application/json");
    send(request.body(Full::new(Bytes::from(body))).with_context(|| format!("the URL {url}"))?).await
}

async fn send(request: Request<Full<Bytes>>) -> Result<(StatusCode, String)> {
    let url = request.uri().to_string();
    let exchange = async {
        // One connection per request: callers live in different async runtimes.
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.with_context(|| format!("asking {url}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(|| format!("reading {url}"))?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .with_context(|| format!("{url} did not answer within {LIMIT:?}"))?
}
