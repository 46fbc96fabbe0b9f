//! Layout `split` (authbridge-split.md): its acceptance scenarios, as far as they are pure.

use api_types::{MtlsMode, injection::SkipReason};
use rstest::rstest;
use serde_json::json;

use super::*;

fn labelled(labels: &[(&str, &str)]) -> Value {
    let mut pod = weather();
    for (key, value) in labels {
        pod["metadata"]["labels"][format!("kagenti.io/{key}")] = (*value).into();
    }
    pod
}

#[test]
fn scenario_1_combined_has_no_helpers() {
    let mut world = World::split();
    world.platform.sidecars.layout = None;
    let (pod, _) = world.injected(&labelled(&[("client-registration-inject", "true")]));
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent", "authbridge-proxy"]);
}

#[test]
fn scenario_2_defaults() {
    let (pod, injection) = World::split().injected(&weather());
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent", "envoy-proxy", "spiffe-helper"]);
    assert_eq!(env(&pod, "proxy-init", "PROXY_PORT"), "15123");
    assert!(env(&pod, "proxy-init", "MODE").is_null());
    assert_eq!(pod["spec"]["serviceAccountName"], "weather");
    assert!(mount_paths(&pod, "envoy-proxy").contains(&"authbridge-svid /opt rw".to_owned()));
    assert_eq!(
        mount_paths(&pod, "spiffe-helper"),
        [
            "spiffe-helper-config /etc/spiffe-helper ro",
            "spire-agent-socket /spiffe-workload-api ro",
            "svid-output /opt rw",
            "shared-data /shared rw"
        ]
    );
    assert!(mount_paths(&pod, "envoy-proxy").iter().any(|path| path.contains("client-secret.txt")));
    let status = status(&pod);
    assert_eq!(status["layout"], "split");
    assert_eq!(status["layoutSource"], "platform-config");
    assert_eq!(status["sidecars"], json!(["envoy-proxy", "spiffe-helper"]));
    assert_eq!(status["registration"], "operator");
    assert_eq!(injection.sidecars, ["envoy-proxy", "spiffe-helper"]);
}

#[test]
fn scenario_3_registration_by_opt_in() {
    let (pod, injection) = World::split().injected(&labelled(&[("client-registration-inject", "true")]));
    assert_eq!(injection.sidecars, ["envoy-proxy", "spiffe-helper", "kagenti-client-registration"]);
    let registration = container(&pod, "kagenti-client-registration");
    assert_eq!(
        names_of(&registration["env"]),
        [
            "SPIRE_ENABLED",
            "KEYCLOAK_URL",
            "KEYCLOAK_REALM",
            "KEYCLOAK_ADMIN_USERNAME",
            "KEYCLOAK_ADMIN_PASSWORD",
            "CLIENT_NAME",
            "SECRET_FILE_PATH",
            "PLATFORM_CLIENT_IDS",
            "CLIENT_AUTH_TYPE",
            "SPIFFE_IDP_ALIAS",
            "JWT_AUDIENCE",
            "TOKEN_URL",
            "KEYCLOAK_TOKEN_EXCHANGE_ENABLED",
            "KEYCLOAK_AUDIENCE_SCOPE_ENABLED"
        ]
    );
    assert_eq!(env(&pod, "kagenti-client-registration", "SPIRE_ENABLED"), "true");
    assert_eq!(env(&pod, "kagenti-client-registration", "CLIENT_NAME"), "team1/weather");
    assert_eq!(
        named(&registration["env"], "KEYCLOAK_ADMIN_PASSWORD")["valueFrom"],
        json!({"secretKeyRef": {"name": "keycloak-admin-secret", "key": "KEYCLOAK_ADMIN_PASSWORD"}})
    );
    assert_eq!(
        mount_paths(&pod, "kagenti-client-registration"),
        ["svid-output /opt ro", "shared-data /shared rw"]
    );
    let text = serde_json::to_string(&pod).expect("JSON");
    assert!(!text.contains("kagenti-keycloak-client-credentials"), "no annotation, volume or mount");
}

#[rstest]
#[case("false")]
#[case("True")]
#[case("yes")]
fn scenario_3_only_the_exact_text_opts_in(#[case] value: &str) {
    let (_, injection) = World::split().injected(&labelled(&[("client-registration-inject", value)]));
    assert_eq!(injection.sidecars, ["envoy-proxy", "spiffe-helper"]);
}

#[test]
fn scenario_4_proxy_mode() {
    let (pod, injection) = World::split().with_config("mode: proxy-sidecar").injected(&weather());
    assert_eq!(injection.sidecars, ["authbridge-proxy", "spiffe-helper"]);
    assert_eq!(env(&pod, "proxy-init", "MODE"), "enforce-redirect");
    assert_eq!(env(&pod, "agent", "HTTP_PROXY"), "http://127.0.0.1:8081");
    assert_eq!(container(&pod, "agent")["ports"][0]["containerPort"], 8001);
    assert!(container(&pod, "spiffe-helper")["env"].is_null());
}

// The eleven vectors of split §4: envoy, init, helper, registration.
#[rstest]
#[case(&[], "", "1110")]
#[case(&[], "envoy", "0010")]
#[case(&[], "spiffe", "1100")]
#[case(&[], "registration", "1110")]
#[case(&[("client-registration-inject", "true")], "registration", "1110")]
#[case(&[("client-registration-inject", "true")], "", "1111")]
#[case(&[("client-registration-inject", "false")], "", "1110")]
#[case(&[("envoy-proxy-inject", "false")], "", "0010")]
#[case(&[("envoy-proxy-inject", "true")], "envoy", "0010")]
#[case(&[("spiffe-helper-inject", "false")], "", "1100")]
#[case(&[("envoy-proxy-inject", "false"), ("spiffe-helper-inject", "false"), ("client-registration-inject", "false")], "", "skip")]
fn scenario_5_vectors(#[case] labels: &[(&str, &str)], #[case] gate_off: &str, #[case] want: &str) {
    let mut world = World::split();
    match gate_off {
        "envoy" => world.gates.envoy_proxy = false,
        "spiffe" => world.gates.spiffe_helper = Some(false),
        "registration" => world.gates.client_registration = false,
        _ => {}
    }
    let raw = labelled(labels);
    if want == "skip" {
        let Outcome::Skip(skip) = world.admit(&raw) else { panic!("not skipped") };
        assert_eq!(skip.reason, SkipReason::NoSidecarWanted);
        return;
    }
    let (pod, _) = world.injected(&raw);
    let has = |name: &str| if container(&pod, name).is_null() { '0' } else { '1' };
    let got: String = ["envoy-proxy", "proxy-init", "spiffe-helper", "kagenti-client-registration"]
        .into_iter()
        .map(has)
        .collect();
    assert_eq!(got, want);
}

#[test]
fn scenario_6_identity_without_proxy() {
    let mut world = World::split();
    let raw = labelled(&[("envoy-proxy-inject", "false")]);
    let (pod, injection) = world.injected(&raw);
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent", "spiffe-helper"]);
    assert!(pod["spec"]["initContainers"].is_null());
    assert!(injection.writes.config_maps.is_empty());
    assert!(pod["metadata"]["labels"]["kagenti.dev/authbridge"].is_null());
    assert_eq!(pod["spec"]["serviceAccountName"], "weather");
    assert_eq!((codes(&injection), injection.mode), (vec!["no-proxy"], "none"));
    assert!(container(&pod, "agent")["env"].is_null());
    assert_eq!(
        names_of(&pod["spec"]["volumes"]),
        ["shared-data", "spire-agent-socket", "spiffe-helper-config", "svid-output"]
    );

    world = world.with_runtime(|spec| spec.mtls_mode = Some(MtlsMode::Strict));
    assert_eq!(world.denied(&raw).reason.as_str(), "strict-without-proxy");
}

#[test]
fn without_proxy_credentials_are_for_user_containers_that_share_data() {
    let mut raw = labelled(&[("envoy-proxy-inject", "false")]);
    raw["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "shared-data", "mountPath": "/shared"}]);
    let (pod, _) = World::split().injected(&raw);
    assert_eq!(mount_paths(&pod, "agent").len(), 3);
    let secret = api_types::credentials::secret_name("team1", "weather");
    assert!(!named(&pod["spec"]["volumes"], &secret).is_null());
}

#[test]
fn scenario_7_a_missing_helper_conf_is_rendered() {
    let mut world = World::split();
    world.helper_conf = None;
    let (pod, injection) = world.injected(&weather());
    let volume = named(&pod["spec"]["volumes"], "spiffe-helper-config");
    assert_eq!(
        volume["configMap"],
        json!({
            "name": "authbridge-config-weather",
            "items": [{"key": "helper.conf", "path": "helper.conf"}],
            "optional": false,
        })
    );
    let map = &injection.writes.config_maps[0];
    assert!(map.data["helper.conf"].contains("jwt_audience=\"https://kc/realms/r\""));
    assert_eq!((map.field_manager, map.data.contains_key("config.yaml")), ("kagenti-webhook", true));

    world.helper_conf = Some("cert_dir = \"/opt\"");
    let (pod, injection) = world.injected(&weather());
    let volume = named(&pod["spec"]["volumes"], "spiffe-helper-config");
    assert_eq!(volume["configMap"], json!({"name": "spiffe-helper-config", "optional": false}));
    assert!(!injection.writes.config_maps[0].data.contains_key("helper.conf"));
}

#[test]
fn a_pod_without_proxy_writes_helper_conf_alone() {
    let mut world = World::split();
    world.helper_conf = None;
    let (_, injection) = world.injected(&labelled(&[("envoy-proxy-inject", "false")]));
    let [map] = &injection.writes.config_maps[..] else { panic!("one ConfigMap") };
    assert_eq!(map.field_manager, "kagenti-webhook-helper");
    assert_eq!(map.data.keys().copied().collect::<Vec<_>>(), ["helper.conf"]);
}

#[test]
fn an_unusable_audience_is_refused() {
    let mut world = World::split();
    world.helper_conf = None;
    world.authbridge.as_mut().expect("a map").insert("JWT_AUDIENCE".into(), "a\"b".into());
    let deny = world.denied(&weather());
    assert!(deny.reason.as_str() == "bad-audience" && deny.message.contains("JWT_AUDIENCE"), "{deny:?}");
}

#[test]
fn scenario_8_jobs() {
    let mut raw = labelled(&[("client-registration-inject", "true")]);
    raw["spec"]["restartPolicy"] = "OnFailure".into();
    let (pod, injection) = World::split().injected(&raw);
    let init = ["proxy-init", "spiffe-helper", "kagenti-client-registration", "envoy-proxy"];
    assert_eq!(names_of(&pod["spec"]["initContainers"]), init);
    assert_eq!(injection.sidecars, init[1..]);
    for name in &init[1..] {
        assert_eq!(container(&pod, name)["restartPolicy"], "Always");
        assert!(container(&pod, name)["startupProbe"].is_null());
    }
    assert_eq!(names_of(&pod["spec"]["containers"]), ["agent"]);
}

#[test]
fn scenario_9_a_users_own_helper() {
    let mut raw = weather();
    push(&mut raw["spec"]["containers"], json!({"name": "spiffe-helper", "image": "mine"}));
    let world = World::split();
    let (pod, injection) = world.injected(&raw);
    assert_eq!(
        (injection.sidecars.as_slice(), codes(&injection)),
        (["envoy-proxy"].as_slice(), vec!["own-spiffe-helper"])
    );
    assert!(world.reinvoked(&pod).1.patch.is_empty());
}

#[test]
fn scenario_10_generated_files_are_the_same_in_both_layouts() {
    let split = World::split().with_config("mode: envoy-sidecar");
    let mut combined = World::split().with_config("mode: envoy-sidecar");
    combined.platform.sidecars.layout = None;
    let (_, a) = split.injected(&weather());
    let (_, b) = combined.injected(&weather());
    assert_eq!(a.writes.config_maps, b.writes.config_maps);
    assert_eq!(a.writes.config_maps.len(), 2);
}

// Split §9: never Secret mounts for source `sidecar`, never a second helper.
#[test]
fn reinvocation_adds_no_secret_to_a_self_registering_pod() {
    let world = World::split();
    let raw = labelled(&[("client-registration-inject", "true")]);
    let (mut pod, _) = world.injected(&raw);
    pod["metadata"]["annotations"]["kagenti.io/keycloak-client-credentials-secret-name"] =
        "kagenti-keycloak-client-credentials-0123456789abcdef".into();
    assert!(world.reinvoked(&pod).1.patch.is_empty());
}

// Split §5.2: the helper's health port is a used port; UID and `null`.
#[test]
fn helper_settings() {
    let mut world = World::split().with_config("mode: lite");
    world.helper_conf = Some("health_checks { listener_enabled = true }");
    let (pod, _) = world.injected(&weather());
    assert_eq!(status(&pod)["forwardPort"], 8084);
    assert_eq!(container(&pod, "spiffe-helper")["securityContext"]["runAsUser"], 1337);
    world.platform.sidecars.uid = api_types::platform::HelperUid::Unset;
    let (pod, _) = world.injected(&weather());
    let context = &container(&pod, "spiffe-helper")["securityContext"];
    assert!(
        context["runAsUser"].is_null() && context["runAsGroup"].is_null() && context["runAsNonRoot"] == true
    );
}

// Split §6: user volumes.
#[test]
fn user_volumes_in_split() {
    let mut raw = weather();
    raw["spec"]["volumes"] = json!([{"name": "spiffe-helper-config", "secret": {"secretName": "mine"}}]);
    let mut world = World::split();
    world.helper_conf = None;
    let (_, injection) = world.injected(&raw);
    assert_eq!(codes(&injection), ["user-volume"]);
    assert!(!injection.writes.config_maps[0].data.contains_key("helper.conf"));
    raw["spec"]["volumes"] = json!([{"name": "authbridge-svid", "hostPath": {"path": "/x"}}]);
    assert_eq!(world.denied(&raw).reason.as_str(), "volume-clash");
}
