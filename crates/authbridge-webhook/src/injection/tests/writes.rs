//! Objects to write (webhook §11.2, §12.3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::injection::{ExistingConfigMap, OwnerPlan, owner_plan};

/// What a read of the Pod's direct owner found.
enum Live {
    Unread,
    Gone,
    Found(OwnerReference),
}

fn reference(api_version: &str, kind: &str, name: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

// §12.3: another workload of the same name, or a predecessor of ours?
#[rstest]
#[case::free(None, false)]
#[case::predecessor(Some(reference("apps/v1", "Deployment", "weather")), false)]
#[case::other_kind(Some(reference("apps/v1", "StatefulSet", "weather")), true)]
#[case::other_group(Some(reference("example.com/v1", "Deployment", "weather")), true)]
fn name_collisions(#[case] controller: Option<OwnerReference>, #[case] collision: bool) {
    let workload = World::team1().workload;
    let names = config_names(&workload, |name| {
        let stored = ExistingConfigMap { controller: controller.clone() };
        (name == "authbridge-config-weather").then_some(stored)
    });
    assert_eq!(names.collision, collision);
    if collision {
        // The first 8 hex of sha256("Deployment/weather").
        let suffix = names.config.strip_prefix("authbridge-config-weather-").expect("a suffix");
        assert_eq!(suffix.len(), 8);
        assert_eq!(names.envoy, format!("envoy-config-weather-{suffix}"));
    } else {
        assert_eq!(
            (names.config.as_str(), names.envoy.as_str()),
            ("authbridge-config-weather", "envoy-config-weather")
        );
    }
}

#[test]
fn long_names_stay_valid_with_a_suffix() {
    let mut workload = World::team1().workload;
    workload.name = "w".repeat(253);
    let other = reference("apps/v1", "StatefulSet", &workload.name);
    let names = config_names(&workload, |_| Some(ExistingConfigMap { controller: Some(other.clone()) }));
    assert!(names.collision && names.config.len() <= 253 && names.envoy.len() <= 253, "{names:?}");
}

#[test]
fn a_collision_moves_maps_and_volumes() {
    let mut world = World::team1().with_config("mode: envoy-sidecar");
    let other = reference("apps/v1", "StatefulSet", "weather");
    world.names =
        config_names(&world.workload, |_| Some(ExistingConfigMap { controller: Some(other.clone()) }));
    let (pod, injection) = world.injected(&weather());
    let written: Vec<_> = injection.writes.config_maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(written, [world.names.config.as_str(), world.names.envoy.as_str()]);
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(named(volumes, "authbridge-runtime-config")["configMap"]["name"], world.names.config.as_str());
    assert_eq!(named(volumes, "envoy-config")["configMap"]["name"], world.names.envoy.as_str());
    assert_eq!(codes(&injection), ["config-name-collision"]);
    assert_eq!(status(&pod)["config"], world.names.config.as_str());
}

// §12.3, owner references.
#[rstest]
#[case::unread(reference("apps/v1", "ReplicaSet", "rs"), Live::Unread, "read ReplicaSet rs")]
#[case::deployment(
    reference("apps/v1", "ReplicaSet", "rs"),
    Live::Found(reference("apps/v1", "Deployment", "d")),
    "apps/v1 Deployment d"
)]
#[case::rollout(
    reference("apps/v1", "ReplicaSet", "rs"),
    Live::Found(reference("argoproj.io/v1alpha1", "Rollout", "r")),
    "argoproj.io/v1alpha1 Rollout r"
)]
#[case::gone(reference("apps/v1", "ReplicaSet", "rs"), Live::Gone, "unknown")]
#[case::cron(
    reference("batch/v1", "Job", "j"),
    Live::Found(reference("batch/v1", "CronJob", "c")),
    "batch/v1 CronJob c"
)]
#[case::job(reference("batch/v1", "Job", "j"), Live::Gone, "batch/v1 Job j")]
#[case::job_of_another(
    reference("batch/v1", "Job", "j"),
    Live::Found(reference("example.com/v1", "Flow", "f")),
    "batch/v1 Job j"
)]
#[case::stateful(reference("apps/v1", "StatefulSet", "s"), Live::Unread, "apps/v1 StatefulSet s")]
fn owners(#[case] direct: OwnerReference, #[case] live: Live, #[case] want: &str) {
    let raw = json!({
        "metadata": {"ownerReferences": [serde_json::to_value(&direct).expect("JSON")]},
        "spec": {"containers": []},
    });
    let pod = Pod::parse(&raw).expect("a Pod");
    let live = match &live {
        Live::Unread => None,
        Live::Gone => Some(None),
        Live::Found(owner) => Some(Some(owner)),
    };
    let got = match owner_plan(&pod.identity(), live) {
        OwnerPlan::Known(owner) => {
            assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(false)));
            assert!(owner.uid.starts_with("uid-of-"));
            format!("{} {} {}", owner.api_version, owner.kind, owner.name)
        }
        OwnerPlan::ControllerOf { kind, name, .. } => format!("read {kind} {name}"),
        OwnerPlan::Unknown => "unknown".to_owned(),
    };
    assert_eq!(got, want);
}

// §11.2: a user-chosen ServiceAccount is never changed.
#[rstest]
#[case(json!("mine"), "mine", None)]
#[case(json!("default"), "weather", Some("weather"))]
#[case(Value::Null, "weather", Some("weather"))]
fn service_accounts(#[case] own: Value, #[case] want: &str, #[case] ensured: Option<&str>) {
    let mut pod = weather();
    pod["spec"]["serviceAccountName"] = own;
    let (patched, injection) = World::team1().injected(&pod);
    assert_eq!(patched["spec"]["serviceAccountName"], want);
    assert_eq!(injection.writes.service_account.as_deref(), ensured);
}

// §12.3: the hash covers keys and values.
#[test]
fn the_content_hash_follows_the_data() {
    let hash = |world: &World| world.injected(&weather()).1.writes.config_maps[0].content_hash.clone();
    let plain = hash(&World::team1());
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, hash(&World::team1()));
    assert_ne!(plain, hash(&World::team1().with_config("session: {enabled: true}")));
}

// §12.3: a pinned ConfigMap keeps its pipeline, other sections are still written.
#[test]
fn a_pinned_pipeline_is_kept() {
    let mut world = World::team1();
    world.pinned = Some("pipeline: {inbound: {plugins: [mine]}}\nlistener: {forward_proxy_addr: \":1\"}\n");
    let config = config_yaml(&world.injected(&weather()).1);
    assert_eq!(config["pipeline"], json!({"inbound": {"plugins": ["mine"]}}));
    assert_eq!(config["listener"]["forward_proxy_addr"], ":8081");
}
