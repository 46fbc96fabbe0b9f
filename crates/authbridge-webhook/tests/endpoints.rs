//! Endpoints keep to themselves (webhook §3, §18): shedding, panics, one full one beside an idle one.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::sync::Arc;

use authbridge_webhook::{
    metrics::Metrics,
    review::{API_VERSION, Answer, Request},
    server::{
        admission_gate::Limits,
        endpoint::{Endpoint, Handler, Progress, router},
    },
};
use axum::{Router, body::Body, http};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

struct Blocked(Arc<Notify>);
struct Quick;
struct Broken;

impl Handler for Blocked {
    fn handle(&self, _: Request, _: Progress) -> BoxFuture<'_, Answer> {
        Box::pin(async {
            self.0.notified().await;
            Answer::allow("done")
        })
    }
}

impl Handler for Quick {
    fn handle(&self, _: Request, _: Progress) -> BoxFuture<'_, Answer> {
        Box::pin(async { Answer::allow("quick") })
    }
}

impl Handler for Broken {
    fn handle(&self, _: Request, _: Progress) -> BoxFuture<'_, Answer> {
        Box::pin(async { panic!("broken") })
    }
}

async fn ask(router: &Router, path: &str) -> Value {
    let review = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": {"uid": "u"}});
    let request = http::Request::post(path).body(Body::from(review.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice::<Value>(&body).unwrap()["response"].clone()
}

#[tokio::test]
async fn a_full_endpoint_sheds_and_does_not_hold_another() {
    let release = Arc::new(Notify::new());
    let metrics = Arc::new(Metrics::default());
    let limits = Limits { running: 1, waiting: 1 };
    let router = router([
        Endpoint::new("/blocked", limits, Arc::new(Blocked(release.clone())), metrics.clone()),
        Endpoint::new("/quick", limits, Arc::new(Quick), metrics.clone()),
        Endpoint::new("/broken", limits, Arc::new(Broken), metrics),
    ]);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { ask(&router, "/blocked").await })
        })
        .collect();
    // Both are in: one runs, one waits.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let shed = ask(&router, "/blocked").await;
    assert_eq!((&shed["allowed"], &shed["status"]["code"]), (&json!(false), &json!(503)));
    assert!(shed["status"]["message"].as_str().unwrap().contains("try again"));
    assert_eq!(ask(&router, "/quick").await["status"]["message"], "quick");
    for _ in 0..2 {
        let broken = ask(&router, "/broken").await;
        assert_eq!(broken["status"]["code"], 500, "a panic is an answer, and the next call is served");
    }
    for task in waiting {
        release.notify_one();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(task.await.unwrap()["status"]["message"], "done");
    }
}
