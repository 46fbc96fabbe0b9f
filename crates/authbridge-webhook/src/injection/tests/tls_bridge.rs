//! TLS bridge (webhook §11.4, scenario 14).

use api_types::TlsBridgeMode;
use serde_json::json;

use super::*;

fn bridged() -> World {
    World::team1().with_runtime(|spec| spec.tls_bridge_mode = Some(TlsBridgeMode::Enabled))
}

#[test]
fn only_the_sidecar_sees_the_key() {
    let mut pod = weather();
    pod["spec"]["initContainers"] = json!([{"name": "setup"}]);
    let (patched, injection) = bridged().injected(&pod);
    let volumes = &patched["spec"]["volumes"];
    assert_eq!(
        named(volumes, "tls-bridge-ca")["secret"],
        json!({"secretName": "weather-tls-bridge-ca", "defaultMode": 0o444})
    );
    assert_eq!(
        named(volumes, "tls-bridge-ca-cert")["secret"]["items"],
        json!([{"key": "ca.crt", "path": "ca.crt"}])
    );
    assert_eq!(mount_paths(&patched, "agent"), ["tls-bridge-ca-cert /etc/authbridge/tls-bridge-ca ro"]);
    assert!(mount_paths(&patched, "setup").is_empty());
    let sidecar = mount_paths(&patched, "authbridge-proxy");
    assert!(sidecar.contains(&"tls-bridge-ca /etc/authbridge/tls-bridge-ca ro".to_owned()), "{sidecar:?}");
    assert_eq!(
        config_yaml(&injection)["tls_bridge"],
        json!({"mode": "enabled", "ca_dir": "/etc/authbridge/tls-bridge-ca"})
    );
    assert_eq!(status(&patched)["tlsBridge"], "enabled");
}

#[test]
fn seven_variables_point_to_the_ca() {
    let mut pod = weather();
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "SSL_CERT_FILE", "value": "/mine"},
        {"name": "GIT_SSL_CAINFO", "value": "/etc/authbridge/tls-bridge-ca/ca.crt"},
    ]);
    let (patched, injection) = bridged().injected(&pod);
    for name in [
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "AWS_CA_BUNDLE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    ] {
        assert_eq!(env(&patched, "agent", name), "/etc/authbridge/tls-bridge-ca/ca.crt", "{name}");
    }
    assert_eq!(codes(&injection), ["ca-variable-overwritten"]);
    assert!(injection.warnings[0].message.contains("overwrites SSL_CERT_FILE:"), "{:?}", injection.warnings);
}

#[test]
fn the_namespace_alone_cannot_enable_it() {
    let (pod, injection) =
        World::team1().with_config("tls_bridge: {mode: enabled, ports: [443]}").injected(&weather());
    assert!(named(&pod["spec"]["volumes"], "tls-bridge-ca").is_null());
    assert_eq!(codes(&injection), ["tls-bridge-without-runtime"]);
    assert!(config_yaml(&injection)["tls_bridge"].is_null());
}
