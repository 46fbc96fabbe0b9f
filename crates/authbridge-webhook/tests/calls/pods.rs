//! The Pod endpoint through its router, without a process or TLS (webhook §4-§7, §11, §18).

use std::sync::Arc;

use crate::api_server::{Call, Calls, Reply, api, owner, partial, refusal, stored};
use api_types::names::label;
use authbridge_webhook::{
    caches::{Caches, namespaces::NamespaceMap},
    config::{Config, Snapshot},
    live::Live,
    metrics::Metrics,
    owners::Owners,
    pods::PodEndpoint,
    registration::{PODS_PATH, RUNTIMES_PATH},
    review::{Answer, Request},
    run::endpoints,
    server::endpoint::{Handler, Progress},
    watches::Synced,
    writes::Writer,
};
use axum::{
    Router,
    body::Body,
    http::{self, Method, StatusCode},
};
use base64::Engine as _;
use controller_kit::{events::EventRecorder, scope::Scope};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

struct World {
    router: Router,
    caches: Arc<Caches>,
    calls: Calls,
    synced: watch::Sender<bool>,
}

struct Nobody;

impl Handler for Nobody {
    fn handle(&self, _: Request, _: Progress) -> BoxFuture<'_, Answer> {
        Box::pin(async { Answer::allow("") })
    }
}

fn world(answer: impl FnMut(&Call) -> Reply + Send + 'static) -> World {
    let (client, calls) = api(answer);
    let caches = Arc::new(Caches::default());
    let metrics = Arc::new(Metrics::default());
    let owners = Arc::new(Owners::new(client.clone(), metrics.clone()));
    let live = Arc::new(Live::new(client.clone(), metrics.clone()));
    let writer = Arc::new(Writer::new(
        client.clone(),
        caches.clone(),
        owners.clone(),
        live.clone(),
        metrics.clone(),
        Arc::new(|| Ok(())),
    ));
    let (synced, receiver) = watch::channel(true);
    let kit = controller_kit::metrics::Metrics::new("test");
    let pods = PodEndpoint {
        caches: caches.clone(),
        config: Config::fixed(Snapshot::default(), metrics.clone()),
        owners,
        live,
        writer,
        metrics: metrics.clone(),
        events: EventRecorder::new(client, &kit, "test", "test").0,
        scope: Scope::Cluster,
        operator_namespace: "kagenti-system".to_owned(),
        synced: Synced::whole(receiver),
    };
    let router = endpoints(Arc::new(pods), Arc::new(Nobody), Arc::new(Nobody), &metrics);
    enable(&caches, "team1");
    World { router, caches, calls, synced }
}

fn enable(caches: &Caches, namespace: &str) {
    let labels = [(label::NAMESPACE_ENABLED.to_owned(), "true".to_owned())];
    caches.namespaces.put_labels(namespace, labels.into());
}

fn weather() -> Value {
    json!({
        "metadata": {
            "generateName": "weather-abc-", "labels": {"kagenti.io/type": "agent", "pod-template-hash": "abc"},
            "ownerReferences": [owner("apps/v1", "ReplicaSet", "weather-abc", "rs-1")],
        },
        "spec": {"containers": [{"name": "agent", "image": "x", "ports": [{"containerPort": 8000, "name": "http"}]}]},
    })
}

fn review(namespace: &str, pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": namespace,
        "operation": "CREATE", "object": pod, "oldObject": null,
    }})
}

async fn send(world: &World, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let request = http::Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn ask(world: &World, review: &Value) -> Value {
    let (status, body) = send(world, Method::POST, PODS_PATH, serde_json::to_vec(review).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["uid"], "u-1");
    answer["response"].clone()
}

fn patched(pod: &Value, response: &Value) -> Value {
    let text = response["patch"].as_str().expect("a patch");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Everything a healthy cluster answers.
fn cluster(call: &Call) -> Reply {
    match call.method {
        Method::GET if call.path.ends_with("/replicasets/weather-abc") => {
            let owner = owner("apps/v1", "Deployment", "weather", "d-1");
            partial("weather-abc", &json!({"uid": "rs-1", "ownerReferences": [owner]})).into()
        }
        Method::POST | Method::PATCH => stored(call),
        _ => refusal(404, "NotFound"),
    }
}

/// §18: the first Pod of a workload costs its writes, the next one nothing at all.
#[tokio::test]
async fn a_pod_is_injected_and_the_second_one_costs_no_request() {
    let world = world(cluster);
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let pod = patched(&weather(), &answer);
    assert_eq!(pod["spec"]["containers"][1]["name"], "authbridge-proxy");
    assert_eq!(
        world.calls.take(),
        [
            "GET /apis/apps/v1/namespaces/team1/replicasets/weather-abc",
            "PATCH /api/v1/namespaces/team1/configmaps/authbridge-config-weather",
        ]
    );
    let again = ask(&world, &review("team1", &weather())).await;
    assert_eq!(again["patch"], answer["patch"], "the same bytes for the same input");
    assert_eq!(world.calls.take(), [""; 0]);
    let reinvoked = ask(&world, &review("team1", &pod)).await;
    assert_eq!(reinvoked["status"]["message"], "already injected");
    assert!(reinvoked.get("patch").is_none());
}

/// §11.2: with SPIRE the ServiceAccount is made beside the ConfigMap.
#[tokio::test]
async fn spire_adds_the_service_account() {
    let world = world(cluster);
    world.caches.cluster.set_csi_driver(true);
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!(patched(&weather(), &answer)["spec"]["serviceAccountName"], "weather");
    assert_eq!(world.calls.take().len(), 3);
    assert!(world.caches.service_accounts.known("team1", "weather").is_some());
}

/// §4.4: a dry run writes nothing, and names no ServiceAccount that does not exist.
#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let world = world(cluster);
    world.caches.cluster.set_csi_driver(true);
    let mut review = review("team1", &weather());
    review["request"]["dryRun"] = json!(true);
    let answer = ask(&world, &review).await;
    assert_eq!(answer["allowed"], true);
    assert!(patched(&weather(), &answer)["spec"].get("serviceAccountName").is_none());
    assert!(answer["warnings"].to_string().contains("dry run"), "{answer}");
    assert!(world.calls.take().iter().all(|line| line.starts_with("GET ")));
}

/// §16: caches that are not filled refuse, for a moment of waiting; never an uninjected Pod.
#[tokio::test(start_paused = true)]
async fn empty_caches_refuse_with_a_retry_text() {
    let world = world(cluster);
    world.synced.send_replace(false);
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(503)));
    assert!(answer["status"]["message"].as_str().unwrap().contains("try again"), "{answer}");
    world.synced.send_replace(true);
    assert_eq!(ask(&world, &review("team1", &weather())).await["allowed"], true);
}

/// A namespace the store does not know, or knows as not enabled, is read once before its Pods are
/// left alone: the API server only sends what it sees as enabled.
#[tokio::test]
async fn a_namespace_made_a_moment_ago_is_read_once() {
    let world = world(|call| match call.path.as_str() {
        "/api/v1/namespaces/fresh" => {
            partial("fresh", &json!({"labels": {"kagenti-enabled": "true"}})).into()
        }
        "/api/v1/namespaces/off" => partial("off", &json!({"labels": {}})).into(),
        _ => cluster(call),
    });
    let mut pod = weather();
    pod["metadata"] = json!({"name": "bare", "labels": {"kagenti.io/type": "agent"}});
    let answer = ask(&world, &review("fresh", &pod)).await;
    assert!(answer.get("patch").is_some(), "{answer}");
    assert_eq!(world.calls.take()[0], "GET /api/v1/namespaces/fresh");
    world.caches.namespaces.put_labels("off", [].into());
    for _ in 0..3 {
        let answer = ask(&world, &review("off", &pod)).await;
        assert_eq!(answer["status"]["message"], "injection not enabled");
    }
    assert_eq!(world.calls.take(), ["GET /api/v1/namespaces/off"]);
}

/// §7.4: a Pod that runtime-ctl stamped is not injected with defaults on the word of a stale store.
#[tokio::test]
async fn a_stamped_pod_without_runtime_lists_once() {
    const LIST: &str = "GET /apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";
    let world = world(|call| match call.path.as_str() {
        "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes" => json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntimeList", "metadata": {},
            "items": [{
                "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
                "metadata": {"name": "rt", "namespace": "team1", "uid": "rt-1"},
                "spec": {"type": "agent", "authBridgeMode": "waypoint",
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"}},
            }],
        })
        .into(),
        _ => cluster(call),
    });
    let mut pod = weather();
    pod["metadata"]["annotations"] = json!({"kagenti.io/mtls-mode": "permissive"});
    let answer = ask(&world, &review("team1", &pod)).await;
    assert_eq!(answer["status"]["message"], "injection not enabled", "mode waypoint of the live one");
    assert_eq!(world.calls.take(), [LIST]);
    ask(&world, &review("team1", &pod)).await;
    assert_eq!(world.calls.take(), [""; 0], "a burst costs one list");
}

/// §7.3: a document that does not parse denies, and says where.
#[tokio::test]
async fn a_broken_namespace_document_denies() {
    let world = world(cluster);
    let map = ConfigMap {
        data: Some([("config.yaml".to_owned(), "mode: [".to_owned())].into()),
        ..ConfigMap::default()
    };
    world.caches.namespaces.put_map(NamespaceMap::Runtime, "team1", map);
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!(answer["status"]["code"], 403);
    assert!(answer["status"]["message"].as_str().unwrap().contains("authbridge-runtime-config"), "{answer}");
    assert_eq!(world.calls.take(), [""; 0]);
}

/// §4.6: what cannot be written denies with 500 and names the object.
#[tokio::test]
async fn a_failed_write_denies_with_500() {
    let world =
        world(
            |call| if call.method == Method::PATCH { refusal(500, "InternalError") } else { cluster(call) },
        );
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!(answer["status"]["code"], 500);
    assert!(answer["status"]["message"].as_str().unwrap().contains("authbridge-config-weather"), "{answer}");
}

/// §4.5: at 8 s the answer names the step.
#[tokio::test(start_paused = true)]
async fn a_hanging_api_server_is_answered_before_the_callers_limit() {
    let world = world(|call| if call.method == Method::PATCH { Reply::Never } else { cluster(call) });
    let begin = tokio::time::Instant::now();
    let answer = ask(&world, &review("team1", &weather())).await;
    assert_eq!(begin.elapsed().as_secs(), 8);
    assert_eq!(answer["status"]["code"], 500);
    assert!(answer["status"]["message"].as_str().unwrap().contains("writing the ConfigMaps"), "{answer}");
}

/// §12.3: a pinned ConfigMap is read once per version and keeps its pipeline.
#[tokio::test]
async fn a_pinned_map_is_read_once() {
    const GET: &str = "GET /api/v1/namespaces/team1/configmaps/authbridge-config-weather";
    let world = world(|call| match call.method {
        Method::GET if call.path.ends_with("/configmaps/authbridge-config-weather") => json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "authbridge-config-weather", "namespace": "team1", "resourceVersion": "8"},
            "data": {"config.yaml": "pipeline: {inbound: {plugins: [mine]}}"},
        })
        .into(),
        _ => cluster(call),
    });
    let meta = serde_json::from_value(json!({
        "uid": "stored-uid", "resourceVersion": "8", "annotations": {"kagenti.io/config-pinned": "true"},
        "ownerReferences": [owner("apps/v1", "Deployment", "weather", "d-1")],
    }))
    .unwrap();
    world.caches.config_maps.put("team1", "authbridge-config-weather", &meta);
    ask(&world, &review("team1", &weather())).await;
    let calls = world.calls.take_all();
    assert!(calls.iter().any(|call| call.line() == GET));
    let apply = calls.iter().find(|call| call.method == Method::PATCH).unwrap();
    assert!(apply.body["data"]["config.yaml"].as_str().unwrap().contains("mine"));
}

/// §4.2: other objects and sub-resources are let through; §4.1: sizes, methods, shapes.
#[tokio::test]
async fn the_edges_of_the_protocol() {
    let world = world(cluster);
    let mut other = review("team1", &weather());
    other["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(ask(&world, &other).await["status"]["message"], "not a Pod");
    let mut sub = review("team1", &weather());
    sub["request"]["subResource"] = json!("status");
    assert_eq!(ask(&world, &sub).await["status"]["message"], "not a Pod");
    let bad = review("team1", &json!({"metadata": {}, "spec": {"containers": [{}]}}));
    assert_eq!(ask(&world, &bad).await["status"]["code"], 400);
    let statuses = [
        send(&world, Method::POST, PODS_PATH, b"{".to_vec()).await.0,
        send(&world, Method::POST, PODS_PATH, vec![b' '; 7 * 1024 * 1024 + 1]).await.0,
        send(&world, Method::GET, PODS_PATH, Vec::new()).await.0,
        send(&world, Method::POST, "/elsewhere", Vec::new()).await.0,
    ];
    assert_eq!(
        statuses,
        [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::NOT_FOUND
        ]
    );
    assert_eq!(world.calls.take(), [""; 0]);
    let (status, _) = send(&world, Method::POST, RUNTIMES_PATH, serde_json::to_vec(&other).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
}
