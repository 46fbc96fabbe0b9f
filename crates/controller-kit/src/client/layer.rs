//! Rate limit, timeout and count of single attempts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tower::{BoxError, Layer, Service};

use super::Reachability;
use crate::bucket::TokenBucket;
use crate::metrics::RequestLabels;

/// Longest wait for the head of an answer to anything but a watch. The API server's own limit is
/// the same.
const ANSWER: Duration = Duration::from_mins(1);

/// Groups whose requests must not queue behind the component's work: a lease that is not renewed in
/// time ends the process, reviews have somebody waiting, Events have a rate of their own.
const UNLIMITED: [&str; 4] = [
    "/apis/coordination.k8s.io/",
    "/apis/events.k8s.io/",
    "/apis/authentication.k8s.io/",
    "/apis/authorization.k8s.io/",
];

/// Wraps the HTTP client; see the [module](super).
#[derive(Clone)]
pub struct ApiLayer {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: TokenBucket,
    requests: Family<RequestLabels, Counter>,
    host: String,
    reachability: Arc<Reachability>,
}

impl ApiLayer {
    pub(super) fn new(
        bucket: TokenBucket,
        requests: Family<RequestLabels, Counter>,
        host: &str,
        reachability: Arc<Reachability>,
    ) -> Self {
        Self { shared: Arc::new(Shared { bucket, requests, host: host.to_owned(), reachability }) }
    }
}

impl<S> Layer<S> for ApiLayer {
    type Service = ApiService<S>;

    fn layer(&self, inner: S) -> ApiService<S> {
        ApiService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service that [`ApiLayer`] makes.
#[derive(Clone)]
pub struct ApiService<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// How a request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Lasts for minutes; neither limited nor timed.
    Watch,
    /// Timed only.
    Unlimited,
    /// Takes a token, timed.
    Work,
}

fn class_of(uri: &http::Uri) -> Class {
    let watch = uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"));
    if watch {
        Class::Watch
    } else if UNLIMITED.iter().any(|group| uri.path().contains(group)) {
        Class::Unlimited
    } else {
        Class::Work
    }
}

impl<S, A, B> Service<Request<A>> for ApiService<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    A: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The ready service is used now, its clone later (tower's rule).
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let shared = Arc::clone(&self.shared);
        let class = class_of(request.uri());
        let method = request.method().to_string();
        Box::pin(async move {
            if class == Class::Work {
                shared.bucket.take().await;
            }
            let call = inner.call(request);
            let result = if class == Class::Watch {
                call.await.map_err(Into::into)
            } else {
                match tokio::time::timeout(ANSWER, call).await {
                    Ok(result) => result.map_err(Into::into),
                    Err(_) => Err(format!("no answer from the API server within {ANSWER:?}").into()),
                }
            };
            let code = match &result {
                Ok(response) => {
                    shared.reachability.answered();
                    response.status().as_str().to_owned()
                }
                Err(error) => {
                    shared.reachability.failed(&**error);
                    "<error>".to_owned()
                }
            };
            shared.requests.get_or_create(&RequestLabels { code, method, host: shared.host.clone() }).inc();
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    #[rstest]
    #[case("/api/v1/pods?watch=true&resourceVersion=1", Class::Watch)]
    #[case("/api/v1/pods?labelSelector=watch%3Dtrue", Class::Work)]
    #[case("/apis/coordination.k8s.io/v1/namespaces/a/leases/b", Class::Unlimited)]
    #[case("/apis/events.k8s.io/v1/namespaces/a/events", Class::Unlimited)]
    #[case("/apis/authentication.k8s.io/v1/tokenreviews", Class::Unlimited)]
    #[case("/apis/apps/v1/namespaces/a/deployments/b", Class::Work)]
    fn only_work_takes_tokens(#[case] uri: &str, #[case] want: Class) {
        assert_eq!(class_of(&uri.parse().unwrap()), want);
    }

    fn layered(qps: f64, burst: u32) -> (ApiLayer, Family<RequestLabels, Counter>) {
        let requests = Family::default();
        let reachability = Arc::new(Reachability::new("api:6443"));
        (ApiLayer::new(TokenBucket::new(qps, burst), requests.clone(), "api:6443", reachability), requests)
    }

    fn count(requests: &Family<RequestLabels, Counter>, code: &str) -> u64 {
        let labels =
            RequestLabels { code: code.to_owned(), method: "GET".to_owned(), host: "api:6443".to_owned() };
        requests.get_or_create(&labels).get()
    }

    #[tokio::test(start_paused = true)]
    async fn work_waits_for_tokens_and_watches_do_not() {
        tokio::time::advance(Duration::from_mins(1)).await;
        let (layer, requests) = layered(10.0, 1);
        let service =
            layer.layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
        let get = |uri: &'static str| service.clone().oneshot(Request::get(uri).body(()).unwrap());
        let start = Instant::now();
        for _ in 0..11 {
            get("/api/v1/pods").await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        let start = Instant::now();
        for _ in 0..100 {
            get("/api/v1/pods?watch=true").await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(count(&requests, "200"), 111);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_answer_ends_and_is_counted() {
        let (layer, requests) = layered(10.0, 1);
        let service = layer
            .layer(service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, BoxError>>()));
        let error = service.oneshot(Request::get("/api/v1/pods").body(()).unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        assert_eq!(count(&requests, "<error>"), 1);
    }
}
