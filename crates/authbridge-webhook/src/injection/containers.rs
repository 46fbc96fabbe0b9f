//! The containers every layout shares: the proxies and `proxy-init` (webhook §10.2, §10.3).

use api_types::{
    injection::{Inbound, Mode},
    names::{annotation, configmap},
};
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Map, Value, json};

use super::{
    Warning, WarningCode,
    env::variable,
    names::{self, path, volume},
    plan::Plan,
    ports::{self, SidecarPort, port_list},
    volumes::mount,
};

/// A container under construction; members appear in the order they are set.
#[derive(Debug, Default)]
pub(crate) struct Builder(Map<String, Value>);

impl Builder {
    /// Name, image and pull policy.
    pub(crate) fn new(name: &str, image: &str, pull_policy: &str) -> Self {
        let mut builder = Self::default();
        builder.set("name", name).set("image", image).set("imagePullPolicy", pull_policy);
        builder
    }

    /// Sets one member.
    pub(crate) fn set(&mut self, member: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(member.to_owned(), value.into());
        self
    }

    /// Sets `resources`.
    pub(crate) fn resources(&mut self, resources: &ResourceRequirements) -> &mut Self {
        // Maps of strings: serialising to a value cannot fail.
        self.set("resources", serde_json::to_value(resources).unwrap_or_default())
    }

    /// Makes it an init container that keeps running (webhook §10.4).
    pub(crate) fn native(mut self) -> Self {
        self.set("restartPolicy", "Always");
        self
    }

    /// The container.
    pub(crate) fn build(self) -> Value {
        Value::Object(self.0)
    }
}

/// The long-running proxy of the mode. `mounts` come after its own.
pub(crate) fn proxy(plan: &Plan<'_>, taken: &[SidecarPort], mut mounts: Vec<Value>) -> Builder {
    let platform = plan.platform();
    let images = &platform.images;
    let envoy = plan.decision.mode.value == Mode::EnvoySidecar;
    let (name, image, resources) = match plan.decision.mode.value {
        Mode::EnvoySidecar => (names::ENVOY_PROXY, &images.envoy_proxy, &platform.resources.envoy_proxy),
        Mode::Lite => (names::AUTHBRIDGE_PROXY, &images.authbridge_lite, &platform.resources.authbridge),
        Mode::ProxySidecar | Mode::Waypoint => {
            (names::AUTHBRIDGE_PROXY, &images.authbridge, &platform.resources.authbridge)
        }
    };
    let mut container = Builder::new(name, image, &images.pull_policy);
    container
        .set("args", json!(["--config", path::AUTHBRIDGE_CONFIG]))
        .set("env", if envoy { envoy_env(plan) } else { spire_env(plan) })
        .set("ports", if envoy { envoy_ports(plan) } else { proxy_ports(plan, taken) })
        .resources(resources);
    if platform.sidecar.probes {
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": ports::HEALTH}});
        container.set("livenessProbe", probe("/healthz")).set("readinessProbe", probe("/readyz"));
    }
    container.set("securityContext", security_context(Some(platform.proxy.uid)));
    let mut all = proxy_mounts(plan);
    all.append(&mut mounts);
    container.set("volumeMounts", all);
    container
}

/// What `restricted` namespaces demand (webhook §10.2).
pub(crate) fn security_context(uid: Option<i64>) -> Value {
    let mut context = Map::new();
    if let Some(uid) = uid {
        context.insert("runAsUser".into(), uid.into());
        context.insert("runAsGroup".into(), uid.into());
    }
    context.insert("runAsNonRoot".into(), true.into());
    context.insert("allowPrivilegeEscalation".into(), false.into());
    context.insert("capabilities".into(), json!({"drop": ["ALL"]}));
    context.insert("seccompProfile".into(), json!({"type": "RuntimeDefault"}));
    Value::Object(context)
}

fn spire_env(plan: &Plan<'_>) -> Value {
    json!([
        variable("SPIRE_ENABLED", if plan.decision.spire { "true" } else { "false" }),
        variable("MTLS_MODE", plan.decision.mtls.value.as_str()),
    ])
}

fn envoy_env(plan: &Plan<'_>) -> Value {
    let mut env: Vec<Value> = [
        "KEYCLOAK_URL",
        "KEYCLOAK_REALM",
        "TOKEN_URL",
        "ISSUER",
        "EXPECTED_AUDIENCE",
        "TARGET_AUDIENCE",
        "TARGET_SCOPES",
    ]
    .map(|key| from_authbridge_config(plan, key))
    .into();
    env.push(variable("CLIENT_ID_FILE", "/shared/client-id.txt"));
    env.push(variable("CLIENT_SECRET_FILE", "/shared/client-secret.txt"));
    env.push(variable("ROUTES_CONFIG_PATH", "/etc/authproxy/routes.yaml"));
    env.push(from_authbridge_config(plan, "DEFAULT_OUTBOUND_POLICY"));
    if let Value::Array(spire) = spire_env(plan) {
        env.extend(spire);
    }
    Value::Array(env)
}

/// A key of `authbridge-config`, as reference or literal (webhook §7.2, gate `perWorkloadConfigResolution`).
/// Never mandatory: a map that is still partial must not keep the container from starting.
pub(crate) fn from_authbridge_config(plan: &Plan<'_>, key: &str) -> Value {
    if plan.inputs.cluster.gates.per_workload_config_resolution {
        let map = plan.inputs.namespace.authbridge.0;
        return variable(key, map.and_then(|map| map.get(key)).map_or("", String::as_str));
    }
    let reference = json!({"name": configmap::AUTHBRIDGE, "key": key, "optional": true});
    json!({"name": key, "valueFrom": {"configMapKeyRef": reference}})
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "containerPort": number, "protocol": "TCP"})
}

fn envoy_ports(plan: &Plan<'_>) -> Value {
    let proxy = &plan.platform().proxy;
    json!([
        port("envoy-outbound", proxy.port),
        port("envoy-inbound", proxy.inbound_proxy_port),
        port("envoy-admin", proxy.admin_port),
        port("ext-proc", ports::EXT_PROC),
    ])
}

fn proxy_ports(plan: &Plan<'_>, taken: &[SidecarPort]) -> Value {
    let forward = port("forward-proxy", plan.ports.forward);
    if plan.decision.inbound.value == Inbound::Transparent {
        return json!([forward, port("transparent-in", ports::TRANSPARENT_INBOUND)]);
    }
    let mut entries: Vec<Value> = taken.iter().map(|taken| taken.entry(plan.ports.original)).collect();
    entries.insert(entries.len().min(1), forward);
    Value::Array(entries)
}

fn proxy_mounts(plan: &Plan<'_>) -> Vec<Value> {
    let shared = mount(volume::SHARED_DATA, path::SHARED, false);
    let config = mount(volume::RUNTIME_CONFIG, path::AUTHBRIDGE, true);
    let routes = mount(volume::AUTHPROXY_ROUTES, path::AUTHPROXY, true);
    let mut mounts = if plan.decision.mode.value == Mode::EnvoySidecar {
        vec![mount(volume::ENVOY_CONFIG, path::ENVOY, true), shared, routes, config]
    } else {
        vec![shared, config, routes]
    };
    if plan.decision.spire {
        mounts.push(mount(plan.proxy_svid_volume(), path::SVID, false));
        mounts.push(mount(volume::SPIFFE_HELPER_CONFIG, path::SPIFFE_HELPER, true));
        mounts.push(mount(volume::SPIRE_SOCKET, plan.platform().spiffe.socket_dir(), true));
    }
    if plan.decision.tls_bridge.value {
        mounts.push(mount(volume::TLS_BRIDGE_CA, path::TLS_BRIDGE_CA, true));
    }
    mounts
}

/// The init container with the iptables script (webhook §10.3).
pub(crate) fn proxy_init(plan: &Plan<'_>, warnings: &mut Vec<Warning>) -> Value {
    let platform = plan.platform();
    let images = &platform.images;
    let mut container = Builder::new(names::PROXY_INIT, &images.proxy_init, &images.pull_policy);
    let envoy = plan.decision.mode.value == Mode::EnvoySidecar;
    let mut env = if envoy { redirect_env(plan, warnings) } else { enforce_env(plan, warnings) };
    if !platform.proxy.iptables_cmd.is_empty() {
        env.push(variable("IPTABLES_CMD", &platform.proxy.iptables_cmd));
    }
    container.set("env", env).resources(&platform.resources.proxy_init).set(
        "securityContext",
        json!({
            "runAsUser": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        }),
    );
    container.build()
}

fn number(name: &str, value: impl Into<i64>) -> Value {
    variable(name, &value.into().to_string())
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn redirect_env(plan: &Plan<'_>, warnings: &mut Vec<Warning>) -> Vec<Value> {
    let proxy = &plan.platform().proxy;
    // 8080: where Keycloak listens inside most clusters (webhook §10.3).
    let outbound = excluded(plan, annotation::OUTBOUND_PORTS_EXCLUDE, &[8080], warnings);
    let inbound = excluded(plan, annotation::INBOUND_PORTS_EXCLUDE, &[], warnings);
    let mut env = vec![
        number("PROXY_PORT", proxy.port),
        number("INBOUND_PROXY_PORT", proxy.inbound_proxy_port),
        number("PROXY_UID", proxy.uid),
        variable("OUTBOUND_PORTS_EXCLUDE", &outbound),
        field("POD_IP", "status.podIP"),
    ];
    if !inbound.is_empty() {
        env.push(variable("INBOUND_PORTS_EXCLUDE", &inbound));
    }
    env
}

fn enforce_env(plan: &Plan<'_>, warnings: &mut Vec<Warning>) -> Vec<Value> {
    let proxy = &plan.platform().proxy;
    let mut env = vec![
        variable("MODE", "enforce-redirect"),
        number("PROXY_UID", proxy.uid),
        number("TRANSPARENT_PORT", plan.ports.transparent),
    ];
    if plan.decision.inbound.value == Inbound::Transparent {
        let plan_ports = &plan.ports;
        let own = [plan_ports.forward, ports::HEALTH, plan_ports.stats, plan_ports.session];
        env.push(number("INBOUND_TRANSPARENT_PORT", ports::TRANSPARENT_INBOUND));
        env.push(variable("SIDECAR_PORTS_EXCLUDE", &joined(&own)));
        let inbound = excluded(plan, annotation::INBOUND_PORTS_EXCLUDE, &[], warnings);
        if !inbound.is_empty() {
            env.push(variable("INBOUND_PORTS_EXCLUDE", &inbound));
        }
        env.push(field("POD_IP", "status.podIP"));
        env.push(field("POD_IPS", "status.podIPs"));
    }
    env
}

fn joined(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn excluded(plan: &Plan<'_>, key: &str, always: &[u16], warnings: &mut Vec<Warning>) -> String {
    let (ports, invalid) = port_list(always, plan.inputs.pod.annotation(key));
    if !invalid.is_empty() {
        warnings.push(Warning::new(
            WarningCode::InvalidPortList,
            format!(
                "annotation {key}: ignored {}: each item must be a port from 1 to 65535",
                invalid.join(", ")
            ),
        ));
    }
    joined(&ports)
}
