//! The complete injected Pod of each shape, with its generated files.

use api_types::{MtlsMode, TlsBridgeMode};
use serde_json::json;

use super::*;

/// The Pod and the objects as one document; the status annotation is unfolded and the script named.
fn shown(world: &World, raw: &Value) -> Value {
    let (mut pod, injection) = world.injected(raw);
    let unfolded = status(&pod);
    pod["metadata"]["annotations"]["kagenti.io/authbridge-status"] = unfolded;
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if container["command"][2] == crate::injection::split::REGISTRATION_SCRIPT {
                container["command"][2] = "<assets/register-client.sh>".into();
            }
        }
    }
    let maps: Vec<Value> = injection
        .writes
        .config_maps
        .iter()
        .map(|map| {
            let shown = |(key, text): (&&str, &String)| {
                let text = if *key == "envoy.yaml" { "<envoy.yaml>" } else { text };
                (String::from(*key), Value::from(text))
            };
            let data: serde_json::Map<String, Value> = map.data.iter().map(shown).collect();
            json!({"name": map.name, "fieldManager": map.field_manager, "data": data})
        })
        .collect();
    json!({
        "pod": pod,
        "serviceAccount": injection.writes.service_account,
        "configMaps": maps,
        "warnings": injection.warnings.iter().map(|warning| warning.message.as_str()).collect::<Vec<_>>(),
    })
}

fn job() -> Value {
    let mut pod = weather();
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["initContainers"] = json!([{"name": "fetch", "image": "fetch:1"}]);
    pod
}

#[test]
fn proxy_sidecar() {
    insta::assert_yaml_snapshot!(shown(&World::team1(), &weather()));
}

#[test]
fn lite() {
    let world = World::team1().with_config("mode: lite\negressEnforcement: none\n");
    insta::assert_yaml_snapshot!(shown(&world, &weather()));
}

#[test]
fn envoy_sidecar() {
    let world = World::team1()
        .with_config("mode: envoy-sidecar")
        .with_runtime(|spec| spec.mtls_mode = Some(MtlsMode::Strict));
    insta::assert_yaml_snapshot!(shown(&world, &weather()));
}

#[test]
fn split_envoy() {
    let mut world = World::split();
    world.helper_conf = None;
    let mut pod = weather();
    pod["metadata"]["labels"]["kagenti.io/client-registration-inject"] = "true".into();
    insta::assert_yaml_snapshot!(shown(&world, &pod));
}

#[test]
fn tls_bridge() {
    let world = World::team1().with_runtime(|spec| spec.tls_bridge_mode = Some(TlsBridgeMode::Enabled));
    insta::assert_yaml_snapshot!(shown(&world, &weather()));
}

#[test]
fn job_with_native_sidecar() {
    insta::assert_yaml_snapshot!(shown(&World::team1(), &job()));
}

#[test]
fn bare_cluster() {
    let mut pod = weather();
    pod["metadata"]["labels"]["agent.kagenti.dev/enrolled"] = "true".into();
    insta::assert_yaml_snapshot!(shown(&World::bare(), &pod));
}
