//! Properties over Pod-shaped JSON: no panic, idempotent, deterministic, nothing unnamed is touched.

use api_types::{TlsBridgeMode, injection::Layout};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::injection::Operation;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u32..70_000).prop_map(Value::from),
        select(vec!["", "http", "8000", "Always", "a.b"]).prop_map(Value::from),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((select(vec!["name", "port", "httpGet", "value", "x"]), inner), 0..3).prop_map(|entries| {
                entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

fn port() -> impl Strategy<Value = Value> {
    let number =
        prop_oneof![select(vec![1_u32, 80, 8000, 8080, 8081, 8082, 8083, 9093, 9094, 65535]), 0..70_000_u32];
    (number, option::of(select(vec!["http", "web", "forward-proxy"])), select(vec!["TCP", "UDP", ""]))
        .prop_map(|(number, name, protocol)| {
            let mut port = json!({"containerPort": number, "hostPort": 80, "futureField": "kept"});
            if let Some(name) = name {
                port["name"] = name.into();
            }
            if !protocol.is_empty() {
                port["protocol"] = protocol.into();
            }
            port
        })
}

fn env_entry() -> impl Strategy<Value = Value> {
    let name = select(vec!["PORT", "HTTP_PROXY", "no_proxy", "SSL_CERT_FILE", "MLFLOW_EXPERIMENT_ID", "X"]);
    (name, scalar(), any::<bool>()).prop_map(|(name, value, reference)| {
        if reference {
            json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
        } else {
            json!({"name": name, "value": value, "futureField": "kept"})
        }
    })
}

fn container() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        4 => select(vec!["agent", "b", "c", "istio-proxy", "spiffe-helper", "kagenti-client-registration"]),
        1 => select(vec!["authbridge-proxy", "envoy-proxy", "proxy-init"]),
    ];
    let mount = (select(vec!["shared-data", "mine"]), select(vec!["/shared", "/shared/client-id.txt", "/x"]))
        .prop_map(|(name, path)| json!({"name": name, "mountPath": path}));
    let parts = (vec(port(), 0..4), vec(env_entry(), 0..4), vec(mount, 0..3));
    (name, parts, json_value(), select(vec!["", "Always"])).prop_map(|(name, parts, odd, restart)| {
        let mut container = json!({
            "name": name, "ports": parts.0, "env": parts.1, "volumeMounts": parts.2, "futureField": {"kept": true},
        });
        if odd.is_object() {
            container["livenessProbe"] = odd.clone();
            container["lifecycle"] = odd;
        }
        if !restart.is_empty() {
            container["restartPolicy"] = restart.into();
        }
        container
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let labels = vec(
        (
            select(vec!["envoy-proxy-inject", "spiffe-helper-inject", "client-registration-inject", "spire"]),
            select(vec!["true", "false", "disabled"]),
        ),
        0..3,
    );
    let annotations =
        option::of(select(vec!["", "mine", "kagenti-keycloak-client-credentials-0123456789abcdef"]));
    let volume = select(vec!["shared-data", "envoy-config", "svid-output", "authproxy-routes", "mine"])
        .prop_map(|name| json!({"name": name, "emptyDir": {}}));
    let lists = (vec(container(), 1..4), vec(container(), 0..3), vec(volume, 0..3));
    (labels, annotations, lists, json_value(), select(vec!["Always", "Never"])).prop_map(
        |(labels, secret, lists, odd, restart)| {
            let mut pod = weather();
            for (key, value) in labels {
                pod["metadata"]["labels"][format!("kagenti.io/{key}")] = value.into();
            }
            if let Some(secret) = secret {
                pod["metadata"]["annotations"] = json!({
                    "kagenti.io/keycloak-client-credentials-secret-name": secret,
                    "mlflow.kagenti.io/experiment-id": "7",
                });
            }
            pod["spec"]["containers"] = lists.0.into();
            pod["spec"]["initContainers"] = lists.1.into();
            pod["spec"]["volumes"] = lists.2.into();
            pod["spec"]["restartPolicy"] = restart.into();
            pod["spec"]["futureField"] = odd;
            pod
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let modes =
        select(vec!["", "mode: envoy-sidecar", "mode: lite", "egressEnforcement: none", "mode: waypoint"]);
    (any::<[bool; 5]>(), modes).prop_map(|([split, bridge, csi, native, transparent], config)| {
        let mut world = if split { World::split() } else { World::team1() };
        world.platform.sidecars.layout = split.then_some(Layout::Split);
        world.csi_driver = csi;
        world.native_sidecars = native;
        world = world.with_config(config).with_runtime(|spec| {
            spec.tls_bridge_mode = bridge.then_some(TlsBridgeMode::Enabled);
            spec.inbound_interception = transparent.then_some(api_types::InboundInterception::Transparent);
        });
        world
    })
}

/// Every path of the patch is one the chapters name (webhook §4.3).
fn is_named(operation: &Operation) -> bool {
    let (path, removes) = match operation {
        Operation::Add { path, .. } | Operation::Replace { path, .. } => (path, false),
        Operation::Remove { path } => (path, true),
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    if removes {
        return path.contains("/ports/") && matches!(last, "name" | "hostPort" | "hostIP");
    }
    let in_container = path.starts_with("/spec/containers/") || path.starts_with("/spec/initContainers/");
    let whole_list = matches!(path.as_str(), "/spec/containers/-" | "/spec/initContainers/-");
    let container_part = ["/env", "/volumeMounts"].iter().any(|part| path.contains(part))
        || matches!(last, "containerPort" | "port");
    path.starts_with("/metadata/annotations")
        || path.starts_with("/metadata/labels/kagenti.dev~1authbridge")
        || path.starts_with("/spec/volumes")
        || path.starts_with("/spec/securityContext")
        || path == "/spec/serviceAccountName"
        || path == "/spec/initContainers"
        || whole_list
        || (in_container && container_part)
}

/// Everything named `futureField` in the Pod, in document order.
fn future_fields(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "futureField" {
                    found.push(value.clone());
                } else {
                    future_fields(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| future_fields(item, found)),
        _ => {}
    }
}

fn patch_of(outcome: &Outcome) -> Option<&Patch> {
    match outcome {
        Outcome::Skip(skip) => Some(&skip.patch),
        Outcome::Inject(injection) => Some(&injection.patch),
        Outcome::Reinvoke(answer) => Some(&answer.patch),
        Outcome::Deny(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn patches_are_deterministic_named_and_idempotent(world in world(), raw in pod()) {
        let outcome = world.admit(&raw);
        let again = world.admit(&raw);
        let (Some(patch), Some(same)) = (patch_of(&outcome), patch_of(&again)) else { return Ok(()) };
        prop_assert_eq!(patch.to_json(), same.to_json());
        for operation in patch.operations() {
            prop_assert!(is_named(operation), "{:?}", operation);
        }
        let result = patched(&raw, patch);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        future_fields(&raw, &mut before);
        future_fields(&result, &mut after);
        let replaced_env = after.len() < before.len();
        prop_assert!(!replaced_env, "an unknown field is gone");
        let second = world.admit(&result);
        if let Outcome::Inject(_) = second {
            prop_assert!(false, "injected twice");
        }
        let second = patch_of(&second).expect("an admitted Pod stays admitted");
        prop_assert!(second.is_empty(), "{:?}", second);
    }

    #[test]
    fn arbitrary_json_never_panics(spec in json_value(), metadata in json_value(), containers in json_value()) {
        let mut raw = json!({"metadata": metadata, "spec": spec});
        if raw["spec"].is_object() {
            raw["spec"]["containers"] = containers;
        }
        if raw["metadata"].is_object() {
            raw["metadata"]["labels"] = json!({"kagenti.io/type": "agent"});
        }
        if Pod::parse(&raw).is_ok() {
            let outcome = World::team1().admit(&raw);
            if let Some(patch) = patch_of(&outcome) {
                patched(&raw, patch);
            }
        }
    }
}
