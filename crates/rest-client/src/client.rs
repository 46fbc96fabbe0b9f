//! Sending requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use controller_kit::bucket::TokenBucket;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::base_url::BaseUrl;
use crate::breaker::{Breaker, Cause, Change, Pass};
use crate::ca::{self, CaFile};
use crate::error::CallError;
use crate::options::{ClientOptions, Verdict};
use crate::request::Request;
use crate::response::Response;

pub use crate::options::by_status;

/// Servers a client remembers; beyond that the idle ones are forgotten.
const SERVERS: usize = 64;

/// Sends requests under the limits of its options. Clones share connections, buckets and circuits.
#[derive(Clone)]
pub struct RestClient {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    http: ArcSwap<reqwest::Client>,
    ca: Mutex<Option<CaFile>>,
    servers: Mutex<HashMap<BaseUrl, Arc<Server>>>,
}

struct Server {
    bucket: Option<TokenBucket>,
    breaker: Breaker,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub struct StartError(String);

impl RestClient {
    /// A client that trusts the system's certificates and those of `ca`.
    pub fn new(options: ClientOptions, ca: Option<CaFile>) -> Result<Self, StartError> {
        let http = http(&options, ca.as_ref())?;
        let inner = Inner {
            options,
            http: ArcSwap::from_pointee(http),
            ca: Mutex::new(ca),
            servers: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sends a request; any HTTP answer is `Ok`, also a refusal that outlived the repetitions.
    ///
    /// A failure to get an answer counts against the server's circuit with every attempt, a transient answer once per
    /// call: a server that answers 500 to one odd object is not down.
    pub async fn send(&self, request: &Request) -> Result<Response, CallError> {
        if request.bad_header {
            return Err(CallError::Request(
                "a header value has characters that HTTP does not allow".to_owned(),
            ));
        }
        let url = request.endpoint.url(&request.base)?;
        let options = &self.inner.options;
        let server = self.server(&request.base);
        let mut delays = if request.once { [].iter() } else { options.retry.delays.iter() };
        let mut last = None;
        loop {
            let pass = match server.breaker.admit(Instant::now()) {
                Ok(pass) => pass,
                Err((retry_in, Cause { text, tls })) => {
                    return last.unwrap_or(Err(CallError::Circuit { retry_in, cause: text, tls }));
                }
            };
            if let Some(bucket) = &server.bucket {
                bucket.take().await;
            }
            let answer = self.attempt(request, url.clone()).await;
            let transient = match &answer {
                Ok(response) => (options.classify)(response) == Verdict::Transient,
                Err(error) => error.is_transient(),
            };
            let delay = if transient && !pass.is_probe() { delays.next() } else { None };
            self.judge(&request.base, pass, &answer, transient, delay.is_none());
            let Some(delay) = delay else { return answer };
            let after = answer.as_ref().ok().and_then(|response| response.retry_after(SystemTime::now()));
            let pause = options.retry.pause(*delay, after, fastrand::f64());
            last = Some(answer);
            tokio::time::sleep(pause).await;
        }
    }

    /// How long the circuit of a server stays open; `None` when calls go through.
    pub fn circuit_open(&self, base: &BaseUrl) -> Option<Duration> {
        self.server(base).breaker.open_for(Instant::now())
    }

    /// Reads the CA file every `every`, for ever, and uses its new content. A version that cannot be used is logged
    /// once and the old one stays. Without a CA file it just sleeps.
    pub async fn watch_ca(&self, every: Duration) {
        let mut complained = None;
        loop {
            tokio::time::sleep(every).await;
            match self.reload_ca() {
                Ok(()) => complained = None,
                Err(error) if complained.as_ref() != Some(&error) => {
                    tracing::error!(%error, "the old certificates stay in use");
                    complained = Some(error);
                }
                Err(_) => {}
            }
        }
    }

    fn reload_ca(&self) -> Result<(), String> {
        let Some(ca) = self.inner.ca.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(());
        };
        let Some(next) = ca.reload().map_err(|error| error.to_string())? else { return Ok(()) };
        let http = http(&self.inner.options, Some(&next)).map_err(|error| error.to_string())?;
        tracing::info!(file = %next.path().display(), "CA file loaded");
        self.inner.http.store(Arc::new(http));
        *self.inner.ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    fn server(&self, base: &BaseUrl) -> Arc<Server> {
        let mut servers = self.inner.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(base) {
            return server.clone();
        }
        if servers.len() >= SERVERS {
            let now = Instant::now();
            servers
                .retain(|_, server| Arc::strong_count(server) > 1 || server.breaker.open_for(now).is_some());
        }
        let rate = self.inner.options.rate;
        let server = Arc::new(Server {
            bucket: (rate.qps > 0.0).then(|| TokenBucket::new(rate.qps, rate.burst)),
            breaker: Breaker::new(self.inner.options.breaker),
        });
        servers.insert(base.clone(), server.clone());
        server
    }

    fn judge(
        &self,
        base: &BaseUrl,
        pass: Pass<'_>,
        answer: &Result<Response, CallError>,
        transient: bool,
        finished: bool,
    ) {
        let fail = |pass: Pass<'_>, text: String, tls| pass.failed(Instant::now(), Cause { text, tls });
        let change = match answer {
            Ok(response) if transient && finished => fail(pass, format!("HTTP {}", response.status()), false),
            Ok(_) if transient => Change::Nothing,
            Ok(_) | Err(CallError::TooLarge(_)) => pass.succeeded(),
            Err(error) if transient || error.is_tls() => fail(pass, error.to_string(), error.is_tls()),
            Err(_) => Change::Nothing,
        };
        match change {
            Change::Nothing => {}
            Change::Opened => {
                tracing::warn!(server = %base, "the server fails again and again; it is left alone for a while");
                self.inner.options.observer.circuit(base, true);
            }
            Change::Closed => {
                tracing::info!(server = %base, "the server answers again");
                self.inner.options.observer.circuit(base, false);
            }
        }
    }

    async fn attempt(&self, request: &Request, url: Url) -> Result<Response, CallError> {
        let started = Instant::now();
        let answer = self.exchange(request, url).await;
        let took = started.elapsed();
        let observer = &self.inner.options.observer;
        match &answer {
            Ok(response) => observer.answer(request.endpoint.operation(), response, took),
            Err(error) => observer.attempt(request.endpoint.operation(), error.class(), took),
        }
        answer
    }

    async fn exchange(&self, request: &Request, url: Url) -> Result<Response, CallError> {
        let http = self.inner.http.load_full();
        let mut builder = http
            .request(request.method.clone(), url)
            .headers(request.headers.clone())
            .timeout(self.inner.options.attempt);
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let mut response = builder.send().await.map_err(|error| CallError::of(&error))?;
        let limit = request.body_limit;
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(CallError::TooLarge(limit));
        }
        let mut body = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(1024)));
        while let Some(chunk) = response.chunk().await.map_err(|error| CallError::of(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(CallError::TooLarge(limit));
            }
            append(&mut body, &chunk);
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        Ok(Response::new(status, headers, body))
    }
}

/// Grows by a copy of its own, so that the memory it leaves behind is overwritten.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * body.capacity())));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn http(options: &ClientOptions, ca: Option<&CaFile>) -> Result<reqwest::Client, StartError> {
    let tls = ca::tls_config(ca).map_err(|error| StartError(error.to_string()))?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(options.user_agent.clone())
        .connect_timeout(options.connect)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Credentials go to the server that was named and to nobody in between.
        .no_proxy()
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(16)
        .build()
        .map_err(|error| StartError(error.without_url().to_string()))
}
