//! The orphan sweeper (webhook §13.4): what it deletes, when, and under which preconditions.

use std::{sync::Arc, time::Duration};

use crate::api_server::{Call, Calls, Reply, api, owner, refusal};
use authbridge_webhook::{
    caches::Caches,
    metrics::Metrics,
    sweeper::{Patience, Sweeper},
};
use axum::http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_hours(1);

fn sweeper(answer: impl FnMut(&Call) -> Reply + Send + 'static) -> (Sweeper, Arc<Caches>, Calls) {
    let (client, calls) = api(answer);
    let caches = Arc::new(Caches::default());
    let patience = Patience { every: Duration::from_mins(10), unused_for: HOUR };
    let sweeper =
        Sweeper::new(client, caches.clone(), Arc::new(Metrics::default()), Arc::new(|| Ok(())), patience);
    (sweeper, caches, calls)
}

fn meta(uid: &str, owners: &Value) -> ObjectMeta {
    serde_json::from_value(json!({"uid": uid, "resourceVersion": "12", "ownerReferences": owners})).unwrap()
}

fn pods(mounted: &[&str]) -> Reply {
    let pods: Vec<Value> = mounted
        .iter()
        .map(|name| json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [{"name": "v", "configMap": {"name": name}}]}}))
        .collect();
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}).into()
}

const DELETE: &str = "DELETE /api/v1/namespaces/ns/configmaps/authbridge-config-gone";
const LIST: &str = "GET /api/v1/namespaces/ns/pods";

#[tokio::test(start_paused = true)]
async fn an_unmounted_ownerless_map_goes_after_two_passes_an_hour_apart() {
    let (mut sweeper, caches, calls) = sweeper(|call| match call.method {
        Method::DELETE => json!({"kind": "Status", "status": "Success"}).into(),
        _ => pods(&["authbridge-config-used"]),
    });
    caches.config_maps.put("ns", "authbridge-config-gone", &meta("u-gone", &json!([])));
    caches.config_maps.put("ns", "authbridge-config-used", &meta("u-used", &json!([])));
    let owned = json!([owner("apps/v1", "Deployment", "d", "d-1")]);
    caches.config_maps.put("other", "authbridge-config-owned", &meta("u-owned", &owned));
    sweeper.pass().await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    sweeper.pass().await;
    assert_eq!(calls.take(), [LIST, LIST], "too early; namespaces without orphans are not looked at");
    tokio::time::advance(Duration::from_secs(1)).await;
    sweeper.pass().await;
    let made = calls.take_all();
    assert_eq!(made.iter().map(Call::line).collect::<Vec<_>>(), [LIST, DELETE]);
    assert_eq!(made[1].body["preconditions"], json!({"uid": "u-gone", "resourceVersion": "12"}));
}

#[tokio::test(start_paused = true)]
async fn being_mounted_once_in_between_starts_the_hour_again() {
    let mut round = 0;
    let (mut sweeper, caches, calls) = sweeper(move |_| {
        round += 1;
        if round == 2 { pods(&["authbridge-config-gone"]) } else { pods(&[]) }
    });
    caches.config_maps.put("ns", "authbridge-config-gone", &meta("u", &json!([])));
    for _ in 0..3 {
        sweeper.pass().await;
        tokio::time::advance(HOUR).await;
    }
    assert_eq!(calls.take(), [LIST; 3]);
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_be_listed_delete_nothing_and_forget_nothing() {
    let mut round = 0;
    let (mut sweeper, caches, calls) = sweeper(move |call| {
        round += 1;
        match (round, &call.method) {
            (2, _) => refusal(403, "Forbidden"),
            (_, &Method::DELETE) => refusal(409, "Conflict"),
            _ => pods(&[]),
        }
    });
    caches.config_maps.put("ns", "authbridge-config-gone", &meta("u", &json!([])));
    for _ in 0..2 {
        sweeper.pass().await;
        tokio::time::advance(HOUR).await;
    }
    assert_eq!(calls.take(), [LIST, LIST]);
    sweeper.pass().await;
    assert_eq!(calls.take(), [DELETE, LIST], "known since the first pass; a conflict is left alone");
}

#[tokio::test(start_paused = true)]
async fn all_pages_of_pods_count() {
    let (mut sweeper, caches, calls) = sweeper(|call| {
        if call.query.contains("continue=") {
            return pods(&["authbridge-config-gone"]);
        }
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": "more"}, "items": []}).into()
    });
    caches.config_maps.put("ns", "authbridge-config-gone", &meta("u", &json!([])));
    for _ in 0..2 {
        sweeper.pass().await;
        tokio::time::advance(HOUR).await;
    }
    assert_eq!(calls.take(), [LIST; 4], "mounted, as the second page says");
}
