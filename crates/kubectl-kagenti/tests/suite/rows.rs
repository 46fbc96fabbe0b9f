//! Row by row, and what the transformations do (packaging §4).

use kubectl_kagenti::table::{Row, Transform};
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::{converted, lines, table};

/// Values with one of them at a dotted path.
fn at(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |below, key| Value::Object(Map::from_iter([(key.to_owned(), below)])))
}

fn get<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |node, key| node.get(key))
}

/// A value that is not the default of a row.
fn another(row: &Row) -> Value {
    match &row.default {
        Some(Value::Bool(default)) => json!(!default),
        Some(Value::Number(_)) => json!(7),
        Some(Value::Object(_)) => json!({"other": "x"}),
        _ => json!("other"),
    }
}

#[test]
fn a_default_is_dropped_with_a_line() {
    for row in &table().rows {
        let Some(default) = row.default.clone() else { continue };
        let converted = converted(&at(&row.old, default));
        assert!(converted.values.is_empty(), "{}: {:?}", row.old, converted.values);
        assert_eq!(lines(&converted), [format!("dropped: {}: it is at its default", row.old)]);
    }
}

#[test]
fn null_is_dropped_with_a_line() {
    for row in &table().rows {
        let converted = converted(&at(&row.old, Value::Null));
        assert!(converted.values.is_empty(), "{}", row.old);
        assert_eq!(lines(&converted), [format!("dropped: {}: null means that it is not set", row.old)]);
    }
}

#[test]
fn another_value_goes_where_its_row_says() {
    let (mut copied, mut refused) = (0, 0);
    for row in &table().rows {
        let value = another(row);
        let converted = converted(&at(&row.old, value.clone()));
        let new = Value::Object(converted.values.clone());
        if let Some(why) = &row.any {
            assert_eq!(lines(&converted), [format!("dropped: {}: {why}", row.old)]);
            assert_eq!(new, json!({}));
        } else if let Some(why) = &row.refuse {
            refused += 1;
            assert_eq!(lines(&converted), [format!("no new place: {}: {why}", row.old)]);
            assert!(converted.is_lossy() && new == json!({}), "{}", row.old);
        } else if row.values.is_none() && row.transform.is_none() {
            copied += 1;
            assert_eq!(lines(&converted), [""; 0], "{}", row.old);
            for path in &row.new {
                let path =
                    path.replace("<controller>", "card-ctl").replace("<component>", "authbridge-webhook");
                assert_eq!(get(&new, &path), Some(&value), "{}: {new}", row.old);
            }
        }
    }
    assert!(copied > 30 && refused > 5, "{copied} {refused}");
}

/// Rows whose value is not copied; a transformation that is new has to be added here.
#[rstest]
#[case::no_certmanager("certmanager.enable", json!(false), json!({"authbridge-webhook": {"tls": {"mode": "self-signed"}}}))]
#[case::definitions("crd.keep", json!(false), json!({"kagenti-crds-agent": {"keep": false}, "uninstall": {"cleanup": "unenroll"}}))]
#[case::enforced("enforceNetworkPolicies", json!(true), json!({"netpol-ctl": {"enabled": true, "enforceNetworkPolicies": true}}))]
#[case::enforced_below("signatureVerification.enforceNetworkPolicies", json!(true), json!({"netpol-ctl": {"enabled": true, "enforceNetworkPolicies": true}}))]
#[case::spiffe("spiffe.enabled", json!(true), json!({"defaults": {"spiffe": {"enabled": "always"}}}))]
#[case::no_spiffe("spiffe.enabled", json!(false), json!({"defaults": {"spiffe": {"enabled": "never"}}}))]
#[case::image("controllerManager.container.image.repository", json!("registry.example.com:5000/a/b/kagenti-operator"), json!({"global": {"registry": "registry.example.com:5000", "imagePrefix": "a/b"}}))]
#[case::image_without_path("controllerManager.container.image.repository", json!("localhost:5000/kagenti-operator"), json!({"global": {"registry": "localhost:5000", "imagePrefix": ""}}))]
#[case::env("controllerManager.container.env", json!({"B": 1, "A": "x"}), json!({"global": {"extraEnv": [{"name": "A", "value": "x"}, {"name": "B", "value": "1"}]}}))]
#[case::env_list("controllerManager.container.env", json!([{"name": "A", "value": "x"}]), json!({"global": {"extraEnv": [{"name": "A", "value": "x"}]}}))]
#[case::probe("controllerManager.container.readinessProbe", json!({"initialDelaySeconds": 5, "timeoutSeconds": 3, "httpGet": {"path": "/readyz", "port": 8081}}),
    json!({"runtime-ctl": {"readinessProbe": {"timeoutSeconds": 3}}, "card-ctl": {"readinessProbe": {"timeoutSeconds": 3}},
        "authbridge-webhook": {"readinessProbe": {"timeoutSeconds": 3}}, "client-registration-ctl": {"readinessProbe": {"timeoutSeconds": 3}}}))]
#[case::replicas("controllerManager.replicas", json!(2), json!({"runtime-ctl": {"replicas": 2}, "card-ctl": {"replicas": 2}, "client-registration-ctl": {"replicas": 2}}))]
fn a_value_that_is_transformed(#[case] old: &str, #[case] value: Value, #[case] new: Value) {
    let converted = converted(&at(old, value));
    assert!(!converted.is_lossy(), "{:?}", lines(&converted));
    assert_eq!(Value::Object(converted.values), new);
}

#[test]
fn every_transformation_has_a_case() {
    for row in &table().rows {
        let known = match row.transform {
            Some(Transform::Image | Transform::Args | Transform::Env) => true,
            None => {
                row.values.is_none()
                    || [
                        "certmanager.enable",
                        "crd.keep",
                        "enforceNetworkPolicies",
                        "signatureVerification.enforceNetworkPolicies",
                        "spiffe.enabled",
                    ]
                    .contains(&row.old.as_str())
            }
        };
        assert!(known, "{}", row.old);
    }
}

#[rstest]
#[case::other_image(json!({"controllerManager": {"container": {"image": {"repository": "example.com/x/operator"}}}}), "no new place: controllerManager.container.image.repository: example.com/x/operator is one image, and this chart has runtime-ctl, ")]
#[case::no_registry(json!({"controllerManager": {"container": {"image": {"repository": "mirror/kagenti-operator"}}}}), "no new place: controllerManager.container.image.repository: ")]
#[case::unknown(json!({"controllerManager": {"replica": 2}}), "no new place: controllerManager.replica: neither the previous chart nor this one has such a value")]
#[case::unknown_at_the_top(json!({"frobnicate": {"a": {"b": [1]}}}), "no new place: frobnicate.a.b: neither")]
#[case::no_map(json!({"mlflow": true}), "no new place: mlflow: neither")]
#[case::no_list(json!({"controllerManager": {"container": {"args": "--leader-elect"}}}), "no new place: controllerManager.container.args: it is no list of flags")]
#[case::no_variables(json!({"controllerManager": {"container": {"env": "A=b"}}}), "no new place: controllerManager.container.env: it is no map of variables")]
#[case::variable(json!({"controllerManager": {"container": {"env": {"A": {"valueFrom": {}}}}}}), "no new place: controllerManager.container.env.A: the value of a variable is a text")]
#[case::no_such_value(json!({"spiffe": {"enabled": "maybe"}}), "no new place: spiffe.enabled: \"maybe\" is no value of it")]
#[case::in_the_way(json!({"keycloak": {"realm": "x"}, "client-registration-ctl": 3}), "no new place: keycloak.realm: client-registration-ctl.keycloak.realm cannot be set, because client-registration-ctl is no map")]
#[case::flag(json!({"controllerManager": {"container": {"args": ["--frobnicate"]}}}), "no new place: controllerManager.container.args: --frobnicate: this flag is not known")]
fn what_has_no_place_is_named(#[case] values: Value, #[case] line: &str) {
    let converted = converted(&values);
    let lines = lines(&converted);
    assert!(converted.is_lossy() && lines.len() == 1 && lines[0].starts_with(line), "{lines:?}");
}

#[rstest]
#[case::empty(json!({"kuadrant": {"x": ""}, "otelBootstrap": {}}), &["dropped: kuadrant.x: it says nothing", "dropped: otelBootstrap: it says nothing"])]
#[case::nothing_is_on(json!({"controllerManager": {"replicas": 3}, "runtime-ctl": {"enabled": false}, "card-ctl": {"enabled": false}, "client-registration-ctl": {"enabled": false}}), &["dropped: controllerManager.replicas: no component that it is for is on"])]
#[case::the_new_key_wins(json!({"keycloak": {"realm": "old"}, "client-registration-ctl": {"keycloak": {"realm": "new"}}}), &["dropped: keycloak.realm: these values set client-registration-ctl.keycloak.realm already"])]
#[case::null_is_said_too(json!({"keycloak": {"realm": "old"}, "client-registration-ctl": {"keycloak": {"realm": null}}}), &["dropped: keycloak.realm: these values set client-registration-ctl.keycloak.realm already"])]
#[case::the_key_beats_the_flag(json!({"keycloak": {"realm": "key"}, "controllerManager": {"container": {"args": ["--keycloak-realm=flag"]}}}), &["dropped: controllerManager.container.args: --keycloak-realm=flag: another old key sets client-registration-ctl.keycloak.realm already"])]
#[case::both_agree(json!({"enforceNetworkPolicies": true, "signatureVerification": {"enforceNetworkPolicies": true}}), &[])]
fn what_is_dropped_is_said(#[case] values: Value, #[case] expected: &[&str]) {
    let converted = converted(&values);
    assert!(!converted.is_lossy());
    assert_eq!(lines(&converted), expected);
}

/// Toggles that old keys set count too: what all components get, mlflow-ctl gets when it is switched on, and not the webhook
/// when that is switched off.
#[test]
fn components_that_are_on_after_the_conversion() {
    let values = json!({
        "mlflow": {"enable": true}, "webhook": {"enable": false}, "card-ctl": {"enabled": false},
        "controllerManager": {"terminationGracePeriodSeconds": 60},
    });
    let new = Value::Object(converted(&values).values);
    for (component, expected) in [
        ("mlflow-ctl", Some(60)),
        ("runtime-ctl", Some(60)),
        ("authbridge-webhook", None),
        ("card-ctl", None),
        ("netpol-ctl", None),
    ] {
        let found = get(&new, &format!("{component}.terminationGracePeriodSeconds"));
        assert_eq!(found.and_then(Value::as_i64), expected, "{component}: {new}");
    }
}

#[test]
fn flags_keep_their_order_and_the_last_of_one_name_counts() {
    let args = json!([
        "--leader-elect",
        "--enable-istio-mesh=false",
        "--propagate-defaults",
        "--enable-istio-mesh=true",
        "--keycloak-realm=a",
        "--keycloak-realm=b",
        "--tls-bridge-issuer",
        "ca",
    ]);
    let values = json!({
        "controllerManager": {"container": {"args": args}},
        "runtime-ctl": {"extraArgs": ["--propagate-defaults=false", "--concurrency=3"]},
    });
    let converted = converted(&values);
    let new = Value::Object(converted.values.clone());
    let expected = json!([
        "--enable-istio-mesh=true",
        "--tls-bridge-issuer=ca",
        "--propagate-defaults=false",
        "--concurrency=3"
    ]);
    assert_eq!(new["runtime-ctl"]["extraArgs"], expected);
    assert_eq!(new["client-registration-ctl"]["keycloak"]["realm"], "b");
    let said = lines(&converted);
    let args = "dropped: controllerManager.container.args";
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(said[0], format!("{args}: --leader-elect: the chart sets it itself"));
    let (other, these) = ("another old key sets", "these values set");
    let flag = format!(
        "{args}: --enable-istio-mesh=false: {other} --enable-istio-mesh in runtime-ctl.extraArgs already"
    );
    assert_eq!(said[1], flag);
    let flag = format!(
        "{args}: --propagate-defaults: {these} --propagate-defaults in runtime-ctl.extraArgs already"
    );
    assert_eq!(said[2], flag);
    assert!(said[3].starts_with(&format!("{args}: --keycloak-realm=a: ")), "{said:?}");
}

#[test]
fn what_is_new_stays_as_it_is() {
    let values = json!({
        "defaults": {"images": {"authbridge": "x"}, "spiffe": null},
        "featureGates": {"injectTools": true},
        "global": {"registry": "r", "somebody": "else's"},
        "card-ctl": {"replicas": 0, "resources": {"limits": null}},
        "extraObjects": [], "kagenti-crds-agent": {"enabled": false},
    });
    let converted = converted(&values);
    assert_eq!(lines(&converted), [""; 0]);
    assert_eq!(Value::Object(converted.values), values);
}

#[test]
fn what_is_lost_is_said_last() {
    let values = json!({"nameOverride": "x", "rbac": {"enable": true}, "zzz": 1});
    let said = lines(&converted(&values));
    let kinds: Vec<&str> = said.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(kinds, ["dropped", "no new place", "no new place"], "{said:?}");
}
