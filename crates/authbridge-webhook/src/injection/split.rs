//! The containers of layout `split`: SPIFFE helper and registration (split §5.2, §5.3).

use serde_json::{Value, json};

use super::{
    containers::{Builder, from_authbridge_config, security_context},
    env::variable,
    names::{self, path, volume},
    plan::Plan,
    volumes::mount,
};

/// The registration script (split §7); `register-client.sh` is tested as it is.
pub(crate) const REGISTRATION_SCRIPT: &str = include_str!("../../assets/register-client.sh");

/// Ready only once the proxy has what it needs: until then it can only answer 503.
const READY: &str = "test -s /shared/client-id.txt && test -s /shared/client-secret.txt";

/// Secret with the Keycloak administrator, only ever referenced.
const ADMIN_SECRET: &str = "keycloak-admin-secret";

/// The container `spiffe-helper`.
pub(crate) fn spiffe_helper(plan: &Plan<'_>) -> Builder {
    let platform = plan.platform();
    let mut container =
        Builder::new(names::SPIFFE_HELPER, &platform.images.spiffe_helper, &platform.images.pull_policy);
    container
        .set("command", json!(["/spiffe-helper", "-config=/etc/spiffe-helper/helper.conf", "run"]))
        .resources(&platform.resources.spiffe_helper)
        .set("securityContext", security_context(platform.sidecars.uid.resolve(platform.proxy.uid)))
        .set(
            "volumeMounts",
            json!([
                mount(volume::SPIFFE_HELPER_CONFIG, path::SPIFFE_HELPER, true),
                mount(volume::SPIRE_SOCKET, platform.spiffe.socket_dir(), true),
                mount(volume::SVID_OUTPUT, path::SVID, false),
                mount(volume::SHARED_DATA, path::SHARED, false),
            ]),
        );
    container
}

/// The container `kagenti-client-registration`.
pub(crate) fn client_registration(plan: &Plan<'_>) -> Builder {
    let platform = plan.platform();
    let images = &platform.images;
    let mut mounts = Vec::new();
    if plan.decision.registration_spire {
        mounts.push(mount(volume::SVID_OUTPUT, path::SVID, true));
    }
    mounts.push(mount(volume::SHARED_DATA, path::SHARED, false));
    let mut container =
        Builder::new(names::CLIENT_REGISTRATION, &images.client_registration, &images.pull_policy);
    container
        .set("command", json!(["/bin/sh", "-c", REGISTRATION_SCRIPT]))
        .set("env", registration_env(plan))
        .resources(&platform.resources.client_registration)
        .set(
            "readinessProbe",
            json!({
                "exec": {"command": ["/bin/sh", "-c", READY]},
                "periodSeconds": 5,
                "timeoutSeconds": 2,
                "failureThreshold": 3,
            }),
        )
        .set("securityContext", security_context(platform.sidecars.uid.resolve(platform.proxy.uid)))
        .set("volumeMounts", mounts);
    container
}

fn registration_env(plan: &Plan<'_>) -> Vec<Value> {
    let admin =
        |key: &str| json!({"name": key, "valueFrom": {"secretKeyRef": {"name": ADMIN_SECRET, "key": key}}});
    let client_name = format!("{}/{}", plan.inputs.namespace.name, plan.inputs.workload.name);
    let mut env = vec![
        variable("SPIRE_ENABLED", if plan.decision.registration_spire { "true" } else { "false" }),
        from_authbridge_config(plan, "KEYCLOAK_URL"),
        from_authbridge_config(plan, "KEYCLOAK_REALM"),
        admin("KEYCLOAK_ADMIN_USERNAME"),
        admin("KEYCLOAK_ADMIN_PASSWORD"),
        variable("CLIENT_NAME", &client_name),
        variable("SECRET_FILE_PATH", "/shared/client-secret.txt"),
    ];
    let rest = [
        "PLATFORM_CLIENT_IDS",
        "CLIENT_AUTH_TYPE",
        "SPIFFE_IDP_ALIAS",
        "JWT_AUDIENCE",
        "TOKEN_URL",
        "KEYCLOAK_TOKEN_EXCHANGE_ENABLED",
        "KEYCLOAK_AUDIENCE_SCOPE_ENABLED",
    ];
    env.extend(rest.map(|key| from_authbridge_config(plan, key)));
    env
}
