//! The probe port: `/healthz`, `/readyz`, and `/log-level` from this machine (packaging §11, §12).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::readiness::Readiness;
use crate::serve::Peer;
use crate::telemetry::LogLevel;

/// The event loop counts as alive when it has run within this time.
const ALIVE: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(1);

/// Sign of life of the event loop: a task that only takes note of the time. When the loop is starved
/// the note gets old; when it hangs, the probe is not answered at all.
#[derive(Clone)]
pub struct Heartbeat {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl Heartbeat {
    /// A heart that has just beaten.
    pub fn new() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }

    /// Beats for ever.
    pub async fn run(self) {
        let mut ticks = interval(BEAT);
        loop {
            ticks.tick().await;
            self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Time since the last beat.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

#[derive(Clone)]
struct Probes {
    heartbeat: Heartbeat,
    readiness: Readiness,
    log_level: LogLevel,
}

/// The routes of the probe port.
pub fn router(heartbeat: Heartbeat, readiness: Readiness, log_level: LogLevel) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/log-level", put(set_log_level))
        .layer(DefaultBodyLimit::max(1024))
        .with_state(Probes { heartbeat, readiness, log_level })
}

async fn healthz(State(probes): State<Probes>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let age = probes.heartbeat.age();
    let healthy = age < ALIVE;
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reason = if healthy { String::new() } else { format!("the event loop last ran {age:?} ago") };
    if verbose(&query) {
        let text = if healthy {
            "[+] runtime\nhealthy\n".to_owned()
        } else {
            format!("[-] runtime: {reason}\nnot healthy\n")
        };
        return (status, text).into_response();
    }
    json_response(status, &json!({"healthy": healthy, "reason": reason}))
}

async fn readyz(State(probes): State<Probes>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let report = probes.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if verbose(&query) { (status, report.to_text()).into_response() } else { json_response(status, &report) }
}

async fn set_log_level(
    State(probes): State<Probes>,
    Extension(peer): Extension<Peer>,
    body: String,
) -> (StatusCode, String) {
    if !peer.is_local() {
        return (StatusCode::FORBIDDEN, "the log level is changed from localhost only\n".to_owned());
    }
    match probes.log_level.set(body.trim()) {
        Ok(()) => {
            tracing::info!(filter = body.trim(), "log level changed");
            (StatusCode::OK, format!("{}\n", body.trim()))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn verbose(query: &[(String, String)]) -> bool {
    query.iter().any(|(key, _)| key == "verbose")
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    (status, Json(serde_json::to_value(body).unwrap_or_default())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use rstest::rstest;
    use tower::ServiceExt;

    async fn call(router: Router, method: Method, uri: &str, peer: [u8; 4], body: &str) -> (u16, String) {
        let mut request =
            Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Peer((peer, 4711).into()));
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn setup() -> (Readiness, Heartbeat, Router) {
        let (readiness, heartbeat) = (Readiness::new(), Heartbeat::new());
        let router = router(heartbeat.clone(), readiness.clone(), LogLevel::detached());
        (readiness, heartbeat, router)
    }

    /// Packaging §12: JSON lists checks with reasons, `?verbose` as text.
    #[tokio::test]
    async fn readyz_says_what_is_missing_in_both_forms() {
        let (readiness, _, router) = setup();
        readiness.register("agentruntimes", "first list not complete");
        let (status, body) = call(router.clone(), Method::GET, "/readyz", [10, 0, 0, 1], "").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"reason\":\"first list not complete\""), "{body}");
        let (_, text) = call(router.clone(), Method::GET, "/readyz?verbose", [10, 0, 0, 1], "").await;
        assert!(text.contains("[-] agentruntimes: first list not complete"), "{text}");
        readiness.set_ok("agentruntimes");
        assert_eq!(call(router, Method::GET, "/readyz", [10, 0, 0, 1], "").await.0, 200);
    }

    /// Packaging §12: healthz = the event loop answered within 5 s, whatever readiness says.
    #[tokio::test(start_paused = true)]
    async fn healthz_follows_the_heartbeat() {
        let (readiness, heartbeat, router) = setup();
        readiness.register("x", "missing");
        assert_eq!(call(router.clone(), Method::GET, "/healthz", [10, 0, 0, 1], "").await.0, 200);
        tokio::time::advance(ALIVE).await;
        let (status, body) = call(router.clone(), Method::GET, "/healthz?verbose", [10, 0, 0, 1], "").await;
        assert_eq!((status, body.starts_with("[-] runtime")), (503, true));
        let task = tokio::spawn(heartbeat.run());
        tokio::time::sleep(BEAT).await;
        assert_eq!(call(router, Method::GET, "/healthz", [10, 0, 0, 1], "").await.0, 200);
        task.abort();
    }

    /// Packaging §11: from localhost only.
    #[rstest]
    #[case([127, 0, 0, 1], "debug", 200)]
    #[case([127, 0, 0, 1], "info,kube=trace", 200)]
    #[case([127, 0, 0, 1], "lou=d=er", 400)]
    #[case([10, 0, 0, 1], "debug", 403)]
    #[tokio::test]
    async fn the_log_level_is_changed_from_localhost(
        #[case] peer: [u8; 4],
        #[case] level: &str,
        #[case] want: u16,
    ) {
        let (_, _, router) = setup();
        assert_eq!(call(router, Method::PUT, "/log-level", peer, level).await.0, want);
    }
}
