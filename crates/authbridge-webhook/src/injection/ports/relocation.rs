//! Moves the agent's port out of the sidecar's way (webhook §9, effects on the agent container).

use serde_json::{Map, Value, json};

use super::{is_tcp, port_number};
use crate::injection::{
    Patch,
    env::EnvEdit,
    pod::{Container, list, text},
};

/// One port entry the sidecar takes over from the agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SidecarPort {
    /// Port name; `None` = unnamed.
    pub(crate) name: Option<String>,
    /// `hostPort`.
    pub(crate) host_port: Option<Value>,
    /// `hostIP`.
    pub(crate) host_ip: Option<Value>,
}

/// Port name of the sidecar's inbound listener when the agent's port has none.
const REVERSE_PROXY: &str = "reverse-proxy";
/// Port name of the sidecar's forward proxy.
pub(crate) const FORWARD_PROXY: &str = "forward-proxy";

/// Moves `original` to `relocated` in the agent container: ports, probes, lifecycle hooks and `PORT`.
///
/// The names and host ports go to the sidecar: a Service `targetPort: <name>` resolves to the first container
/// that owns the name, so a name left on the agent would route around the sidecar. The first entry always names
/// the sidecar's port; further ones exist only where the agent declared the port several times.
pub(crate) fn relocate(
    patch: &mut Patch,
    env: &mut EnvEdit<'_>,
    agent: &Container<'_>,
    original: u16,
    relocated: u16,
) -> Vec<SidecarPort> {
    let pointer = agent.pointer();
    let mut taken = Vec::new();
    let mut removed_names = Vec::new();
    for (index, port) in list(agent.raw, "ports").iter().enumerate() {
        let Some(port) = port.as_object().filter(|port| is_tcp(port) && port_number(port) == Some(original))
        else {
            continue;
        };
        let at = format!("{pointer}/ports/{index}");
        patch.replace(format!("{at}/containerPort"), relocated);
        for member in ["name", "hostPort", "hostIP"] {
            if port.contains_key(member) {
                patch.remove(format!("{at}/{member}"));
            }
        }
        let name = Some(text(port, "name")).filter(|name| !name.is_empty());
        removed_names.extend(name);
        taken.push(SidecarPort {
            name: name.filter(|name| *name != FORWARD_PROXY).map(str::to_owned),
            host_port: port.get("hostPort").filter(|value| !value.is_null()).cloned(),
            host_ip: port.get("hostIP").filter(|value| !value.is_null()).cloned(),
        });
    }
    move_probes(patch, agent, &pointer, original, relocated, &removed_names);
    env.set("PORT", &relocated.to_string());
    sidecar_ports(taken)
}

/// The ports of the sidecar's inbound listener: the first found name comes first, then what has a name or host
/// port of its own.
pub(crate) fn sidecar_ports(mut taken: Vec<SidecarPort>) -> Vec<SidecarPort> {
    if let Some(named) = taken.iter().position(|port| port.name.is_some()) {
        taken.swap(0, named);
    }
    let mut taken = taken.into_iter();
    let mut first = taken.next().unwrap_or_default();
    first.name.get_or_insert_with(|| REVERSE_PROXY.to_owned());
    let mut ports = vec![first];
    ports.extend(taken.filter(|port| port.name.is_some() || port.host_port.is_some()));
    ports
}

impl SidecarPort {
    /// The entry of `ports` for container port `number`.
    pub(crate) fn entry(&self, number: u16) -> Value {
        let mut port = Map::new();
        if let Some(name) = &self.name {
            port.insert("name".into(), name.as_str().into());
        }
        port.insert("containerPort".into(), number.into());
        port.insert("protocol".into(), "TCP".into());
        for (member, value) in [("hostPort", &self.host_port), ("hostIP", &self.host_ip)] {
            if let Some(value) = value {
                port.insert(member.into(), value.clone());
            }
        }
        Value::Object(port)
    }
}

fn move_probes(
    patch: &mut Patch,
    agent: &Container<'_>,
    pointer: &str,
    original: u16,
    relocated: u16,
    names: &[&str],
) {
    let number = original.to_string();
    let hits = |port: &Value| match port {
        Value::Number(port) => port.as_u64() == Some(u64::from(original)),
        Value::String(port) => *port == number || names.contains(&port.as_str()),
        _ => false,
    };
    let mut handlers: Vec<(&str, Option<&Value>)> = vec![
        ("startupProbe", agent.raw.get("startupProbe")),
        ("livenessProbe", agent.raw.get("livenessProbe")),
        ("readinessProbe", agent.raw.get("readinessProbe")),
    ];
    let lifecycle = agent.raw.get("lifecycle");
    handlers.push(("lifecycle/postStart", lifecycle.and_then(|hooks| hooks.get("postStart"))));
    handlers.push(("lifecycle/preStop", lifecycle.and_then(|hooks| hooks.get("preStop"))));
    for (member, handler) in handlers {
        for action in ["httpGet", "tcpSocket", "grpc"] {
            let port = handler.and_then(|handler| handler.get(action)).and_then(|action| action.get("port"));
            if port.is_some_and(hits) {
                patch.replace(format!("{pointer}/{member}/{action}/port"), json!(relocated));
            }
        }
    }
}

/// True when command or arguments contain the port as a token of its own: the program may ignore `PORT`.
pub(crate) fn in_arguments(agent: &Container<'_>, port: u16) -> bool {
    let port = port.to_string();
    ["command", "args"].iter().flat_map(|member| list(agent.raw, member)).filter_map(Value::as_str).any(
        |argument| {
            argument.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|token| token == port)
        },
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::injection::{Operation, Pod};

    fn relocated(container: &Value) -> (Vec<Operation>, Vec<SidecarPort>) {
        let raw = json!({"metadata": {}, "spec": {"containers": [container]}});
        let pod = Pod::parse(&raw).expect("a Pod");
        let agent = pod.containers()[0];
        let mut patch = Patch::default();
        let mut env = EnvEdit::new(&agent);
        let ports = relocate(&mut patch, &mut env, &agent, 8000, 8001);
        env.finish(&mut patch);
        (patch.operations().to_vec(), ports)
    }

    #[test]
    fn name_and_host_port_go_to_the_sidecar() {
        let (operations, ports) = relocated(&json!({"name": "a", "ports": [
            {"containerPort": 8000, "protocol": "UDP", "name": "udp"},
            {"containerPort": 8000, "name": "http", "hostPort": 80, "hostIP": "10.0.0.1"},
        ]}));
        assert_eq!(
            serde_json::to_value(&operations).expect("JSON"),
            json!([
                {"op": "replace", "path": "/spec/containers/0/ports/1/containerPort", "value": 8001},
                {"op": "remove", "path": "/spec/containers/0/ports/1/name"},
                {"op": "remove", "path": "/spec/containers/0/ports/1/hostPort"},
                {"op": "remove", "path": "/spec/containers/0/ports/1/hostIP"},
                {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "PORT", "value": "8001"}]},
            ])
        );
        assert_eq!(
            ports.iter().map(|port| port.entry(8000)).collect::<Vec<_>>(),
            [
                json!({"name": "http", "containerPort": 8000, "protocol": "TCP", "hostPort": 80, "hostIP": "10.0.0.1"})
            ]
        );
    }

    #[rstest]
    #[case::unnamed(json!([{"containerPort": 8000}]), "reverse-proxy")]
    #[case::taken(json!([{"containerPort": 8000, "name": "forward-proxy"}]), "reverse-proxy")]
    #[case::second(json!([{"containerPort": 8000}, {"containerPort": 8000, "name": "web"}]), "web")]
    fn the_first_name_is_the_sidecars(#[case] ports: Value, #[case] want: &str) {
        let (_, ports) = relocated(&json!({"name": "a", "ports": ports}));
        assert_eq!((ports.len(), ports[0].name.as_deref()), (1, Some(want)));
    }

    #[test]
    fn a_second_name_stays_resolvable() {
        let (_, ports) = relocated(&json!({"name": "a", "ports": [
            {"containerPort": 8000, "name": "http"}, {"containerPort": 8000, "name": "web"},
        ]}));
        assert_eq!(
            ports.iter().map(|port| port.name.as_deref()).collect::<Vec<_>>(),
            [Some("http"), Some("web")]
        );
    }

    #[test]
    fn probes_and_hooks_follow_the_port() {
        let (operations, _) = relocated(&json!({"name": "a",
            "ports": [{"containerPort": 8000, "name": "http"}, {"containerPort": 9000, "name": "other"}],
            "startupProbe": {"grpc": {"port": 8000}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
            "readinessProbe": {"tcpSocket": {"port": "8000"}},
            "lifecycle": {"postStart": {"httpGet": {"port": 8000}}, "preStop": {"tcpSocket": {"port": "other"}}},
        }));
        let moved: Vec<String> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Replace { path, value } if path.ends_with("/port") => {
                    assert_eq!(value, &json!(8001));
                    Some(path.replace("/spec/containers/0/", ""))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            moved,
            [
                "startupProbe/grpc/port",
                "livenessProbe/httpGet/port",
                "readinessProbe/tcpSocket/port",
                "lifecycle/postStart/httpGet/port",
            ]
        );
    }

    #[rstest]
    #[case(json!({"args": ["--port=8000"]}), true)]
    #[case(json!({"command": ["serve", "0.0.0.0:8000"]}), true)]
    #[case(json!({"args": ["--port", "8000"]}), true)]
    #[case(json!({"args": ["--id=18000", "8000ms", "x8000", "80001"]}), false)]
    #[case(json!({}), false)]
    fn ports_in_arguments(#[case] container: Value, #[case] want: bool) {
        let raw = container.as_object().expect("an object");
        assert_eq!(in_arguments(&Container { index: 0, init: false, name: "a", raw }, 8000), want);
    }
}
