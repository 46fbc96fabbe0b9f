//! The write protocol, call by call (webhook §11.2, §12.3, §18).

use std::{collections::BTreeMap, sync::Arc};

use crate::api_server::{Call, Calls, Reply, api, owner, partial, refusal, stored};
use api_types::{names::manager, owner::PodIdentity};
use authbridge_webhook::{
    caches::Caches,
    injection::{PlannedConfigMap, Writes},
    live::Live,
    metrics::Metrics,
    owners::Owners,
    writes::{WriteError, Writer},
};
use axum::http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

const CM: &str = "PATCH /api/v1/namespaces/team1/configmaps/authbridge-config-weather";
const RS: &str = "GET /apis/apps/v1/namespaces/team1/replicasets/weather-abc";
const SA: &str = "POST /api/v1/namespaces/team1/serviceaccounts";

struct World {
    writer: Arc<Writer>,
    caches: Arc<Caches>,
    calls: Calls,
}

fn world(answer: impl FnMut(&Call) -> Reply + Send + 'static, open: bool) -> World {
    let (client, calls) = api(answer);
    let caches = Arc::new(Caches::default());
    let metrics = Arc::new(Metrics::default());
    let owners = Arc::new(Owners::new(client.clone(), metrics.clone()));
    let live = Arc::new(Live::new(client.clone(), metrics.clone()));
    let allowed = Arc::new(move || if open { Ok(()) } else { Err("legacy-lease") });
    let writer = Writer::new(client, caches.clone(), owners, live, metrics, allowed);
    World { writer: Arc::new(writer), caches, calls }
}

/// ReplicaSets `weather-abc` and `weather-def` belong to Deployments with these UIDs.
fn cluster(call: &Call) -> Reply {
    match (call.path.as_str(), &call.method) {
        (path, _) if path.ends_with("/replicasets/weather-abc") => partial(
            "weather-abc",
            &json!({"uid": "rs-1", "ownerReferences": [owner("apps/v1", "Deployment", "weather", "d-1")]}),
        )
        .into(),
        (path, _) if path.ends_with("/replicasets/weather-def") => partial(
            "weather-def",
            &json!({"uid": "rs-2", "ownerReferences": [owner("apps/v1", "Deployment", "weather", "d-2")]}),
        )
        .into(),
        (_, &Method::POST | &Method::PATCH) => stored(call),
        _ => refusal(404, "NotFound"),
    }
}

fn replica_set(name: &str, uid: &str) -> OwnerReference {
    serde_json::from_value(owner("apps/v1", "ReplicaSet", name, uid)).unwrap()
}

fn planned(text: &str) -> PlannedConfigMap {
    let data = BTreeMap::from([("config.yaml", text.to_owned())]);
    PlannedConfigMap::new("authbridge-config-weather".to_owned(), manager::WEBHOOK, data)
}

fn writes(text: &str) -> Writes {
    Writes { service_account: Some("weather".to_owned()), config_maps: vec![planned(text)] }
}

async fn carry_out(
    world: &World,
    rs: &OwnerReference,
    writes: &Writes,
) -> Result<Option<String>, WriteError> {
    let pod = PodIdentity { generate_name: "weather-abc-", owner: Some(rs), ..PodIdentity::default() };
    world.writer.carry_out("team1", &pod, writes).await
}

/// §18: first Pod of a workload, at most four calls; every further one, none.
#[tokio::test]
async fn the_first_pod_writes_and_the_next_one_does_not() {
    let world = world(cluster, true);
    let rs = replica_set("weather-abc", "rs-1");
    assert_eq!(carry_out(&world, &rs, &writes("mode: lite")).await.unwrap(), None);
    let calls = world.calls.take_all();
    let mut lines: Vec<_> = calls.iter().map(Call::line).collect();
    lines.sort();
    assert_eq!(lines, [RS, CM, SA]);
    let apply = calls.iter().find(|c| c.method == Method::PATCH).unwrap();
    assert!(
        apply.query.contains("fieldManager=kagenti-webhook&")
            || apply.query.ends_with("fieldManager=kagenti-webhook"),
        "{}",
        apply.query
    );
    assert!(apply.query.contains("force=true"));
    let body = &apply.body;
    assert_eq!(body["metadata"]["labels"], json!({"kagenti.io/managed-by": "webhook"}));
    assert_eq!(
        body["metadata"]["annotations"]["kagenti.io/content-hash"],
        planned("mode: lite").content_hash
    );
    assert_eq!(
        body["metadata"]["ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather", "uid": "d-1", "controller": true, "blockOwnerDeletion": false}])
    );
    let account = calls.iter().find(|c| c.method == Method::POST).unwrap();
    assert_eq!(account.body["metadata"]["labels"], json!({"kagenti.io/managed-by": "webhook"}));
    assert!(account.body["metadata"].get("ownerReferences").is_none(), "§11.2: users attach rights to it");
    for _ in 0..3 {
        carry_out(&world, &rs, &writes("mode: lite")).await.unwrap();
    }
    assert_eq!(world.calls.take(), [""; 0]);
}

/// §12.3: other content is one apply; a recreated workload of the same name takes the map over.
#[tokio::test]
async fn changed_content_or_owner_is_applied_again() {
    let world = world(cluster, true);
    let old = replica_set("weather-abc", "rs-1");
    carry_out(&world, &old, &writes("a")).await.unwrap();
    world.calls.take();
    carry_out(&world, &old, &writes("b")).await.unwrap();
    assert_eq!(world.calls.take(), [CM]);
    let new = replica_set("weather-def", "rs-2");
    carry_out(&world, &new, &writes("b")).await.unwrap();
    let calls = world.calls.take_all();
    assert_eq!(calls.len(), 2, "the owner's metadata, then the apply");
    assert_eq!(calls[1].body["metadata"]["ownerReferences"][0]["uid"], "d-2");
}

/// §12.3: one apply in flight per ConfigMap; whoever waited finds the work done.
#[tokio::test]
async fn fifty_pods_at_once_write_once() {
    let world = Arc::new(world(cluster, true));
    let tasks = (0..50).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            let rs = replica_set("weather-abc", "rs-1");
            carry_out(&world, &rs, &writes("a")).await.map(drop)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    assert_eq!(world.calls.take(), [RS, CM, SA]);
}

/// §11.2: an existing ServiceAccount is never changed; without our label the user is told.
#[tokio::test]
async fn a_foreign_service_account_is_kept_and_named() {
    let world = world(
        |call| match (call.method.as_str(), call.path.ends_with("/serviceaccounts/weather")) {
            ("POST", _) => refusal(409, "AlreadyExists"),
            ("GET", true) => partial("weather", &json!({"uid": "sa"})).into(),
            _ => refusal(500, "InternalError"),
        },
        true,
    );
    let only = Writes { service_account: Some("weather".to_owned()), config_maps: Vec::new() };
    let rs = replica_set("weather-abc", "rs-1");
    let warning = carry_out(&world, &rs, &only).await.unwrap().expect("a warning");
    assert!(warning.contains("weather"), "{warning}");
    assert_eq!(world.calls.take(), ["GET /api/v1/namespaces/team1/serviceaccounts/weather", SA]);
    assert!(carry_out(&world, &rs, &only).await.unwrap().is_some());
    assert_eq!(world.calls.take(), [""; 0]);
    world.caches.service_accounts.remove("team1", "weather");
    carry_out(&world, &rs, &only).await.unwrap();
    assert_eq!(world.calls.take().len(), 2, "deleted meanwhile: made again");
}

/// §4.6, §12.3: a failed write denies the Pod and names the object.
#[tokio::test]
async fn a_failed_apply_names_the_object() {
    let world = world(
        |call| if call.method == Method::PATCH { refusal(500, "InternalError") } else { cluster(call) },
        true,
    );
    let error = carry_out(&world, &replica_set("weather-abc", "rs-1"), &writes("a")).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ConfigMap team1/authbridge-config-weather") && text.contains("scripted"),
        "{text}"
    );
}

/// §12.3: two replicas at the same moment; the loser tries once more.
#[tokio::test]
async fn a_conflict_is_tried_again() {
    let mut first = true;
    let world = world(
        move |call| match call.method {
            Method::PATCH if std::mem::take(&mut first) => refusal(409, "Conflict"),
            _ => cluster(call),
        },
        true,
    );
    let only = Writes { service_account: None, config_maps: vec![planned("a")] };
    carry_out(&world, &replica_set("weather-abc", "rs-1"), &only).await.unwrap();
    assert_eq!(world.calls.take(), [RS, CM, CM]);
}

/// Packaging §12: beside a running predecessor nothing is written, what is there already is fine.
#[tokio::test]
async fn nothing_is_written_while_the_legacy_operator_runs() {
    let world = world(cluster, false);
    let rs = replica_set("weather-abc", "rs-1");
    let error = carry_out(&world, &rs, &writes("a")).await.unwrap_err();
    assert!(matches!(error, WriteError::LegacyOperator("legacy-lease")), "{error}");
    assert!(world.calls.take().iter().all(|line| line.starts_with("GET ")));
}

/// §12.3: the lone `helper.conf` has its own hash, so both managers of one map rest.
#[tokio::test]
async fn the_two_field_managers_do_not_disturb_each_other() {
    let mut metadata = json!({});
    let world = world(
        move |call| {
            if call.method != Method::PATCH {
                return cluster(call);
            }
            // Server-side apply merges the annotations of both managers.
            for (key, value) in call.body["metadata"]["annotations"].as_object().unwrap() {
                metadata[key] = value.clone();
            }
            let mut merged = call.clone();
            merged.body["metadata"]["annotations"] = metadata.clone();
            stored(&merged)
        },
        true,
    );
    let name = "authbridge-config-weather".to_owned();
    let helper =
        PlannedConfigMap::new(name, manager::WEBHOOK_HELPER, [("helper.conf", "h".to_owned())].into());
    let whole = Writes { service_account: None, config_maps: vec![planned("a")] };
    let lone = Writes { service_account: None, config_maps: vec![helper] };
    let rs = replica_set("weather-abc", "rs-1");
    for writes in [&whole, &lone] {
        carry_out(&world, &rs, writes).await.unwrap();
    }
    assert_eq!(world.calls.take(), [RS, CM, CM]);
    for writes in [&whole, &lone, &whole] {
        carry_out(&world, &rs, writes).await.unwrap();
    }
    assert_eq!(world.calls.take(), [""; 0]);
}
