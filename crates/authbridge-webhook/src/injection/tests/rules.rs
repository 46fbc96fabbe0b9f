//! Single rules of webhook §5, §9, §10 and §11.1 that no scenario shows.

use api_types::{InboundInterception, platform::NativeSidecar};
use rstest::rstest;
use serde_json::json;

use super::*;

// §5 row 12.
#[test]
fn windows_is_refused() {
    let mut pod = weather();
    pod["spec"]["os"] = json!({"name": "windows"});
    assert_eq!(World::team1().denied(&pod).reason.as_str(), "windows");
}

// §5 row 13.
#[rstest]
#[case::pod(json!({"securityContext": {"runAsUser": 1337}}), true)]
#[case::container(json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 1337}}]}), true)]
#[case::init(json!({"containers": [], "initContainers": [{"name": "i", "securityContext": {"runAsUser": 1337}}]}), true)]
#[case::mesh(json!({"containers": [{"name": "istio-proxy", "securityContext": {"runAsUser": 1337}}]}), false)]
#[case::other(json!({"securityContext": {"runAsUser": 1338}}), false)]
fn the_exempt_user_is_refused(#[case] spec: Value, #[case] refused: bool) {
    let mut pod = weather();
    for (member, value) in spec.as_object().expect("an object") {
        pod["spec"][member] = value.clone();
    }
    let world = World::team1();
    match world.admit(&pod) {
        Outcome::Deny(deny) => assert!(refused && deny.reason.as_str() == "proxy-uid", "{deny:?}"),
        _ => assert!(!refused),
    }
    let egress_none = World::team1().with_config("egressEnforcement: none");
    assert!(
        matches!(egress_none.admit(&pod), Outcome::Inject(_)),
        "without proxy-init there is no exemption"
    );
}

// §5, last paragraphs.
#[rstest]
#[case(json!({"privileged": true}), true)]
#[case(json!({"capabilities": {"add": ["NET_ADMIN"]}}), true)]
#[case(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}), false)]
fn powerful_containers_warn(#[case] context: Value, #[case] warns: bool) {
    let mut pod = weather();
    pod["spec"]["containers"][0]["securityContext"] = context;
    assert_eq!(codes(&World::team1().injected(&pod).1).contains(&"capture-can-be-undone"), warns);
}

// §5: rows 13 and 14 come before row 15.
#[test]
fn the_first_matching_row_speaks() {
    let mut world = World::team1();
    world.authbridge = None;
    world.platform.identity.required = true;
    assert_eq!(world.denied(&weather_on(9091)).reason.as_str(), "port-clash");
    assert_eq!(world.denied(&weather()).reason.as_str(), "no-identity-provider");
}

// §9: no declared port.
#[test]
fn without_a_port_nothing_is_relocated() {
    let mut pod = weather();
    pod["spec"]["containers"][0]["ports"] = Value::Null;
    let (patched, injection) = World::team1().injected(&pod);
    assert!(env(&patched, "agent", "PORT").is_null());
    assert_eq!(codes(&injection), ["no-container-port"]);
    assert_eq!(container(&patched, "authbridge-proxy")["ports"][0]["name"], "reverse-proxy");
    assert!(status(&patched)["agentPort"].is_null());
}

// §9: privileged ports and the sysctl.
#[rstest]
#[case(80, Value::Null, json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]))]
#[case(80, json!([{"name": "kernel.shm_rmid_forced", "value": "1"}]), json!([
    {"name": "kernel.shm_rmid_forced", "value": "1"},
    {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"},
]))]
#[case(80, json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]), json!([
    {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
]))]
#[case(8000, Value::Null, Value::Null)]
fn privileged_ports(#[case] port: u16, #[case] sysctls: Value, #[case] want: Value) {
    let mut pod = weather_on(port);
    if !sysctls.is_null() {
        pod["spec"]["securityContext"] = json!({"sysctls": sysctls});
    }
    let (patched, _) = World::team1().injected(&pod);
    assert_eq!(patched["spec"]["securityContext"]["sysctls"], want);
}

// §9: ports the sidecar does not serve, and a command line that names the port.
#[test]
fn leftovers_are_named() {
    let mut pod = weather();
    pod["spec"]["containers"][0]["args"] = json!(["--port=8000"]);
    push(&mut pod["spec"]["containers"][0]["ports"], json!({"containerPort": 9000}));
    let other =
        json!({"name": "b", "ports": [{"containerPort": 7000}, {"containerPort": 53, "protocol": "UDP"}]});
    push(&mut pod["spec"]["containers"], other);
    let (_, injection) = World::team1().injected(&pod);
    assert_eq!(codes(&injection), ["port-in-arguments", "unproxied-ports"]);
    assert!(injection.warnings[1].message.contains("9000, 7000"), "{}", injection.warnings[1].message);
}

// §9, inbound transparent.
#[test]
fn transparent_inbound() {
    let world = World::team1()
        .with_runtime(|spec| spec.inbound_interception = Some(InboundInterception::Transparent));
    let mut pod = weather();
    pod["metadata"]["annotations"] = json!({"kagenti.io/inbound-ports-exclude": "22,x"});
    let (patched, injection) = world.injected(&pod);
    assert_eq!(container(&patched, "agent")["ports"][0]["containerPort"], 8000);
    assert!(env(&patched, "agent", "PORT").is_null());
    let env_names = names_of(&container(&patched, "proxy-init")["env"]);
    assert_eq!(
        env_names,
        [
            "MODE",
            "PROXY_UID",
            "TRANSPARENT_PORT",
            "INBOUND_TRANSPARENT_PORT",
            "SIDECAR_PORTS_EXCLUDE",
            "INBOUND_PORTS_EXCLUDE",
            "POD_IP",
            "POD_IPS"
        ]
    );
    assert_eq!(env(&patched, "proxy-init", "SIDECAR_PORTS_EXCLUDE"), "8081,9091,9093,9094");
    assert_eq!(env(&patched, "proxy-init", "INBOUND_PORTS_EXCLUDE"), "22");
    assert_eq!(
        names_of(&container(&patched, "authbridge-proxy")["ports"]),
        ["forward-proxy", "transparent-in"]
    );
    assert_eq!(
        config_yaml(&injection)["listener"],
        json!({
            "forward_proxy_addr": ":8081",
            "inbound_interception": "transparent",
            "transparent_inbound_addr": ":8083",
            "transparent_proxy_addr": ":8082",
        })
    );
    assert_eq!(codes(&injection), ["invalid-port-list"]);
}

// §10.1.
#[test]
fn only_app_containers_get_proxy_variables() {
    let mut pod = weather();
    push(&mut pod["spec"]["containers"], json!({"name": "istio-proxy"}));
    pod["spec"]["initContainers"] = json!([{"name": "setup"}]);
    let (patched, _) = World::team1().injected(&pod);
    assert_eq!(
        names_of(&container(&patched, "agent")["env"]),
        ["PORT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
    );
    assert_eq!(env(&patched, "agent", "no_proxy"), "127.0.0.1,localhost");
    assert!(container(&patched, "istio-proxy")["env"].is_null());
    assert!(container(&patched, "setup")["env"].is_null());
}

// §10.1, MLflow: also when injection is skipped.
#[test]
fn mlflow_variables_do_not_need_a_sidecar() {
    let mut pod = weather();
    pod["metadata"]["annotations"] = json!({
        "mlflow.kagenti.io/experiment-id": "7",
        "mlflow.kagenti.io/tracking-uri": "http://mlflow",
    });
    let (patched_pod, _) = World::team1().injected(&pod);
    assert_eq!(env(&patched_pod, "agent", "MLFLOW_EXPERIMENT_ID"), "7");
    pod["metadata"]["labels"]["kagenti.io/inject"] = "disabled".into();
    let Outcome::Skip(skip) = World::team1().admit(&pod) else { panic!("not skipped") };
    let skipped = patched(&pod, &skip.patch);
    assert_eq!(
        names_of(&container(&skipped, "agent")["env"]),
        ["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"]
    );
}

// §10.2, envoy env style (§7.2).
#[test]
fn envoy_env_as_reference_or_literal() {
    let mut world = World::team1().with_config("mode: envoy-sidecar");
    let (pod, _) = world.injected(&weather());
    let entries = &container(&pod, "envoy-proxy")["env"];
    assert_eq!(
        names_of(entries),
        [
            "KEYCLOAK_URL",
            "KEYCLOAK_REALM",
            "TOKEN_URL",
            "ISSUER",
            "EXPECTED_AUDIENCE",
            "TARGET_AUDIENCE",
            "TARGET_SCOPES",
            "CLIENT_ID_FILE",
            "CLIENT_SECRET_FILE",
            "ROUTES_CONFIG_PATH",
            "DEFAULT_OUTBOUND_POLICY",
            "SPIRE_ENABLED",
            "MTLS_MODE"
        ]
    );
    assert_eq!(
        named(entries, "ISSUER")["valueFrom"]["configMapKeyRef"],
        json!({"name": "authbridge-config", "key": "ISSUER", "optional": true})
    );
    world.gates.per_workload_config_resolution = true;
    let (pod, _) = world.injected(&weather());
    assert_eq!(env(&pod, "envoy-proxy", "KEYCLOAK_REALM"), "r");
    assert_eq!(env(&pod, "envoy-proxy", "ISSUER"), "");
}

// §10.2, probes.
#[test]
fn probes_are_opt_in() {
    let mut world = World::team1();
    assert!(container(&world.injected(&weather()).0, "authbridge-proxy")["readinessProbe"].is_null());
    world.platform.sidecar.probes = true;
    let (pod, _) = world.injected(&weather());
    let sidecar = container(&pod, "authbridge-proxy");
    assert_eq!(sidecar["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": 9091}));
    assert_eq!(sidecar["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": 9091}));
}

// §10.3, envoy env.
#[test]
fn redirect_env() {
    let mut world = World::team1().with_config("mode: envoy-sidecar");
    world.platform.proxy.iptables_cmd = "iptables-nft".into();
    let mut pod = weather();
    pod["metadata"]["annotations"] = json!({
        "kagenti.io/outbound-ports-exclude": " 11434, 8080,abc,0,11434",
        "kagenti.io/inbound-ports-exclude": "9100",
    });
    let (patched, injection) = world.injected(&pod);
    assert_eq!(env(&patched, "proxy-init", "OUTBOUND_PORTS_EXCLUDE"), "8080,11434");
    assert_eq!(
        names_of(&container(&patched, "proxy-init")["env"])[4..],
        ["POD_IP", "INBOUND_PORTS_EXCLUDE", "IPTABLES_CMD"]
    );
    assert_eq!(codes(&injection), ["invalid-port-list"]);
}

// §10.4.
#[rstest]
#[case(NativeSidecar::Never, "Never", false)]
#[case(NativeSidecar::Auto, "OnFailure", true)]
#[case(NativeSidecar::Auto, "Always", false)]
#[case(NativeSidecar::Always, "Always", true)]
fn native_sidecars(#[case] setting: NativeSidecar, #[case] restart: &str, #[case] native: bool) {
    let mut world = World::team1().with_config("egressEnforcement: none");
    world.platform.sidecar.native = setting;
    let mut pod = weather();
    pod["spec"]["restartPolicy"] = restart.into();
    let (patched, _) = world.injected(&pod);
    assert_eq!(names_of(&patched["spec"]["initContainers"]) == ["authbridge-proxy"], native);
}

// §11.1.
#[test]
fn a_foreign_volume_is_refused_by_name() {
    let mut pod = weather();
    pod["spec"]["volumes"] = json!([{"name": "authproxy-routes", "hostPath": {"path": "/x"}}]);
    let deny = World::team1().denied(&pod);
    assert_eq!(deny.reason.as_str(), "volume-clash");
    assert!(
        deny.message.contains("authproxy-routes") && deny.message.contains("hostPath"),
        "{}",
        deny.message
    );
}

#[test]
fn a_users_envoy_config_is_an_override() {
    let mut pod = weather();
    pod["spec"]["volumes"] = json!([{"name": "envoy-config", "configMap": {"name": "mine"}}]);
    let (patched, injection) = World::team1().with_config("mode: envoy-sidecar").injected(&pod);
    assert_eq!(patched["spec"]["volumes"][0]["configMap"]["name"], "mine");
    let written: Vec<_> = injection.writes.config_maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!((written, codes(&injection)), (vec!["authbridge-config-weather"], vec!["user-volume"]));
}

// §11.1, fsGroup.
#[rstest]
#[case::default(Some(0), Value::Null, json!(0))]
#[case::never(None, Value::Null, Value::Null)]
#[case::users(Some(0), json!(2000), json!(2000))]
fn fs_group(#[case] setting: Option<i64>, #[case] own: Value, #[case] want: Value) {
    let mut world = World::team1();
    world.platform.pod.fs_group = setting;
    let mut pod = weather();
    if !own.is_null() {
        pod["spec"]["securityContext"] = json!({"fsGroup": own});
    }
    assert_eq!(world.injected(&pod).0["spec"]["securityContext"]["fsGroup"], want);
    world.csi_driver = false;
    assert_eq!(
        world.injected(&pod).0["spec"]["securityContext"]["fsGroup"],
        own,
        "without SPIRE it is not touched"
    );
}

// §16, Pod Security.
#[test]
fn pod_security_levels_warn() {
    let mut world = World::team1();
    world.labels.insert("pod-security.kubernetes.io/enforce".into(), "restricted".into());
    assert_eq!(codes(&world.injected(&weather()).1), ["pod-security"]);
}

// §4.8.
#[test]
fn warnings_are_bounded_and_repeated_in_the_status() {
    let mut world = World::team1()
        .with_config("mode: odd\nmtls: {mode: odd}\negressEnforcement: odd\ntls_bridge: {mode: odd}\nlistener: {inbound_interception: odd}\n");
    world.ambiguous_runtime = Some("first");
    world.authbridge = None;
    let (pod, injection) = world.injected(&weather());
    assert_eq!(injection.warnings.len(), 6);
    let texts: Vec<&str> = injection.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert!(texts.iter().all(|text| text.chars().count() <= 256));
    assert_eq!(status(&pod)["warnings"], json!(texts));
}

// §7.5: the identity of the AgentRuntime shows in the status.
#[test]
fn the_status_fingerprints_the_identity() {
    let plain = status(&World::team1().injected(&weather()).0);
    let world = World::team1().with_runtime(|spec| {
        spec.identity = Some(api_types::Identity { spiffe: None, allowed_audiences: Some(vec!["a".into()]) });
    });
    let with = status(&world.injected(&weather()).0);
    assert_eq!(plain["identityHash"].as_str().map(str::len), Some(16));
    assert_ne!(plain["identityHash"], with["identityHash"]);
    assert_eq!(with["v"], 1);
}
