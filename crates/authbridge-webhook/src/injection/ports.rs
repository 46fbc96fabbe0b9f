//! The port plan (webhook §9): which ports the sidecar takes, and where the agent's own port goes.

mod relocation;

use std::collections::BTreeSet;

use api_types::{
    injection::{Inbound, Layout, Mode},
    platform::Proxy,
};

pub(crate) use self::relocation::{SidecarPort, in_arguments, relocate, sidecar_ports};
use super::{
    names,
    pod::{Container, Pod, text},
};

/// Health endpoint of the sidecar images; cannot be moved.
pub(crate) const HEALTH: u16 = 9091;
/// External processing endpoint of the Envoy image; cannot be moved.
pub(crate) const EXT_PROC: u16 = 9090;
/// Transparent inbound listener; cannot be moved.
pub(crate) const TRANSPARENT_INBOUND: u16 = 8083;
/// Stats listener where nothing is in its way.
pub(crate) const STATS: u16 = 9093;
/// Session API listener where nothing is in its way.
pub(crate) const SESSION: u16 = 9094;
const FORWARD: u16 = 8081;
/// The agent's port when none is declared.
const DEFAULT_AGENT: u16 = 8000;

/// The ports of one injected Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortPlan {
    /// Name of the agent container; `None` when no container declares a TCP port.
    pub(crate) agent: Option<String>,
    /// The agent's port as callers know it.
    pub(crate) original: u16,
    /// Where the sidecar reaches the agent: another port in interception `reverse-proxy`.
    pub(crate) relocated: u16,
    /// Forward proxy.
    pub(crate) forward: u16,
    /// Transparent egress listener.
    pub(crate) transparent: u16,
    /// Stats listener.
    pub(crate) stats: u16,
    /// Session API listener.
    pub(crate) session: u16,
}

/// A reserved port is taken and cannot be moved (webhook §5 row 14).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortClash {
    /// A fixed listener of the sidecar.
    #[error(
        "container port {port} is reserved for the AuthBridge sidecar ({purpose}) and cannot be moved: let the container listen on another port, or set the pod label kagenti.io/inject: disabled"
    )]
    Reserved {
        /// The port.
        port: u16,
        /// What listens there.
        purpose: &'static str,
    },
    /// Every port is taken.
    #[error("no free port is left for the AuthBridge sidecar: declare fewer container ports")]
    Exhausted,
}

/// What of the resolved settings decides about ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Sidecar mode.
    pub(crate) mode: Mode,
    /// How inbound traffic arrives.
    pub(crate) inbound: Inbound,
    /// Sidecar layout.
    pub(crate) layout: Layout,
    /// A port that the SPIFFE helper will listen on (split §5.2).
    pub(crate) helper_health: Option<u16>,
}

/// Plans the ports.
pub(crate) fn plan(pod: &Pod<'_>, shape: Shape, proxy: &Proxy) -> Result<PortPlan, PortClash> {
    let Shape { mode, inbound, layout, helper_health } = shape;
    let agent = agent_container(pod, layout);
    let original = agent.as_ref().and_then(first_tcp_port).unwrap_or(DEFAULT_AGENT);
    let used: BTreeSet<u16> = pod.running_containers().flat_map(declared).chain(helper_health).collect();
    let envoy = mode == Mode::EnvoySidecar;
    // In mode envoy-sidecar nothing is relocated, so an undeclared agent port is not ours to avoid.
    let taken = |port: u16| used.contains(&port) || (port == original && (!envoy || agent.is_some()));
    let clash =
        |port: u16, purpose| if taken(port) { Err(PortClash::Reserved { port, purpose }) } else { Ok(()) };

    let mut search =
        Search { used: &used, original, reserved: vec![proxy.transparent_port], assigned: vec![] };
    search.reserved.extend([TRANSPARENT_INBOUND, HEALTH, STATS, SESSION]);
    if envoy {
        clash(proxy.port, "Envoy outbound listener")?;
        clash(proxy.inbound_proxy_port, "Envoy inbound listener")?;
        clash(proxy.admin_port, "Envoy admin interface")?;
        clash(EXT_PROC, "external processing")?;
        search.reserved.extend([proxy.port, proxy.inbound_proxy_port, proxy.admin_port, EXT_PROC]);
    }
    clash(HEALTH, "health endpoint")?;
    if !envoy && inbound == Inbound::Transparent {
        clash(TRANSPARENT_INBOUND, "transparent inbound listener")?;
    }

    let mut preferred = |port: u16, free: bool| {
        if free {
            search.assigned.push(port);
            Ok(port)
        } else {
            search.from(u32::from(port) + 1)
        }
    };
    let fixed = [TRANSPARENT_INBOUND, HEALTH, STATS, SESSION];
    let transparent = preferred(
        proxy.transparent_port,
        !taken(proxy.transparent_port) && !fixed.contains(&proxy.transparent_port),
    )?;
    let stats = preferred(STATS, !taken(STATS))?;
    let session = preferred(SESSION, !taken(SESSION))?;
    let forward = search.from(u32::from(FORWARD))?;
    let moves = !envoy && inbound == Inbound::ReverseProxy;
    let relocated = if moves { search.from(u32::from(original) + 1)? } else { original };
    let agent = agent.map(|container| container.name.to_owned());
    Ok(PortPlan { agent, original, relocated, forward, transparent, stats, session })
}

/// The agent container: the first that declares a TCP port, sidecars of meshes and our own left out.
pub(crate) fn agent_container<'a>(pod: &Pod<'a>, layout: Layout) -> Option<Container<'a>> {
    let sidecar = |name: &str| {
        names::NEVER_AGENT.contains(&name)
            || (layout == Layout::Split && names::NEVER_AGENT_IN_SPLIT.contains(&name))
    };
    pod.containers()
        .iter()
        .filter(|container| !sidecar(container.name))
        .find(|container| first_tcp_port(container).is_some())
        .copied()
}

/// The TCP ports a container declares, in order.
pub(crate) fn tcp_ports<'a>(container: &Container<'a>) -> impl Iterator<Item = u16> + use<'a> {
    container.objects("ports").filter(|port| is_tcp(port)).filter_map(port_number)
}

fn first_tcp_port(container: &Container<'_>) -> Option<u16> {
    tcp_ports(container).next()
}

fn declared<'a>(container: &Container<'a>) -> impl Iterator<Item = u16> + use<'a> {
    container.objects("ports").filter_map(port_number)
}

fn is_tcp(port: &serde_json::Map<String, serde_json::Value>) -> bool {
    matches!(text(port, "protocol"), "" | "TCP")
}

fn port_number(port: &serde_json::Map<String, serde_json::Value>) -> Option<u16> {
    let number = port.get("containerPort")?.as_u64()?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}

struct Search<'a> {
    used: &'a BTreeSet<u16>,
    original: u16,
    reserved: Vec<u16>,
    assigned: Vec<u16>,
}

impl Search<'_> {
    /// The first free port from `start` upwards, then from `start - 1` downwards to 1024; assigned at once.
    fn from(&mut self, start: u32) -> Result<u16, PortClash> {
        let up = (start..=u32::from(u16::MAX)).filter_map(|port| u16::try_from(port).ok());
        let down = (1024..start).rev().filter_map(|port| u16::try_from(port).ok());
        let port = up.chain(down).find(|port| self.free(*port)).ok_or(PortClash::Exhausted)?;
        self.assigned.push(port);
        Ok(port)
    }

    fn free(&self, port: u16) -> bool {
        port != self.original
            && !self.used.contains(&port)
            && !self.reserved.contains(&port)
            && !self.assigned.contains(&port)
    }
}

/// Normalises a port list of an annotation (webhook §10.3): numbers 1-65535, first occurrences, in order; the
/// second value lists the tokens that are none.
pub(crate) fn port_list<'t>(always: &[u16], list: &'t str) -> (Vec<u16>, Vec<&'t str>) {
    let mut ports = always.to_vec();
    let mut invalid = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        match part.parse::<u16>().ok().filter(|port| digits && *port != 0) {
            Some(port) if ports.contains(&port) => {}
            Some(port) => ports.push(port),
            None => invalid.push(part),
        }
    }
    (ports, invalid)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn pod(ports: &[u16]) -> Value {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"containerPort": port})).collect();
        json!({"metadata": {}, "spec": {"containers": [{"name": "agent", "ports": ports}]}})
    }

    fn planned(raw: &Value, mode: Mode, inbound: Inbound) -> Result<PortPlan, PortClash> {
        let pod = Pod::parse(raw).unwrap_or_else(|error| panic!("{error}"));
        plan(&pod, Shape { mode, inbound, layout: Layout::Combined, helper_health: None }, &Proxy::default())
    }

    fn proxy_plan(ports: &[u16]) -> Result<PortPlan, PortClash> {
        planned(&pod(ports), Mode::ProxySidecar, Inbound::ReverseProxy)
    }

    // Webhook §9, examples: relocated, forward, transparent, stats, session.
    #[rstest]
    #[case(&[8000], (8001, 8081, 8082, 9093, 9094))]
    #[case(&[8000, 8001], (8002, 8081, 8082, 9093, 9094))]
    #[case(&[8000, 8081], (8001, 8084, 8082, 9093, 9094))]
    #[case(&[8080], (8084, 8081, 8082, 9093, 9094))]
    #[case(&[9090], (9092, 8081, 8082, 9093, 9094))]
    #[case(&[65535], (65534, 8081, 8082, 9093, 9094))]
    #[case(&[8082], (8085, 8081, 8084, 9093, 9094))]
    #[case(&[9093], (9096, 8081, 8082, 9095, 9094))]
    #[case(&[9094], (9096, 8081, 8082, 9093, 9095))]
    #[case(&[8081], (8085, 8084, 8082, 9093, 9094))]
    #[case(&[], (8001, 8081, 8082, 9093, 9094))]
    fn reverse_proxy_ports(#[case] ports: &[u16], #[case] want: (u16, u16, u16, u16, u16)) {
        let got = proxy_plan(ports).expect("a plan");
        assert_eq!((got.relocated, got.forward, got.transparent, got.stats, got.session), want);
    }

    #[test]
    fn every_agent_port_but_the_health_port_gets_distinct_ports() {
        for port in 1..=u16::MAX {
            match proxy_plan(&[port]) {
                Err(clash) => assert_eq!(
                    (port, clash),
                    (HEALTH, PortClash::Reserved { port: HEALTH, purpose: "health endpoint" })
                ),
                Ok(plan) => {
                    let all = [
                        plan.original,
                        plan.relocated,
                        plan.forward,
                        plan.transparent,
                        plan.stats,
                        plan.session,
                    ];
                    let distinct: BTreeSet<u16> = all.into_iter().collect();
                    assert_eq!(
                        (distinct.len(), distinct.contains(&HEALTH)),
                        (all.len(), false),
                        "{port}: {plan:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_agent_is_the_first_container_with_a_tcp_port() {
        let raw = json!({"metadata": {}, "spec": {"containers": [
            {"name": "istio-proxy", "ports": [{"containerPort": 15090}]},
            {"name": "dns", "ports": [{"containerPort": 53, "protocol": "UDP"}]},
            {"name": "agent", "ports": [{"containerPort": 9999, "protocol": "UDP"}, {"containerPort": 7000, "protocol": "TCP"}]},
        ]}});
        let plan = planned(&raw, Mode::Lite, Inbound::ReverseProxy).expect("a plan");
        assert_eq!((plan.agent.as_deref(), plan.original, plan.relocated), (Some("agent"), 7000, 7001));
    }

    #[test]
    fn ports_of_native_sidecars_and_of_the_helper_are_used() {
        let mut raw = pod(&[8000]);
        raw["spec"]["initContainers"] = json!([
            {"name": "once", "ports": [{"containerPort": 8002}]},
            {"name": "native", "restartPolicy": "Always", "ports": [{"containerPort": 8001}]},
        ]);
        let view = Pod::parse(&raw).expect("a Pod");
        let shape = Shape {
            mode: Mode::Lite,
            inbound: Inbound::ReverseProxy,
            layout: Layout::Split,
            helper_health: Some(8081),
        };
        let got = plan(&view, shape, &Proxy::default()).expect("a plan");
        assert_eq!((got.relocated, got.forward), (8002, 8084));
    }

    // Split §5.2: only there are the helpers' names left out.
    #[rstest]
    #[case(Layout::Combined, "spiffe-helper")]
    #[case(Layout::Split, "agent")]
    fn helper_names_count_by_layout(#[case] layout: Layout, #[case] want: &str) {
        let raw = json!({"metadata": {}, "spec": {"containers": [
            {"name": "spiffe-helper", "ports": [{"containerPort": 7000}]},
            {"name": "agent", "ports": [{"containerPort": 8000}]},
        ]}});
        let pod = Pod::parse(&raw).expect("a Pod");
        assert_eq!(agent_container(&pod, layout).map(|container| container.name), Some(want));
    }

    #[rstest]
    #[case(Mode::ProxySidecar, Inbound::Transparent, 8083)]
    #[case(Mode::EnvoySidecar, Inbound::ReverseProxy, 15123)]
    #[case(Mode::EnvoySidecar, Inbound::ReverseProxy, 15124)]
    #[case(Mode::EnvoySidecar, Inbound::ReverseProxy, 9901)]
    #[case(Mode::EnvoySidecar, Inbound::ReverseProxy, 9090)]
    #[case(Mode::EnvoySidecar, Inbound::ReverseProxy, 9091)]
    fn ports_that_cannot_move_are_refused(#[case] mode: Mode, #[case] inbound: Inbound, #[case] port: u16) {
        let clash = planned(&pod(&[port]), mode, inbound).expect_err("refused");
        assert!(clash.to_string().contains(&port.to_string()), "{clash}");
    }

    #[test]
    fn envoy_moves_stats_and_session_only() {
        let plan = planned(&pod(&[9093, 9094]), Mode::EnvoySidecar, Inbound::ReverseProxy).expect("a plan");
        assert_eq!((plan.original, plan.relocated, plan.stats, plan.session), (9093, 9093, 9095, 9096));
    }

    #[test]
    fn transparent_inbound_moves_nothing() {
        let plan = planned(&pod(&[8080]), Mode::Lite, Inbound::Transparent).expect("a plan");
        assert_eq!((plan.original, plan.relocated, plan.forward), (8080, 8080, 8081));
    }

    #[test]
    fn no_free_port_is_a_clash_not_a_panic() {
        let all: Vec<u16> = (1..=u16::MAX).filter(|port| *port != HEALTH).collect();
        assert_eq!(proxy_plan(&all), Err(PortClash::Exhausted));
    }

    // Webhook §10.3, last bullet.
    #[rstest]
    #[case(&[8080], " 11434, 8080,abc,0,11434", &[8080, 11434], &["abc", "0"])]
    #[case(&[8080], "", &[8080], &[])]
    #[case(&[], "abc,0", &[], &["abc", "0"])]
    #[case(&[], "007,+7,65536,-1", &[7], &["+7", "65536", "-1"])]
    fn port_lists(
        #[case] always: &[u16],
        #[case] list: &str,
        #[case] want: &[u16],
        #[case] invalid: &[&str],
    ) {
        assert_eq!(port_list(always, list), (want.to_vec(), invalid.to_vec()));
    }
}
