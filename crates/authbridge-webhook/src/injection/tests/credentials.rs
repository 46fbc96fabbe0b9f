//! Keycloak credentials (webhook §11.3).

use serde_json::json;

use super::*;

const ANNOTATION: &str = "kagenti.io/keycloak-client-credentials-secret-name";

fn shares_data(mut pod: Value) -> Value {
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "shared-data", "mountPath": "/shared"}]);
    pod
}

#[test]
fn the_secret_is_announced_and_mounted_where_shared_data_is() {
    let (pod, _) = World::team1().injected(&shares_data(weather()));
    let secret = api_types::credentials::secret_name("team1", "weather");
    assert_eq!(pod["metadata"]["annotations"][ANNOTATION], secret.as_str());
    assert_eq!(
        named(&pod["spec"]["volumes"], &secret),
        &json!({"name": secret, "secret": {"secretName": secret, "optional": false}})
    );
    for name in ["agent", "authbridge-proxy"] {
        let paths = mount_paths(&pod, name);
        let own: Vec<_> = paths.iter().filter(|path| path.starts_with(&secret)).collect();
        assert_eq!(
            own,
            [
                &format!("{secret} /shared/client-secret.txt ro"),
                &format!("{secret} /shared/client-id.txt ro")
            ]
        );
    }
}

#[test]
fn containers_without_shared_data_see_no_secret() {
    let (pod, _) = World::team1().injected(&weather());
    assert!(mount_paths(&pod, "agent").is_empty());
}

#[test]
fn a_users_secret_is_kept() {
    let mut pod = shares_data(weather());
    pod["metadata"]["annotations"] = json!({ANNOTATION: "my.secret"});
    let mut world = World::team1();
    world.authbridge = None;
    let (patched, _) = world.injected(&pod);
    assert_eq!(patched["metadata"]["annotations"][ANNOTATION], "my.secret");
    let volume = patched["spec"]["volumes"]
        .as_array()
        .and_then(|volumes| volumes.iter().find(|volume| volume["secret"]["secretName"] == "my.secret"))
        .expect("a volume");
    assert!(volume["name"].as_str().expect("a name").starts_with("kc-"));
}

#[test]
fn nothing_is_announced_that_nobody_writes() {
    let without_gate = |world: &mut World| world.gates.client_registration = false;
    let without_realm =
        |world: &mut World| world.authbridge = Some(strings(&[("KEYCLOAK_URL", "http://kc:8080")]));
    for edit in [without_gate as fn(&mut World), without_realm] {
        let mut world = World::team1();
        edit(&mut world);
        let (pod, _) = world.injected(&shares_data(weather()));
        assert!(pod["metadata"]["annotations"][ANNOTATION].is_null());
        assert_eq!(mount_paths(&pod, "agent"), ["shared-data /shared rw"]);
    }
}

#[test]
fn a_mount_that_is_there_is_not_repeated() {
    let mut pod = shares_data(weather());
    push(
        &mut pod["spec"]["containers"][0]["volumeMounts"],
        json!({"name": "mine", "mountPath": "/shared/client-id.txt", "subPath": "id"}),
    );
    let (patched, _) = World::team1().injected(&pod);
    let paths = mount_paths(&patched, "agent");
    assert_eq!(paths.iter().filter(|path| path.contains("/shared/client-id.txt")).count(), 1, "{paths:?}");
    assert_eq!(paths.iter().filter(|path| path.contains("/shared/client-secret.txt")).count(), 1);
}
