//! Bad input and broken bodies at the admission server.

use anyhow::{Context as _, Result, ensure};
use e2e::admission::{Admission, PODS, pod_request};
use e2e::{Json as _, Suite, objects};
use serde_json::{Value, json};

/// What an API server sends at most, roughly: 3 MiB of object, twice (object and old object).
const LIMIT: usize = 7 << 20;

/// The message of a denial names the ConfigMap and the line, wherever in the document the fault is.
#[tokio::test]
async fn faults_malformed_namespace_configuration_names_the_line() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("faults-yaml", json!({"kagenti-enabled": "true"})).await?;
    let admission = suite.admission(0).await?;
    let broken = [
        ("mode: proxy-sidecar\nmtls:\n  mode: [strict\n", "line"),
        ("mode: lite\n- a\n", "line 2"),
        ("a: &x [1]\nb: *unknown\n", "line 2"),
        ("just text\n", "map"),
        ("- a\n- b\n", "map"),
    ];
    for (number, (yaml, place)) in broken.into_iter().enumerate() {
        // The number makes every denial distinct, so that an answer about the last document is not taken for one.
        let yaml = format!("{yaml}# {number}\n");
        ns.apply(objects::config_map("authbridge-runtime-config", json!({"config.yaml": yaml}))).await?;
        let pod = objects::pod("agent").label("kagenti.io/type", "agent").build();
        let answer = e2e::wait_for(e2e::secs(20), &format!("a denial for {yaml:?}"), async || {
            let answer = admission.pod(ns.name(), pod.clone()).await?;
            let message = answer.text("/status/message");
            ensure!(answer["allowed"] == false, "admitted: {answer}");
            ensure!(message.contains(place), "{message}");
            Ok(Some(answer.clone()))
        })
        .await?;
        assert_eq!(answer.number("/status/code"), Some(403), "{answer}");
        let message = answer.text("/status/message");
        ensure!(
            message.contains("authbridge-runtime-config") && message.contains("config.yaml"),
            "{message}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn faults_large_reviews_are_bounded() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("faults-size", json!({"kagenti-enabled": "true"})).await?;
    let admission = suite.admission(0).await?;

    let large = admission.post(PODS, review(ns.name(), 5 << 20)?).await?;
    assert_eq!(large.status, 200, "{}", large.message());
    assert_eq!(large.body["response"]["allowed"], true, "{}", large.message());
    assert!(!large.body.text("/response/patch").is_empty(), "handled like any other");

    let body = review(ns.name(), 8 << 20)?;
    ensure!(body.len() > LIMIT, "larger than what is accepted");
    let refused = admission.post(PODS, body).await?;
    assert_eq!(refused.status, 413, "{}", refused.message());
    still_works(&admission, ns.name()).await
}

#[tokio::test]
async fn faults_bodies_that_are_no_reviews() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("faults-bodies", json!({"kagenti-enabled": "true"})).await?;
    let admission = suite.admission(0).await?;
    let whole = review(ns.name(), 0)?;
    let (half, _) = whole.split_at(whole.len() / 2);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let other =
        json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "x"}});
    let bodies: [(&str, Vec<u8>); 7] = [
        ("truncated", half.to_vec()),
        ("empty", Vec::new()),
        ("not JSON", b"kind: AdmissionReview".to_vec()),
        ("not UTF-8", vec![0xff, 0xfe, b'{']),
        ("too deep", deep.into_bytes()),
        ("another version", other.to_string().into_bytes()),
        (
            "no request",
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string().into(),
        ),
    ];
    for (what, body) in bodies {
        let reply = admission.post(PODS, body).await.with_context(|| what.to_owned())?;
        assert_eq!(reply.status, 400, "{what}: {}", reply.message());
    }
    // A review that holds something other than a Pod.
    for object in [json!(null), json!([]), json!("pod"), json!({"spec": {"containers": {"name": "x"}}})] {
        let answer = admission.ask(PODS, pod_request(ns.name(), object.clone(), false)).await?;
        assert_eq!(answer["allowed"], false, "{object}: {answer}");
        assert_eq!(answer.number("/status/code"), Some(400), "{object}: {answer}");
    }
    still_works(&admission, ns.name()).await
}

/// After whatever was sent, the next Pod is served.
async fn still_works(admission: &Admission, namespace: &str) -> Result<()> {
    let pod = objects::pod("after").label("kagenti.io/type", "agent").build();
    let answer = admission.pod(namespace, pod).await?;
    ensure!(answer.text("/patchType") == "JSONPatch", "{answer}");
    Ok(())
}

/// A review of a Pod that is padded to about this size.
fn review(namespace: &str, size: usize) -> Result<Vec<u8>> {
    let pod =
        objects::pod("large").label("kagenti.io/type", "agent").annotation("padding", &"x".repeat(size));
    let review: Value = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": pod_request(namespace, pod.build(), true),
    });
    serde_json::to_vec(&review).context("writing a review")
}
