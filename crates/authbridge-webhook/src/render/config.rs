//! `config.yaml` of one workload (webhook §12.1).

use api_types::{
    injection::{Decision, Inbound, Mode, Mtls},
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    yaml,
};
use serde_json::{Map, Value, json};

use crate::injection::{Warning, WarningCode, ports, ports::PortPlan};

/// Keys of the namespace's file that are meant for the webhook alone (step 1; split §1).
const WEBHOOK_KEYS: [&str; 3] = ["egressEnforcement", "inboundInterception", "sidecarLayout"];
/// Listener keys with which the proxies, or the Envoy sidecar, refuse to start (step 5).
const PROXY_DROPS: [&str; 2] = ["ext_proc_addr", "ext_authz_addr"];
const ENVOY_DROPS: [&str; 4] = ["forward_proxy_addr", "transparent_proxy_addr", "roles", "ext_authz_addr"];
const REVERSE: [&str; 2] = ["reverse_proxy_addr", "reverse_proxy_backend"];
const TRANSPARENT_INBOUND: [&str; 2] = ["inbound_interception", "transparent_inbound_addr"];
/// Where the client id lies, the agent's own audience.
const CLIENT_ID_FILE: &str = "/shared/client-id.txt";

/// What the file is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SidecarConfig<'a> {
    /// The namespace's file; `None` = empty.
    pub(crate) base: Option<&'a RuntimeConfig>,
    /// The namespace's identity settings.
    pub(crate) authbridge: AuthbridgeConfig<'a>,
    /// Resolved modes.
    pub(crate) decision: &'a Decision,
    /// Ports.
    pub(crate) ports: &'a PortPlan,
    /// `identity.allowedAudiences` of the AgentRuntime.
    pub(crate) allowed_audiences: &'a [String],
    /// Platform key `spiffe.socketPath`.
    pub(crate) socket: &'a str,
    /// Stored file of a pinned ConfigMap, whose `pipeline` is kept (webhook §12.3).
    pub(crate) pinned: Option<&'a str>,
}

/// Renders the file with keys sorted at every level.
pub(crate) fn render(config: &SidecarConfig<'_>, warnings: &mut Vec<Warning>) -> String {
    let mut root = config.base.map(|base| base.document.clone()).unwrap_or_default();
    for key in WEBHOOK_KEYS {
        root.remove(key);
    }
    let pinned = config.pinned.and_then(pinned_pipeline);
    let pipeline = pinned.unwrap_or_else(|| pipeline(config, root.get("pipeline"), warnings));
    root.insert("pipeline".into(), pipeline);
    let envoy = config.decision.mode.value == Mode::EnvoySidecar;
    root.insert("mode".into(), if envoy { "envoy-sidecar" } else { "proxy-sidecar" }.into());
    listeners(config, &mut root);
    match config.decision.mtls.value {
        Mtls::Disabled => root.remove("mtls"),
        mode => root.insert("mtls".into(), json!({"mode": mode.as_str()})),
    };
    section(
        &mut root,
        "tls_bridge",
        config.decision.tls_bridge.value,
        &[("mode", "enabled"), ("ca_dir", "/etc/authbridge/tls-bridge-ca")],
    );
    section(&mut root, "spiffe", config.decision.spire, &[("socket", config.socket)]);
    yaml::to_yaml(&Value::Object(root))
}

/// `pipeline` of a stored file; `None` when it has none or is not YAML.
fn pinned_pipeline(text: &str) -> Option<Value> {
    match yaml::parse_value(text) {
        Ok(Value::Object(mut stored)) => stored.remove("pipeline").filter(|pipeline| !pipeline.is_null()),
        _ => None,
    }
}

/// A section that exists only while its feature is on; further keys of the namespace are kept.
fn section(root: &mut Map<String, Value>, name: &str, on: bool, entries: &[(&str, &str)]) {
    let mut section = take_map(root, name);
    if !on {
        return;
    }
    section.extend(entries.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
    root.insert(name.to_owned(), section.into());
}

/// Takes a member out as a map; anything else counts as an empty one.
fn take_map(map: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match map.remove(key) {
        Some(Value::Object(section)) => section,
        _ => Map::new(),
    }
}

fn listeners(config: &SidecarConfig<'_>, root: &mut Map<String, Value>) {
    let ports = config.ports;
    let mut listener = take_map(root, "listener");
    let envoy = config.decision.mode.value == Mode::EnvoySidecar;
    let own: &[&str] = if envoy { &ENVOY_DROPS } else { &PROXY_DROPS };
    for key in REVERSE.iter().chain(&TRANSPARENT_INBOUND).chain(own) {
        listener.remove(*key);
    }
    let mut set = |key: &str, value: String| listener.insert(key.to_owned(), value.into());
    if !envoy {
        set("forward_proxy_addr", address(ports.forward));
        set("transparent_proxy_addr", address(ports.transparent));
        if config.decision.inbound.value == Inbound::Transparent {
            set("inbound_interception", Inbound::Transparent.as_str().to_owned());
            set("transparent_inbound_addr", address(ports::TRANSPARENT_INBOUND));
        } else {
            set("reverse_proxy_addr", address(ports.original));
            set("reverse_proxy_backend", format!("http://127.0.0.1:{}", ports.relocated));
        }
    }
    if ports.session != ports::SESSION {
        set("session_api_addr", address(ports.session));
    }
    if !listener.is_empty() {
        root.insert("listener".into(), listener.into());
    }
    if ports.stats != ports::STATS {
        let mut stats = take_map(root, "stats");
        stats.insert("address".into(), address(ports.stats).into());
        root.insert("stats".into(), stats.into());
    }
}

fn address(port: u16) -> String {
    format!(":{port}")
}

/// Steps 2 and 3: the namespace's pipeline, or one made from `authbridge-config`, plus the extra audiences.
fn pipeline(config: &SidecarConfig<'_>, base: Option<&Value>, warnings: &mut Vec<Warning>) -> Value {
    let own = config.base.is_some_and(RuntimeConfig::has_pipeline);
    let mut pipeline = match base.filter(|_| own) {
        Some(pipeline) => pipeline.clone(),
        None if !config.decision.identity_provider => {
            json!({"inbound": {"plugins": []}, "outbound": {"plugins": []}})
        }
        None => synthesised(config.authbridge, warnings),
    };
    if !config.allowed_audiences.is_empty() && !allow_audiences(&mut pipeline, config.allowed_audiences) {
        warnings.push(Warning::new(
            WarningCode::AudiencesUnused,
            "identity.allowedAudiences of the AgentRuntime has no effect: the inbound pipeline has no jwt-validation",
        ));
    }
    pipeline
}

fn synthesised(authbridge: AuthbridgeConfig<'_>, warnings: &mut Vec<Warning>) -> Value {
    let issuer = authbridge.issuer();
    if issuer.is_none() {
        warnings.push(Warning::new(
            WarningCode::IssuerUnknown,
            "ConfigMap authbridge-config gives no issuer: inbound tokens cannot be validated until it has ISSUER, or KEYCLOAK_URL and KEYCLOAK_REALM",
        ));
    }
    let (url, realm) = (authbridge.keycloak_url(), authbridge.keycloak_realm());
    let validation =
        filled(&[("issuer", issuer.as_deref()), ("keycloak_url", url), ("keycloak_realm", realm)]);
    let mut exchange = filled(&[
        ("keycloak_url", url),
        ("keycloak_realm", realm),
        ("token_url", authbridge.token_url()),
        ("default_policy", authbridge.default_outbound_policy()),
    ]);
    let identity = match authbridge.client_auth_type() {
        Some("federated-jwt") => filled(&[
            ("type", Some("spiffe")),
            ("jwt_audience", authbridge.jwt_audience().or(issuer.as_deref())),
        ]),
        other => filled(&[("type", other.or(Some("client-secret")))]),
    };
    exchange.insert("identity".into(), identity.into());
    json!({
        "inbound": {"plugins": [{"name": "jwt-validation", "config": validation}]},
        "outbound": {"plugins": [{"name": "token-exchange", "config": exchange}]},
    })
}

fn filled(entries: &[(&str, Option<&str>)]) -> Map<String, Value> {
    entries.iter().filter_map(|(key, value)| Some(((*key).to_owned(), Value::from((*value)?)))).collect()
}

/// Sets `allowed_audiences` in every inbound `jwt-validation`; false when there is none.
///
/// The sidecar's default audience file counts only while no audience at all is configured, so it is written out:
/// otherwise the agent's own audience would stop being accepted.
fn allow_audiences(pipeline: &mut Value, audiences: &[String]) -> bool {
    const NAME: &str = "jwt-validation";
    let plugins = pipeline.get_mut("inbound").and_then(|inbound| inbound.get_mut("plugins"));
    let mut found = false;
    for plugin in plugins.and_then(Value::as_array_mut).into_iter().flatten() {
        let is_ours = plugin.as_str().or_else(|| plugin.get("name").and_then(Value::as_str)) == Some(NAME);
        if !is_ours {
            continue;
        }
        found = true;
        let mut entry = match plugin.take() {
            Value::Object(entry) => entry,
            _ => Map::from_iter([("name".to_owned(), NAME.into())]),
        };
        let mut config = take_map(&mut entry, "config");
        config.insert("allowed_audiences".into(), audiences.into());
        let empty = |key: &str| config.get(key).is_none_or(|value| value.is_null() || value == "");
        if empty("audience") && empty("audience_file") {
            config.insert("audience_file".into(), CLIENT_ID_FILE.into());
        }
        entry.insert("config".into(), config.into());
        *plugin = entry.into();
    }
    found
}

#[cfg(test)]
mod tests;
