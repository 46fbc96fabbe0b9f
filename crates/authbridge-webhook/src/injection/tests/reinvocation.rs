//! Reinvocation and idempotency (webhook §11.5, scenario 18; split §9).

use api_types::TlsBridgeMode;
use rstest::rstest;
use serde_json::json;

use super::*;

#[test]
fn the_own_result_needs_nothing() {
    let worlds = [
        World::team1(),
        World::team1().with_config("mode: envoy-sidecar"),
        World::team1().with_runtime(|spec| spec.tls_bridge_mode = Some(TlsBridgeMode::Enabled)),
        World::split(),
    ];
    for world in worlds {
        let (pod, _) = world.injected(&weather());
        let (again, answer) = world.reinvoked(&pod);
        assert!(answer.patch.is_empty() && again == pod, "{:?}", answer.patch);
    }
}

#[test]
fn scenario_18_an_appended_container_gets_its_share() {
    let world = World::team1().with_runtime(|spec| spec.tls_bridge_mode = Some(TlsBridgeMode::Enabled));
    let mut pod = weather();
    pod["spec"]["restartPolicy"] = "Never".into();
    let (mut pod, _) = world.injected(&pod);
    push(
        &mut pod["spec"]["containers"],
        json!({
            "name": "late",
            "ports": [{"containerPort": 8000}],
            "volumeMounts": [{"name": "shared-data", "mountPath": "/shared"}],
        }),
    );
    push(&mut pod["spec"]["initContainers"], json!({"name": "late-init", "futureField": 1}));
    push(&mut pod["spec"]["initContainers"], json!({"name": "late-native", "restartPolicy": "Always"}));
    let (again, answer) = world.reinvoked(&pod);
    assert_eq!(
        names_of(&again["spec"]["initContainers"]),
        ["late-init", "proxy-init", "authbridge-proxy", "late-native"]
    );
    assert_eq!(again["spec"]["initContainers"][0]["futureField"], 1);
    assert_eq!(env(&again, "late", "HTTPS_PROXY"), "http://127.0.0.1:8081");
    assert_eq!(env(&again, "late", "SSL_CERT_FILE"), "/etc/authbridge/tls-bridge-ca/ca.crt");
    assert_eq!(container(&again, "late")["ports"], json!([{"containerPort": 8000}]), "never relocated twice");
    let secret = api_types::credentials::secret_name("team1", "weather");
    assert_eq!(
        mount_paths(&again, "late"),
        [
            "shared-data /shared rw".to_owned(),
            "tls-bridge-ca-cert /etc/authbridge/tls-bridge-ca ro".to_owned(),
            format!("{secret} /shared/client-secret.txt ro"),
            format!("{secret} /shared/client-id.txt ro"),
        ]
    );
    assert!(answer.warnings.is_empty());
    assert!(world.reinvoked(&again).1.patch.is_empty());
}

// Names present, but no status annotation: only credential mounts are completed.
#[rstest]
#[case(json!({"containers": [{"name": "authbridge-proxy"}]}))]
#[case(json!({"containers": [{"name": "envoy-proxy"}]}))]
#[case(json!({"containers": [], "initContainers": [{"name": "proxy-init"}]}))]
#[case(json!({"containers": [], "initContainers": [{"name": "envoy-proxy", "restartPolicy": "Always"}]}))]
fn foreign_injections_are_left_alone(#[case] spec: Value) {
    let mut pod = weather();
    for (member, value) in spec.as_object().expect("an object") {
        pod["spec"][member] = value.clone();
    }
    push(
        &mut pod["spec"]["containers"],
        json!({"name": "agent", "volumeMounts": [{"name": "shared-data", "mountPath": "/shared"}]}),
    );
    let world = World::team1();
    assert!(world.reinvoked(&pod).1.patch.is_empty(), "without annotation there is no Secret");
    pod["metadata"]["annotations"] = json!({"kagenti.io/keycloak-client-credentials-secret-name": "theirs"});
    let (completed, answer) = world.reinvoked(&pod);
    assert_eq!(
        mount_paths(&completed, "agent"),
        ["shared-data /shared rw", "theirs /shared/client-secret.txt ro", "theirs /shared/client-id.txt ro"]
    );
    assert_eq!(named(&completed["spec"]["volumes"], "theirs")["secret"]["secretName"], "theirs");
    assert_eq!(answer.patch.operations().len(), 3);
}

#[test]
fn a_proxy_init_of_the_user_as_regular_container_is_no_sign() {
    let mut pod = weather();
    push(&mut pod["spec"]["containers"], json!({"name": "proxy-init"}));
    assert!(matches!(World::team1().admit(&pod), Outcome::Inject(_)));
}
