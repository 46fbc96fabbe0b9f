//! Writes and Events against a scripted API server (README decision 9, runtime §6.1, §7.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::api_server::{Answer, client, count, failure};
use controller_kit::apply::{
    FieldManager, apply, apply_status, is_conflict, is_stale, merge_patch, merge_patch_status,
    retry_conflicts,
};
use controller_kit::events::{EventRecorder, NewEvent};
use controller_kit::metrics::Metrics;
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::Api;
use kube::api::Preconditions;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const MANAGER: FieldManager = FieldManager::new("kagenti-runtime-ctl");

#[tokio::test]
async fn an_apply_is_forced_named_and_carries_only_the_fields() {
    let (client, calls) = client(|call| Answer::Json(200, call.body.clone()));
    let api = Api::<ConfigMap>::namespaced(client, "team1");
    apply(&api, "c", MANAGER, json!({"data": {"a": "b"}})).await.unwrap();
    let call = calls.lock().unwrap()[0].clone();
    assert_eq!(call.method, Method::PATCH);
    assert_eq!(call.path, "/api/v1/namespaces/team1/configmaps/c");
    assert_eq!(call.content_type, "application/apply-patch+yaml");
    assert!(
        call.query.contains("force=true") && call.query.contains("fieldManager=kagenti-runtime-ctl"),
        "{call:?}"
    );
    assert_eq!(
        call.body,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
    );
}

#[tokio::test]
async fn status_goes_to_the_subresource() {
    let (client, calls) = client(|_| Answer::Json(200, json!({"metadata": {"name": "d"}})));
    let api = Api::<Deployment>::namespaced(client, "team1");
    apply_status(&api, "d", MANAGER, json!({"replicas": 1})).await.unwrap();
    merge_patch_status(&api, "d", MANAGER, json!({"replicas": 2})).await.unwrap();
    let calls = calls.lock().unwrap();
    assert!(calls.iter().all(|call| call.path == "/apis/apps/v1/namespaces/team1/deployments/d/status"));
    assert_eq!(calls[0].body["status"], json!({"replicas": 1}));
    assert_eq!(calls[0].body["kind"], "Deployment");
    assert_eq!(calls[1].body, json!({"status": {"replicas": 2}}));
    assert_eq!(calls[1].content_type, "application/merge-patch+json");
    assert!(!calls[1].query.contains("force"), "only an apply can be forced");
}

/// Runtime §6.1: merge patch, only owned keys, never a creation behind a deletion.
#[tokio::test]
async fn a_merge_patch_carries_its_preconditions() {
    let answer = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                        "metadata": {"name": "d", "resourceVersion": "8"}});
    let (client, calls) = client(move |_| Answer::Json(200, answer.clone()));
    let api = Api::<Deployment>::namespaced(client, "team1");
    let seen = Preconditions { uid: Some("u".to_owned()), resource_version: Some("7".to_owned()) };
    let patch = json!({"metadata": {"labels": {"kagenti.io/type": null}}});
    let meta = merge_patch(&api, "d", MANAGER, patch, &seen).await.unwrap();
    assert_eq!(meta.metadata.resource_version.as_deref(), Some("8"));
    let call = calls.lock().unwrap()[0].clone();
    assert_eq!(
        call.body,
        json!({"metadata": {"labels": {"kagenti.io/type": null}, "uid": "u", "resourceVersion": "7"}})
    );
}

/// Runtime §6: 409 is retried at once up to 5 times with a read; anything else is not.
#[tokio::test(start_paused = true)]
async fn conflicts_are_retried_with_a_read_in_between() {
    let refusals = Arc::new(AtomicUsize::new(3));
    let left = Arc::clone(&refusals);
    let (client, calls) = client(move |call| {
        if call.method == Method::GET {
            return Answer::Json(200, json!({"metadata": {"name": "c", "resourceVersion": "9"}}));
        }
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if taken.is_ok() {
            failure(409, "Conflict")
        } else {
            Answer::Json(200, json!({"metadata": {"name": "c"}}))
        }
    });
    let api = Api::<ConfigMap>::namespaced(client, "team1");
    let patch = async |attempt: u32| {
        if attempt > 0 {
            api.get("c").await?;
        }
        merge_patch(&api, "c", MANAGER, json!({"data": {}}), &Preconditions::default()).await
    };
    retry_conflicts(5, patch).await.unwrap();
    assert_eq!(count(&calls, |call| call.method == Method::PATCH), 4);
    assert_eq!(count(&calls, |call| call.method == Method::GET), 3);
    refusals.store(100, Ordering::Relaxed);
    let error = retry_conflicts(5, patch).await.unwrap_err();
    assert!(is_conflict(&error) && is_stale(&error));
    assert_eq!(count(&calls, |call| call.method == Method::PATCH), 9);
}

fn weather() -> ObjectReference {
    ObjectReference {
        kind: Some("AgentRuntime".to_owned()),
        namespace: Some("team1".to_owned()),
        name: Some("weather".to_owned()),
        uid: Some("u1".to_owned()),
        ..ObjectReference::default()
    }
}

/// Runtime §7.3: not in a loop; webhook §17: once per object and reason in 5 minutes.
#[tokio::test(start_paused = true)]
async fn an_event_is_sent_once_and_again_after_five_minutes() {
    let (client, calls) = client(|call| Answer::Json(201, call.body.clone()));
    let metrics = Metrics::new("test");
    let (recorder, sender) = EventRecorder::new(client, &metrics, "runtime-ctl", "pod-1");
    let recorder = recorder.reporting_as("agentruntime-controller");
    let halt = CancellationToken::new();
    let task = tokio::spawn(sender.run(halt.clone()));
    let say = || recorder.publish(&weather(), NewEvent::warning("TargetNotFound", "ResolveTarget", "gone"));
    for _ in 0..10 {
        say();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.lock().unwrap().len(), 1);
    let call = calls.lock().unwrap()[0].clone();
    assert_eq!(call.path, "/apis/events.k8s.io/v1/namespaces/team1/events");
    assert_eq!(call.method, Method::POST);
    let body = &call.body;
    assert_eq!(body["reportingController"], "agentruntime-controller");
    assert_eq!(body["reportingInstance"], "pod-1");
    assert_eq!(
        (&body["type"], &body["reason"], &body["action"]),
        (&json!("Warning"), &json!("TargetNotFound"), &json!("ResolveTarget"))
    );
    assert_eq!(body["regarding"]["uid"], "u1");
    assert!(body["eventTime"].is_string());
    tokio::time::sleep(Duration::from_secs(300)).await;
    say();
    // What is still queued at the end is sent.
    halt.cancel();
    task.await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 2);
}

/// A full queue drops and counts; a refusing server neither blocks nor ends anything.
#[tokio::test(start_paused = true)]
async fn too_many_events_are_dropped_and_counted() {
    let (client, calls) = client(|_| failure(403, "Forbidden"));
    let metrics = Metrics::new("test");
    let (recorder, sender) = EventRecorder::new(client, &metrics, "runtime-ctl", "pod-1");
    for n in 0..5000 {
        recorder.publish(&weather(), NewEvent::normal("Configured", "ApplyConfig", format!("{n}")));
    }
    let text = metrics.openmetrics().unwrap();
    assert!(text.contains("kagenti_events_total{outcome=\"dropped\"} 904"), "{text}");
    let halt = CancellationToken::new();
    let task = tokio::spawn(sender.run(halt.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let sent = calls.lock().unwrap().len();
    assert!((300..=420).contains(&sent), "a rate of its own: {sent} in 10 s");
    halt.cancel();
    task.await.unwrap();
}
