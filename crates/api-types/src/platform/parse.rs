//! Reads the platform file over the defaults, reporting every invalid value at once.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use serde_json::{Map, Value};

use super::{HelperUid, NativeSidecar, PlatformConfig, PlatformConfigError, SpiffeEnabled, parse_quantity};
use crate::{
    injection::{Egress, Layout},
    yaml::{self, Parsed},
};

pub(super) fn parse(text: &str) -> Result<Parsed<PlatformConfig>, PlatformConfigError> {
    let root = match yaml::parse_value(text)? {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(PlatformConfigError::Invalid(vec!["the root must be a map".into()])),
    };
    let mut config = PlatformConfig::default();
    let mut reader = Reader::default();
    for (key, value) in &root {
        match key.as_str() {
            "images" => images(&mut reader, value, &mut config),
            "proxy" => proxy(&mut reader, value, &mut config),
            "resources" => resources(&mut reader, value, &mut config),
            "spiffe" => spiffe(&mut reader, value, &mut config),
            "identity" => {
                reader.section("identity", value, |reader, path, key, value| match key {
                    "required" => reader.boolean(path, value, &mut config.identity.required),
                    _ => reader.unknown(path),
                });
            }
            "pod" => reader.section("pod", value, |reader, path, key, value| match key {
                "fsGroup" => reader.nullable_id(path, value, 0, |id| config.pod.fs_group = id),
                _ => reader.unknown(path),
            }),
            "sidecar" => reader.section("sidecar", value, |reader, path, key, value| match key {
                "native" => reader.choice(path, value, NATIVE, &mut config.sidecar.native),
                "probes" => reader.boolean(path, value, &mut config.sidecar.probes),
                _ => reader.unknown(path),
            }),
            "sidecars" => sidecars(&mut reader, value, &mut config),
            "tokenExchange" => {
                accepted(&mut reader, key, value, &["tokenUrl", "defaultAudience", "defaultScopes"]);
            }
            "observability" => accepted(&mut reader, key, value, &["logLevel", "enableMetrics"]),
            _ => reader.unknown(key),
        }
    }
    if config.sidecars.layout != Some(Layout::Split) {
        for path in std::mem::take(&mut reader.split_only) {
            reader.ignored.push(format!("{path}: only used in layout split"));
        }
    }
    check_together(&mut reader, &config);
    if reader.problems.is_empty() {
        Ok(Parsed { value: config, ignored: reader.ignored })
    } else {
        Err(PlatformConfigError::Invalid(reader.problems))
    }
}

const PULL_POLICIES: &[(&str, &str)] =
    &[("Always", "Always"), ("IfNotPresent", "IfNotPresent"), ("Never", "Never")];
const SPIFFE_ENABLED: &[(&str, SpiffeEnabled)] =
    &[("always", SpiffeEnabled::Always), ("auto", SpiffeEnabled::Auto), ("never", SpiffeEnabled::Never)];
const NATIVE: &[(&str, NativeSidecar)] =
    &[("never", NativeSidecar::Never), ("auto", NativeSidecar::Auto), ("always", NativeSidecar::Always)];
const LAYOUTS: &[(&str, Option<Layout>)] =
    &[("combined", Some(Layout::Combined)), ("split", Some(Layout::Split))];
const IPTABLES: &[(&str, &str)] = &[
    ("", ""),
    ("iptables", "iptables"),
    ("iptables-nft", "iptables-nft"),
    ("iptables-legacy", "iptables-legacy"),
];

fn images(reader: &mut Reader, value: &Value, config: &mut PlatformConfig) {
    let images = &mut config.images;
    reader.section("images", value, |reader, path, key, value| match key {
        "envoyProxy" => reader.text(path, value, &mut images.envoy_proxy),
        "authbridge" => reader.text(path, value, &mut images.authbridge),
        "authbridgeLite" => reader.text(path, value, &mut images.authbridge_lite),
        "proxyInit" => reader.text(path, value, &mut images.proxy_init),
        "spiffeHelper" => {
            reader.split_only.push(path.to_owned());
            reader.text(path, value, &mut images.spiffe_helper);
        }
        "clientRegistration" => {
            reader.split_only.push(path.to_owned());
            reader.text(path, value, &mut images.client_registration);
        }
        "pullPolicy" => {
            let mut policy = "";
            reader.choice(path, value, PULL_POLICIES, &mut policy);
            if !policy.is_empty() {
                policy.clone_into(&mut images.pull_policy);
            }
        }
        _ => reader.unknown(path),
    });
}

fn proxy(reader: &mut Reader, value: &Value, config: &mut PlatformConfig) {
    let proxy = &mut config.proxy;
    reader.section("proxy", value, |reader, path, key, value| match key {
        "port" => reader.port(path, value, &mut proxy.port),
        "inboundProxyPort" => reader.port(path, value, &mut proxy.inbound_proxy_port),
        "adminPort" => reader.port(path, value, &mut proxy.admin_port),
        "transparentPort" => reader.port(path, value, &mut proxy.transparent_port),
        "uid" => {
            if let Some(uid) = reader.id(path, value, 1) {
                proxy.uid = uid;
            }
        }
        "iptablesCmd" => {
            let mut command = "";
            reader.choice(path, value, IPTABLES, &mut command);
            command.clone_into(&mut proxy.iptables_cmd);
        }
        "allowedEgressEnforcement" => {
            let list: Option<Vec<Egress>> = value
                .as_array()
                .filter(|items| !items.is_empty())
                .and_then(|items| items.iter().map(|item| Egress::parse(item.as_str()?)).collect());
            match list {
                Some(list) => proxy.allowed_egress_enforcement = list,
                None => reader.problem(path, "must be a non-empty list of enforce-redirect and none"),
            }
        }
        "noProxy" if value.is_null() => {}
        "noProxy" => {
            let host = |item: &Value| {
                let text = item.as_str().map(str::trim)?;
                (!text.is_empty() && !text.contains(',')).then(|| text.to_owned())
            };
            let list: Option<Vec<String>> =
                value.as_array().and_then(|items| items.iter().map(host).collect());
            match list {
                Some(list) => proxy.no_proxy = list,
                None => reader.problem(path, "must be a list of hosts, none of them empty or with a comma"),
            }
        }
        _ => reader.unknown(path),
    });
}

fn resources(reader: &mut Reader, value: &Value, config: &mut PlatformConfig) {
    let resources = &mut config.resources;
    reader.section("resources", value, |reader, path, key, value| {
        let into = match key {
            "envoyProxy" => &mut resources.envoy_proxy,
            "proxyInit" => &mut resources.proxy_init,
            "authbridge" => &mut resources.authbridge,
            "spiffeHelper" | "clientRegistration" => {
                reader.split_only.push(path.to_owned());
                if key == "spiffeHelper" {
                    &mut resources.spiffe_helper
                } else {
                    &mut resources.client_registration
                }
            }
            _ => return reader.unknown(path),
        };
        reader.requirements(path, value, into);
    });
}

fn spiffe(reader: &mut Reader, value: &Value, config: &mut PlatformConfig) {
    let spiffe = &mut config.spiffe;
    reader.section("spiffe", value, |reader, path, key, value| match key {
        "socketPath" => {
            let mut socket = spiffe.socket_path.clone();
            reader.text(path, value, &mut socket);
            if is_socket(&socket) {
                spiffe.socket_path = socket;
            } else {
                reader.problem(path, "must be unix:// and an absolute path with a directory");
            }
        }
        "trustDomain" => {
            if let Some(text) = reader.string(path, value) {
                text.clone_into(&mut spiffe.trust_domain);
            }
        }
        "enabled" => reader.choice(path, value, SPIFFE_ENABLED, &mut spiffe.enabled),
        _ => reader.unknown(path),
    });
}

/// `unix://`, an absolute path below some directory, no `..`, no empty or trailing part.
fn is_socket(text: &str) -> bool {
    let Some(path) = text.strip_prefix("unix:///") else { return false };
    let parts: Vec<&str> = path.split('/').collect();
    parts.len() >= 2 && parts.iter().all(|part| !matches!(*part, "" | "." | ".."))
}

fn sidecars(reader: &mut Reader, value: &Value, config: &mut PlatformConfig) {
    let sidecars = &mut config.sidecars;
    reader.section("sidecars", value, |reader, path, key, value| match key {
        "layout" => reader.choice(path, value, LAYOUTS, &mut sidecars.layout),
        "uid" => reader.nullable_id(path, value, 1, |id| {
            sidecars.uid = id.map_or(HelperUid::Unset, HelperUid::Uid);
        }),
        "envoyProxy" | "spiffeHelper" | "clientRegistration" => {
            reader.section(path, value, |reader, path, key, value| {
                let mut enabled = true;
                match key {
                    "enabled" => reader.boolean(path, value, &mut enabled),
                    _ => reader.unknown(path),
                }
                if !enabled {
                    reader.ignored.push(format!("{path}: has no effect, use the feature gate"));
                }
            });
        }
        _ => reader.unknown(path),
    });
}

/// Keys of older files that have no effect on injection.
fn accepted(reader: &mut Reader, section: &str, value: &Value, keys: &[&str]) {
    reader.section(section, value, |reader, path, key, _| {
        if !keys.contains(&key) {
            reader.unknown(path);
        }
    });
}

/// Rules over more than one key.
fn check_together(reader: &mut Reader, config: &PlatformConfig) {
    let proxy = &config.proxy;
    let (port, inbound, admin) = (proxy.port, proxy.inbound_proxy_port, proxy.admin_port);
    if port == inbound || port == admin || inbound == admin {
        reader.problems.push(format!(
            "proxy.port, proxy.inboundProxyPort and proxy.adminPort must differ, they are {port}, {inbound} and \
             {admin}"
        ));
    }
    let all = [
        ("envoyProxy", &config.resources.envoy_proxy),
        ("proxyInit", &config.resources.proxy_init),
        ("authbridge", &config.resources.authbridge),
        ("spiffeHelper", &config.resources.spiffe_helper),
        ("clientRegistration", &config.resources.client_registration),
    ];
    for (key, resources) in all {
        let (Some(requests), Some(limits)) = (&resources.requests, &resources.limits) else { continue };
        for (name, request) in requests {
            let Some(limit) = limits.get(name) else { continue };
            let above = parse_quantity(&request.0).zip(parse_quantity(&limit.0)).is_some_and(|(r, l)| r > l);
            if above {
                reader.problems.push(format!(
                    "resources.{key}: request {name}={} is above limit {}",
                    request.0, limit.0
                ));
            }
        }
    }
}

/// Collects problems and ignored keys while the tree is walked.
#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    ignored: Vec<String>,
    split_only: Vec<String>,
}

impl Reader {
    fn problem(&mut self, path: &str, what: &str) {
        self.problems.push(format!("{path}: {what}"));
    }

    fn unknown(&mut self, path: &str) {
        self.ignored.push(format!("{path}: unknown key, ignored"));
    }

    /// Calls `each` for the members of a map; null is an empty map.
    fn section(&mut self, path: &str, value: &Value, mut each: impl FnMut(&mut Self, &str, &str, &Value)) {
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    each(self, &format!("{path}.{key}"), key, value);
                }
            }
            _ => self.problem(path, "must be a map"),
        }
    }

    fn string<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v str> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                self.problem(path, "must be a string");
                None
            }
        }
    }

    /// A string that is not empty.
    fn text(&mut self, path: &str, value: &Value, into: &mut String) {
        let Some(text) = self.string(path, value) else { return };
        if text.trim().is_empty() {
            self.problem(path, "must not be empty");
        } else {
            text.trim().clone_into(into);
        }
    }

    fn boolean(&mut self, path: &str, value: &Value, into: &mut bool) {
        match value {
            Value::Null => {}
            Value::Bool(on) => *into = *on,
            _ => self.problem(path, "must be true or false"),
        }
    }

    fn choice<T: Copy>(&mut self, path: &str, value: &Value, choices: &[(&str, T)], into: &mut T) {
        if value.is_null() {
            return;
        }
        if let Some((_, choice)) = choices.iter().find(|(name, _)| value.as_str() == Some(name)) {
            *into = *choice;
        } else {
            let names: Vec<&str> =
                choices.iter().map(|(name, _)| if name.is_empty() { "\"\"" } else { name }).collect();
            self.problem(path, &format!("must be one of {}", names.join(", ")));
        }
    }

    fn port(&mut self, path: &str, value: &Value, into: &mut u16) {
        if value.is_null() {
            return;
        }
        match value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port >= 1024) {
            Some(port) => *into = port,
            None => self.problem(path, "must be a port from 1024 to 65535"),
        }
    }

    /// A user or group id; `None` for null and for invalid values.
    fn id(&mut self, path: &str, value: &Value, least: i64) -> Option<i64> {
        if value.is_null() {
            return None;
        }
        let id = value.as_i64().filter(|id| (least..=i64::from(i32::MAX)).contains(id));
        if id.is_none() {
            self.problem(path, &format!("must be an integer from {least} to {}", i32::MAX));
        }
        id
    }

    /// An id where null says something.
    fn nullable_id(&mut self, path: &str, value: &Value, least: i64, set: impl FnOnce(Option<i64>)) {
        let id = self.id(path, value, least);
        if id.is_some() || value.is_null() {
            set(id);
        }
    }

    /// Requests and limits merge with the defaults, name by name; null takes a default away.
    fn requirements(&mut self, path: &str, value: &Value, into: &mut ResourceRequirements) {
        self.section(path, value, |reader, path, key, value| {
            let list = match key {
                "requests" => into.requests.get_or_insert_default(),
                "limits" => into.limits.get_or_insert_default(),
                _ => return reader.unknown(path),
            };
            reader.quantities(path, value, list);
        });
    }

    fn quantities(&mut self, path: &str, value: &Value, into: &mut BTreeMap<String, Quantity>) {
        self.section(path, value, |reader, path, name, value| {
            let text = match value {
                Value::Null => {
                    into.remove(name);
                    return;
                }
                Value::String(text) => text.trim().to_owned(),
                Value::Number(number) => number.to_string(),
                _ => return reader.problem(path, "must be a quantity"),
            };
            if parse_quantity(&text).is_some_and(|quantity| quantity >= 0) {
                into.insert(name.to_owned(), Quantity(text));
            } else {
                reader.problem(path, "must be a quantity that is not negative, for example 50m or 64Mi");
            }
        });
    }
}
