//! The metrics door and its reviews against a scripted API server (packaging §11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::api_server::{Answer, Call, client, count, failure};
use axum::body::Body;
use controller_kit::authz::{Access, Reviewer};
use controller_kit::metrics::Metrics;
use controller_kit::metrics_door::router;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

/// Knows token `scraper` (may read), `stranger` (may not); others are unknown.
fn reviews(call: &Call) -> Answer {
    if call.path.ends_with("/tokenreviews") {
        let token = call.body["spec"]["token"].as_str().unwrap_or_default();
        let known = token == "scraper" || token == "stranger";
        let mut status = json!({"authenticated": known});
        if known {
            status["user"] = json!({"username": token, "uid": "1", "groups": ["g"]});
        }
        return Answer::Json(201, json!({"spec": {"token": token}, "status": status}));
    }
    assert!(call.path.ends_with("/subjectaccessreviews"), "{call:?}");
    assert_eq!(call.body["spec"]["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    let allowed = call.body["spec"]["user"] == "scraper";
    Answer::Json(201, json!({"spec": {}, "status": {"allowed": allowed}}))
}

async fn scrape(
    router: &axum::Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let kind = response
        .headers()
        .get("content-type")
        .map(|kind| kind.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

/// Packaging scenario 15: 401 without, 403 with an unbound, 200 with a bound token.
#[tokio::test]
async fn callers_get_in_by_token_and_right() {
    let (client, _) = client(reviews);
    let door = router(Metrics::new("test"), Some(Reviewer::new(client, "/metrics")));
    let get = async |token: &str| scrape(&door, "GET", "/metrics", &[("authorization", token)]).await.0;
    assert_eq!(scrape(&door, "GET", "/metrics", &[]).await.0, 401);
    assert_eq!(get("Bearer nobody").await, 401);
    assert_eq!(get("Basic scraper").await, 401);
    assert_eq!(get("Bearer stranger").await, 403);
    assert_eq!(get("Bearer scraper").await, 200);
}

/// Only `GET /metrics` exists on that port; the form follows the Accept header.
#[tokio::test]
async fn the_door_has_one_route_and_two_forms() {
    let door = router(Metrics::new("test"), None);
    assert_eq!(scrape(&door, "GET", "/", &[]).await.0, 404);
    assert_eq!(scrape(&door, "GET", "/healthz", &[]).await.0, 404);
    assert_eq!(scrape(&door, "POST", "/metrics", &[]).await.0, 405);
    let (status, kind, body) = scrape(
        &door,
        "GET",
        "/metrics",
        &[("accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")],
    )
    .await;
    assert_eq!(status, 200);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("kagenti_build_info{component=\"test\""));
    let (_, kind, body) = scrape(&door, "GET", "/metrics", &[]).await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(body.contains("# TYPE process_cpu_seconds_total counter"), "{body}");
    assert!(!body.contains("# EOF"));
}

/// Positive answers hold 60 s, negative ones 10 s.
#[tokio::test(start_paused = true)]
async fn answers_are_remembered() {
    let (client, calls) = client(reviews);
    let reviewer = Reviewer::new(client, "/metrics");
    let asked = || count(&calls, |call| call.path.ends_with("/tokenreviews"));
    for _ in 0..10 {
        assert_eq!(reviewer.review("scraper").await, Access::Allowed);
        assert_eq!(reviewer.review("stranger").await, Access::Forbidden);
    }
    assert_eq!(asked(), 2);
    tokio::time::advance(Duration::from_secs(11)).await;
    reviewer.review("scraper").await;
    reviewer.review("stranger").await;
    assert_eq!(asked(), 3, "the refusal is asked again after 10 s");
    tokio::time::advance(Duration::from_secs(50)).await;
    reviewer.review("scraper").await;
    assert_eq!(asked(), 4, "the permission after 60 s");
}

/// Review impossible = 503, never 200, and not remembered.
#[tokio::test(start_paused = true)]
async fn without_reviews_nobody_gets_in() {
    let code = Arc::new(AtomicU16::new(403));
    let script = Arc::clone(&code);
    let (client, _) = client(move |call| match script.load(Ordering::Relaxed) {
        0 => reviews(call),
        1 => Answer::Silence,
        2 => Answer::Broken,
        code => failure(code, "Forbidden"),
    });
    let door = router(Metrics::new("test"), Some(Reviewer::new(client, "/metrics")));
    for state in [403, 1, 2] {
        code.store(state, Ordering::Relaxed);
        assert_eq!(
            scrape(&door, "GET", "/metrics", &[("authorization", "Bearer scraper")]).await.0,
            503,
            "{state}"
        );
    }
    code.store(0, Ordering::Relaxed);
    assert_eq!(scrape(&door, "GET", "/metrics", &[("authorization", "Bearer scraper")]).await.0, 200);
}
