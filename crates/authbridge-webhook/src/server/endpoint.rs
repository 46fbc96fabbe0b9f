//! One admission endpoint: body limits, parsing, its own concurrency limit, the deadline and the
//! answer on the wire (webhook §4, §18).

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{FutureExt as _, future::BoxFuture};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::admission_gate::{AdmissionGate, Limits, Shed};
use crate::{
    metrics::Metrics,
    review::{Answer, Request},
};

/// Largest body (webhook §4.1).
pub const MAX_BODY: usize = 7 * 1024 * 1024;
/// Of a body that is too large so much is read before the answer; then the connection is closed.
const MAX_DRAINED: usize = 4 * MAX_BODY;
/// All bodies of one endpoint together; keeps a flood of large ones from exhausting memory.
const BODY_BUDGET_KIB: usize = 64 * 1024;
/// The handler stops here; the API server gives up at 10 s (webhook §4.5).
const DEADLINE: Duration = Duration::from_secs(8);

/// What a handler is doing; named in the answer when the deadline passes.
#[derive(Clone, Debug)]
pub struct Progress {
    step: Arc<AtomicUsize>,
    deadline: Instant,
}

const STEPS: [&str; 8] = [
    "waiting for the caches",
    "reading the review",
    "reading the namespace",
    "looking up the owner",
    "reading the AgentRuntime",
    "deciding",
    "creating the ServiceAccount and writing the ConfigMaps",
    "looking for duplicates",
];

/// One step of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Step {
    /// Caches are not synced yet.
    Caches,
    /// The review is being decoded.
    Review,
    /// The namespace and its configuration.
    Namespace,
    /// The top-level owner of the Pod.
    Owner,
    /// The AgentRuntime of the workload.
    AgentRuntime,
    /// The pure decision.
    Decision,
    /// Writes before the answer.
    Writes,
    /// Another object with the same target.
    Duplicates,
}

impl Progress {
    /// Progress of a call that must be answered by `deadline`.
    pub fn new(deadline: Instant) -> Self {
        Self { step: Arc::new(AtomicUsize::new(Step::Review as usize)), deadline }
    }

    /// Enters a step.
    pub fn at(&self, step: Step) {
        self.step.store(step as usize, Ordering::Relaxed);
    }

    /// The step in words.
    pub fn step(&self) -> &'static str {
        STEPS.get(self.step.load(Ordering::Relaxed)).copied().unwrap_or("deciding")
    }

    /// When the call must be answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// Decides one kind of call.
pub trait Handler: Send + Sync + 'static {
    /// Decides the call. Never fails: an error is a denial or, where the chapter says so, an
    /// answer that lets the object pass.
    fn handle(&self, request: Request, progress: Progress) -> BoxFuture<'_, Answer>;
}

/// One path of the server.
pub struct Endpoint {
    path: &'static str,
    gate: AdmissionGate,
    bodies: Semaphore,
    handler: Arc<dyn Handler>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint with limits of its own: one slow or failing endpoint does not hold another.
    pub fn new(path: &'static str, limits: Limits, handler: Arc<dyn Handler>, metrics: Arc<Metrics>) -> Self {
        let bodies = Semaphore::new(BODY_BUDGET_KIB);
        Self { path, gate: AdmissionGate::new(limits), bodies, handler, metrics }
    }
}

/// The router of all endpoints; unknown paths are 404, other methods 405.
pub fn router(endpoints: impl IntoIterator<Item = Endpoint>) -> Router {
    endpoints.into_iter().fold(Router::new(), |router, endpoint| {
        let path = endpoint.path;
        router.route(path, post(call).with_state(Arc::new(endpoint)))
    })
}

async fn call(State(endpoint): State<Arc<Endpoint>>, request: axum::extract::Request) -> Response {
    let timer = endpoint.metrics.webhook_call(endpoint.path);
    let response = answer(&endpoint, request).await;
    timer.done(response.status().as_u16());
    response
}

async fn answer(endpoint: &Endpoint, request: axum::extract::Request) -> Response {
    let deadline = Instant::now() + deadline_of(request.uri().query());
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    let mut body = request.into_body();
    if announced.is_some_and(|n| n > MAX_BODY) {
        drain(&mut body, deadline).await;
        return too_large();
    }
    let kib = announced.unwrap_or(MAX_BODY).div_ceil(1024);
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let Ok(Ok(_budget)) = timeout_at(deadline, endpoint.bodies.acquire_many(kib)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many admission calls at once; try again")
            .into_response();
    };
    let collected = Limited::new(&mut body, MAX_BODY).collect();
    let body = match timeout_at(deadline, collected).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(&mut body, deadline).await;
            return too_large();
        }
        Ok(Err(_)) => return (StatusCode::BAD_REQUEST, "the body could not be read").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body took too long").into_response(),
    };
    let request = match Request::parse(&body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    drop(body);
    let uid = request.uid.clone();
    let answer = decide(endpoint, request, deadline).await;
    match answer.encode(&uid) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "encoding an answer");
            (StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded").into_response()
        }
    }
}

async fn decide(endpoint: &Endpoint, request: Request, deadline: Instant) -> Answer {
    let permit = match endpoint.gate.enter(deadline).await {
        Ok(permit) => permit,
        Err(shed) => {
            endpoint.metrics.shed(endpoint.path);
            let why = match shed {
                Shed::QueueFull => "too many admission calls wait already",
                Shed::WaitedTooLong => "the call waited too long for its turn",
            };
            return Answer::deny(
                503,
                format!("authbridge-webhook is busy: {why}; try again in a few seconds"),
            );
        }
    };
    let progress = Progress::new(deadline);
    let uid = request.uid.clone();
    let handling = AssertUnwindSafe(endpoint.handler.handle(request, progress.clone())).catch_unwind();
    let answer = match timeout_at(deadline, handling).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            endpoint.metrics.panicked(endpoint.path);
            tracing::error!(request.uid = %uid, step = progress.step(), "a handler panicked");
            Answer::deny(500, format!("authbridge-webhook failed while {}; see its log", progress.step()))
        }
        Err(_) => {
            tracing::warn!(request.uid = %uid, step = progress.step(), "deadline passed");
            Answer::deny(
                500,
                format!("authbridge-webhook ran out of time while {}; try again", progress.step()),
            )
        }
    };
    drop(permit);
    answer
}

/// Reads on without keeping anything. A server that hangs up while the caller still writes resets the
/// connection, and the caller sees that instead of the answer.
async fn drain(body: &mut Body, deadline: Instant) {
    let reading = async {
        let mut left = MAX_DRAINED;
        while let (true, Some(Ok(frame))) = (left > 0, body.frame().await) {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
        }
    };
    let _ = timeout_at(deadline, reading).await;
}

fn too_large() -> Response {
    (StatusCode::PAYLOAD_TOO_LARGE, "the review is larger than 7 MiB").into_response()
}

/// 8 s, or four fifths of the caller's own limit when that is shorter: the API server appends its
/// `timeoutSeconds` to the URL.
fn deadline_of(query: Option<&str>) -> Duration {
    let asked = query
        .and_then(|q| q.split('&').find_map(|pair| pair.strip_prefix("timeout=")))
        .and_then(|v| v.strip_suffix('s'))
        .and_then(|v| v.parse::<u32>().ok())
        .filter(|v| *v > 0);
    asked.map_or(DEADLINE, |seconds| DEADLINE.min(Duration::from_millis(u64::from(seconds) * 800)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_stays_below_the_callers() {
        assert_eq!(deadline_of(None), DEADLINE);
        assert_eq!(deadline_of(Some("timeout=10s")), DEADLINE);
        assert_eq!(deadline_of(Some("timeout=5s")), Duration::from_secs(4));
        assert_eq!(deadline_of(Some("timeout=30s")), DEADLINE);
        assert_eq!(deadline_of(Some("timeout=0s&x=1")), DEADLINE);
        assert_eq!(deadline_of(Some("timeout=1m")), DEADLINE);
    }
}
