//! A proxy before a server, or a scripted server: it remembers every request and breaks what a test wants broken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its body was complete.
    pub at: Instant,
    /// Method.
    pub method: String,
    /// Path with query, as on the wire.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Status of the answer; 0 while there is none, or when there was none.
    pub status: u16,
}

impl Seen {
    /// Whether it could change something.
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// Whether it asks for a token.
    pub fn is_token(&self) -> bool {
        self.path.ends_with("/protocol/openid-connect/token")
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON, null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What happens to a request instead of being passed on.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// `Content-Type`.
        content: &'static str,
        /// Body.
        body: String,
        /// Further headers.
        headers: Vec<(&'static str, String)>,
    },
    /// The request is passed on after a while.
    Late(Duration),
    /// The connection is closed without an answer.
    Cut,
    /// An answer of JSON that ends after its first half: the connection is closed.
    Torn,
}

impl Fault {
    /// An answer of JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer { status, content: "application/json", body: body.to_string(), headers: Vec::new() }
    }

    /// An answer of HTML.
    pub fn html(status: u16, body: &str) -> Self {
        Self::Answer { status, content: "text/html", body: body.to_owned(), headers: Vec::new() }
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Rule = Arc<dyn Fn(&Seen) -> Option<Fault> + Send + Sync>;

/// A running proxy; it ends with this value.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    upstream: Option<String>,
    seen: Mutex<Vec<Seen>>,
    rule: Mutex<Option<Rule>>,
    delay: Mutex<Duration>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy before the server at this base URL (`http://host:port`).
    pub async fn before(server: &str) -> Result<Self> {
        Self::start(Some(server.trim_end_matches('/').to_owned())).await
    }

    /// A server that answers by a rule only, and 404 where that has nothing to say.
    pub async fn scripted(rule: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) -> Result<Self> {
        let proxy = Self::start(None).await?;
        proxy.fault(rule);
        Ok(proxy)
    }

    async fn start(upstream: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr().context("the own address")?;
        let state = Arc::new(State {
            upstream,
            seen: Mutex::default(),
            rule: Mutex::default(),
            delay: Mutex::default(),
        });
        let shared = state.clone();
        let server = tokio::spawn(async move {
            let client: Client<HttpConnector, Full<Bytes>> =
                Client::builder(TokioExecutor::new()).build_http();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, state) = (client.clone(), shared.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| pass(request, client.clone(), state.clone()));
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, state, server })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in the order in which they came in.
    pub fn seen(&self) -> Vec<Seen> {
        locked(&self.state.seen).clone()
    }

    /// How many requests there were so far: a mark for [`Proxy::since`].
    pub fn mark(&self) -> usize {
        locked(&self.state.seen).len()
    }

    /// The requests after a mark.
    pub fn since(&self, mark: usize) -> Vec<Seen> {
        locked(&self.state.seen).get(mark..).unwrap_or_default().to_vec()
    }

    /// From now on requests suffer what the rule says.
    pub fn fault(&self, rule: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) {
        *locked(&self.state.rule) = Some(Arc::new(rule));
    }

    /// From now on the server behind it is down.
    pub fn down(&self) {
        self.fault(|_| Some(Fault::Cut));
    }

    /// From now on every answer takes this long, many at a time.
    pub fn slow(&self, time: Duration) {
        *locked(&self.state.delay) = time;
    }

    /// From now on everything is passed on.
    pub fn heal(&self) {
        *locked(&self.state.rule) = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(
    request: Request<Incoming>,
    client: Client<HttpConnector, Full<Bytes>>,
    state: Arc<State>,
) -> Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.context("reading a request")?.to_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let seen = Seen {
        at: Instant::now(),
        method: parts.method.to_string(),
        path: path.clone(),
        headers: parts.headers.clone(),
        body: body.clone(),
        status: 0,
    };
    let rule = locked(&state.rule).clone();
    let index = {
        let mut all = locked(&state.seen);
        all.push(seen.clone());
        all.len() - 1
    };
    let answered = |status: StatusCode| {
        if let Some(seen) = locked(&state.seen).get_mut(index) {
            seen.status = status.as_u16();
        }
    };
    let delay = *locked(&state.delay);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match rule.and_then(|rule| rule(&seen)) {
        Some(Fault::Cut) => bail!("cut off"),
        Some(Fault::Answer { status, content, body, headers }) => {
            let mut response = Response::new(whole(body));
            *response.status_mut() = StatusCode::from_u16(status).context("a status")?;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
            for (name, value) in headers {
                response.headers_mut().insert(name, HeaderValue::from_str(&value).context("a header")?);
            }
            answered(response.status());
            return Ok(response);
        }
        Some(Fault::Torn) => {
            let half = Ok(Frame::data(Bytes::from_static(b"[{\"id\": \"x\", ")));
            let end = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            let mut response = Response::new(StreamBody::new(stream::iter([half, end])).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return Ok(response);
        }
        Some(Fault::Late(time)) => tokio::time::sleep(time).await,
        None => {}
    }
    let Some(upstream) = &state.upstream else {
        let mut response = Response::new(whole("nothing here"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        answered(response.status());
        return Ok(response);
    };
    // The server builds links and issuers from this header: it must see its own name.
    parts.headers.remove(HOST);
    parts.uri = format!("{upstream}{path}").parse::<Uri>().context("the URL behind the proxy")?;
    let response = client.request(Request::from_parts(parts, Full::new(body))).await.context("passing on")?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("reading an answer")?.to_bytes();
    answered(head.status);
    Ok(Response::from_parts(head, whole(body)))
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}
