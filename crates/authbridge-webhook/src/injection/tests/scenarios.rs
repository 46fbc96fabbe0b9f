//! Acceptance scenarios of the webhook chapter, as far as they are pure.

use api_types::{AuthBridgeMode, EgressEnforcement, MtlsMode, injection::SkipReason};
use rstest::rstest;
use serde_json::json;

use super::*;

#[test]
fn scenario_1_defaults() {
    let (pod, injection) = World::team1().injected(&weather());
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent", "authbridge-proxy"]);
    assert_eq!(names_of(&pod["spec"]["initContainers"]), ["proxy-init"]);
    assert_eq!(env(&pod, "proxy-init", "MODE"), "enforce-redirect");
    assert_eq!(env(&pod, "proxy-init", "TRANSPARENT_PORT"), "8082");
    assert_eq!(pod["spec"]["serviceAccountName"], "weather");
    assert_eq!(injection.writes.service_account.as_deref(), Some("weather"));
    assert_eq!(container(&pod, "agent")["ports"], json!([{"containerPort": 8001, "protocol": "TCP"}]));
    assert_eq!(env(&pod, "agent", "PORT"), "8001");
    let sidecar = container(&pod, "authbridge-proxy");
    assert_eq!(sidecar["ports"][0], json!({"name": "http", "containerPort": 8000, "protocol": "TCP"}));
    assert_eq!(pod["metadata"]["labels"]["kagenti.dev/authbridge"], "true");
    assert_eq!(codes(&injection), Vec::<&str>::new());
}

#[test]
fn scenario_3_envoy_by_namespace() {
    let (pod, injection) = World::team1().with_config("mode: envoy-sidecar").injected(&weather());
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent", "envoy-proxy"]);
    let init = names_of(&container(&pod, "proxy-init")["env"]);
    assert_eq!(init, ["PROXY_PORT", "INBOUND_PROXY_PORT", "PROXY_UID", "OUTBOUND_PORTS_EXCLUDE", "POD_IP"]);
    assert!(container(&pod, "agent")["env"].is_null(), "no proxy variables, no PORT");
    assert_eq!(container(&pod, "agent")["ports"][0]["containerPort"], 8000);
    let listeners = &file(&injection, "envoy-config-weather", "envoy.yaml")["static_resources"]["listeners"];
    assert_eq!(listeners[0]["filter_chains"][0]["filter_chain_match"]["transport_protocol"], "tls");
}

#[test]
fn scenario_4_the_agent_runtime_beats_the_namespace() {
    let world = World::team1()
        .with_config("mode: envoy-sidecar")
        .with_runtime(|spec| spec.auth_bridge_mode = Some(AuthBridgeMode::Lite));
    let (pod, injection) = world.injected(&weather());
    assert_eq!(container(&pod, "authbridge-proxy")["image"], world.platform.images.authbridge_lite.as_str());
    assert_eq!(config_yaml(&injection)["mode"], "proxy-sidecar");
}

#[test]
fn scenario_5_waypoint_changes_nothing() {
    let world = World::team1().with_runtime(|spec| spec.auth_bridge_mode = Some(AuthBridgeMode::Waypoint));
    let Outcome::Skip(skip) = world.admit(&weather()) else { panic!("not skipped") };
    assert_eq!((skip.reason, skip.patch.is_empty()), (SkipReason::Waypoint, true));
}

#[rstest]
#[case::off(|world: &mut World, _: &mut Value| world.gates.global_enabled = false)]
#[case::tool(|_: &mut World, pod: &mut Value| pod["metadata"]["labels"]["kagenti.io/type"] = "tool".into())]
#[case::label(|_: &mut World, pod: &mut Value| pod["metadata"]["labels"]["kagenti.io/inject"] = "disabled".into())]
#[case::namespace(|world: &mut World, _: &mut Value| world.labels.clear())]
#[case::operator(|world: &mut World, _: &mut Value| world.namespace = "kagenti-system")]
#[case::mirror(|_: &mut World, pod: &mut Value| {
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
})]
fn scenarios_6_7_8_26_skip(#[case] edit: fn(&mut World, &mut Value)) {
    let (mut world, mut pod) = (World::team1(), weather());
    edit(&mut world, &mut pod);
    let Outcome::Skip(skip) = world.admit(&pod) else { panic!("not skipped") };
    assert_eq!((skip.reason.message(), skip.patch.is_empty()), ("injection not enabled", true));
}

#[rstest]
#[case(false, "default", true)]
#[case(true, "weather", false)]
fn scenario_9_dry_run(#[case] exists: bool, #[case] account: &str, #[case] warns: bool) {
    let mut world = World::team1();
    let (real, _) = world.injected(&weather());
    world.dry_run = Some(DryRun { service_account_exists: exists });
    let (mut pod, injection) = world.injected(&weather());
    assert_eq!(pod["spec"]["serviceAccountName"], account);
    assert_eq!(codes(&injection).contains(&"dry-run-service-account"), warns);
    // Webhook §4.4: the patch is the same but for the ServiceAccount (and the warning in the status).
    pod["spec"]["serviceAccountName"] = real["spec"]["serviceAccountName"].clone();
    pod["metadata"]["annotations"] = real["metadata"]["annotations"].clone();
    assert_eq!(pod, real);
}

#[test]
fn scenario_10_a_broken_namespace_file_is_named() {
    let world = World::team1();
    let error = RuntimeConfig::parse("mode: [").expect_err("not YAML");
    let pod = weather();
    let view = Pod::parse(&pod).expect("a Pod");
    let namespace = NamespaceFacts { runtime_config: RuntimeDocument::Malformed(&error), ..world.facts() };
    assert!(screen(&view, &world.cluster(), &namespace).is_none());
    let outcome = inject(&Inputs {
        pod: &view,
        cluster: world.cluster(),
        native_sidecars: true,
        namespace,
        helper_conf: None,
        workload: &world.workload,
        runtime: None,
        ambiguous_runtime: None,
        names: &world.names,
        pinned_config: None,
        dry_run: None,
    });
    let Outcome::Deny(deny) = outcome else { panic!("not denied") };
    assert!(deny.code == 403 && deny.message.contains("authbridge-runtime-config"), "{deny:?}");
}

#[test]
fn scenario_11_the_platform_overrides_egress() {
    let mut world =
        World::team1().with_runtime(|spec| spec.egress_enforcement = Some(EgressEnforcement::None));
    let (pod, _) = world.injected(&weather());
    assert!(pod["spec"]["initContainers"].is_null(), "egress none needs no proxy-init");
    world.platform.proxy.allowed_egress_enforcement = vec![api_types::injection::Egress::EnforceRedirect];
    let (pod, injection) = world.injected(&weather());
    assert_eq!(names_of(&pod["spec"]["initContainers"]), ["proxy-init"]);
    assert_eq!(codes(&injection), ["egress-policy-override"]);
    assert_eq!(status(&pod)["egressSource"], "platform-policy-override");
}

#[rstest]
#[case(8080)]
#[case(8081)]
#[case(8082)]
#[case(9090)]
#[case(9093)]
#[case(9094)]
#[case(65535)]
fn scenario_12_ports_are_distinct(#[case] port: u16) {
    let (pod, injection) = World::team1().injected(&weather_on(port));
    let status = status(&pod);
    let config = config_yaml(&injection);
    let of = |value: &Value| value.as_str().and_then(|text| text.trim_start_matches(':').parse::<u64>().ok());
    let mut all: Vec<u64> = ["agentPort", "relocatedPort", "forwardPort", "transparentPort"]
        .iter()
        .map(|key| status[*key].as_u64().expect("a port"))
        .collect();
    all.push(of(&config["stats"]["address"]).unwrap_or(9093));
    all.push(of(&config["listener"]["session_api_addr"]).unwrap_or(9094));
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    assert_eq!(env(&pod, "agent", "HTTP_PROXY"), &format!("http://127.0.0.1:{}", status["forwardPort"]));
    if port == 8080 {
        assert_eq!((&status["forwardPort"], &status["relocatedPort"]), (&json!(8081), &json!(8084)));
        assert_eq!(status["transparentPort"], 8082);
    }
}

#[test]
fn scenario_12_the_health_port_is_refused() {
    let deny = World::team1().denied(&weather_on(9091));
    assert_eq!((deny.code, deny.reason.as_str()), (403, "port-clash"));
    assert!(deny.message.contains("9091"), "{}", deny.message);
}

#[test]
fn scenario_13_host_network_is_refused_with_advice() {
    let mut pod = weather();
    pod["spec"]["hostNetwork"] = true.into();
    assert!(World::team1().denied(&pod).message.contains("kagenti.io/inject: disabled"));
}

#[test]
fn scenario_15_jobs_get_a_native_sidecar() {
    let mut pod = weather();
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["initContainers"] = json!([{"name": "fetch", "image": "f"}]);
    let mut world = World::team1();
    let (patched, _) = world.injected(&pod);
    assert_eq!(names_of(&patched["spec"]["initContainers"]), ["fetch", "proxy-init", "authbridge-proxy"]);
    assert_eq!(container(&patched, "authbridge-proxy")["restartPolicy"], "Always");
    assert_eq!(names_of(&patched["spec"]["containers"]), ["agent"]);
    world.native_sidecars = false;
    let (patched, injection) = world.injected(&pod);
    assert_eq!(names_of(&patched["spec"]["containers"]), ["agent", "authbridge-proxy"]);
    assert_eq!(codes(&injection), ["native-sidecar-unavailable"]);
}

#[test]
fn scenario_16_no_identity_provider() {
    let mut world = World::team1();
    world.authbridge = None;
    let (pod, injection) = world.injected(&weather());
    assert_eq!(codes(&injection), ["no-identity-provider"]);
    assert_eq!(
        config_yaml(&injection)["pipeline"],
        json!({"inbound": {"plugins": []}, "outbound": {"plugins": []}})
    );
    assert!(pod["metadata"]["annotations"]["kagenti.io/keycloak-client-credentials-secret-name"].is_null());
    assert!(!serde_json::to_string(&pod).expect("JSON").contains("client-secret.txt"));

    world.platform.identity.required = true;
    assert!(world.denied(&weather()).message.contains("authbridge-config"));

    world.authbridge = World::team1().authbridge;
    let plugin = |world: &World| {
        config_yaml(&world.injected(&weather()).1)["pipeline"]["inbound"]["plugins"][0].clone()
    };
    assert_eq!(plugin(&world)["config"]["issuer"], "http://kc:8080/realms/r");
    world.authbridge.as_mut().expect("a map").insert("ISSUER".into(), "https://public".into());
    assert_eq!(plugin(&world)["config"]["issuer"], "https://public");
}

#[test]
fn scenario_23_unknown_fields_survive() {
    let mut pod = weather();
    pod["spec"]["futureField"] = json!({"a": [1]});
    pod["spec"]["containers"][0]["futureField"] = 1.into();
    pod["spec"]["containers"][0]["ports"][0]["futureField"] = "x".into();
    let (patched, injection) = World::team1().injected(&pod);
    assert_eq!(patched["spec"]["futureField"], json!({"a": [1]}));
    assert_eq!(patched["spec"]["containers"][0]["futureField"], 1);
    assert_eq!(patched["spec"]["containers"][0]["ports"][0]["futureField"], "x");
    assert!(!String::from_utf8(injection.patch.to_json()).expect("UTF-8").contains("futureField"));
}

#[test]
fn scenario_24_opt_out_of_spire() {
    let mut pod = weather();
    pod["metadata"]["labels"]["kagenti.io/spiffe-helper-inject"] = "false".into();
    let (patched, injection) = World::team1().injected(&pod);
    assert_eq!(env(&patched, "authbridge-proxy", "SPIRE_ENABLED"), "false");
    assert_eq!(env(&patched, "authbridge-proxy", "MTLS_MODE"), "disabled");
    assert!(named(&patched["spec"]["volumes"], "spire-agent-socket").is_null());
    assert_eq!(patched["spec"]["serviceAccountName"], "default");
    assert!(injection.writes.service_account.is_none());
}

#[test]
fn scenario_25_bare_cluster() {
    let mut world = World::bare();
    let mut pod = weather();
    assert!(matches!(world.admit(&pod), Outcome::Skip(_)), "not enrolled");
    pod["metadata"]["labels"]["agent.kagenti.dev/enrolled"] = "true".into();
    let (patched, injection) = world.injected(&pod);
    assert_eq!(env(&patched, "authbridge-proxy", "SPIRE_ENABLED"), "false");
    assert_eq!(env(&patched, "authbridge-proxy", "MTLS_MODE"), "disabled");
    assert_eq!(
        names_of(&patched["spec"]["volumes"]),
        ["shared-data", "authproxy-routes", "authbridge-runtime-config"]
    );
    assert_eq!(codes(&injection), ["no-identity-provider"]);
    assert!(injection.writes.service_account.is_none());

    world = world.with_runtime(|spec| spec.mtls_mode = Some(MtlsMode::Permissive));
    assert_eq!(codes(&world.injected(&pod).1), ["spire-unavailable", "no-identity-provider"]);
    world = world.with_runtime(|spec| spec.mtls_mode = Some(MtlsMode::Strict));
    assert_eq!(world.denied(&pod).reason.as_str(), "strict-without-spire");
}
